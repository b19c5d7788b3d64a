"""Whose an object is: made by the session's own code, or a library's.

Strict mode lets a cell use the private names of its own objects only. Everything here asks the interpreter and
never the object, because the object's class may be written to answer as it likes.
"""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Iterator, Mapping
from typing import Any

from . import _names

SESSION_MODULE = "__main__"

_HEAP_TYPE = 1 << 9
_MAX_KEPT = 1_000
_SLOTS: Mapping[str, Any] = vars(type)
_SUPER_SLOTS: Mapping[str, Any] = vars(super)


def contents_of(kind: type) -> Mapping[str, Any]:
    """Return the `__dict__` of a class."""
    found: Mapping[str, Any] = _SLOTS["__dict__"].__get__(kind)
    return found


def ancestry_of(kind: type) -> tuple[type, ...]:
    """Return the `__mro__` of a class."""
    found: tuple[type, ...] = _SLOTS["__mro__"].__get__(kind)
    return found


def is_session_class(kind: type) -> bool:
    """Return whether a class was defined by code of the session."""
    module = contents_of(kind).get("__module__")
    return type(module) is str and module == SESSION_MODULE


def is_library_class(kind: type) -> bool:
    """Return whether a class is the very one that a loaded library has under its name."""
    module, name = contents_of(kind).get("__module__"), _SLOTS["__qualname__"].__get__(kind)
    if not _is_heap_type(kind):
        return True
    if type(module) is not str or module == SESSION_MODULE:
        return False
    return vars(sys.modules.get(module, types)).get(name) is kind


class Ownership:
    """Decides about private names. Remembers what it found out about each class."""

    def __init__(self, builtins: Mapping[str, object]) -> None:
        self._builtins = builtins
        self._foreign: dict[int, tuple[type, frozenset[str]]] = {}

    def is_session_function(self, function: types.FunctionType) -> bool:
        """Return whether a function was defined by code of the session."""
        return function.__globals__.get("__builtins__") is self._builtins

    def may_use(self, obj: Any, name: str) -> bool:
        """Return whether code of the session may use that private name of an object."""
        kind = type(obj)
        if issubclass(kind, super):
            return self._found_above(obj, name)
        if issubclass(kind, type):
            return self.owns(obj, name)
        if kind is types.FunctionType:
            return self.is_session_function(obj)
        return self.owns(kind, name)

    def owns(self, kind: type, name: str) -> bool:
        """Return whether that private name of a class, and of its instances, is the session's own."""
        if name in _names.TUPLE_INTERFACE:
            return _descends_from(kind, tuple)
        if name in _names.ENUM_INTERFACE and _is_enum(kind):
            return True
        return is_session_class(kind) and name not in self.foreign_names(kind)

    def _found_above(self, obj: Any, name: str) -> bool:
        kind, this = (_SUPER_SLOTS[slot].__get__(obj) for slot in ("__self_class__", "__thisclass__"))
        if kind is None:
            return False
        above = itertools.dropwhile(lambda owner: owner is not this, ancestry_of(kind))
        owner = next(
            (owner for owner in itertools.islice(above, 1, None) if name in contents_of(owner)), None
        )
        return owner is None or is_session_class(owner)

    def foreign_names(self, kind: type) -> frozenset[str]:
        """Return the private names that the library classes among a class's ancestors use for themselves."""
        known = self._foreign.get(id(kind))
        if known is not None and known[0] is kind:
            return known[1]
        found = frozenset(
            name
            for owner in (*ancestry_of(kind), *ancestry_of(type(kind)))
            for name in _private_names_of(owner)
        )
        if len(self._foreign) >= _MAX_KEPT:
            self._foreign.clear()
        self._foreign[id(kind)] = kind, found
        return found


def _is_heap_type(kind: type) -> bool:
    return bool(_SLOTS["__flags__"].__get__(kind) & _HEAP_TYPE)


def _is_enum(kind: type) -> bool:
    enum = sys.modules.get("enum")
    return enum is not None and _descends_from(kind, enum.Enum)


def _descends_from(kind: type, ancestor: type) -> bool:
    return any(owner is ancestor for owner in ancestry_of(kind))  # `in` would ask the metaclass


def _private_names_of(kind: type) -> Iterator[str]:
    if is_session_class(kind) or not _is_heap_type(kind):
        return
    for name, value in contents_of(kind).items():
        yield from filter(_names.is_private, (name, *_names_in(value)))


def _names_in(value: Any) -> Iterator[str]:
    for function in _functions_in(value):
        yield from _names_in_code(function.__code__)
        yield from _names_in(getattr(function, "__wrapped__", None))


def _functions_in(value: Any) -> Iterator[types.FunctionType]:
    inner = (value.fget, value.fset, value.fdel) if isinstance(value, property) else (value,)
    for item in inner:
        function = getattr(item, "__func__", item)
        if isinstance(function, types.FunctionType):
            yield function


def _names_in_code(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names_in_code(constant)
