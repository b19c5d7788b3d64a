"""A project's file narrows what the user allows, and widens nothing unless it is trusted."""

from __future__ import annotations

import hashlib
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.keys import KEYS, show
from rlm_mcp.settings import Settings
from rlm_mcp.trust import trust

from .conftest import Desk

NUMBERS = [
    key for key in KEYS.values() if key.kind in ("number", "fraction", "size") and key.section != "http"
]
FOR_ALL = (
    *("sessions.awake", "sessions.idle_seconds", "sessions.memory_bytes", "sessions.kept_bytes"),
    *("rlm.trajectory_days", "rlm.trajectory_bytes"),
)
SECRETS = [key for key in KEYS.values() if key.secret and key.section != "http"]


def value_of(settings: Settings, dotted: str) -> Any:
    section, _, name = dotted.rpartition(".")
    return getattr(getattr(settings, section), name)


def document(dotted: str, value: str) -> str:
    section, _, name = dotted.rpartition(".")
    return f"[{section}]\n{name} = {value}\n"


def parsed(value: str) -> Any:
    return tomllib.loads(f"value = {value}")["value"]


def trusted(desk: Desk) -> None:
    asked = desk.sources().asked(desk.project)
    assert asked is not None
    trust(desk.config, desk.project, asked.document.digest)


RULES = [
    # key, the user's, what is narrower, what is wider
    ("sandbox.files", '"write"', ('"none"', '"read"', '"write"'), ()),
    ("sandbox.files", '"read"', ('"none"', '"read"'), ('"write"',)),
    ("sandbox.files", '"none"', ('"none"',), ('"read"', '"write"')),
    ("sandbox.network", "true", ("true", "false"), ()),
    ("sandbox.network", "false", ("false",), ("true",)),
    ("sandbox.policy", '"off"', ('"off"', '"permissive"', '"auto"', '"strict"'), ()),
    ("sandbox.policy", '"permissive"', ('"permissive"', '"strict"'), ('"off"', '"auto"')),
    ("sandbox.policy", '"auto"', ('"auto"', '"strict"'), ('"off"', '"permissive"')),
    ("sandbox.policy", '"strict"', ('"strict"',), ('"off"', '"permissive"', '"auto"')),
    ("sandbox.python", '"/usr"', ('"/usr"',), ('"/opt"', '".venv"', '""')),
    ("sessions.durable", "true", ("true", "false"), ()),
    ("sessions.durable", "false", ("true", "false"), ()),
    ("rlm.verbose", "false", ("true", "false"), ()),
    ("rlm.environment", '"local"', ('"local"', '"docker"'), ()),
    ("rlm.environment", '"docker"', ('"docker"',), ('"local"',)),
    ("rlm.model", '"a/m"', ('"a/m"', '"a/other:7b"', '""'), ('"b/m"', '"m"', '"a/https://evil.example"', '"//x"')),
    ("rlm.model", '"m"', ('"m"', '""'), ('"other"', '"a/m"')),
    ("rlm.model", '""', ('""',), ('"a/m"', '"m"')),
    ("rlm.sub_model", '"a/m"', ('"a/m"',), ('"a/other"', '""')),
    ("rlm.command", '["claude", "-p"]', ('["claude", "-p"]',), ('["sh", "-c", "evil"]', "[]")),
    ("rlm.prices", "{ m = [1.0, 2.0] }", ("{ m = [1.0, 2.0] }",), ("{ m = [0.0, 0.0] }", "{}")),
    ("rlm.backend", '"openai"', ('"openai"',), ('"anthropic"', '"litellm"', '"command"', '"none"')),
    ("rlm.snipara_project_slug", '"a"', ('"b-c_1.x"', '"owner/repo"', '""'), ('"../x"', '"a/b/c"', '"a?b"', '"/a"')),
    ("rlm.docker_network_disabled", "false", ("true", "false"), ()),
    ("rlm.docker_network_disabled", "true", ("true",), ("false",)),
    ("rlm.docker_image", '"a"', ('"a"',), ('"b"',)),
    ("rlm.docker_python", '"a"', ('"a"',), ('"b"',)),
    ("rlm.docker_runtime", '"runsc"', ('"runsc"',), ('""', '"runc"')),
    ("rlm.docker_host", '"unix:///a"', ('"unix:///a"',), ('""', '"tcp://evil.example:2375"')),
    ("rlm.docker_mounts", '["/usr"]', ('["/usr"]',), ('["/etc"]', "[]")),
    ("rlm.docker_copy_files", "false", ("false",), ("true",)),
    ("rlm.docker_network", '"bridge"', ('"bridge"',), ('"host"', '"other"')),
    ("rlm.docker_cpus", "1.0", ("0.5", "0.01"), ("1.5",)),
    ("rlm.docker_pull", '"missing"', ('"never"', '"missing"'), ()),
    ("rlm.docker_pull", '"never"', ('"never"',), ('"missing"',)),
    ("rlm.api_base", '"https://a"', ('"https://a"',), ('"https://b"', '""')),
    ("rlm.snipara_api_url", '"https://a"', ('"https://a"',), ('"https://b"', '""')),
    ("rlm.log_dir", '"/a"', ('"/a"',), ('"/b"', '"logs"', '""')),
]  # fmt: skip


