"""What the sandbox asks of macOS, which is not here: the profile as text, and how numbers are understood."""

from __future__ import annotations

import ctypes
import errno
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sandboxes import Limits
from rlm_sandboxes.local.macos import LAYERS, MacOS, Resources, Task, Timebase, usage
from rlm_sandboxes.local.spawn_child import seatbelt
from rlm_sandboxes.local.spawn_child.seatbelt import is_refused, profile, real_paths
from rlm_sandboxes.local.spawned import CHILD, SpawnedSandbox
from rlm_sandboxes.local.systems import View
from tests.contracts.conftest import PROBE

Form: TypeAlias = "str | list[Form]"

_TOKEN = re.compile(r';[^\n]*|#?"((?:\\.|[^"\\])*)"|([()])|([^\s()";]+)', re.DOTALL)


def read(text: str) -> list[Form]:
    """Return the forms of a profile, as its own reader would understand them; strings begin with a quote."""
    forms: list[Form] = []
    open_forms = [forms]
    rest = _TOKEN.sub("", text)
    assert not rest.strip(), f"no part of any form: {rest.strip()!r}"
    for token in _TOKEN.finditer(text):
        string, bracket, word = token.groups()
        if bracket == "(":
            inner: list[Form] = []
            open_forms[-1].append(inner)
            open_forms.append(inner)
        elif bracket == ")":
            open_forms.pop()
        elif string is not None:
            open_forms[-1].append('"' + re.sub(r"\\(.)", r"\1", string, flags=re.DOTALL))
        elif word:
            open_forms[-1].append(word)
    assert open_forms == [forms], "the brackets are not balanced"
    return forms


def allowed(text: str, operation: str) -> list[list[Form]]:
    """Return the filters of every rule that allows `operation` or a part of it."""
    return [list(filters) for operations, filters in rules(text, "allow") if _is_about(operations, operation)]


def rules(text: str, verdict: str) -> Iterator[tuple[list[str], list[Form]]]:
    for form in read(text):
        if isinstance(form, list) and form[0] == verdict:
            yield (
                [part for part in form[1:] if isinstance(part, str)],
                [part for part in form[1:] if isinstance(part, list)],
            )


def _is_about(operations: list[str], operation: str) -> bool:
    return any(
        mentioned == operation or mentioned.startswith(operation + "-") or _matches(mentioned, operation)
        for mentioned in operations
    )


def _matches(pattern: str, operation: str) -> bool:
    return pattern.endswith("*") and operation.startswith(pattern[:-1])


def subpaths(text: str, operation: str) -> set[str]:
    """Return the folders in which `operation` is allowed, all the way down."""
    filters = [part for found in allowed(text, operation) for part in found]
    return {str(part[1])[1:] for part in filters if isinstance(part, list) and part[0] == "subpath"}


# ---- the profile


def test_the_profile_is_closed_by_default() -> None:
    assert read(profile([], []))[:2] == [["version", "1"], ["deny", "default"]]


def test_what_is_open_even_so_is_closed_before_anything_is_opened() -> None:
    verdicts = [form for form in read(profile(["/a"], ["/b"])) if isinstance(form, list)]

    assert verdicts[2] == ["deny", "iokit-get-properties", "process-info*", "nvram*"]
    assert all(form[0] == "allow" for form in verdicts[3:])


def test_every_rule_that_opens_something_says_what() -> None:
    for operations, filters in rules(profile(["/a"], ["/b"], executable=["/c"]), "allow"):
        assert filters, f"{operations} is open without bounds"


@pytest.mark.parametrize(
    "operation", ["network", "system-socket", "process-fork", "process-exec", "mach-register"]
)
def test_nothing_of_the_kind_is_open_unless_asked_for(operation: str) -> None:
    text = profile(["/usr/lib", "/project"], ["/scratch"])

    assert allowed(text, operation) == []


def test_files_are_open_where_asked_and_nowhere_else() -> None:
    text = profile(["/project", "/usr/lib"], ["/scratch"])

    assert subpaths(text, "file-read") == {"/project", "/usr/lib", "/scratch"}
    assert subpaths(text, "file-write") == {"/scratch"}
    assert subpaths(text, "file-map-executable") == {"/project", "/usr/lib"}


