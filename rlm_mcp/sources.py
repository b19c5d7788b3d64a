"""Where settings come from, and which of them hold.

    flags > RLM_* in the environment > the project's rlm.toml > the user's rlm.toml > defaults

A project's file was written by whoever wrote the project: `narrowing.py` says what it may ask for, and
`trust.py` knows where the user allows more. `Sources.load` is called for each call of a tool, so what was read
is kept for as long as the files stay as they are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from .errors import DoorError
from .keys import KEYS, SECTIONS, Key, WrongValue, show
from .narrowing import concerns_all, narrows, refused
from .settings import Settings
from .suggestions import no_such_flag, no_such_key, no_such_section, no_such_variable, outside_of_sections
from .toml_files import Document, FileProblem, read_document
from .trust import Standing, Trusted, read_trusted, trust_file

Source: TypeAlias = Literal["default", "user", "project", "environment", "flag"]

FILE_NAME = "rlm.toml"

_MOST_PROBLEMS = 20
_MOST_KEPT = 256
_UNSURE_NANOSECONDS = 10**8  # a file that changed so recently may change again without another time stamp
_TOKEN, _TOKENS, _TOKEN_TENANT = "RLM_HTTP_TOKEN", "http.tokens", "owner"
_OURS = ("RLM_CONFIG_DIR", "RLM_DEV_VENV", "RLM_NODE_DIR", "RLM_LOG_LEVEL", "RLM_LOG_FORMAT")
_VARIABLES: Mapping[str, Key] = {  # a later one wins over an earlier one of the same key
    "SNIPARA_API_KEY": KEYS["rlm.snipara_api_key"],
    "SNIPARA_PROJECT_SLUG": KEYS["rlm.snipara_project_slug"],
    "SNIPARA_API_URL": KEYS["rlm.snipara_api_url"],
    **{key.variable: key for key in KEYS.values()},
}


class SettingsError(DoorError):
    """Settings are wrong. `problems` says of each what is wrong, where, and what would be right."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) > _MOST_PROBLEMS
        super().__init__("\n".join((*self.problems[:_MOST_PROBLEMS], *(["... and more."] if more else []))))


@dataclass(frozen=True)
class Origin:
    """Where a value came from; `where` is "/a/rlm.toml:3", "RLM_MODEL", "--host", or nothing for a default."""

    source: Source
    where: str = ""


@dataclass(frozen=True)
class Loaded:
    """The settings that hold, and where each came from, by its dotted key.

    `notes` says what was not applied, why, and what to do.
    """

    settings: Settings
    origins: Mapping[str, Origin]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """What one source says of one key."""

    key: Key
    value: Any = field(repr=False)
    origin: Origin

    def __str__(self) -> str:
        return f"{self.key.dotted} = {self.key.shown(self.value)}"


@dataclass(frozen=True)
class Asked:
    """What the file of a project asks for that the user's own settings do not allow."""

    document: Document
    standing: Standing
    wider: tuple[Given, ...]


_Layer: TypeAlias = dict[str, Given]
_Stamp: TypeAlias = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True)
class _Kept:
    stamp: _Stamp
    outcome: Loaded | tuple[str, ...]  # or what was wrong
    folders: tuple[str, ...]

    def holds(self, stamp: _Stamp) -> bool:
        return self.stamp == stamp and all(_leads_to_itself(folder) for folder in self.folders)


@dataclass(frozen=True)
class Sources:
    """Everything that settings can come from."""

    flags: Mapping[str, object] = field(repr=False)
    environment: Mapping[str, str] = field(repr=False)
    config_dir: Path
    _kept: dict[str, _Kept] = field(default_factory=dict[str, _Kept], init=False, repr=False, compare=False)

    @staticmethod
    def of_process(flags: Mapping[str, object] | None = None) -> Sources:
        """Return those of this process."""
        environment = dict(os.environ)
        return Sources(dict(flags or {}), environment, config_dir_of(environment))

    @property
    def user_file(self) -> Path:
        """Where the user's own settings are."""
        return self.config_dir / FILE_NAME

    def load(self, folder: Path | None) -> Loaded:
        """Return the settings that hold for the project at `folder`. Blocks. Raise `SettingsError`."""
        name = "" if folder is None else os.fspath(folder)
        stamp, kept = self._stamp(name), self._kept.get(name)
        if kept is None or not kept.holds(stamp):
            kept = self._read(folder, stamp)
            self._keep(name, kept)
        if isinstance(kept.outcome, Loaded):
            return kept.outcome
        raise SettingsError(kept.outcome)

    def _read(self, folder: Path | None, stamp: _Stamp) -> _Kept:
        reading = _Reading(self, folder)
        try:
            return _Kept(stamp, reading.loaded(), reading.folders)
        except SettingsError as error:
            return _Kept(stamp, error.problems, ())

    def _keep(self, name: str, kept: _Kept) -> None:
        if not _settled(kept.stamp):
            return
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[name] = kept

    def asked(self, folder: Path) -> Asked | None:
        """Return what the project at `folder` asks for; None if it has no file. Blocks. Raise `SettingsError`."""
        reading = _Reading(replace(self, flags={}, environment={}), folder)
        reading.loaded()
        return reading.asked

    def _stamp(self, folder: str) -> _Stamp:
        config = os.fspath(self.config_dir)
        stamps = (_stamp(f"{config}/{FILE_NAME}"), _stamp(f"{config}/{trust_file(Path()).name}"))
        return (*stamps, _stamp(f"{folder}/{FILE_NAME}")) if folder else stamps