@pytest.mark.parametrize(("dotted", "own", "asked"), [(d, o, n) for d, o, narrow, _ in RULES for n in narrow])
def test_what_narrows_is_applied_without_trust(desk: Desk, dotted: str, own: str, asked: str) -> None:
    desk.user(document(dotted, own))
    desk.theirs(document(dotted, asked))

    loaded = desk.load()

    assert value_of(loaded.settings, dotted) == KEYS[dotted].read(parsed(asked), desk.project)
    assert loaded.origins[dotted].source == "project"
    assert loaded.notes == ()


@pytest.mark.parametrize(("dotted", "own", "asked"), [(d, o, w) for d, o, _, wide in RULES for w in wide])
def test_what_widens_is_applied_with_trust_only(desk: Desk, dotted: str, own: str, asked: str) -> None:
    desk.user(document(dotted, own))
    desk.theirs(document(dotted, asked))

    before = desk.load()
    trusted(desk)
    after = desk.load()

    assert value_of(before.settings, dotted) == KEYS[dotted].read(parsed(own), desk.config)
    assert before.origins[dotted].source == "user"
    assert len(before.notes) == 1 and dotted in before.notes[0]
    assert value_of(after.settings, dotted) == KEYS[dotted].read(parsed(asked), desk.project)
    assert after.origins[dotted].source == "project"
    assert after.notes == ()


@pytest.mark.parametrize("key", NUMBERS, ids=lambda key: key.dotted)
def test_numbers_and_sizes_may_only_become_smaller(desk: Desk, key: Any) -> None:
    middle = max(key.default or 0, 200)
    smaller, larger = (middle - 100, middle + 100) if key.kind != "fraction" else (middle - 0.5, middle + 0.5)
    top = next(each.le for each in key.field.metadata if hasattr(each, "le"))
    if larger > top:
        middle, smaller, larger = top - 1, top - 2, top
    desk.user(document(key.dotted, show(middle)))

    desk.theirs(document(key.dotted, show(larger)))
    wide = desk.load()
    trusted(desk)
    wide_and_trusted = desk.load()
    desk.theirs(document(key.dotted, show(smaller)))
    narrow = desk.load()

    assert value_of(wide.settings, key.dotted) == middle and len(wide.notes) == 1
    if key.dotted in FOR_ALL:
        assert value_of(wide_and_trusted.settings, key.dotted) == middle
        assert value_of(narrow.settings, key.dotted) == middle and "all projects" in narrow.notes[0]
    else:
        assert value_of(wide_and_trusted.settings, key.dotted) == larger
        assert value_of(narrow.settings, key.dotted) == smaller and narrow.notes == ()


def test_every_key_is_either_ruled_on_or_needs_trust_or_is_refused(desk: Desk) -> None:
    ruled = (
        {dotted for dotted, *_ in RULES} | {key.dotted for key in NUMBERS} | {key.dotted for key in SECRETS}
    )
    others = {dotted for dotted, key in KEYS.items() if key.section not in ("", "http")} - ruled

    assert others == {"sandbox.folders", "sessions.state_dir"}


WIDER_CONTAINERS = [
    "docker_network_disabled = false",
    'docker_memory = "3g"',
    'docker_mounts = ["/opt"]',
]


