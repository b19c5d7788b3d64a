"""Which project a caller means: a folder, or a plain name.

Everything that may say so is passed in; the environment is not read here. The first that is usable decides:

    argument -> setting -> host folder -> client roots -> working directory -> "default"

A folder is the same project through every link to it and, where the file system does not
tell them apart, in every spelling. It is never more than the folder given: a worktree or a
subfolder of a repository is a project of its own. Identity hangs on the path and not on the inode,
so a folder that is removed and made again is still the same project.

Names are compared without regard to case and Unicode form. They are typed from memory by
people and models, and a second, empty set of variables under "MyApp" is a worse surprise
than that "MyApp" and "myapp" cannot be two projects. They are kept as written.

`identify` asks the file system, so it belongs in a worker thread; but a path that looks as if it
led over a network is refused by its looks alone, because merely asking for one may hang.
"""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NoReturn, TypeAlias
from urllib.parse import unquote, urlsplit

from .errors import SessionError

Source: TypeAlias = Literal["argument", "setting", "host folder", "roots", "working directory", "default"]
_Form: TypeAlias = Literal["path or name", "path", "file URI"]

MAX_NAME_CHARACTERS = 200

_ADVICE = (
    'Name an existing folder by its absolute path, or a project without a folder by a plain name ("notes").'
)
_KEY = re.compile(r"[a-z0-9_]+(?:-[a-z0-9_]+)*-[0-9a-f]{20}")
_SLUG_CHARACTERS, _HASH_CHARACTERS = 40, 20
_URI = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_FILE_URI = re.compile(r"file:", re.IGNORECASE)
_DRIVE = re.compile(r"[a-z]:(?:[\\/]|$)", re.IGNORECASE)
_NETWORK = re.compile(r"[\\/]{2}")
_RELATIVE = re.compile(r"\.{1,2}(?:[\\/]|$)")
_INVISIBLE = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029\ufeff"
)


class ProjectError(SessionError):
    """What was given cannot be a project; `why` says the reason."""

    def __init__(self, given: str, why: str) -> None:
        self.given = given
        self.why = why
        shown = given if len(given) <= MAX_NAME_CHARACTERS else given[:MAX_NAME_CHARACTERS] + "..."
        super().__init__(f"{shown!r} cannot be the project: {why}. Nothing was opened. {_ADVICE}")


@dataclass(frozen=True)
class Project:
    """What sessions belong to. Two are equal if they are the same project, however each was found.

    `key` names it in the file system; `passed_over` says of each candidate that ranked higher and
    was not usable why it was not.
    """

    key: str
    name: str = field(compare=False)
    folder: Path | None
    source: Source = field(default="argument", compare=False)
    passed_over: tuple[str, ...] = field(default=(), compare=False)


def identify(
    *,
    named: str | None = None,
    setting: str | None = None,
    host_folder: str | None = None,
    roots: Sequence[str] = (),
    working_directory: Path | None = None,
    home: Path | None = None,
) -> Project:
    """Return the project that is meant.

    Raise `ProjectError` if `named`, the argument of a tool, is given and unusable. Of the others
    an unusable one is passed over. Blank ones count as not given. `home` is the home folder of this account
    unless given; relative paths start at `working_directory`.
    """
    home = home or _home()
    if named is not None and named.strip():
        return _project(named, home, working_directory, "path or name")
    passed_over: list[str] = []
    for source, given, form in _lesser(setting, host_folder, roots, working_directory):
        try:
            project = _project(given, home, working_directory, form)
        except ProjectError as problem:
            passed_over.append(f"{source}: {problem.given!r} ({problem.why})")
        else:
            return replace(project, source=source, passed_over=tuple(passed_over))
    return replace(_named("default", "default"), source="default", passed_over=tuple(passed_over))


def check_place(project: Project) -> None:
    """Raise `ProjectError` if a link has taken the place of the project's folder or of one above it.

    Code that may write around a folder can do that, and would see by it what the link leads to.
    """
    folder = project.folder
    if folder is not None and _as_spelled(Path(os.path.realpath(folder))) != folder:
        raise ProjectError(str(folder), "a link has taken the place of that folder, or of one above it")


def is_key(text: str) -> bool:
    """Return whether `text` has the form of the key of a project, and so is safe in a path."""
    return len(text) <= _SLUG_CHARACTERS + 1 + _HASH_CHARACTERS and _KEY.fullmatch(text) is not None


# ---- the candidates


def _home() -> Path | None:
    try:
        return Path.home()
    except RuntimeError:
        return None


def _lesser(
    setting: str | None, host_folder: str | None, roots: Sequence[str], working_directory: Path | None
) -> Iterator[tuple[Source, str, _Form]]:
    """Yield what ranks below the argument, best first, each with the form that it must have."""
    if setting is not None and setting.strip():
        yield "setting", setting, "path or name"
    if host_folder is not None and host_folder.strip():
        yield "host folder", host_folder, "path"
    for root in roots:
        yield "roots", root, "file URI"
    if working_directory is not None:
        yield "working directory", str(working_directory), "path"


def _project(given: str, home: Path | None, base: Path | None, form: _Form) -> Project:
    if form == "file URI" and not _FILE_URI.match(given):
        raise ProjectError(given, "it is no file URI")
    if any(unicodedata.category(character) == "Cc" for character in given):
        raise ProjectError(given, "it holds control characters")
    path = _path(given, home, base)
    if path is not None:
        return _of_folder(given, path, home)
    if form != "path or name":
        raise ProjectError(given, "it is no absolute path")
    return _named(given, _plain_name(given))


