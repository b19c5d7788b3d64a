"""Putting together what `_reductions` takes apart, inside a new session: the makers, by their names."""

from __future__ import annotations

import _thread
import builtins as real_builtins
import functools
import importlib
import sys
import threading
import types
import typing
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Callable

from . import _reductions
from ._module_rules import STRICT_MODULES
from ._ownership import ancestry_of, contents_of
from ._reductions import MAGIC
from ._views import Modules

_OUR_PACKAGE = __name__.rpartition(".")[0]

# What pickles of plain values call beside the names that the strict policy hands out.
_STRICT_NAMES = frozenset(
    {
        *(("copyreg", "_reconstructor"), ("copyreg", "__newobj__"), ("copyreg", "__newobj_ex__")),
        *(("re", "_compile"), ("_re", "_compile"), ("array", "_array_reconstructor")),
        *(("collections", "_tuplegetter"), ("_collections", "_tuplegetter"), ("_random", "Random")),
        *(("zoneinfo", "ZoneInfo._unpickle"), ("functools", "_lru_cache_wrapper"), ("_thread", "RLock")),
        *(("functools", name) for name in vars(functools) if "_from_" in name),  # what total_ordering adds
        *(("operator", "or_"), ("types", "GenericAlias"), ("types", "UnionType"), ("weakref", "ref")),
        *(("weakref", "ReferenceType"), ("weakref", "WeakSet"), ("typing", "_GenericAlias")),
        *(("typing", "_ProtocolMeta"), ("typing", "_TypedDictMeta"), ("typing", "_UnionGenericAlias")),
        *(("typing", "_no_init_or_replace_init"), ("typing", "_proto_hook"), ("typing", "_no_init")),
        *(
            ("typing", "_LiteralGenericAlias"),
            ("typing", "_CallableGenericAlias"),
            ("typing", "_NotIterable"),
        ),
    }
)


class Unrestorable(Exception):
    """An object cannot be put together here; the message says why in plain words."""


