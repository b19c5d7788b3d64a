"""The guards of strict mode, where the policy is all there is between a cell and the system.

To the guards of permissive mode it adds: private names only on the session's own objects, assignment only to the
session's own classes, functions and modules, no code objects, no files, and a look at each class whose pattern reads
attributes that the class itself names.
"""

from __future__ import annotations

import types
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from . import _names
from ._names import Door
from ._ownership import Ownership, ancestry_of, contents_of, is_library_class, is_session_class
from ._refusals import AttributeRefused, Refused
from ._strict_substitutes import StrictSubstitutes
from ._substitutes import Substitutes
from .guards import Guard, plain

_NO_FILES = Door("there is no file access in this sandbox", "Keep the data in variables.")
_NO_CODE = Door("this sandbox runs source text only", "Use exec() or eval() with a string.")
_PRIVATE = Door(
    "it is a private name of an object that this session did not make", "Use the object's public names."
)
_SHARED = Door(
    "the object is a library's, and other code relies on it", "Make a subclass or a function of your own."
)
_ERROR_OBJECT = Door(
    "an error can carry an object from inside a library", "str(error) tells what went wrong."
)
_FORWARD = Door("it runs source that the policy has not read", "Use typing.get_type_hints().")
_PLAIN_DICT = Door("it could change while it is read", "Give a plain dict.")
_PATTERN = Door(
    "matching would read attributes that the class can make up", "Use an isinstance() test instead."
)

_MAX_KEPT = 1_000
_OpenNames = tuple[type, set[str]]
_SHARED_KINDS = (
    *(type, types.ModuleType, types.FunctionType, types.MethodType, types.BuiltinFunctionType, super),
    *(property, staticmethod, classmethod, *weakref.ProxyTypes),
)
_JUDGED_EACH = (type, types.ModuleType, types.FunctionType, super)
_FIXED = Door("patterns and library code rely on it", "Define it in the class body.")
_FIXED_IN_CLASSES = frozenset({"__class__", "__getattr__", "__getattribute__", "__get__"})
_SLOTS: Mapping[str, Any] = vars(type)
_METACLASS_HOOKS = ("__match_args__", "__dataclass_fields__", "__getattr__", "__getattribute__", "__get__")
_ABSENT = "help license copyright credits".split()


