"""The variables of a session: what there is, and moving values in and out.

Looking never runs code of a value's own class, so that it can be done from
another thread while a cell runs, and cannot be made to hang.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import mmap
import os
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any, NamedTuple

from .batches import Answers

MAX_LISTED = 1_000
_PREVIEW = 80
_SAMPLE = 200
_LONG_FILE = 1024 * 1024

_PLAIN = (int, float, complex, bool, str, bytes, bytearray, type(None))
_MANY = (list, tuple, set, frozenset, dict, Answers)
_OUR_PACKAGE = __name__.rpartition(".")[0] + "."


class Exported(NamedTuple):
    """A value as bytes: `form` says how to read them, "repr" that they only describe it."""

    form: str
    body: bytes


class Loaded(NamedTuple):
    """A file that was read: its content, and the hash of its bytes; `exact` if the content encodes to just those."""

    name: str
    content: Any
    digest: str
    exact: bool


class TooLarge(Exception):
    """The value is larger than asked for."""


def named(namespace: dict[str, Any]) -> dict[str, Any]:
    """Return the variables that cells have made."""
    return {
        name: value for name, value in namespace.copy().items() if type(name) is str and not _is_hidden(name)
    }


def _is_hidden(name: str) -> bool:
    return name == "_" or (name.startswith("__") and name.endswith("__"))


def describe_all(namespace: dict[str, Any]) -> tuple[list[list[Any]], int]:
    """Return name, type, size and preview of the first variables, and how many there are in all."""
    found = named(namespace)
    names = sorted(found)[:MAX_LISTED]
    return [_describe(name[:200], found[name]) for name in names], len(found)


def _describe(name: str, value: Any) -> list[Any]:
    try:
        return [name, type_name(value), size_of(value), preview(value)]
    except BaseException:  # a class of the user's own can make anything of itself
        return [name, "?", 0, "(it cannot be described)"]


def type_name(value: Any) -> str:
    """Return the name of a value's class, with its module where that says more."""
    kind: type[Any] = type(value)
    module = type.__getattribute__(kind, "__module__")
    name = type.__getattribute__(kind, "__qualname__")
    if not isinstance(module, str) or module in ("builtins", "__main__") or module.startswith(_OUR_PACKAGE):
        return str(name)[:100]
    return f"{module.partition('.')[0]}.{name}"[:100]


def size_of(value: Any) -> int:
    """Return about how many bytes `value` holds; long containers are judged by their beginning."""
    kind: type[Any] = type(value)
    if kind in _MANY:
        return _size_of_many(value)
    if kind in _PLAIN:
        return sys.getsizeof(value)
    if _is_one_of(kind, "numpy", "ndarray"):
        return int(value.nbytes)
    if _is_one_of(kind, "pandas", "DataFrame", "Series"):
        used = value.memory_usage(index=True)
        return int(used if _is_one_of(kind, "pandas", "Series") else used.sum())
    return object.__sizeof__(value)


