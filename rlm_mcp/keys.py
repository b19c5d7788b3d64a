"""Every setting by its dotted name: where it may be written, what it may be, and what a given value means.

All of it follows from the model in `settings.py`. Where values come from is not known here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import Any, Literal, TypeAlias, cast, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .settings import GIB, KIB, MIB, Section, Settings, bytes_of

Kind: TypeAlias = Literal[
    "switch",
    "number",
    "fraction",
    "size",
    "choice",
    "text",
    "path",
    "paths",
    "texts",
    "text table",
    "paths table",
    "price table",
]

_SWITCH = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_UNITS = ((1024 * GIB, "t"), (GIB, "g"), (MIB, "m"), (KIB, "k"))
_FLAGS = {
    "project": "--project",
    "sandbox.files": "--files",
    "sandbox.network": "--network",
    "sandbox.python": "--python",
    "sandbox.wall_seconds": "--timeout",
    "sandbox.memory_bytes": "--memory",
    "sessions.state_dir": "--state-dir",
    "sessions.durable": "--durable",
    "http.host": "--host",
    "http.port": "--port",
}
_PUNCTUATION = str.maketrans("", "", "_-.")
_LONGEST_SHOWN = 60
_MOST_DOLLARS = 1_000_000


class WrongValue(ValueError):
    """A value that a setting cannot have; the text completes "it ..."."""


@dataclass(frozen=True)
class Key:
    """One setting."""

    section: str  # empty for a key that stands outside of the tables
    name: str
    field: FieldInfo
    kind: Kind

    @property
    def dotted(self) -> str:
        """Return its one name everywhere."""
        return f"{self.section}.{self.name}" if self.section else self.name

    @property
    def spoken(self) -> str:
        """Return the key as errors name it."""
        return f"[{self.section}] {self.name}" if self.section else self.name

    @property
    def variable(self) -> str:
        """Return the environment variable that sets this."""
        section = "" if self.section in ("", "rlm") else f"{self.section}_"
        return f"RLM_{section}{self.name}".upper()

    @property
    def flag(self) -> str:
        """Return the flag that sets this."""
        return _FLAGS.get(self.dotted) or f"--set {self.dotted}"

    @property
    def secret(self) -> bool:
        """Return whether nobody may see a value."""
        extra: Any = self.field.json_schema_extra
        return bool(extra and extra.get("secret"))

    @property
    def default(self) -> object:
        """Return what holds where nothing is given."""
        return self.field.get_default(call_default_factory=True)

    @property
    def meaning(self) -> str:
        """Return what it is for."""
        return self.field.description or ""

    @property
    def choices(self) -> tuple[str, ...]:
        """Return all values that it can have, if they are few and have names."""
        return get_args(self.field.annotation) if self.kind == "choice" else ()

    @property
    def allowed(self) -> str:
        """Return what a value may be, in words."""
        low, high = self._bound("ge"), self._bound("le")
        longest = self._bound("max_length")
        match self.kind:
            case "switch":
                return "true or false"
            case "choice":
                *most, last = (f'"{each}"' for each in self.choices)
                return f"{', '.join(most)} or {last}"
            case "number":
                return f"a whole number from {low} to {high}"
            case "fraction":
                return f"a number from {_plainly(low)} to {_plainly(high)}"
            case "size":
                return f'a size such as "512m" or "2g", from {size_text(low)} to {size_text(high)}'
            case "text":
                shortest = self._bound("min_length")
                return f"a text of {f'{shortest} to' if shortest else 'at most'} {longest} characters"
            case "path":
                return "a path"
            case "paths":
                return f"a list of at most {longest} paths"
            case "texts":
                return f"a list of at most {longest} texts"
            case "text table":
                return "a table of texts by name"
            case "paths table":
                return "a table of lists of paths by name"
            case "price table":
                return "a table of two prices by name, such as [1.25, 10.0]"

    def _bound(self, name: str) -> Any:
        found = (getattr(each, name, None) for each in self.field.metadata)
        return next((bound for bound in found if bound is not None), None)

    def read(self, value: object, base: Path) -> Any:
        """Return what a value from a file or a program means; paths are relative to `base`. Raise `WrongValue`."""
        try:
            placed = _PLACE.get(self.kind, _as_it_is)(value, base)
            if placed is None and self.default is None:
                return None
            model = _MODELS[self.section].model_validate({self.name: placed}, strict=True)
        except WrongValue:
            raise
        except (ValidationError, ValueError, OverflowError):
            raise WrongValue(f"must be {self.allowed}") from None
        return getattr(model, self.name)

    def read_text(self, text: str, base: Path) -> Any:
        """Return what a text means, such as that of a variable. Raise `WrongValue`."""
        try:
            value = _FROM_TEXT.get(self.kind, str)(text)
        except ValueError:
            raise WrongValue(f"must be {self.allowed}") from None
        return self.read(value, base)

    def shown(self, value: object, *, longest: int = _LONGEST_SHOWN) -> str:
        """Return a value as a person may see it; of a secret only whether there is one."""
        if self.secret:
            return "set" if value else "not set"
        if self.kind == "size" and isinstance(value, int):
            return size_text(value) if value < KIB else f'"{size_text(value)}"'
        return "not set" if value is None else show(value, longest=longest)


def show(value: object, *, longest: int = _LONGEST_SHOWN) -> str:
    """Return a value much as TOML writes it, harmless, in one line, and not too long."""
    try:
        text = json.dumps(_plain(value), ensure_ascii=True)
    except (ValueError, RecursionError):
        text = "a value that cannot be shown"
    return text if len(text) <= longest else text[: longest - 3] + "..."


def show_name(name: str) -> str:
    """Return a name that somebody wrote, harmless and not too long."""
    plain = name.isascii() and name.translate(_PUNCTUATION).isalnum()
    return name if plain and len(name) <= _LONGEST_SHOWN else show(name)


def size_text(size: int) -> str:
    """Return a number of bytes as it would be written in a setting."""
    for unit, suffix in _UNITS:
        if size >= unit and size % unit == 0:
            return f"{size // unit}{suffix}"
    return str(size)


def _plainly(number: float) -> str:
    return str(int(number)) if number == int(number) else str(number)


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in cast("Mapping[object, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in cast("Iterable[object]", value)]
    return value if isinstance(value, str | int | float | None) else str(value)


def _as_it_is(value: object, base: Path) -> object:
    return value


def _path(value: object, base: Path) -> object:
    if value == "":
        return None
    if isinstance(value, str | Path):
        return _placed(value, base)
    raise WrongValue("must be a path")


def _paths(value: object, base: Path) -> object:
    if isinstance(value, str) or not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_placed(each, base) for each in cast("Iterable[object]", value))


def _placed(value: object, base: Path) -> Path:
    if not isinstance(value, str | Path) or value == "":
        raise ValueError
    text = os.fspath(value)
    if any(ord(char) < 32 for char in text):
        raise WrongValue("holds a character that no path should have")
    expanded = os.path.expanduser(text)  # noqa: PTH111 -- pathlib's raises where there is no such user
    if expanded.startswith("~"):
        raise WrongValue("begins with ~, and that home folder is not known")
    return base / expanded


def _texts(value: object, base: Path) -> object:
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value


def _paths_table(value: object, base: Path) -> object:
    if not isinstance(value, Mapping):
        raise ValueError
    return {key: _paths(each, base) for key, each in cast("Mapping[object, object]", value).items()}


def _price_table(value: object, base: Path) -> object:
    if not isinstance(value, Mapping):
        raise ValueError
    table = cast("Mapping[object, object]", value)
    return {name: _price(name, pair) for name, pair in table.items()}


def _price(name: object, pair: object) -> tuple[object, ...]:
    prices = tuple(cast("list[object]", pair)) if isinstance(pair, list | tuple) else ()
    if len(prices) != 2 or not all(_is_price(each) for each in prices):
        raise WrongValue(f"must have for {show(name)} two prices, such as [1.25, 10.0]")
    return prices


def _is_price(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _MOST_DOLLARS


_PLACE: Mapping[str, Callable[[object, Path], object]] = {
    "path": _path,
    "paths": _paths,
    "texts": _texts,
    "paths table": _paths_table,
    "price table": _price_table,
}


def _switch_of(text: str) -> bool:
    try:
        return _SWITCH[text.strip().lower()]
    except KeyError:
        raise ValueError from None


def _texts_of(text: str) -> object:
    return _json(text, "[") or [each.strip() for each in text.split(",") if each.strip()]


def _paths_of(text: str) -> object:
    return _json(text, "[") or [each for each in text.split(os.pathsep) if each]


def _table_of(text: str) -> object:
    return _json(text, "{") or dict(_pair(each) for each in text.split(",") if each.strip())


def _paths_table_of(text: str) -> object:
    table = _json(text, "{")
    if table:
        return table
    pairs = dict(_pair(each) for each in text.split(",") if each.strip())
    return {name: _paths_of(paths) for name, paths in pairs.items()}


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.strip().partition("=")
    if not (name and equals and value):
        raise ValueError
    return name.strip(), value.strip()


def _json(text: str, opening: str) -> object:
    if not text.lstrip().startswith(opening):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


_FROM_TEXT: Mapping[str, Callable[[str], object]] = {
    "switch": _switch_of,
    "number": int,
    "fraction": float,
    "size": str.strip,
    "choice": lambda text: text.strip().lower(),
    "paths": _paths_of,
    "texts": _texts_of,
    "text table": _table_of,
    "paths table": _paths_table_of,
    "price table": lambda text: _json(text, "{"),
}


def _kind(field: FieldInfo) -> Kind:
    annotation = field.annotation
    arguments = tuple(_bare(each) for each in get_args(annotation))
    if any(getattr(each, "func", None) is bytes_of for each in field.metadata):
        return "size"
    simple: dict[Any, Kind] = {bool: "switch", int: "number", float: "fraction", str: "text"}
    if annotation in simple:
        return simple[annotation]
    origin = get_origin(annotation)
    if origin is Literal:
        return "choice"
    if origin is tuple:
        return "paths" if arguments[0] is Path else "texts"
    if origin is dict:
        return _kind_of_table(arguments[1])
    if NoneType in arguments:
        return _OPTIONAL[next(each for each in arguments if each is not NoneType)]
    raise TypeError(f"no setting can be of the type {annotation}")


def _kind_of_table(annotation: Any) -> Kind:
    if annotation is str:
        return "text table"
    return "price table" if get_args(annotation)[0] is float else "paths table"


_OPTIONAL: Mapping[Any, Kind] = {Path: "path", float: "fraction"}


def _bare(annotation: Any) -> Any:
    return get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation


def _is_section(field: FieldInfo) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _all_keys() -> Iterable[Key]:
    for section, model in _MODELS.items():
        for name, field in model.model_fields.items():
            if not _is_section(field):
                yield Key(section, name, field, _kind(field))


_MODELS: Mapping[str, type[Section]] = {
    "": Settings,
    **{
        name: cast("type[Section]", field.annotation)
        for name, field in Settings.model_fields.items()
        if _is_section(field)
    },
}

SECTIONS: tuple[str, ...] = tuple(name for name in _MODELS if name)
KEYS: Mapping[str, Key] = MappingProxyType({key.dotted: key for key in _all_keys()})
