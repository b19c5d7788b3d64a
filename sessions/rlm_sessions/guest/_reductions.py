"""How objects of each kind are taken apart for a pickle; `_rebuilding` has the other half, under the same names.

What leads back to itself (a function to its closure, a class to its methods) is made empty first and filled after.
Reading what an object is made of runs no code of its class.
"""

from __future__ import annotations

import _thread
import functools
import gc
import importlib.util
import random
import sys
import threading
import types
import weakref
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Callable

from ._ownership import ancestry_of, contents_of
from ._unkeepable import Unkeepable, module_of

_MISSING: Any = object()
_TYPE: Mapping[str, Any] = vars(type)
_HEAP_TYPE = 1 << 9
_OUR_PACKAGE = __name__.rpartition(".")[0] + "."
_MAX_PARTS = 500

_STREAMS = ("stdout", "stderr", "stdin")
SENTINELS = ("_FIELD", "_FIELD_CLASSVAR", "_FIELD_INITVAR", "MISSING", "KW_ONLY", "_HAS_DEFAULT_FACTORY")
MAGIC = int.from_bytes(importlib.util.MAGIC_NUMBER[:2], "little")

_code_fields = (
    "argcount posonlyargcount kwonlyargcount nlocals stacksize flags code consts names varnames filename name"
)
if sys.version_info >= (3, 11):
    _code_fields += " qualname firstlineno linetable exceptiontable freevars cellvars"
elif sys.version_info >= (3, 10):
    _code_fields += " firstlineno linetable freevars cellvars"
else:
    _code_fields += " firstlineno lnotab freevars cellvars"
_CODE_FIELDS = tuple("co_" + name for name in _code_fields.split())


class Maker:
    """Stands in a pickle for what puts an object together, which the reader knows by this name."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> Any:
        """Be something that can be called, as a pickler asks for."""
        raise TypeError(self.name)


ARRAY = Maker("array")
BUILTIN = Maker("builtin")
CACHED = Maker("cached")
CELL = Maker("cell")
CLASS = Maker("class")
CODE = Maker("code")
DEAD = Maker("dead")
ENUM = Maker("enum")
EXCEPTION = Maker("exception")
FILL_CELL = Maker("fill cell")
FILL_CLASS = Maker("fill class")
FILL_ENUM = Maker("fill enum")
FILL_FUNCTION = Maker("fill function")
FUNCTION = Maker("function")
LOCK = Maker("lock")
MAIN = Maker("main")
MEMBER = Maker("member")
METHOD = Maker("method")
MODULE = Maker("module")
NEW_MODULE = Maker("new module")
NEW_TYPE = Maker("new type")
OURS = Maker("ours")
OUT_OF = Maker("out of")
PROXY = Maker("proxy")
RLOCK = Maker("rlock")
SENTINEL = Maker("sentinel")
STREAM = Maker("stream")
THREAD_LOCAL = Maker("thread local")
TYPE_VARIABLE = Maker("type variable")
VIEW_OF_DICT = Maker("view of dict")
WEAK_MAPPING = Maker("weak mapping")


# ---- names


def is_importable(obj: Any) -> bool:
    """Return whether a class or function is what a loaded module, other than the session's, has under its name."""
    if isinstance(obj, type) and not _TYPE["__flags__"].__get__(obj) & _HEAP_TYPE:
        return True
    if type(obj) is types.FunctionType:
        module, name = obj.__module__, obj.__qualname__
    else:
        module, name = module_of(obj), _TYPE["__qualname__"].__get__(obj)
    return type(module) is str and module != "__main__" and find(module, name) is obj


def find(module: str, name: str) -> Any:
    """Return what a loaded module has under a dotted name, or a value that nobody else has."""
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        if isinstance(found, types.ModuleType):
            found = types.ModuleType.__getattribute__(found, "__dict__").get(part, _MISSING)
        elif isinstance(found, type):
            found = contents_of(found).get(part, _MISSING)
        else:
            return _MISSING
    return found


def reduce_ours(obj: Any, facts: Any) -> Any:
    """Name what the session gets from us."""
    named = _named(obj, facts) or reduce_stream(obj)
    if named is None:
        raise Unkeepable("a part of the session itself", obj)
    return named


def reduce_stream(obj: Any) -> Any:
    """Name one of the standard streams; None for anything else."""
    return next(((STREAM, (name,)) for name in _STREAMS if vars(sys).get(name) is obj), None)