# ---- plain names


def _plain_name(given: str) -> str:
    name = " ".join(given.split())
    if len(name) > MAX_NAME_CHARACTERS:
        raise ProjectError(given, f"it has {len(name)} characters, and a name may have {MAX_NAME_CHARACTERS}")
    if any(character in _INVISIBLE or unicodedata.category(character) == "Cs" for character in name):
        raise ProjectError(given, "it holds characters that do not show or are no text")
    if ".." in re.split(r"[\\/]", name):
        raise ProjectError(
            given, 'it is neither a name nor a path: a relative path begins with "./" or "../"'
        )
    return unicodedata.normalize("NFC", name)


def _named(given: str, name: str) -> Project:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())
    if not folded.strip():
        raise ProjectError(given, "it is empty")
    return Project(_key(folded, b"name:" + folded.encode()), name, None)


def _key(name: str, identity: bytes) -> str:
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = "-".join(re.findall(r"[a-z0-9_]+", plain))[:_SLUG_CHARACTERS].strip("-") or "project"
    return f"{slug}-{hashlib.sha256(identity).hexdigest()[:_HASH_CHARACTERS]}"


# ---- folders


def _path(given: str, home: Path | None, base: Path | None) -> Path | None:
    """Return the path that `given` is, or None for a plain name. Nothing is looked up."""
    text = _of_file_uri(given) if _FILE_URI.match(given) else given
    if _NETWORK.match(text) or _URI.match(text):
        raise ProjectError(
            given, "it leads over a network; mount it, and name the folder where it is mounted"
        )
    if text.startswith("~"):
        return _below(
            given, home, text[1:], "no home folder is known", only_if=text[1:2] in ("", *_separators())
        )
    if _RELATIVE.match(text):
        return _below(
            given, base, f"/{text}", "it is relative, and there is no folder that it could start from"
        )
    if _DRIVE.match(text) and os.name != "nt":
        raise ProjectError(given, "it is a path of Windows, and this is another system")
    return Path(text) if _DRIVE.match(text) or text.startswith(_separators()) else None


def _separators() -> tuple[str, ...]:
    return ("/", "\\") if os.name == "nt" else ("/",)


def _below(given: str, folder: Path | None, rest: str, otherwise: str, *, only_if: bool = True) -> Path:
    if not only_if:
        raise ProjectError(given, "of paths with ~ only your own home folder's are understood")
    if folder is None:
        raise ProjectError(given, otherwise)
    if _NETWORK.match(str(folder)):
        raise ProjectError(
            given, "it leads over a network; mount it, and name the folder where it is mounted"
        )
    return Path(f"{folder}{rest}")


def _of_file_uri(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError:
        raise ProjectError(uri, "it cannot be read as a file URI") from None
    path = unquote(parts.path, errors="surrogateescape")
    if any(unicodedata.category(character) == "Cc" for character in path):
        raise ProjectError(uri, "it holds control characters")
    if parts.netloc.lower() not in ("", "localhost"):
        return f"//{parts.netloc}{path}"
    if not path.startswith("/"):
        raise ProjectError(uri, "it is no absolute file URI")
    return path[1:] if _DRIVE.match(path[1:]) else path


def _of_folder(given: str, path: Path, home: Path | None) -> Project:
    folder = _existing(given, path)
    if folder == folder.parent:
        raise ProjectError(given, "it is the root of the file system, and a project is one folder in it")
    _refuse_home(given, folder, home)
    return Project(_key(folder.name, b"folder:" + os.fsencode(folder)), folder.name, folder)


def _existing(given: str, path: Path) -> Path:
    try:
        folder = Path(os.path.realpath(path, strict=True))
        if not folder.is_dir():
            raise ProjectError(given, "it is a file and no folder")
        return _as_spelled(folder)
    except FileNotFoundError:
        raise ProjectError(given, "there is no such folder") from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else str(problem)
        raise ProjectError(given, f"it cannot be looked at ({reason})") from problem


def _refuse_home(given: str, folder: Path, home: Path | None) -> None:
    if home is None:
        return
    if _NETWORK.match(str(home)):
        if folder == home:
            _refuse_as_home(given)
        return
    real = _as_spelled(Path(os.path.realpath(home)))
    if folder == real or _same(folder, real):
        _refuse_as_home(given)
    if real.is_relative_to(folder):
        raise ProjectError(given, "it holds your home folder, and a project is one folder in that")


def _refuse_as_home(given: str) -> NoReturn:
    raise ProjectError(given, "it is your home folder, and a project is one folder in it")


def _as_spelled(folder: Path) -> Path:
    """Return the resolved path `folder` as the file system spells it, where it takes other spellings too."""
    spelled = Path(folder.anchor)
    for name in folder.parts[1:]:
        spelled = spelled / _own_spelling(spelled, name)
    return spelled


def _own_spelling(parent: Path, name: str) -> str:
    others = {name.swapcase(), unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)} - {
        name
    }
    if not any(_same(parent / name, parent / other) for other in others):
        return name
    try:
        with os.scandir(parent) as entries:
            names = sorted(entry.name for entry in entries if _folded(entry.name) == _folded(name))
    except OSError:
        return name
    return next((known for known in names if _same(parent / known, parent / name)), name)


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samestat(one.lstat(), other.lstat())
    except (OSError, ValueError):
        return False