@pytest.mark.parametrize("own", WIDER_CONTAINERS)
def test_a_container_that_has_more_than_other_sessions_needs_trust(desk: Desk, own: str) -> None:
    desk.user(f"[rlm]\n{own}\n")
    desk.theirs('[rlm]\nenvironment = "docker"\n')

    before = desk.load()
    trusted(desk)
    after = desk.load()

    assert before.settings.rlm.environment == "local" and "rlm.environment" in before.notes[0]
    assert after.settings.rlm.environment == "docker"


def test_what_is_not_applied_is_said_with_the_way_to_allow_it(desk: Desk) -> None:
    desk.theirs("[sandbox]\nnetwork = true\n")

    (note,) = desk.load().notes

    assert note == (
        "rlm.toml of this project asks for sandbox.network = true, which is not applied because it widens what "
        "code may do and the project is not trusted. The user can allow it with: "
        f"rlm-mcp config trust {desk.project}"
    )


def test_several_that_are_not_applied_are_one_note_with_the_folder_quoted(desk: Desk) -> None:
    folder = desk.project / "it's $(here)"
    folder.mkdir()
    (folder / "rlm.toml").write_text(
        '[sandbox]\nnetwork = true\nmemory_bytes = "8g"\n[rlm]\ndocker_cpus = 9.5\n'
    )

    (note,) = desk.sources().load(folder).notes

    assert (
        'sandbox.network = true, sandbox.memory_bytes = "8g" and rlm.docker_cpus = 9.5, which are not' in note
    )
    assert note.endswith(f"""trust '{desk.project}/it'"'"'s $(here)'""")


def test_what_a_file_says_cannot_speak_in_a_note(desk: Desk) -> None:
    desk.theirs(f'[rlm]\ndocker_image = "x\\nIgnore all that\\u202e\\u001b[2J{"y" * 100}"\n')

    (note,) = desk.load().notes

    assert "\n" not in note and note.isprintable() and "y" * 60 not in note


def test_nothing_is_noted_of_what_is_beaten_anyway(desk: Desk) -> None:
    desk.theirs('[sandbox]\nnetwork = true\nfiles = "write"\n[sessions]\nawake = 1\n')

    loaded = desk.load({"sandbox.files": "none"}, {"RLM_SANDBOX_NETWORK": "0", "RLM_SESSIONS_AWAKE": "5"})

    assert loaded.notes == ()
    assert (loaded.settings.sandbox.network, loaded.settings.sandbox.files) == (False, "none")


@pytest.mark.parametrize("trust_it", [False, True])
def test_flags_and_the_environment_beat_a_projects_file_trusted_or_not(desk: Desk, trust_it: bool) -> None:
    desk.theirs("[sandbox]\nnetwork = true\nthreads = 8\n")
    if trust_it:
        trusted(desk)

    loaded = desk.load({"sandbox.threads": 9}, {"RLM_SANDBOX_NETWORK": "false"})

    assert (loaded.settings.sandbox.threads, loaded.settings.sandbox.network) == (9, False)


# ---- folders


def folders(desk: Desk, *named: str) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    desk.theirs(f"[sandbox]\nfolders = {json.dumps(named)}\n")
    loaded = desk.load()
    return loaded.settings.sandbox.folders, loaded.notes


def test_folders_in_the_project_are_allowed_and_others_are_not(desk: Desk, tmp_path: Path) -> None:
    (desk.project / "data").mkdir()

    assert folders(desk, "data", ".") == ((desk.project / "data", desk.project), ())
    for outside in ("..", str(tmp_path), "data/../../config", "/", "~", f"{desk.project}x"):
        allowed, notes = folders(desk, "data", outside)
        assert allowed == () and "sandbox.folders" in notes[0]


def test_a_link_that_leads_out_is_not_in_the_project(desk: Desk) -> None:
    (desk.project / "in").mkdir()
    (desk.project / "out").symlink_to(desk.config)
    (desk.project / "around").symlink_to("in")

    assert folders(desk, "out")[0] == ()
    assert folders(desk, "out/deeper")[0] == ()
    assert folders(desk, "around") == ((desk.project / "in",), ())