def _named(obj: Any, facts: Any) -> Any:
    builtin = facts.builtin_name(obj)
    if builtin is not None:
        return BUILTIN, (builtin,)
    substitute = facts.substitute_name(obj)
    return None if substitute is None else (OUT_OF, substitute)


def reduce_sentinel(obj: Any, facts: Any) -> Any:
    """Name what `dataclasses` knows by its identity."""
    name = facts.sentinel_name(obj)
    return NotImplemented if name is None else (SENTINEL, (name,))


# ---- functions


def reduce_function(function: types.FunctionType, facts: Any) -> Any:
    """Take apart a function that no library has."""
    named = _named(function, facts)
    if named is not None:
        return named
    if str(function.__module__).startswith(_OUR_PACKAGE):
        raise Unkeepable("a part of the session itself", function)
    if is_importable(function):
        facts.saw(function.__module__)
        return NotImplemented
    made_of = (function.__code__, function.__globals__, function.__name__, function.__closure__)
    return FUNCTION, made_of, _state_of_function(function), None, None, FILL_FUNCTION


def _state_of_function(function: Any) -> dict[str, Any]:
    state: dict[str, Any] = {
        "__qualname__": function.__qualname__,
        "__module__": function.__module__,
        "__doc__": function.__doc__,
        "__defaults__": function.__defaults__,
        "__kwdefaults__": function.__kwdefaults__,
    }
    if sys.version_info >= (3, 14):
        state["__annotate__"] = function.__annotate__
    else:
        state["__annotations__"] = function.__annotations__
    if sys.version_info >= (3, 12):
        state["__type_params__"] = function.__type_params__
    state = {name: value for name, value in state.items() if value}
    state["__module__"] = function.__module__
    if function.__dict__:
        state["__dict__"] = dict(function.__dict__)
    return state


def reduce_code(code: types.CodeType, facts: Any) -> Any:
    """Take apart a code object, which only the same Python can read."""
    return CODE, (MAGIC, tuple([getattr(code, field) for field in _CODE_FIELDS]))


def reduce_cell(cell: types.CellType, facts: Any) -> Any:
    """Take apart a variable that functions share."""
    try:
        content = cell.cell_contents
    except ValueError:
        return CELL, ()
    return CELL, (), (content,), None, None, FILL_CELL


def reduce_method(method: types.MethodType, facts: Any) -> Any:
    """Take apart a method of an object."""
    named = _named(method, facts)
    if named is not None:
        return named
    owner = module_of(type(method.__self__))
    if type(owner) is str and owner.startswith(_OUR_PACKAGE):
        raise Unkeepable("a part of the session itself", method)
    name = getattr(method.__func__, "__name__", "")
    if type(owner) is str and owner != "__main__" and type(find(owner, name)) is types.MethodType:
        shared = find(owner, name)
        if shared.__self__ is method.__self__ and shared.__func__ is method.__func__:
            return OUT_OF, (owner, name)
    return METHOD, (method.__func__, method.__self__)


def reduce_builtin(function: types.BuiltinFunctionType, facts: Any) -> Any:
    """Name a function written in C that a module shares; leave the others to themselves."""
    named = _named(function, facts)
    if named is not None:
        return named
    if isinstance(function.__self__, random.Random) and find("random", function.__name__) == function:
        return OUT_OF, ("random", function.__name__)
    return NotImplemented


def reduce_wrapper(obj: Any, facts: Any) -> Any:
    """Take apart a class method, a static method."""
    return type(obj), (obj.__func__,)


def reduce_property(obj: property, facts: Any) -> Any:
    """Take apart a property."""
    return property, (obj.fget, obj.fset, obj.fdel, obj.__doc__)


def reduce_cached(obj: Any, facts: Any) -> Any:
    """Take apart what `lru_cache` makes; what it remembers is not kept."""
    if obj.__module__ != "__main__" and find(str(obj.__module__), str(obj.__qualname__)) is obj:
        return NotImplemented
    options = obj.cache_parameters()
    return CACHED, (options["maxsize"], options["typed"], obj.__wrapped__)


# ---- classes


def reduce_class(cls: Any, facts: Any) -> Any:
    """Take apart a class that no library has."""
    if cls is type(None) or cls is type(...) or cls is type(NotImplemented):
        return NotImplemented
    named = _named(cls, facts)
    if named is not None:
        return named
    module = module_of(cls)
    if is_importable(cls):
        return _reduce_known_class(cls, module, facts)
    if type(module) is str and module.startswith(_OUR_PACKAGE):
        raise Unkeepable("a part of the session itself", cls)
    if is_enum(cls):
        return ENUM, _makings_of_enum(cls), _state_of_enum(cls), None, None, FILL_ENUM
    return CLASS, _makings_of_class(cls), _state_of_class(cls), None, None, FILL_CLASS