def config_dir_of(environment: Mapping[str, str]) -> Path:
    """Return the folder of the user's own settings."""
    named = environment.get("RLM_CONFIG_DIR", "")
    if _is_set(named):
        return Path(os.path.abspath(os.path.expanduser(named)))  # noqa: PTH100, PTH111 -- pathlib's may raise
    import platformdirs

    return platformdirs.user_config_path("rlm-mcp", appauthor=False)


# ---- reading all of them once


class _Reading:
    """One pass over all sources, in which problems and notes are gathered."""

    def __init__(self, sources: Sources, folder: Path | None) -> None:
        self.asked: Asked | None = None
        self.folders: tuple[
            str, ...
        ] = ()  # which code may read only while no link on the way leads elsewhere
        self._sources = sources
        self._folder = folder
        self._problems: list[str] = []
        self._notes: list[str] = []

    def loaded(self) -> Loaded:
        """Return what holds. Raise `SettingsError` with all that is wrong."""
        user = self._layer(self._document(self._sources.user_file), "user")
        above = self._environment(user) | self._flags()
        project = self._project(user | above, above)
        if self._problems:
            raise SettingsError(self._problems)
        given = user | project | above
        origins = {dotted: given[dotted].origin if dotted in given else _DEFAULT for dotted in KEYS}
        return Loaded(_settings(given), origins, tuple(self._notes))

    def _problem(self, where: str, said: str) -> None:
        self._problems.append(f"{where}: {said}")
        if len(self._problems) > _MOST_PROBLEMS:
            raise SettingsError(self._problems)

    # ---- files

    def _document(self, path: Path, within: Path | None = None) -> Document | None:
        try:
            return read_document(path, within=within)
        except FileProblem as problem:
            self._problem(problem.where, problem.why)
            return None

    def _layer(self, document: Document | None, source: Literal["user", "project"]) -> _Layer:
        layer: _Layer = {}
        if document is None:
            return layer
        for key, value, where in self._entries(document):
            why_not = refused(key) if source == "project" else None
            if why_not:
                self._problem(where, why_not)
                continue
            try:
                read = key.read(value, document.path.parent)
            except WrongValue as wrong:
                self._problem(where, _wrong(key.spoken, key, value, wrong))
            else:
                layer[key.dotted] = Given(key, read, Origin(source, where))
        return layer

    def _entries(self, document: Document) -> Iterator[tuple[Key, object, str]]:
        """Yield each key that there is, with its value and where it stands."""
        for name, value in document.values.items():
            where = document.where(name)
            if name in SECTIONS and isinstance(value, dict):
                yield from self._section(document, name, cast("dict[str, object]", value))
            elif name in SECTIONS:
                self._problem(where, f"[{name}] must be a table.")  # in what it is there may be secrets
            elif name in KEYS:
                yield KEYS[name], value, where
            else:
                is_table = isinstance(value, dict | list)
                self._problem(where, no_such_section(name) if is_table else outside_of_sections(name))

    def _section(
        self, document: Document, section: str, table: dict[str, object]
    ) -> Iterator[tuple[Key, object, str]]:
        for name, value in table.items():
            key, where = KEYS.get(f"{section}.{name}"), document.where(section, name)
            if key is None:
                self._problem(where, no_such_key(section, name))
            else:
                yield key, value, where

    # ---- the project's file

    def _project(self, below: _Layer, above: _Layer) -> _Layer:
        """Return what of the project's file is applied. What is in `above` is beaten, and not worth a note."""
        folder = self._folder
        if folder is None or _same(folder / FILE_NAME, self._sources.user_file):
            return {}
        document = self._document(folder / FILE_NAME, within=folder)
        if document is None:
            return {}
        layer = self._layer(document, "project")
        without = {
            key.dotted: below[key.dotted].value if key.dotted in below else key.default
            for key in KEYS.values()
        }
        own = [each for each in layer.values() if not concerns_all(each.key)]
        wider = [each for each in own if not narrows(each.key, each.value, without, folder)]
        self._note_foreign(
            [each for each in layer.values() if each not in own and each.value != without[each.key.dotted]],
            above,
        )
        trusted = read_trusted(self._sources.config_dir)
        self.asked = Asked(document, trusted.standing(folder, document.digest), tuple(wider))
        if self.asked.standing == "trusted":
            return _by_key(own)
        self._note_wider([each for each in wider if each.key.dotted not in above], trusted)
        applied = _with_real_folders(_by_key(each for each in own if each not in wider))
        self.folders = tuple(map(os.fspath, _folders_in(applied)))
        return applied

    def _note_foreign(self, foreign: list[Given], above: _Layer) -> None:
        foreign = [each for each in foreign if each.key.dotted not in above]
        if foreign:
            one = len(foreign) == 1
            self._notes.append(
                f"rlm.toml of this project asks for {_listed(foreign)}, which {'is' if one else 'are'} not applied "
                f"because {'it concerns' if one else 'they concern'} all projects of the server. "
                f"The user can set {'it' if one else 'them'} in {self._sources.user_file}."
            )

    def _note_wider(self, wider: list[Given], trusted: Trusted) -> None:
        if not wider:
            return
        import shlex

        assert self.asked is not None
        one, changed = len(wider) == 1, self.asked.standing == "changed"
        self._notes.append(
            f"rlm.toml of this project asks for {_listed(wider)}, which {'is' if one else 'are'} not applied "
            f"because {'it widens' if one else 'they widen'} what code may do and "
            f"{'the file has changed since it was trusted' if changed else 'the project is not trusted'}. "
            f"The user can allow it with: rlm-mcp config trust {shlex.quote(str(self._folder))}"
        )
        if trusted.problem:
            self._notes.append(trusted.problem)

    # ---- the environment and flags

    def _environment(self, user: _Layer) -> _Layer:
        layer: _Layer = {}
        environment = {name: text for name, text in self._sources.environment.items() if _is_set(text)}
        for variable, key in _VARIABLES.items():
            if variable in environment:
                self._read(layer, key, environment[variable], Origin("environment", variable))
        if _TOKEN in environment:
            others = layer.get(_TOKENS) or user.get(_TOKENS)
            tokens: dict[str, str] = dict(others.value) if others else {}
            tokens[_TOKEN_TENANT] = environment[_TOKEN]
            self._read(layer, KEYS[_TOKENS], tokens, Origin("environment", _TOKEN))
        known = (*_VARIABLES, _TOKEN, *_OURS)
        for variable in sorted(environment):
            if variable.startswith("RLM_") and variable not in known:
                self._notes.append(no_such_variable(variable, known))
        return layer

    def _flags(self) -> _Layer:
        layer: _Layer = {}
        for name, value in self._sources.flags.items():
            key = _key_of_flag(name)
            if key is None:
                self._problem("--set", no_such_flag(name))
            elif value is not None:
                self._read(layer, key, value, Origin("flag", key.flag))
        return layer

    def _read(self, layer: _Layer, key: Key, value: object, origin: Origin) -> None:
        try:
            read = key.read_text(value, _here()) if isinstance(value, str) else key.read(value, _here())
        except WrongValue as wrong:
            self._problems.append(_wrong(origin.where, key, value, wrong))
        else:
            layer[key.dotted] = Given(key, read, origin)