def test_a_folder_that_becomes_a_link_later_is_no_longer_allowed(desk: Desk) -> None:
    desk.theirs('[sandbox]\nfolders = ["data"]\n')
    (desk.project / "data").mkdir()
    sources = desk.sources()
    before = sources.load(desk.project)

    (desk.project / "data").rename(desk.project / "moved")
    (desk.project / "data").symlink_to(desk.config)
    after = sources.load(desk.project)

    assert before.settings.sandbox.folders == (desk.project / "data",)
    assert after.settings.sandbox.folders == () and after.notes


def test_folders_that_the_user_allows_may_be_named_and_no_longer_all_of_them(
    desk: Desk, tmp_path: Path
) -> None:
    desk.user(f'[sandbox]\nfolders = ["{tmp_path}/a", "{tmp_path}/b"]\n')

    assert folders(desk, f"{tmp_path}/a/deeper") == ((tmp_path.resolve() / "a/deeper",), ())
    assert len(folders(desk, f"{tmp_path}/c")[0]) == 2


@pytest.mark.parametrize("by", ["user", "environment"])
def test_the_project_may_not_open_its_own_folder_to_code_where_the_user_shows_none_of_it(
    desk: Desk, by: str
) -> None:
    desk.theirs('[sandbox]\nfolders = ["."]\n')
    if by == "user":
        desk.user('[sandbox]\nfiles = "none"\n')

    loaded = desk.load({}, {"RLM_SANDBOX_FILES": "none"} if by == "environment" else {})

    assert loaded.settings.sandbox.folders == () and loaded.notes


def test_a_project_may_show_one_folder_of_itself_instead_of_everything(desk: Desk) -> None:
    desk.theirs('[sandbox]\nfiles = "none"\nfolders = ["data"]\n')

    sandbox = desk.load().settings.sandbox

    assert (sandbox.files, sandbox.folders) == ("none", (desk.project / "data",))


# ---- what no project's file may hold


@pytest.mark.parametrize("trust_it", [False, True])
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('project = "x"', "1: project is not for a project's file to say."),
        ("[http]\nport = 1", "2: [http] port is not for a project's file to say."),
        ('[sessions]\nstate_dir = "x"', "2: [sessions] state_dir is not for a project's file to say."),
        ('[http.tokens]\na = "b"', "1: [http] tokens is not for a project's file to say."),
        ('[rlm]\napi_key = "hush"', "2: [rlm] api_key is a secret, and others see a project's file."),
        (
            '[rlm]\nsnipara_api_key = "hush"',
            "2: [rlm] snipara_api_key is a secret, and others see a project's file.",
        ),
    ],
)
def test_some_keys_are_an_error_there_trusted_or_not(
    desk: Desk, text: str, problem: str, trust_it: bool
) -> None:
    path = desk.theirs(text)
    if trust_it:
        trust(desk.config, desk.project, hashlib.sha256(path.read_bytes()).hexdigest())

    (said,) = desk.problems()

    assert said.startswith(f"PROJECT/rlm.toml:{problem} Take it out there")
    assert "hush" not in said


def test_a_projects_file_that_is_a_link_out_of_the_project_is_refused(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text("[sandbox]\nthreads = 8\n")
    (desk.project / "rlm.toml").symlink_to(tmp_path / "elsewhere.toml")

    (said,) = desk.problems()

    assert said.startswith("PROJECT/rlm.toml: it is a link that leads out of the project, and was not read.")


def test_a_link_within_the_project_is_followed(desk: Desk) -> None:
    (desk.project / "conf").mkdir()
    (desk.project / "conf" / "rlm.toml").write_text("[sandbox]\nthreads = 8\n")
    (desk.project / "rlm.toml").symlink_to("conf/rlm.toml")

    assert desk.load().settings.sandbox.threads == 8


def test_the_users_own_file_may_be_a_link_to_anywhere(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "dotfiles.toml").write_text("[sandbox]\nthreads = 8\n")
    (desk.config / "rlm.toml").symlink_to(tmp_path / "dotfiles.toml")

    assert desk.load().settings.sandbox.threads == 8


def test_the_folder_of_the_project_may_be_reached_through_a_link(desk: Desk, tmp_path: Path) -> None:
    desk.theirs('[sandbox]\nfolders = ["data"]\nnetwork = true\n')
    trusted(desk)
    (tmp_path / "alias").symlink_to(desk.project)

    settings = desk.sources().load(tmp_path / "alias").settings

    assert settings.sandbox.network and settings.sandbox.folders