class StrictGuard(Guard):
    """The guards of strict mode."""

    refused: Mapping[str, Door] = _names.STRICT_REFUSED_ATTRIBUTES
    guarded = _names.STRICT_GUARDED_ATTRIBUTES

    def __init__(self, mode: str, real: Mapping[str, object], check: Any) -> None:
        super().__init__(mode, {name: real[name] for name in real if name not in _ABSENT}, check)
        self.owners = Ownership(self.builtins)
        self._open_to_read: dict[int, _OpenNames] = {}
        self._open_to_store: dict[int, _OpenNames] = {}

    def make_builtins(self, real: Mapping[str, object]) -> dict[str, object]:
        """Return what takes the place of builtins."""
        return {**super().make_builtins(real), "open": self.no_files, "compile": self.no_code}

    def make_hooks(self) -> dict[str, object]:
        """Return what rewritten code calls, under names that no source can write."""
        return {
            **super().make_hooks(),
            _names.GUARD_STORE: self.store,
            _names.GUARD_TARGET: self.target,
            _names.GUARD_STAR: self.modules.star,
            _names.GUARD_MATCH: self.allow_patterns,
        }

    def make_readers(self) -> dict[str, Callable[[Any, str], Any]]:
        """Return how to read each attribute that depends on its object."""
        return {
            **super().make_readers(),
            "__getattr__": self.read_reader,
            "__setattr__": self._read_writer,
            "__delattr__": self._read_writer,
            "__dict__": self._read_dict,
            "obj": self._read_obj,
            "evaluate": self._read_evaluate,
        }

    def make_substitutes(self) -> Substitutes:
        """Return the safe forms of library functions."""
        return StrictSubstitutes(self)

    # ---- reading

    def read(self, obj: Any, name: str) -> Any:
        """Return `obj.name` for a name that the source alone could not decide about."""
        kind = type(obj)
        known = self._open_to_read.get(id(kind))
        if known is not None and known[0] is kind and name in known[1]:
            return getattr(obj, name)
        reader = self._readers.get(name)
        return self._read_private(obj, name) if reader is None else reader(obj, name)

    def _read_private(self, obj: Any, name: str) -> Any:
        if not self.owners.may_use(obj, name):
            raise AttributeRefused(name, _PRIVATE)
        _remember(self._open_to_read, type(obj), name)
        return getattr(obj, name)

    def is_guarded(self, name: str) -> bool:
        """Return whether reading a name needs a look at the object."""
        return name in self.guarded or (name[:1] == "_" and name not in _names.STRICT_PLAIN_DUNDERS)

    def allow_unseen(self, name: str) -> bool:
        """Return whether a name may be read where no guard sees the object."""
        return name not in self.refused and not self.is_guarded(name)

    def vars(self, *args: Any) -> Any:
        """As the builtin, on the session's own objects."""
        return self._read_dict(args[0], "__dict__") if len(args) == 1 else super().vars(*args)

    def _read_dict(self, obj: Any, name: str) -> Any:
        if self.modules.is_view(obj) or type(obj) is types.SimpleNamespace:
            return vars(obj)
        if not self.owners.may_use(obj, name):
            raise AttributeRefused(name, _PRIVATE)
        found = getattr(obj, name)
        if issubclass(type(obj), type):
            return types.MappingProxyType(dict(found))  # comparing the original hands out what it protects
        foreign = self.owners.foreign_names(type(obj))
        if type(found) is not dict or foreign.isdisjoint(found):
            return found
        return {key: value for key, value in found.items() if key not in foreign}

    def _read_obj(self, obj: Any, name: str) -> Any:
        if issubclass(type(obj), AttributeError):
            raise AttributeRefused(name, _ERROR_OBJECT)
        return getattr(obj, name)

    def _read_evaluate(self, obj: Any, name: str) -> Any:
        if any(_SLOTS["__name__"].__get__(owner) == "ForwardRef" for owner in ancestry_of(type(obj))):
            raise AttributeRefused(name, _FORWARD)
        return getattr(obj, name)

    # ---- storing

    def store(self, value: Any, obj: Any, name: str) -> None:
        """Do `obj.name = value`; the value comes first because Python evaluates it first."""
        kind = type(obj)
        known = self._open_to_store.get(id(kind))
        if known is None or known[0] is not kind or name not in known[1]:
            self.allow_store(obj, name)
            _remember(self._open_to_store, kind, name)
        setattr(obj, name, value)

    def target(self, obj: Any) -> Target:
        """Return an object whose items are the attributes of `obj`, for whatever assigns or deletes one."""
        return Target(self, obj)

    def allow_store(self, obj: Any, name: str) -> None:
        """Raise unless a cell may set or delete that attribute."""
        door = self.refused.get(name) or _names.STRICT_MANAGED.get(name)
        if door is None and isinstance(obj, _SHARED_KINDS):
            door = self._door_of_shared(obj, name)
        if door is None and name[:1] == "_" and not self._may_store_private(obj, name):
            door = _PRIVATE
        if door is None and _SLOTS["__module__"].__get__(type(obj)) in ("typing", "dataclasses"):
            door = _SHARED
        if door is not None:
            raise AttributeRefused(name, door)

    def _door_of_shared(self, obj: Any, name: str) -> Door | None:
        if issubclass(type(obj), type) and name in _FIXED_IN_CLASSES:
            return _FIXED
        return None if self._is_ours(obj) else _SHARED

    def _is_ours(self, obj: Any) -> bool:
        kind = type(obj)
        if issubclass(kind, type):
            return is_session_class(obj)
        if kind is types.FunctionType:
            return self.owners.is_session_function(obj)
        return issubclass(kind, types.ModuleType) and self.modules.is_view(obj)

    def _may_store_private(self, obj: Any, name: str) -> bool:
        return name in _names.STRICT_STORED_DUNDERS or self.owners.may_use(obj, name)

    def _read_writer(self, obj: Any, name: str) -> Any:
        """Return `obj.__setattr__` or `obj.__delattr__` in a form that judges what it is asked to do."""
        found = getattr(obj, name)
        count = 2 if name == "__setattr__" else 1

        def writer(*args: Any) -> Any:
            if len(args) < count:
                return found(*args)
            target = args[0] if len(args) > count else getattr(found, "__self__", obj)
            asked = plain(args[-count])
            self.allow_store(target, asked)
            return found(*args[:-count], asked, *args[len(args) - count + 1 :])

        return writer

    # ---- patterns

    def allow_patterns(self, *paths: Any) -> bool:
        """Raise unless matching these classes reads harmless attributes only. Never true: no case matches by it."""
        for path in paths:
            kind = self._class_at(*path)
            if issubclass(type(kind), type) and not self._has_harmless_pattern(kind):
                raise Refused("matching this class by position", _PATTERN)
        return False

    def _class_at(self, found: Any, *names: str) -> Any:
        """Return what a dotted name in a pattern stands for, if nothing can change between this look and the next."""
        for name in names:
            if self.modules.is_view(found):
                found = vars(found).get(name)
            elif issubclass(type(found), type) and has_plain_metaclass(found):
                found = next(
                    (contents_of(owner)[name] for owner in ancestry_of(found) if name in contents_of(owner)),
                    None,
                )
            else:
                raise Refused("matching a class by this path", _PATTERN)
        return found

    def _has_harmless_pattern(self, kind: type) -> bool:
        if not has_plain_metaclass(kind):
            return False
        found = next((owner for owner in ancestry_of(kind) if "__match_args__" in contents_of(owner)), None)
        names = () if found is None else contents_of(found)["__match_args__"]
        return type(names) is tuple and all(
            type(name) is str and self.may_match(kind, name) for name in names
        )

    def may_match(self, kind: type, name: str) -> bool:
        """Only with the metaclass `type` is what matches a class sure to be an instance of it."""
        return self.allow_unseen(name) or (
            type(kind) is type and name not in self.refused and self.owners.owns(kind, name)
        )

    # ---- what there is not

    def no_files(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: in the place of `open`."""
        raise Refused("open()", _NO_FILES)

    def no_code(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: in the place of `compile`. A code object could be changed before it is run."""
        raise Refused("compile()", _NO_CODE)

    def compile_text(
        self, source: Any, filename: str, mode: str, flags: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the code of a source that the policy lets through."""
        if type(source) not in (str, bytes):
            raise Refused(f"{mode}() of this {type(source).__name__}", _NO_CODE)
        return super().compile_text(source, filename, mode, flags)

    def give_builtins(self, globals: Any) -> None:
        """Without a name a namespace would not count as the session's; another kind could change as it is read."""
        if type(globals) is not dict or type(globals.get("__builtins__", {})) is not dict:
            raise Refused("a namespace that is not a plain dict", _PLAIN_DICT)
        super().give_builtins(globals)
        globals.setdefault("__name__", "__main__")

    def namespaces(self, frame: types.FrameType, globals: Any, locals: Any) -> tuple[Any, Any]:
        """Return where code runs that `exec` or `eval` is given."""
        if locals is not None and type(locals) is not dict:
            raise Refused("a namespace that is not a plain dict", _PLAIN_DICT)
        return super().namespaces(frame, globals, locals)


class Target:
    """The attributes of an object as items: where an attribute is assigned, changed in place or deleted."""

    def __init__(self, guard: StrictGuard, obj: Any) -> None:
        self._guard = guard
        self._object = obj

    def __getitem__(self, name: str) -> Any:
        return self._guard.getattr(self._object, name)

    def __setitem__(self, name: str, value: Any) -> None:
        self._guard.setattr(self._object, name, value)

    def __delitem__(self, name: str) -> None:
        self._guard.delattr(self._object, name)


def _remember(names: dict[int, _OpenNames], kind: type, name: str) -> None:
    """Note that a name is open on all objects of a class, so that the next look costs little."""
    if issubclass(kind, _JUDGED_EACH):
        return
    if len(names) >= _MAX_KEPT:
        names.clear()
    names.setdefault(id(kind), (kind, set()))[1].add(name)


def has_plain_metaclass(kind: type) -> bool:
    """Return whether what a class says of itself is what it holds: no metaclass of the session answers for it."""
    return all(
        is_library_class(owner) or not any(hook in contents_of(owner) for hook in _METACLASS_HOOKS)
        for owner in ancestry_of(type(kind))
    )