class Rebuilder:
    """Puts objects together in one session."""

    def __init__(self, namespace: dict[str, Any], builtins: dict[str, Any], mode: str) -> None:
        self._namespace = namespace
        self._builtins = builtins
        self._strict = mode == "strict"
        self._import: Any = builtins.get("__import__", real_builtins.__import__)
        owner = getattr(self._import, "__self__", None)
        self._modules = owner if isinstance(owner, Modules) else None
        self._makers: dict[str, Callable[..., Any]] = {
            maker.name: getattr(self, "make_" + maker.name.replace(" ", "_"))
            for maker in vars(_reductions).values()
            if type(maker) is _reductions.Maker
        }

    def named(self, name: Any) -> Any:
        """Return what a pickle refers to by a name of ours."""
        if type(name) is tuple:
            return self._globals_of(name[1])
        if name == "namespace":
            return self._namespace
        if name == "builtins":
            return self._builtins
        if name == "dataclasses":
            return self._dataclass_names()
        if name not in self._makers:
            raise Unrestorable("a later version of this program made it")
        return self._makers[name]

    def is_filler(self, function: Any) -> bool:
        """Return whether a function completes an object that others may refer to already."""
        return getattr(function, "__self__", None) is self and function.__name__.startswith("make_fill_")

    # ---- names

    def find_class(self, module: str, name: str, find: Callable[[str, str], Any]) -> Any:
        """Return what a pickle names by module and name."""
        if module == "__main__":
            if name in self._namespace:
                return self._namespace[name]
            raise Unrestorable(f"{name!r}, which it refers to, is not there")
        try:
            return self._find_strictly(module, name, find) if self._strict else find(module, name)
        except AttributeError:
            raise Unrestorable(
                f"it needs {name!r} of the module {module!r}, which has no such name here"
            ) from None

    def _find_strictly(self, module: str, name: str, find: Callable[[str, str], Any]) -> Any:
        if module == "builtins":
            if name in self._builtins:
                return self._builtins[name]
            raise Unrestorable(f"the policy does not hand out {name!r}")
        if (module, name) in _STRICT_NAMES:
            return find(module, name)
        found = self._imported_strictly(module.lstrip("_"))
        for part in name.split("."):
            found = self._builtins["getattr"](found, part)
        return found

    def _imported_strictly(self, name: str) -> Any:
        """Return a module that the policy hands out, or else the one that it is a part of and that shows its names."""
        try:
            return self._imported(name)
        except ImportError:
            if "." not in name:
                raise
            return self._imported_strictly(name.rpartition(".")[0])

    def _imported(self, name: str) -> Any:
        return self._import(name, self._namespace, None, ("__name__",), 0)

    def _globals_of(self, name: str) -> Any:
        if self._strict and name not in STRICT_MODULES:
            raise Unrestorable(f"the policy does not hand out the module {name!r}")
        real_builtins.__import__(name)
        return vars(sys.modules[name])

    def _dataclass_names(self) -> Any:
        return self._imported("dataclasses").fields.__globals__

    def make_builtin(self, name: str) -> Any:
        if name not in self._builtins:
            raise Unrestorable(f"sessions have no {name!r} any more")
        return self._builtins[name]

    def make_out_of(self, module: str, name: str) -> Any:
        found = self._imported(module) if module != "types" else types
        return getattr(found, name)

    def make_ours(self, module: str, name: str) -> Any:
        found = getattr(importlib.import_module(f"{_OUR_PACKAGE}.{module}"), name)
        if not (isinstance(found, type) and issubclass(found, BaseException)):
            raise Unrestorable("it refers to a part of an earlier session")
        return found

    def make_sentinel(self, name: str) -> Any:
        return self._dataclass_names()[name]

    # ---- functions

    def make_code(self, magic: int, fields: tuple[Any, ...]) -> Any:
        if magic != MAGIC:
            raise Unrestorable("it has code that another version of Python compiled")
        code = types.CodeType(*fields)
        guard: Any = getattr(self._builtins.get("getattr"), "__self__", None)
        if self._modules is not None and not self._strict and hasattr(guard, "_compiled"):
            guard._compiled[id(code)] = code  # so that `exec` takes it as it took the original
        return code

    def make_function(self, code: Any, names: Any, name: str, closure: Any) -> Any:
        return types.FunctionType(code, names, name, None, closure)

    def make_fill_function(self, function: Any, state: dict[str, Any]) -> None:
        function.__dict__.update(state.pop("__dict__", {}))
        for name, value in state.items():
            setattr(function, name, value)

    def make_cell(self) -> Any:
        return types.CellType()

    def make_fill_cell(self, cell: Any, content: tuple[Any]) -> None:
        cell.cell_contents = content[0]

    def make_method(self, function: Any, obj: Any) -> Any:
        return types.MethodType(function, obj)

    def make_cached(self, maxsize: Any, typed: bool, function: Any) -> Any:
        return functools.lru_cache(maxsize, typed)(function)

    # ---- classes

    def make_class(self, meta: Any, name: str, bases: tuple[Any, ...], body: dict[str, Any]) -> Any:
        abc: Any = sys.modules["abc"]
        make: Any = abc.ABCMeta if any(owner is abc.ABCMeta for owner in ancestry_of(meta)) else type
        with _quiet(bases):
            return make.__new__(meta, name, bases, dict(body))

    def make_fill_class(self, cls: Any, state: tuple[dict[str, Any], list[Any]]) -> None:
        for name, value in state[0].items():
            type.__setattr__(cls, name, value)
        for other in state[1]:
            sys.modules["abc"].ABCMeta.register(cls, other)

    def make_enum(
        self,
        meta: Any,
        name: str,
        bases: tuple[Any, ...],
        names: dict[str, Any],
        members: dict[str, Any],
        options: dict[str, Any],
    ) -> Any:
        import enum

        body: Any = enum.EnumMeta.__prepare__.__func__(meta, name, bases)  # type: ignore[attr-defined]
        wrap: Any = enum.member if sys.version_info >= (3, 11) else lambda value: value
        body.update({key: value for key, value in names.items() if value is not None})
        for member, value in members.items():
            body[member] = wrap(value)
        with _quiet(bases):
            return enum.EnumMeta.__new__(meta, name, bases, body, **options)

    def make_fill_enum(self, cls: Any, state: tuple[dict[str, Any], dict[str, Any]]) -> None:
        for name, value in state[0].items():
            type.__setattr__(cls, name, value)
        for name, facts in state[1].items():
            contents_of(cls)["_member_map_"][name].__dict__.update(facts)

    def make_member(self, cls: Any, name: str) -> Any:
        return contents_of(cls)["_member_map_"][name]

    def make_exception(self, cls: Any, args: tuple[Any, ...]) -> Any:
        made = cls.__new__(cls, *args)
        BaseException.__dict__["args"].__set__(made, args)
        return made

    # ---- modules

    def make_main(self) -> Any:
        return sys.modules["__main__"]

    def make_module(self, name: str, parts: str) -> Any:
        found = self._imported(name)
        for part in parts.split():
            if part not in sys.modules or self._modules is not None:
                try:
                    self._import(part, self._namespace)
                except Exception:
                    pass  # it came along with something else; whoever needs it will say so
        return found

    def make_new_module(self, name: str) -> Any:
        module = types.ModuleType(name)
        vars(module)["__builtins__"] = self._builtins
        return module

    # ---- the rest

    def make_lock(self) -> Any:
        return _thread.allocate_lock()

    def make_rlock(self) -> Any:
        return threading.RLock()

    def make_thread_local(self) -> Any:
        return threading.local()

    def make_stream(self, name: str) -> Any:
        return getattr(self._imported("sys"), name)

    def make_proxy(self, inner: Any) -> Any:
        return types.MappingProxyType(inner)

    def make_view_of_dict(self, part: str, inner: Any) -> Any:
        parts = {"keys": type(inner).keys, "values": type(inner).values, "items": type(inner).items}
        return parts[part](inner)

    def make_dead(self) -> Any:
        return weakref.ref(type("gone", (), {})())

    def make_weak_mapping(self, kind: str, pairs: list[Any]) -> Any:
        made: Any = weakref.WeakValueDictionary() if "Value" in kind else weakref.WeakKeyDictionary()
        for key, value in pairs:
            made[key] = value
        return made

    def make_type_variable(
        self, kind: str, name: str, constraints: tuple[Any, ...], options: dict[str, Any], module: Any
    ) -> Any:
        made: Any = getattr(typing, kind)(name, *constraints, **options)
        try:
            made.__module__ = module
        except AttributeError:
            pass
        return made

    def make_new_type(self, name: str, supertype: Any, module: Any) -> Any:
        make: Any = typing.NewType
        made = make(name, supertype)
        made.__module__ = module
        return made

    def make_array(self, base: Any, dtype: Any, shape: Any, strides: Any, start: int, writeable: bool) -> Any:
        numpy: Any = sys.modules["numpy"]
        memory = base.reshape(-1, order="A").view("u1")
        made = numpy.ndarray(shape, dtype, memory, start, strides)
        if not writeable:
            made.flags.writeable = False
        return made


@contextmanager
def _quiet(bases: tuple[Any, ...]) -> Generator[None, None, None]:
    """Keep the session's classes from taking notice of a class that is made again."""
    owners: list[Any] = [owner for base in bases for owner in ancestry_of(base)]
    hooks: list[tuple[Any, Any]] = [
        (owner, contents_of(owner)["__init_subclass__"])
        for owner in owners
        if "__init_subclass__" in contents_of(owner) and not _reductions.is_importable(owner)
    ]
    for owner, _ in hooks:
        type.__setattr__(owner, "__init_subclass__", classmethod(_take_no_notice))
    try:
        yield
    finally:
        for owner, hook in reversed(hooks):
            type.__setattr__(owner, "__init_subclass__", hook)


def _take_no_notice(cls: Any, /, **options: Any) -> None:
    pass


def versions_of(packages: Mapping[str, Any]) -> dict[str, str]:
    """Return the versions of packages as they say them, as far as they are loaded."""
    found: dict[str, str] = {}
    for name in sorted(packages):
        module = sys.modules.get(name)
        version = vars(module).get("__version__") if isinstance(module, types.ModuleType) else None
        if type(version) is str:
            found[name] = version[:50]
    return found