_DEFAULT = Origin("default")


def _settings(given: _Layer) -> Settings:
    values: dict[str, Any] = {}
    for each in given.values():
        table = values.setdefault(each.key.section, {}) if each.key.section else values
        table[each.key.name] = each.value
    return Settings.model_validate(values)


def _by_key(given: Iterable[Given]) -> _Layer:
    return {each.key.dotted: each for each in given}


def _folders_in(layer: _Layer) -> tuple[Path, ...]:
    return layer["sandbox.folders"].value if "sandbox.folders" in layer else ()


def _with_real_folders(layer: _Layer) -> _Layer:
    """Return it with the folders as they were judged, so that a link that is changed later leads nowhere else."""
    if "sandbox.folders" not in layer:
        return layer
    real = tuple(Path(os.path.realpath(each)) for each in _folders_in(layer))
    return layer | {"sandbox.folders": replace(layer["sandbox.folders"], value=real)}


def _listed(given: list[Given]) -> str:
    *most, last = map(str, given)
    return f"{', '.join(most)} and {last}" if most else last


def _wrong(name: str, key: Key, value: object, wrong: WrongValue) -> str:
    return f"{name}: it {wrong}." if key.secret else f"{name} = {show(value)}: it {wrong}."


def _key_of_flag(name: str) -> Key | None:
    plain = name.removeprefix("--").replace("-", "_").lower()
    return KEYS.get(plain) or KEYS.get(f"rlm.{plain}")


def _is_set(text: str) -> bool:
    """Return whether a variable has a value; a host hands "${NAME}" on as it is where NAME is unset."""
    return bool(text.strip()) and not text.lstrip().startswith("${")


def _here() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return Path("/")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _leads_to_itself(folder: str) -> bool:
    try:
        return os.path.realpath(folder) == folder
    except OSError:
        return False


def _stamp(path: str) -> tuple[int, ...] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 -- pathlib's costs several times as much, and this is done for each call
    except (OSError, ValueError):
        return None
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _settled(stamp: _Stamp) -> bool:
    newest = max((each[3] for each in stamp if each), default=0)
    return time.time_ns() - newest > _UNSURE_NANOSECONDS
