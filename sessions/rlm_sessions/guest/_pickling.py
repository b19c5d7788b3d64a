"""Writing variables as a pickle that a later guest can read, whatever its version of us.

What other code than the session's own made is named, and what the session made is taken apart: functions, classes,
modules. What puts it together again is named too, by a `Maker`, so that no pickle refers to a module of ours.
"""

from __future__ import annotations

import builtins as real_builtins
import pickle
import sys
import time
import types
from collections.abc import Iterator
from typing import Any, Callable

from . import _reductions
from ._ownership import ancestry_of, contents_of
from ._reductions import Maker
from ._unkeepable import Unkeepable, module_of, what_it_is
from ._views import Modules

PROTOCOL = 5
OUR_PACKAGE = __name__.rpartition(".")[0]

_HOOKS = frozenset(
    "__reduce__ __reduce_ex__ __getstate__ __setstate__ __getnewargs__ __getnewargs_ex__ __getattr__ "
    "__getattribute__ __class__ __dict__ items __iter__".split()
)
_STRICT_HOOKS = _HOOKS - {"items", "__iter__", "__getattr__"}
_TICKS = 127
_STANDARD: frozenset[str] = getattr(sys, "stdlib_module_names", frozenset()) or frozenset(
    name.partition(".")[0] for name in sys.builtin_module_names
)
_BY_ID = {id(kind): reducer for kind, reducer in _reductions.BY_KIND.items()}
_Reduce = Callable[[Any], Any]


class NeedsCopy(Exception):
    """This cannot be done beside a session at once and without a trace; a forked copy can do it."""


class Facts:
    """What the session is made of that a pickle names and does not hold. Made for one dump."""

    def __init__(self, namespace: dict[str, Any], builtins: dict[str, Any], mode: str) -> None:
        self.namespace = namespace
        self.builtins = builtins
        self.strict = mode == "strict"
        statement = getattr(builtins.get("__import__"), "__self__", None)
        self.modules = statement if isinstance(statement, Modules) else None
        self._own_builtins: dict[Any, str] | None = None
        self._substitutes: dict[Any, tuple[str, str]] | None = None
        self._sentinels: dict[int, str] | None = None
        self.packages: set[str] = set()

    def builtin_name(self, obj: Any) -> str | None:
        """Return under which name the session's builtins hold an object that they alone have."""
        if self._own_builtins is None:
            real = vars(real_builtins)
            own = [(name, value) for name, value in self.builtins.items() if real.get(name) is not value]
            self._own_builtins = {key_of(value): name for name, value in own}
        return self._own_builtins.get(key_of(obj))

    def substitute_name(self, obj: Any) -> tuple[str, str] | None:
        """Return which module and name a cell gets an object by that the real module does not have there."""
        if self.modules is None:
            return None
        if self._substitutes is None:
            self._substitutes = dict(self._find_substitutes(self.modules))
        return self._substitutes.get(key_of(obj))

    def _find_substitutes(self, modules: Modules) -> Iterator[tuple[Any, tuple[str, str]]]:
        for real, view, _ in list(modules._views.values()):
            known = vars(real)
            full = types.ModuleType.__getattribute__(view, "__name__")
            for name, value in list(vars(view).items()):
                if known.get(name) is not value and not isinstance(value, (types.ModuleType, str)):
                    yield key_of(value), (full, name)

    def sentinel_name(self, obj: Any) -> str | None:
        """Return the name of an object that `dataclasses` knows by its identity."""
        if self._sentinels is None:
            names = self.dataclass_names()
            self._sentinels = {id(names[name]): name for name in _reductions.SENTINELS if name in names}
        return self._sentinels.get(id(obj))

    def dataclass_names(self) -> dict[str, Any]:
        """Return the globals of the `dataclasses` that cells get: in strict mode it is a copy."""
        real = sys.modules.get("dataclasses")
        if real is None:
            return {}
        known = None if self.modules is None else self.modules._views.get(id(real))
        found: dict[str, Any] = (real if known is None else known[1]).fields.__globals__
        return found

    def saw(self, module: Any) -> None:
        """Note that a snapshot depends on a package that is not Python's own."""
        if type(module) is str:
            top = module.partition(".")[0]
            if top not in _STANDARD and top not in ("__main__",):
                self.packages.add(top)


