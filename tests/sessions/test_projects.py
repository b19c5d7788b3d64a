"""Which project is meant: who decides, what is the same project, and what can be none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sessions.projects import MAX_NAME_CHARACTERS, Project, ProjectError, identify, is_key

NETWORK = (
    "//server/share",
    r"\\server\share",
    "smb://server/share",
    "http://host/folder",
    "HTTPS://host/folder",
    "ssh://git@host/repository",
    "file://server/share",
    "file:////server/share",
    r"\\?\C:\folder",
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "people" / "ada"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def work(home: Path) -> Path:
    folder = home / "Work"
    folder.mkdir()
    return folder


def named(text: str, home: Path, base: Path | None = None) -> Project:
    return identify(named=text, home=home, working_directory=base)


def why_not(text: str, home: Path, base: Path | None = None) -> str:
    with pytest.raises(ProjectError) as caught:
        named(text, home, base)
    return caught.value.why


# ---- who decides


def test_the_candidates_decide_in_their_order(home: Path) -> None:
    folders = [home / name for name in ("argument", "setting", "host", "root", "cwd")]
    for folder in folders:
        folder.mkdir()
    argument, setting, host, root, cwd = folders

    def decide(rank: int) -> Project:
        return identify(
            named=str(argument) if rank < 1 else None,
            setting=str(setting) if rank < 2 else None,
            host_folder=str(host) if rank < 3 else None,
            roots=[root.as_uri()] if rank < 4 else [],
            working_directory=cwd if rank < 5 else None,
            home=home,
        )

    assert [decide(rank).folder for rank in range(6)] == [*folders, None]
    assert [decide(rank).source for rank in range(6)] == [
        "argument",
        "setting",
        "host folder",
        "roots",
        "working directory",
        "default",
    ]


@pytest.mark.parametrize("blank", ["", " ", "\t\n"])
def test_blank_candidates_count_as_not_given(blank: str, work: Path, home: Path) -> None:
    project = identify(named=blank, setting=blank, host_folder=blank, working_directory=work, home=home)

    assert (project.folder, project.passed_over) == (work, ())


def test_what_is_unusable_below_the_argument_is_passed_over_and_said(work: Path, home: Path) -> None:
    (home / "file").touch()

    project = identify(
        setting=str(home / "missing"),
        host_folder=str(home),
        roots=["https://host/x", str(work), "file:relative", (home / "file").as_uri(), work.as_uri()],
        working_directory=Path("/"),
        home=home,
    )

    assert (project.folder, project.source) == (work, "roots")
    assert [text.split(":")[0] for text in project.passed_over] == ["setting", "host folder", *["roots"] * 4]


def test_without_any_usable_candidate_the_project_is_default(home: Path) -> None:
    project = identify(working_directory=Path("/"), home=home)

    assert (project.name, project.folder, project.source) == ("default", None, "default")
    assert project == named("default", home)


def test_a_host_folder_cannot_be_a_plain_name(work: Path, home: Path) -> None:
    assert identify(host_folder="notes", working_directory=work, home=home).folder == work


@pytest.mark.parametrize("folder", ["/", "home", "above"])
def test_the_working_directory_is_never_the_root_or_the_home_folder_or_above_it(
    folder: str, home: Path
) -> None:
    path = {"/": Path("/"), "home": home, "above": home.parent}[folder]

    assert identify(working_directory=path, home=home).source == "default"


# ---- what is the same folder


def test_a_link_to_a_folder_is_the_same_project(work: Path, home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(work)
    (tmp_path / "parent").symlink_to(home)

    assert named(str(tmp_path / "link"), home) == named(str(work), home)
    assert named(str(tmp_path / "parent" / "Work"), home) == named(str(work), home)


@pytest.mark.parametrize(
    "text", ["{work}/", "{work}/.", "{work}/../Work", "~/Work", "./", "../Work", "file:{work}"]
)
def test_it_does_not_matter_how_a_path_is_written(text: str, work: Path, home: Path) -> None:
    assert named(text.format(work=work), home, base=work) == named(str(work), home)


def test_a_file_uri_with_escapes_names_the_folder(home: Path) -> None:
    folder = home / "a b%20ü"
    folder.mkdir()

    assert named(folder.as_uri(), home) == named(str(folder), home)
    assert named(folder.as_uri().replace("file://", "file://localhost"), home) == named(str(folder), home)


def test_a_spelling_in_other_case_is_the_same_project_exactly_where_the_file_system_says_so(
    work: Path, home: Path
) -> None:
    other = home / "wORK"
    one_folder = other.exists()
    other.mkdir(exist_ok=True)

    assert (named(str(other), home) == named(str(work), home)) is one_folder


@pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere the test above has such a file system, or none can be made"
)
def test_two_spellings_of_one_folder_are_one_project(work: Path, home: Path) -> None:
    """Mounting a folder under its name in other case does what a file system that ignores case does."""
    code = (
        "import sys; from pathlib import Path; from rlm_sessions.projects import identify\n"
        "print(*(identify(named=name, home=Path('/nowhere')).folder for name in sys.argv[1:]), sep='\\n')"
    )
    (work / "sub").mkdir()
    (home / "wORK").mkdir()
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    script = 'mount --bind "$1" "$2"; exec "$3" -c "$4" "$1" "$2" "$2/sub"'
    command = ["unshare", *user, "--mount", "sh", "-ec", script, "sh", str(work), str(home / "wORK")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    printed = subprocess.run(
        [*command, sys.executable, code], check=True, stdout=subprocess.PIPE, text=True, env=environment
    )

    assert printed.stdout.split("\n")[:3] == [str(work), str(work), str(work / "sub")]


def test_a_folder_in_another_unicode_form_is_the_same_project_exactly_where_the_file_system_says_so(
    home: Path,
) -> None:
    composed, decomposed = (home / unicodedata.normalize(form, "Größe é") for form in ("NFC", "NFD"))
    composed.mkdir()
    one_folder = decomposed.exists()
    decomposed.mkdir(exist_ok=True)

    assert (named(str(composed), home) == named(str(decomposed), home)) is one_folder


def test_a_worktree_is_a_project_of_its_own(home: Path) -> None:
    main, tree = home / "main", home / "tree"
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@b.c", "-C", str(main))
    main.mkdir()
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    subprocess.run([*git, "worktree", "add", "-q", str(tree)], check=True)

    assert (tree / ".git").is_file()
    assert named(str(main), home) != named(str(tree), home)


def test_a_folder_inside_a_repository_is_a_project_of_its_own(work: Path, home: Path) -> None:
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    (work / "sub").mkdir()

    assert named(str(work / "sub"), home).folder == work / "sub"


def test_a_folder_removed_and_made_again_is_the_same_project(work: Path, home: Path) -> None:
    before = named(str(work), home)
    shutil.rmtree(work)
    (home / "takes the inode").mkdir()
    work.mkdir()

    assert named(str(work), home) == before


def test_folders_of_one_name_are_different_projects(home: Path) -> None:
    for parent in ("a", "b"):
        (home / parent / "app").mkdir(parents=True)

    one, other = (named(str(home / parent / "app"), home) for parent in ("a", "b"))
    assert one.name == other.name == "app"
    assert one.key != other.key


def test_a_folder_and_a_plain_name_are_different_projects(work: Path, home: Path) -> None:
    assert named("Work", home).key != named(str(work), home).key


def test_a_folder_whose_name_is_not_text_has_a_project(home: Path) -> None:
    folder = home / os.fsdecode(b"caf\xe9")
    folder.mkdir()

    project = named(str(folder), home)
    assert project.folder == folder
    assert is_key(project.key)


# ---- what can be no project


def test_naming_a_folder_that_is_not_there_is_an_error_that_helps(home: Path) -> None:
    with pytest.raises(ProjectError, match=r"there is no such folder.*Name an existing folder"):
        named(str(home / "missing"), home)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("/", "root of the file system"),
        ("/..", "root of the file system"),
        ("~", "is your home folder"),
        ("~/", "is your home folder"),
        ("{home}", "is your home folder"),
        ("{home}/Work/..", "is your home folder"),
        ("{home}/..", "holds your home folder"),
        ("{home}/file", "no folder"),
        ("{home}/file/below", "cannot be looked at"),
        ("{home}/circle", "cannot be looked at"),
        ("~bob/x", "only your own"),
        ("file:relative", "no absolute file URI"),
        ("file://[", "cannot be read"),
        ("file:///a%00b", "control characters"),
        ("/a\0b", "control characters"),
        ("a\nb", "control characters"),
        ("notes/../other", "neither a name nor a path"),
        ("a\u202eb", "do not show"),
        ("a\ud800b", "no text"),
        ("x" * (MAX_NAME_CHARACTERS + 1), "201 characters"),
        ("/" + "x" * 5000, "cannot be looked at"),
        ("./x", "no folder that it could start from"),
    ],
)
def test_what_cannot_be_a_project_is_refused_with_the_reason(text: str, why: str, home: Path) -> None:
    (home / "Work").mkdir()
    (home / "file").touch()
    (home / "circle").symlink_to(home / "circle")

    assert why in why_not(text.format(home=home) if "{home}" in text else text, home)


def test_a_link_to_the_home_folder_is_refused_like_the_home_folder(home: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(home)

    assert "is your home folder" in why_not(str(tmp_path / "link"), home)


@pytest.mark.skipif(os.name == "nt", reason="on Windows these are paths like any other")
@pytest.mark.parametrize("text", ["C:\\work", "c:/work", "D:"])
def test_a_windows_path_is_refused_elsewhere(text: str, home: Path) -> None:
    assert "path of Windows" in why_not(text, home)


@pytest.mark.parametrize("text", NETWORK)
def test_a_network_path_is_refused_by_its_looks(text: str, home: Path) -> None:
    assert "over a network" in why_not(text, home)
    assert identify(setting=text, host_folder=text, roots=[text], home=home).source == "default"
    assert identify(working_directory=Path(text), home=home).source == "default"


@pytest.mark.parametrize("text", NETWORK)
def test_a_network_path_is_never_looked_up(text: str) -> None:
    asked: list[str] = []

    def note(_frame: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and function.__module__ in ("posix", "nt"):
            asked.append(function.__name__)

    sys.setprofile(note)
    try:
        identify(
            setting=text, roots=[text], working_directory=Path("//server/folder"), home=Path("//server/ada")
        )
    finally:
        sys.setprofile(None)

    assert not {"stat", "lstat", "readlink", "scandir", "listdir", "open"}.intersection(asked)


# ---- plain names and keys


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("MyApp", "myapp"),
        ("caf\u00e9", "CAFE\u0301"),
        ("Straße", "STRASSE"),
        ("my  app ", "my app"),
        ("İstanbul", "i̇stanbul"),
    ],
)
def test_names_that_differ_in_case_form_or_spaces_are_one_project(one: str, other: str, home: Path) -> None:
    assert named(one, home) == named(other, home)


def test_a_name_is_kept_as_written(home: Path) -> None:
    assert named("My  Größe", home).name == "My Größe"


@pytest.mark.parametrize("text", ["con", "a/b", "項目", ".hidden", "-x", "a:b", "...", "é", "!", "x" * 200])
def test_a_name_of_any_letters_has_a_key_that_is_safe_in_a_path(text: str, home: Path) -> None:
    assert is_key(named(text, home).key)


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a/b", "a", "A" * 30, "../" + "a" * 25, "a-" + "0" * 19, "a\n-" + "0" * 20]
)
def test_other_text_is_not_taken_for_a_key(text: str) -> None:
    assert not is_key(text)


@given(st.text(max_size=80))
def test_any_text_is_a_project_with_a_safe_key_or_refused_with_a_reason(text: str) -> None:
    home = Path("/nowhere/home")

    try:
        project = identify(named=text, home=home)
    except ProjectError as problem:
        assert problem.why
    else:
        assert is_key(project.key)
        assert identify(named=unicodedata.normalize("NFD", text), home=home) == project


@given(
    st.text(st.characters(categories=["L", "N"]), min_size=1),
    st.text(st.characters(categories=["L", "N"]), min_size=1),
)
def test_names_with_different_letters_are_different_projects(one: str, other: str) -> None:
    home = Path("/nowhere/home")
    folded = [unicodedata.normalize("NFD", text).casefold() for text in (one, other)]

    same = unicodedata.normalize("NFC", folded[0]) == unicodedata.normalize("NFC", folded[1])
    assert (identify(named=one, home=home) == identify(named=other, home=home)) is same