def test_of_the_folders_above_only_that_they_are_there_can_be_seen() -> None:
    text = profile(["/Users/me/project"], [])
    rule = [filters for operations, filters in rules(text, "allow") if operations == ["file-read-metadata"]]

    assert rule[-1] == [["literal", '"/'], ["literal", '"/Users'], ["literal", '"/Users/me']]


def test_an_interpreter_that_takes_over_can_be_executed_and_nothing_else() -> None:
    text = profile([], [], executable=["/project/.venv/bin/python3"])

    assert subpaths(text, "process-exec") == {"/project/.venv/bin/python3"}
    assert allowed(text, "process-fork") == []


def test_the_network_is_addresses_and_names_and_no_service_of_this_machine() -> None:
    outward = allowed(profile([], [], network=True), "network-outbound")

    assert outward == [[["remote", "ip", '"*:*'], ["literal", '"/private/var/run/mDNSResponder']]]


def test_the_environment_of_other_processes_cannot_be_asked_for() -> None:
    filters = [part for found in allowed(profile([], []), "sysctl-read") for part in found]
    names = {str(part[1])[1:] for part in filters if isinstance(part, list)}

    assert all(part[0] in ("sysctl-name", "sysctl-name-prefix") for part in filters)
    assert not {name for name in names if "kern.procargs2".startswith(name) or name.startswith("kern.proc")}


def test_signals_reach_this_process_alone() -> None:
    assert allowed(profile([], []), "signal") == [[["target", "self"]]]


@pytest.mark.parametrize(
    "path",
    [
        '/Users/me/a "quoted" name',
        "/Users/me/back\\slash",
        "/Users/me/ends in a backslash\\",
        '/Users/me/\\"both\\"',
        "/Users/me/größe/日本語/🐍",
        '/Users/me/")) (allow default) (allow file-read* (subpath "/',
        "/Users/me/; no comment",
        "/Users/me/two\nlines",
        "/Users/me/no utf-8 \udcff",
    ],
)
def test_a_path_stays_one_path_whatever_it_is_called(path: str) -> None:
    text = profile([path], [])

    assert subpaths(text, "file-read") == {path}
    assert len(read(text)) == len(read(profile(["/plain"], [])))


@given(st.lists(st.text(st.characters(exclude_characters="\0")).map("/".__add__), min_size=1, unique=True))
def test_any_paths_stay_what_they_are(paths: list[str]) -> None:
    text = profile(paths[1:], paths[:1], executable=paths)

    assert subpaths(text, "file-write") == set(paths[:1])
    assert subpaths(text, "process-exec") == set(paths)


# ---- from the limits to the profile


class Recorded(MacOS):
    """macOS as far as it can be had here: what it is asked for, and the layers of any POSIX system."""

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {}

    def request(self, view: View, limits: Limits) -> dict[str, Any]:
        self.asked = super().request(view, limits)
        return self.asked


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / 'a "project"'
    folder.mkdir()
    return folder


async def profile_for(limits: Limits, workdir: Path | None) -> tuple[str, str]:
    """Start the probe as on macOS; return the profile that it asks for, and its scratch folder."""
    system = Recorded()
    layers = LAYERS - {"seatbelt"}
    sandbox = SpawnedSandbox(system, python=None, preload=(), layers=layers)
    async with sandbox.start(PROBE, workdir, limits):
        wanted = system.asked["seatbelt"]
    return (
        profile(
            wanted["readable"], wanted["writable"], executable=wanted["executable"], network=wanted["network"]
        ),
        wanted["writable"][0],
    )


async def test_the_program_and_what_loads_it_can_be_read_and_scratch_be_written() -> None:
    text, scratch = await profile_for(Limits(), None)

    assert subpaths(text, "file-read") >= {str(CHILD), str(PROBE.package.folder)}
    assert subpaths(text, "file-write") == {scratch}


async def test_the_project_is_hidden_unless_files_opens_it(project: Path) -> None:
    text, _ = await profile_for(Limits(files="none"), project)

    assert str(project) not in subpaths(text, "file-read")