def _reduce_known_class(cls: Any, module: Any, facts: Any) -> Any:
    if cls in _TYPES_BY_NAME if type(cls) is type else False:
        return OUT_OF, ("types", _TYPES_BY_NAME[cls])
    if type(module) is str and module.startswith(_OUR_PACKAGE):
        return OURS, (module[len(_OUR_PACKAGE) :], _TYPE["__qualname__"].__get__(cls))
    facts.saw(module)
    return NotImplemented


_MADE_WITH = ("__module__", "__qualname__", "__doc__", "__slots__", "__orig_bases__", "__firstlineno__")
_NOT_STATE = {
    *(*_MADE_WITH, "__dict__", "__weakref__", "__slotnames__", "_abc_impl", "__static_attributes__"),
    *("__annotate__", "__annotate_func__", "__annotations_cache__"),
}


def _makings_of_class(cls: type) -> tuple[Any, ...]:
    contents = contents_of(cls)
    body = {name: contents[name] for name in _MADE_WITH if name in contents}
    body["__qualname__"] = _TYPE["__qualname__"].__get__(cls)
    return type(cls), _TYPE["__name__"].__get__(cls), _TYPE["__bases__"].__get__(cls), body


def _state_of_class(cls: type) -> tuple[dict[str, Any], list[Any]]:
    contents = contents_of(cls)
    members = (types.MemberDescriptorType, types.GetSetDescriptorType)
    state = {
        name: value
        for name, value in contents.items()
        if name not in _NOT_STATE and not (type(value) in members and value.__objclass__ is cls)
    }
    if sys.version_info >= (3, 14) and ("__annotate_func__" in contents or "__annotate__" in contents):
        import annotationlib

        state["__annotations__"] = annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
    return state, _registered(cls)


def _registered(cls: Any) -> list[Any]:
    abc = sys.modules.get("abc")
    if abc is None or not any(owner is abc.ABCMeta for owner in ancestry_of(type(cls))):
        return []
    found = [reference() for reference in abc._get_dump(cls)[0]]
    return [other for other in found if other is not None]


def is_enum(cls: type) -> bool:
    """Return whether a class is an enumeration."""
    enum = sys.modules.get("enum")
    return enum is not None and any(owner is enum.Enum for owner in ancestry_of(cls))


_ENUM_INSIDES = frozenset(
    "_generate_next_value_ _member_names_ _member_map_ _member_type_ _value2member_map_ _unhashable_values_ "
    "_hashable_values_ _unhashable_values_map_ _use_args_ _value_repr_ _boundary_ _flag_mask_ _singles_mask_ "
    "_all_bits_ _inverted_ __annotations__".split()
)


def _makings_of_enum(cls: Any) -> tuple[Any, ...]:
    members = contents_of(cls)["_member_map_"]
    values = {name: member.__dict__["_value_"] for name, member in members.items()}
    options = {"boundary": contents_of(cls)["_boundary_"]} if "_boundary_" in contents_of(cls) else {}
    names = {name: contents_of(cls).get(name) for name in ("__module__", "__qualname__", "__doc__")}
    names["__qualname__"] = _TYPE["__qualname__"].__get__(cls)
    bases = _TYPE["__bases__"].__get__(cls)
    return type(cls), _TYPE["__name__"].__get__(cls), bases, names, values, options


