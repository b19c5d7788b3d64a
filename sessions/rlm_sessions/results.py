"""What comes of a cell, as values. Everything a guest says is checked on its way in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, cast

from rlm_sandboxes import Limits

from .guest.wire import WireError

Form: TypeAlias = Literal["text", "bytes", "json"]

More: TypeAlias = Callable[[str, str], str]


@dataclass(frozen=True)
class Display:
    """Something to look at: a picture, or Markdown."""

    mime: str
    data: bytes = field(repr=False)
    id: str | None = None  # under which it stays readable, if it is kept


@dataclass(frozen=True)
class CellError:
    """Why a cell did not run to its end.

    `limit` names the field of `Limits` that ended it, if one did.
    """

    name: str
    message: str
    traceback: str = field(default="", repr=False)
    limit: str | None = None

    def __str__(self) -> str:
        return f"{self.name}: {self.message}" if self.message else self.name


@dataclass(frozen=True)
class CellResult:
    """What came of one cell.

    `output` is what was printed, its middle left out where it is long; `output_characters` counts
    all of it. `value` is the last expression as a REPL would show it. `lost` means that the
    session ended with this cell and its variables are gone. `notes` say what else became of the
    session; `output_id` names the whole output where only a part of it is shown. Of `duration_seconds`,
    `waited_seconds` are those in which a call of the cell waited for its answer. `final` means that
    `final(...)` gave the answer; `value` shows it then.
    """

    cell: int
    output: str = ""
    output_characters: int = 0
    left_out: int = 0
    value: str | None = None
    displays: tuple[Display, ...] = ()
    error: CellError | None = None
    exit_code: str | None = None
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    lost: bool = False
    duration_seconds: float = 0.0
    notes: tuple[str, ...] = ()
    output_id: str | None = None
    waited_seconds: float = 0.0
    final: bool = False


@dataclass(frozen=True)
class Lost:
    """A variable that could not be kept or brought back, and why."""

    name: str
    type: str
    reason: str

    def __str__(self) -> str:
        kind = f" ({self.type})" if self.type else ""
        return f"{self.name}{kind}: {self.reason}"


@dataclass(frozen=True)
class LoadedFile:
    """A file that was read into a variable: its name there, the SHA-256 of its bytes, and its length."""

    name: str
    digest: str
    length: int


@dataclass(frozen=True)
class Loaded:
    """What a variable holds after files were read into it: how much in all, and which were read now."""

    length: int
    files: tuple[LoadedFile, ...]


@dataclass(frozen=True)
class Restored:
    """What came back of a state that was kept."""

    names: tuple[str, ...]
    lost: tuple[Lost, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Variable:
    """A variable of a session, without its value."""

    name: str
    type: str
    size_bytes: int
    preview: str


@dataclass(frozen=True)
class Value:
    """A value of a variable as bytes.

    `form` is "text" (UTF-8, lone surrogates kept), "bytes", "json", or "repr" where the bytes
    only describe a value that none of these can carry exactly.
    """

    form: str
    body: bytes = field(repr=False)

    def text(self) -> str:
        """Return the bytes as text."""
        return self.body.decode("utf-8", "surrogatepass")


def text_of(facts: dict[str, Any], key: str, *, most: int) -> str:
    """Return a text that a guest sent, cut to what may be held."""
    value = facts.get(key)
    if not isinstance(value, str):
        raise WireError(f"{key} is not text")
    return value[:most].encode("utf-8", "backslashreplace").decode()


def optional_text(facts: dict[str, Any], key: str, *, most: int) -> str | None:
    """Return a text that a guest sent, or None where it sent none."""
    return None if facts.get(key) is None else text_of(facts, key, most=most)


def number_of(facts: dict[str, Any], key: str) -> int:
    """Return a whole number that a guest sent."""
    value = facts.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise WireError(f"{key} is not a number")
    return value


def texts_of(facts: dict[str, Any], key: str, *, most: int) -> tuple[str, ...]:
    """Return a list of short texts that a guest sent."""
    return tuple(text_of({key: item}, key, most=200) for item in list_of(facts.get(key), key)[:most])


def list_of(value: Any, what: str, *, length: int | None = None) -> list[Any]:
    """Return a list that a guest sent, of so many items if `length` says so."""
    items: list[Any] = value
    if type(items) is not list:
        raise WireError(f"{what} is not a list")
    if length is not None and len(items) != length:
        raise WireError(f"{what} has another length")
    return items


def mapping_of(value: object, what: str) -> dict[str, Any]:
    """Return a mapping that a guest sent."""
    if not isinstance(value, dict):
        raise WireError(f"{what} is not a mapping")
    return cast("dict[str, Any]", value)


def restored_of(told: Any) -> Restored:
    """Return what a guest says of a state that it was given back."""
    facts = mapping_of(told, "what came back")
    return Restored(
        texts_of(facts, "restored", most=100_000),
        lost_of(facts.get("lost")),
        texts_of(facts, "notes", most=100),
    )


def loaded_of(length: int, told: Any) -> Loaded:
    """Return what a guest says of the files that it read."""
    files: list[LoadedFile] = []
    for item in list_of(told, "the files"):
        name, digest, size = list_of(item, "a file", length=3)
        facts = {"name": name, "digest": digest, "size": size}
        files.append(
            LoadedFile(
                text_of(facts, "name", most=4096),
                text_of(facts, "digest", most=64),
                number_of(facts, "size"),
            )
        )
    return Loaded(length, tuple(files))


def lost_of(told: Any) -> tuple[Lost, ...]:
    """Return the variables that a guest says could not be kept."""
    lost: list[Lost] = []
    for item in list_of(told, "lost")[:1000]:
        name, kind, reason = list_of(item, "a lost variable", length=3)
        facts = {"name": name, "type": kind, "reason": reason}
        lost.append(Lost(*(text_of(facts, key, most=300) for key in facts)))
    return tuple(lost)


def error_of(facts: dict[str, Any], limits: Limits, more: More) -> CellError | None:
    """Return the error of a cell as its guest told it, with advice where a limit caused it."""
    if facts.get("error") is None:
        return None
    told = mapping_of(facts["error"], "error")
    limit = optional_text(told, "limit", most=40)
    limit = limit if limit in _ADVICE else None
    message = text_of(told, "message", most=8_000)
    return CellError(
        name=text_of(told, "name", most=200),
        message=f"{message}{message and ' '}{advice(limit, limits, more)}" if limit else message,
        traceback=text_of(told, "traceback", most=32_000),
        limit=limit,
    )


_ADVICE = {
    "output_bytes": "The cell printed more than output_bytes = {0} allows, and was ended there.",
    "memory_bytes": "The cell needed more memory than memory_bytes = {0} allows.",
    "file_bytes": "A file grew beyond file_bytes = {0}.",
    "scratch_bytes": "The scratch folder is full: scratch_bytes = {0}.",
    "open_files": "Too many files are open: open_files = {0}.",
    "threads": "No more threads can be started: threads = {0}.",
    "processes": "No more processes can be started: processes = {0}.",
    "network": "Code here has no network: network = {0}.",
    "files": 'With files = "{0}", code here sees {1}, and its scratch folder (tempfile.gettempdir()).',
    "wall_seconds": "The cell ran longer than wall_seconds = {0} and was stopped.",
    "cpu_seconds": "The cell used more processor time than cpu_seconds = {0} and was stopped.",
}

_SEEN = {
    "none": "no file of the project",
    "read": "only the project's folder, and that read-only",
    "write": "only the project's folder, which it may change",
}


def advice(limit: str, limits: Limits, more: More) -> str:
    """Return which limit was reached, and how to raise it, which `more` says."""
    value = getattr(limits, limit)
    opened = {"network": "True", "files": '"write"'}.get(limit, "...")
    said = _ADVICE[limit].format(value, _SEEN[limits.files])
    return f"{said} {more(limit, opened)}"


def open_otherwise(limit: str, value: str) -> str:
    """Return how whoever opens a session can raise one of its limits."""
    return f"To allow more, open the session with Limits({limit}={value})."