async def test_the_project_is_read_only_by_default(project: Path) -> None:
    text, scratch = await profile_for(Limits(), project)

    assert str(project) in subpaths(text, "file-read")
    assert subpaths(text, "file-write") == {scratch}


async def test_the_project_is_writable_where_files_says_so(project: Path) -> None:
    text, scratch = await profile_for(Limits(files="write"), project)

    assert str(project) in subpaths(text, "file-map-executable")  # for what is built in it
    assert subpaths(text, "file-write") == {scratch, str(project)}


async def test_further_paths_can_be_read(tmp_path: Path) -> None:
    text, scratch = await profile_for(Limits(readable=(tmp_path / "data",)), None)

    assert str(tmp_path / "data") in subpaths(text, "file-read")
    assert subpaths(text, "file-write") == {scratch}


@pytest.mark.parametrize("network", [False, True])
async def test_the_network_is_open_where_the_limits_say_so(network: bool) -> None:
    text, _ = await profile_for(Limits(network=network), None)

    assert bool(allowed(text, "network-outbound")) is network


# ---- in the child


def test_paths_are_real_and_none_lies_in_another(tmp_path: Path) -> None:
    (tmp_path / "real" / "below").mkdir(parents=True)
    (tmp_path / "real-too").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    paths = [str(tmp_path / name) for name in ("link", "real/below", "real-too", "missing")]

    assert real_paths(paths) == [str(tmp_path / "real"), str(tmp_path / "real-too")]


@pytest.mark.parametrize(
    ("code", "refused"), [(errno.EPERM, True), (errno.EACCES, True), (errno.ECONNREFUSED, False)]
)
def test_only_what_is_forbidden_counts_as_refused(code: int, refused: bool) -> None:
    def attempt() -> None:
        raise OSError(code, "as if")

    assert is_refused(attempt) is refused


def test_what_succeeds_is_not_refused() -> None:
    assert not is_refused(lambda: None)


class FakeLibrary:
    """Stands for libsandbox: takes every profile but those it was told to refuse."""

    def __init__(self, refusal: bytes | None = None) -> None:
        self.taken: list[bytes] = []
        self._refusal = refusal
        self.sandbox_init = self._SandboxInit(self)

    def load(self, path: str, **_: object) -> FakeLibrary:
        assert path == "/usr/lib/libsandbox.1.dylib"
        return self

    class _SandboxInit:
        argtypes: tuple[Any, ...] = ()

        def __init__(self, library: FakeLibrary) -> None:
            self._library = library

        def __call__(self, text: bytes, flags: int, problem: Any) -> int:
            assert flags == 0
            self._library.taken.append(text)
            problem._obj.value = self._library._refusal
            return 0 if self._library._refusal is None else -1


def test_the_profile_is_handed_over_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    library = FakeLibrary()
    monkeypatch.setattr(ctypes, "CDLL", library.load)

    seatbelt.apply(profile(["/größe \udcff"], []))

    assert b'(subpath "/gr\xc3\xb6\xc3\x9fe \xff")' in library.taken[0]


def test_a_profile_that_is_refused_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", FakeLibrary(b"unbound variable: nonsense\n").load)

    with pytest.raises(OSError, match=r"the profile was refused: unbound variable: nonsense$"):
        seatbelt.apply("(nonsense)")


# ---- the system's numbers


def test_the_structures_are_as_large_as_the_systems_own() -> None:
    assert (ctypes.sizeof(Task), ctypes.sizeof(Resources), ctypes.sizeof(Timebase)) == (96, 96, 8)
    assert (Task.threadnum.offset, Resources.phys_footprint.offset) == (84, 72)


def test_ticks_of_the_clock_become_seconds() -> None:
    task = Task(total_user=20_000_000, total_system=4_000_000, threadnum=3)
    resources = Resources(phys_footprint=5_000_000)

    used = usage(task, resources, Timebase(125, 3))  # as on Apple's own processors

    assert used.cpu_seconds == pytest.approx(1.0)
    assert (used.memory_bytes, used.threads) == (5_000_000, 3)


def test_no_path_of_the_system_leads_into_a_home_folder() -> None:
    assert not [path for path in seatbelt.SYSTEM_FOLDERS if PurePosixPath(path).is_relative_to("/Users")]