def _state_of_enum(cls: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    members = contents_of(cls)["_member_map_"]
    skipped = _ENUM_INSIDES.union(members, _NOT_STATE)
    state = {name: value for name, value in contents_of(cls).items() if name not in skipped}
    own = {name: {**member.__dict__} for name, member in members.items()}
    for facts in own.values():
        facts.pop("__objclass__", None)
    return state, own


def reduce_member(member: Any) -> Any:
    """Name a member of an enumeration of the session's own."""
    cls = type(member)
    name = member.__dict__.get("_name_")
    if name is not None and contents_of(cls)["_member_map_"].get(name) is member:
        return MEMBER, (cls, name)
    return cls, (member.__dict__["_value_"],)


# ---- exceptions


def has_plain_exception_state(cls: type) -> bool:
    """Return whether arguments and attributes are all that an exception of the session's own class holds."""
    if any("__reduce__" in contents_of(owner) for owner in ancestry_of(cls) if owner is not BaseException):
        owners = [owner for owner in ancestry_of(cls) if "__reduce__" in contents_of(owner)]
        if owners[0] is not BaseException:
            return False
    library = next(owner for owner in ancestry_of(cls) if is_importable(owner))
    return library in _PLAIN_EXCEPTIONS


_PLAIN_EXCEPTIONS: tuple[Any, ...] = (
    *(BaseException, Exception, ValueError, TypeError, RuntimeError, LookupError, KeyError, IndexError),
    *(ArithmeticError, ZeroDivisionError, OverflowError, AssertionError, NotImplementedError, Warning),
    *(UserWarning, RecursionError, KeyboardInterrupt, BufferError, MemoryError, EOFError),
)


def reduce_exception(problem: BaseException) -> Any:
    """Take apart an exception without calling its `__init__` again, which may want other arguments."""
    made_of = (type(problem), BaseException.args.__get__(problem))  # type: ignore[attr-defined]
    return (EXCEPTION, made_of, problem.__dict__) if problem.__dict__ else (EXCEPTION, made_of)


# ---- modules


def reduce_module(module: Any, facts: Any) -> Any:
    """Name a module; take one apart that the session made."""
    contents = types.ModuleType.__getattribute__(module, "__dict__")
    name = contents.get("__name__")
    if contents is facts.namespace:
        return MAIN, ()
    if facts.modules is not None and facts.modules.is_view(module):
        return MODULE, (name, " ".join(_parts_of_view(name, contents, facts.modules)))
    if type(name) is str and sys.modules.get(name) is module:
        if name.startswith(_OUR_PACKAGE):
            raise Unkeepable("a part of the session itself", module)
        facts.saw(name)
        return MODULE, (name, _loaded_parts(name, contents))
    if type(module) is not types.ModuleType:
        raise Unkeepable("a module that is not loaded", module)
    state = {
        key: value for key, value in contents.items() if key not in ("__builtins__", "__loader__", "__spec__")
    }
    return NEW_MODULE, (str(name),), state


_parts_known: dict[str, tuple[int, str]] = {}


def _loaded_parts(name: str, contents: Mapping[str, Any]) -> str:
    """Return the public modules in a package that are loaded: who uses them may not have imported them by name."""
    if "__path__" not in contents:
        return ""
    known = _parts_known.get(name)
    if known is None or known[0] != len(sys.modules):
        prefix = name + "."
        loaded = [part for part in list(sys.modules) if part.startswith(prefix) and "._" not in part]
        known = len(sys.modules), " ".join(loaded) if len(loaded) <= _MAX_PARTS else ""
        _parts_known[name] = known
    return known[1]


def _parts_of_view(name: str, contents: Mapping[str, Any], modules: Any) -> list[str]:
    found: list[str] = []
    for key, value in list(contents.items()):
        if isinstance(value, types.ModuleType) and modules.is_view(value) and len(found) < _MAX_PARTS:
            inner = types.ModuleType.__getattribute__(value, "__name__")
            if inner == f"{name}.{key}":
                found += [inner, *_parts_of_view(inner, vars(value), modules)]
    return found


# ---- the rest of the standard library


def reduce_lock(lock: Any, facts: Any) -> Any:
    """Name a lock that nobody holds."""
    if lock.locked():
        raise Unkeepable("a lock that is held", lock)
    return LOCK, ()


def reduce_rlock(lock: Any, facts: Any) -> Any:
    """Name a lock that nobody holds."""
    if lock._is_owned() or not lock.acquire(blocking=False):
        raise Unkeepable("a lock that is held", lock)
    lock.release()
    return RLOCK, ()


def reduce_thread_local(local: Any, facts: Any) -> Any:
    """Keep what the main thread has in it."""
    return THREAD_LOCAL, (), dict(local.__dict__)


def reduce_proxy(proxy: Any, facts: Any) -> Any:
    """Keep a read-only view with the mapping that it shows."""
    inner = gc.get_referents(proxy)[0]
    owner = inner.get("__module__") if type(inner) is dict else None
    return PROXY, (inner if type(inner) is not dict or owner is None else dict(inner),)


def reduce_view_of_dict(view: Any, facts: Any) -> Any:
    """Keep the keys, values or items of a dict with the dict."""
    return VIEW_OF_DICT, (type(view).__name__.rpartition("_")[2], gc.get_referents(view)[0])


def reduce_weak(reference: Any, facts: Any) -> Any:
    """Keep a weak reference and, while the snapshot is written and read, its target."""
    target = reference()
    if target is None:
        return DEAD, ()
    back = reference.__callback__
    return (weakref.ref, (target,)) if back is None else (weakref.ref, (target, back))


def reduce_weak_set(found: Any, facts: Any) -> Any:
    """Keep the members, while the snapshot is written and read."""
    return weakref.WeakSet, (list(found),)


def reduce_weak_mapping(found: Any, facts: Any) -> Any:
    """Keep the pairs, while the snapshot is written and read."""
    return WEAK_MAPPING, (type(found).__name__, list(found.items()))


def reduce_getset(descriptor: Any, facts: Any) -> Any:
    """Name an attribute of a class written in C."""
    return getattr, (descriptor.__objclass__, descriptor.__name__)


def reduce_type_variable(variable: Any, facts: Any) -> Any:
    """Take apart a type variable that no library has."""
    kind, name, module = type(variable).__name__, variable.__name__, getattr(variable, "__module__", None)
    if type(module) is str and module != "__main__" and find(module, name) is variable:
        return NotImplemented
    options = (
        {"bound": variable.__bound__} if kind != "TypeVarTuple" and variable.__bound__ is not None else {}
    )
    for flag in ("covariant", "contravariant"):
        if getattr(variable, f"__{flag}__", False):
            options[flag] = True
    return TYPE_VARIABLE, (kind, name, getattr(variable, "__constraints__", ()), options, module)


def reduce_new_type(new: Any, facts: Any) -> Any:
    """Take apart what `typing.NewType` makes."""
    if new.__module__ != "__main__" and find(str(new.__module__), str(new.__qualname__)) is new:
        return NotImplemented
    return NEW_TYPE, (new.__name__, new.__supertype__, new.__module__)


# ---- arrays


def reduce_array(array: Any, is_kept: Callable[[Any], bool]) -> Any:
    """Keep an array that shows another one's memory together with that one, so that they go on sharing it."""
    base = array.base
    if type(base) is not type(array) or array.dtype.hasobject or array.size == 0 or base.dtype.hasobject:
        return NotImplemented
    if not (base.flags.c_contiguous or base.flags.f_contiguous):
        return NotImplemented
    if not is_kept(base) and base.nbytes > 4 * array.nbytes:
        return NotImplemented
    start = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return ARRAY, (base, array.dtype, array.shape, array.strides, start, bool(array.flags.writeable))


_Reducer = Callable[[Any, Any], Any]


def _by_kind() -> dict[type, _Reducer]:
    empty: dict[Any, Any] = {}
    ordered: OrderedDict[Any, Any] = OrderedDict()
    views = [type(part) for kept in (empty, ordered) for part in (kept.keys(), kept.values(), kept.items())]
    found: dict[Any, _Reducer] = {
        types.FunctionType: reduce_function,
        types.BuiltinFunctionType: reduce_builtin,
        types.MethodType: reduce_method,
        types.CodeType: reduce_code,
        types.CellType: reduce_cell,
        types.ModuleType: reduce_module,
        types.MappingProxyType: reduce_proxy,
        types.GetSetDescriptorType: reduce_getset,
        classmethod: reduce_wrapper,
        staticmethod: reduce_wrapper,
        property: reduce_property,
        type(functools.lru_cache(_by_kind)): reduce_cached,
        _thread.LockType: reduce_lock,
        type(threading.RLock()): reduce_rlock,
        threading.local: reduce_thread_local,
        weakref.ref: reduce_weak,
        weakref.WeakSet: reduce_weak_set,
        weakref.WeakValueDictionary: reduce_weak_mapping,
        weakref.WeakKeyDictionary: reduce_weak_mapping,
        **dict.fromkeys(views, reduce_view_of_dict),
    }
    typing: Any = sys.modules["typing"]
    for name in ("TypeVar", "ParamSpec", "TypeVarTuple"):
        if hasattr(typing, name):
            found[getattr(typing, name)] = reduce_type_variable
    if isinstance(typing.NewType, type):
        found[typing.NewType] = reduce_new_type
    return found


BY_KIND = _by_kind()
_TYPES_BY_NAME: dict[Any, str] = {
    kind: name
    for name, kind in vars(types).items()
    if type(kind) is type and find(kind.__module__, kind.__qualname__) is not kind
}