def _size_of_many(value: Any) -> int:
    size = sys.getsizeof(value)
    sample = [sys.getsizeof(item) for item in _first_items(value) if type(item) in _PLAIN + _MANY]
    return size + (sum(sample) * len(value) // max(len(sample), 1) if sample else 0)


def _first_items(value: Any) -> Iterator[Any]:
    items: Any = dict.values(value) if type(value) is dict else value
    try:
        for index, item in enumerate(items):
            if index >= _SAMPLE:
                return
            yield item
    except RuntimeError:
        return  # another thread changed it meanwhile


def preview(value: Any) -> str:
    """Return a few characters that tell what `value` is."""
    kind: type[Any] = type(value)
    if kind in (str, bytes, bytearray):
        return _cut(repr(value[:_PREVIEW]), len(value) > _PREVIEW)
    if kind is int and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    if kind in _PLAIN:
        return repr(value)
    if kind in _MANY:
        return _preview_of_many(value)
    for package in ("numpy", "pandas", "polars"):
        if _is_one_of(kind, package, "ndarray", "DataFrame", "Series"):
            shape = " x ".join(str(n) for n in value.shape)
            return f"{kind.__name__} {shape}" + (f" {value.dtype}" if hasattr(value, "dtype") else "")
    if kind is types.FunctionType:
        return f"function {value.__name__}"
    if issubclass(kind, type):
        return f"class {type.__dict__['__name__'].__get__(value)}"
    if issubclass(kind, types.ModuleType):
        return f"module {types.ModuleType.__getattribute__(value, '__name__')}"
    return f"<{type_name(value)}>"


def _preview_of_many(value: Any) -> str:
    shown: list[str] = []
    pairs: list[Any] = list(dict.items(value))[:4] if type(value) is dict and len(value) <= _SAMPLE else []
    items = [f"{_leaf(k)}: {_leaf(v)}" for k, v in pairs] or [
        _leaf(item) for item in list(_first_items(value))[:4]
    ]
    for item in items:
        shown.append(item)
        if sum(map(len, shown)) > _PREVIEW:
            break
    more = ", ..." if len(value) > len(shown) else ""
    left, right = (
        ("[", "]") if isinstance(value, list) else ("(", ")") if type(value) is tuple else ("{", "}")
    )
    return f"{left}{', '.join(shown)}{more}{right}  # {len(value)} items"


def _leaf(value: Any) -> str:
    if type(value) in (str, bytes, bytearray):
        return _cut(repr(value[:20]), len(value) > 20)
    if type(value) in _PLAIN and not (type(value) is int and value.bit_length() > 64):
        return repr(value)
    return f"<{type_name(value)}>"


def _cut(text: str, cut: bool) -> str:
    return text + "..." if cut else text


def _is_one_of(kind: type, package: str, *names: str) -> bool:
    """Return whether `kind` is one of these classes of a package that is loaded, and not only called so."""
    known = vars(sys.modules[package]) if package in sys.modules else {}
    return any(known.get(name) is kind for name in names)


def export(value: Any, max_bytes: int) -> Exported:
    """Return `value` as bytes: exact where it is text, bytes or plain data, else only described."""
    value = list(value) if type(value) is Answers else value
    if type(value) is str:
        return _checked("text", value.encode("utf-8", "surrogatepass"), max_bytes)
    if type(value) in (bytes, bytearray):
        return _checked("bytes", bytes(value), max_bytes)
    if _is_json(value, 0):
        return _checked("json", json.dumps(value).encode(), max_bytes)
    text = repr(value)
    return _checked("repr", text.encode("utf-8", "backslashreplace"), max_bytes)


def _checked(form: str, body: bytes, max_bytes: int) -> Exported:
    if len(body) > max_bytes:
        raise TooLarge(f"the value has {len(body)} bytes, and {max_bytes} were asked for at most")
    return Exported(form, body)


def _is_json(value: Any, depth: int) -> bool:
    """Return whether JSON gives back exactly this value."""
    if value is None or type(value) in (bool, str, int):
        return True
    if type(value) is float:
        return math.isfinite(value)
    if depth > 100:
        return False
    if type(value) is list:
        return all(map(_is_json, value, itertools.repeat(depth + 1)))
    if type(value) is not dict:
        return False
    pairs: Any = value
    return all(type(key) is str and _is_json(pairs[key], depth + 1) for key in pairs)


def take(form: str, body: bytes) -> Any:
    """Return the value that `body` stands for."""
    if form == "text":
        return body.decode("utf-8", "surrogatepass")
    return body if form == "bytes" else json.loads(body)


def load(parts: list[list[str]], form: str, before: Any = None, *, one: bool) -> tuple[Any, list[Loaded]]:
    """Return the content of files, added to what was there before, and each by itself.

    One file alone is one text, or bytes; several are a dictionary of them by name.
    """
    files = [_load_one(name, path, form) for name, path in parts]
    if one and not isinstance(before, dict):
        return (files[0].content if before is None else before + files[0].content), files
    if before is not None and not isinstance(before, dict):
        raise TypeError(f"files cannot be added to a {type_name(before)}; only to a dictionary of files")
    return {**(before or {}), **{file.name: file.content for file in files}}, files


def length_of(value: Any) -> int:
    """Return how long a text is, or all the texts in a dictionary together."""
    return sum(map(len, value.values())) if isinstance(value, dict) else len(value)


def _load_one(name: str, path: str, form: str) -> Loaded:
    """Return the content of a file: as exact bytes, or as text in which every byte is kept."""
    with open(path, "rb") as file:
        if os.fstat(file.fileno()).st_size == 0:
            return _loaded(name, file.read(), form)  # truly empty, or a file that does not tell its size
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _loaded(name, content, form)


def _loaded(name: str, data: Any, form: str) -> Loaded:
    """Take a file's bytes; a long one is hashed by another thread, which needs no interpreter for that."""
    found = hashlib.sha256()
    hashing = threading.Thread(target=found.update, args=(data,))
    if len(data) < _LONG_FILE:
        found.update(data)
    else:
        hashing.start()
    try:
        content, exact = _content(data, form)
    finally:
        if hashing.ident is not None:
            hashing.join()
    return Loaded(name, content, found.hexdigest(), exact)


def _content(data: Any, form: str) -> tuple[Any, bool]:
    """Return the value, and whether it encodes to the very bytes of its file."""
    if form == "bytes":
        return data[:], True
    try:
        return str(data, "utf-8"), True
    except UnicodeDecodeError:
        return str(data, "utf-8", "surrogateescape"), False