def key_of(obj: Any) -> Any:
    """Return what tells an object from others; a bound method is the same each time it is read."""
    if type(obj) is types.MethodType:
        return id(obj.__self__), id(obj.__func__)
    return id(obj)


class Pickler(pickle.Pickler):
    """Writes the variables of a session one after another, with one memo."""

    def __init__(self, sink: Any, facts: Facts, blobs: Any, least_blob: int) -> None:
        super().__init__(sink, protocol=PROTOCOL, buffer_callback=blobs.take_buffer)
        self.facts = facts
        self._blobs = blobs
        self._least_blob = least_blob
        self._namespace = facts.namespace
        self._ways: dict[int, tuple[type, _Reduce | None]] = {}
        self.seen_arrays: set[int] = set()
        self._kept_arrays: set[int] | None = None

    def persistent_id(self, obj: Any) -> Any:
        """Return by what name or number the pickle refers to an object, or None. Asked for every single object."""
        kind = type(obj)
        if kind is str or kind is bytes or kind is bytearray:
            return None if len(obj) < self._least_blob else self._blobs.take(obj)
        if kind is dict:
            return self._name_of_dict(obj)
        return obj.name if kind is Maker else None

    def _name_of_dict(self, obj: dict[Any, Any]) -> Any:
        if obj is self._namespace:
            return "namespace"
        name = obj.get("__name__")
        if name is None:
            return "builtins" if obj is self.facts.builtins else None
        if obj is self.facts.builtins:
            return "builtins"
        if type(name) is str and type(sys.modules.get(name)) is types.ModuleType:
            if vars(sys.modules[name]) is obj:
                self.facts.saw(name)
                return ("globals", name)
            if name == "dataclasses" and obj is self.facts.dataclass_names():
                return "dataclasses"
        return None

    def reducer_override(self, obj: Any) -> Any:
        """Return how to take an object apart, for all but the plainest types."""
        kind = type(obj)
        way = self._ways.get(id(kind))
        if way is None:
            way = self._ways[id(kind)] = kind, self._way_for(kind)
        return NotImplemented if way[1] is None else way[1](obj)

    def _way_for(self, kind: type) -> _Reduce | None:
        """Return how to reduce objects of a class; None leaves it to the class."""
        if issubclass(kind, type):
            return lambda cls: _reductions.reduce_class(cls, self.facts)
        known = _BY_ID.get(id(kind))  # looked up by identity, because the hash of a class is its metaclass's
        if known is not None:
            return lambda obj: known(obj, self.facts)
        if issubclass(kind, types.ModuleType):
            return lambda module: _reductions.reduce_module(module, self.facts)
        what = what_it_is(kind)
        if what is not None:
            return refuse(what)
        module = module_of(kind)
        if type(module) is str and module.startswith(OUR_PACKAGE + "."):
            return self._way_for_ours(kind)
        if _reductions.is_importable(kind):
            return self._way_for_library(kind, module)
        return self._way_for_own(kind)

    def _way_for_ours(self, kind: type) -> _Reduce | None:
        """Return how to reduce objects of our own classes: values of those that cells have by name are kept."""
        if self.facts.builtin_name(kind) is None:
            return lambda obj: _reductions.reduce_ours(obj, self.facts)
        return _reductions.reduce_exception if issubclass(kind, BaseException) else None

    def _way_for_library(self, kind: type, module: Any) -> _Reduce | None:
        self.facts.saw(module)
        if module == "dataclasses" or self.facts.strict:
            return lambda obj: _reductions.reduce_sentinel(obj, self.facts)
        if module == "numpy" and kind.__name__ == "ndarray":
            return self._reduce_array
        return None

    def _way_for_own(self, kind: type) -> _Reduce | None:
        if module_of(kind) == "dataclasses":
            return lambda obj: _reductions.reduce_sentinel(obj, self.facts)
        if self.facts.strict and has_hooks(kind, _STRICT_HOOKS):
            return refuse("an object that pickles itself, which the strict policy does not let it do")
        if _reductions.is_enum(kind):
            return _reductions.reduce_member
        if issubclass(kind, BaseException) and _reductions.has_plain_exception_state(kind):
            return _reductions.reduce_exception
        return None

    def _reduce_array(self, array: Any) -> Any:
        self.seen_arrays.add(id(array))
        return _reductions.reduce_array(array, self._is_kept)

    def _is_kept(self, array: Any) -> bool:
        """Return whether an array is known to be in the snapshot anyway."""
        if self._kept_arrays is None:
            values = list(self._namespace.values())
            self._kept_arrays = {id(value) for value in values if type(value) is type(array)}
        return id(array) in self._kept_arrays or id(array) in self.seen_arrays


class QuickPickler(Pickler):
    """Writes in the living guest: gives up where code of the session's own would run, or it takes too long."""

    def __init__(self, sink: Any, facts: Facts, blobs: Any, least_blob: int, deadline: float) -> None:
        super().__init__(sink, facts, blobs, least_blob)
        self._deadline = deadline
        self._ticks = 0

    def persistent_id(self, obj: Any) -> Any:
        """As above, looking at the clock now and then."""
        self._ticks += 1
        if not self._ticks & _TICKS:
            self.look_at_the_clock()
        kind = type(obj)
        if kind is str or kind is bytes or kind is bytearray:
            return None if len(obj) < self._least_blob else self._blobs.take(obj)
        if kind is dict:
            return self._name_of_dict(obj)
        return obj.name if kind is Maker else None

    def look_at_the_clock(self) -> None:
        """Give up if it is too late."""
        if time.monotonic() > self._deadline:
            raise NeedsCopy

    def _way_for(self, kind: type) -> _Reduce | None:
        if type(kind) is not type and not _reductions.is_importable(type(kind)):
            raise NeedsCopy
        return super()._way_for(kind)

    def _way_for_library(self, kind: type, module: Any) -> _Reduce | None:
        top = str(module).partition(".")[0]
        if top != "numpy" and top not in _STANDARD:
            raise NeedsCopy
        return super()._way_for_library(kind, module)

    def _way_for_own(self, kind: type) -> _Reduce | None:
        if has_hooks(kind, _HOOKS):
            raise NeedsCopy
        return super()._way_for_own(kind)


def has_hooks(kind: type, hooks: frozenset[str]) -> bool:
    """Return whether pickling an object of a class may run what the session's own classes define."""
    for owner in ancestry_of(kind):
        if not _reductions.is_importable(owner):
            for hook in hooks.intersection(contents_of(owner)):
                found = contents_of(owner)[hook]
                if not is_library_function(found) and type(found) is not types.GetSetDescriptorType:
                    return True
    return False


def is_library_function(obj: Any) -> bool:
    """Return whether a method was put into a class by a library: `collections` and `dataclasses` do so."""
    if type(obj) is not types.FunctionType:
        return False
    name = obj.__globals__.get("__name__")
    if type(name) is not str or name == "__main__":
        return False
    return name == "dataclasses" or vars(sys.modules.get(name, types)) is obj.__globals__


def refuse(what: str) -> _Reduce:
    """Return a way that says that an object cannot be kept, unless it is a standard stream."""

    def way(obj: Any) -> Any:
        stream = _reductions.reduce_stream(obj)
        if stream is None:
            raise Unkeepable(what, obj)
        return stream

    return way
