"""What a cell calls at run time instead of the few builtins that would lead out of it.

A guard answers as the builtin does wherever it answers at all, errors included. Guards are bound methods of one
object per session and mode, so that a snapshot names them and never holds them.
"""

from __future__ import annotations
import __future__

import ast
import copy
import inspect
import os
import sys
import types
import weakref
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from . import _names, _templates
from ._files import Files
from ._names import Door
from ._refusals import AttributeRefused, Refused
from ._substitutes import Substitutes
from ._views import Modules

Check = Callable[[Any, str, str, str], Any]

_NONE: Any = object()
_FUTURES = sum(getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
_CODE_FACTS = (
    "co_argcount co_posonlyargcount co_kwonlyargcount co_nlocals co_varnames co_names co_freevars co_cellvars "
    "co_name co_qualname co_filename co_firstlineno co_flags co_stacksize"
).split()
_INTERNAL_TYPES = (
    *(types.FunctionType, types.MethodType, types.CodeType, types.FrameType, types.TracebackType),
    *(types.GeneratorType, types.CoroutineType, types.AsyncGeneratorType, types.BuiltinFunctionType),
)
_FOREIGN_CODE = Door("it was not compiled here", "Compile the source in this session.")
_INTERNALS = Door("it opens the insides of the interpreter", "Use dir() to see the names.")
_NO_DEBUGGER = Door("there is nobody at a keyboard", "Print what you want to know.")
_OUR_PACKAGE = __name__.rpartition(".")[0] + "."

_current: dict[str, Guard] = {}


def current(mode: str) -> Guard:
    """Return the guard of this process's session: what a snapshot of a guard is read back as."""
    return _current[mode]


class Guard:
    """The guards of permissive mode."""

    refused: Mapping[str, Door] = _names.REFUSED_ATTRIBUTES
    guarded = _names.GUARDED_ATTRIBUTES

    def __init__(self, mode: str, real: Mapping[str, object], check: Check) -> None:
        self._mode = mode
        self._check = check
        self._compiled: weakref.WeakValueDictionary[int, types.CodeType] = weakref.WeakValueDictionary()
        self.files = Files()
        self.modules = Modules(self, strict=mode == "strict")
        self._readers = self.make_readers()
        self._formats = {"format": self.format, "format_map": self.format_map}
        self._formatter = _templates.guarded_formatter(self.getattr)()
        self.hooks = self.make_hooks()
        self.builtins: dict[str, object] = {**real, **self.make_builtins(real), **self.hooks}
        self.substitutes = self.make_substitutes()
        _current[mode] = self

    def __reduce__(self) -> tuple[Callable[[str], Guard], tuple[str]]:
        return current, (self._mode,)

    def make_builtins(self, real: Mapping[str, object]) -> dict[str, object]:
        """Return what takes the place of builtins."""
        names = "getattr setattr delattr hasattr vars globals locals dir eval exec compile breakpoint".split()
        own: dict[str, object] = {name: getattr(self, name) for name in names}
        return {**own, "open": self.files.open, "__import__": self.modules.statement}

    def make_hooks(self) -> dict[str, object]:
        """Return what rewritten code calls, under names that no source can write."""
        return {_names.GUARD_READ: self.read, _names.GUARD_IMPORT: self.modules.by_function}

    def make_readers(self) -> dict[str, Callable[[Any, str], Any]]:
        """Return how to read each attribute that depends on its object."""
        return {
            "format": self._read_format,
            "format_map": self._read_format,
            "__self__": self._read_self,
            "__getattribute__": self.read_reader,
            "__code__": self._read_code,
            "__closure__": self._read_closure,
        }

    def make_substitutes(self) -> Substitutes:
        """Return the safe forms of library functions."""
        return Substitutes(self)

    # ---- attributes

    def read(self, obj: Any, name: str) -> Any:
        """Return `obj.name` for a name that the source alone could not decide about."""
        reader = self._readers.get(name)
        return getattr(obj, name) if reader is None else reader(obj, name)

    def getattr(self, *args: Any) -> Any:
        """As the builtin."""
        if not 2 <= len(args) <= 3:
            return getattr(*args)  # raises the plain error
        obj, name, *default = args
        name = plain(name)
        try:
            return self._get(obj, name)
        except AttributeError:
            if not default:
                raise
            return default[0]

    def _get(self, obj: Any, name: str) -> Any:
        if name in self.refused:
            raise AttributeRefused(name, self.refused[name])
        return self.read(obj, name) if self.is_guarded(name) else getattr(obj, name)

    def is_guarded(self, name: str) -> bool:
        """Return whether reading a name needs a look at the object."""
        return name in self.guarded

    def hasattr(self, *args: Any) -> bool:
        """As the builtin."""
        if len(args) != 2:
            return hasattr(*args)  # raises the plain error
        return self.getattr(*args, _NONE) is not _NONE

    def setattr(self, *args: Any) -> None:
        """As the builtin."""
        if len(args) != 3:
            return setattr(*args)  # raises the plain error
        obj, name, value = args
        name = plain(name)
        self.allow_store(obj, name)
        return setattr(obj, name, value)

    def delattr(self, *args: Any) -> None:
        """As the builtin."""
        if len(args) != 2:
            return delattr(*args)  # raises the plain error
        obj, name = args
        name = plain(name)
        self.allow_store(obj, name)
        return delattr(obj, name)

    def allow_store(self, obj: Any, name: str) -> None:
        """Raise unless a cell may set or delete that attribute."""
        if name in self.refused:
            raise AttributeRefused(name, self.refused[name])

    # ---- names of the code that asks

    def _frame(self) -> types.FrameType:
        """Return the innermost frame of a cell's code: a library that was given `globals` to call gets no other."""
        frame: types.FrameType | None = sys._getframe(1)
        while frame is not None and _names.GUARD_READ not in frame.f_builtins:
            frame = frame.f_back
        if frame is None:
            raise Refused("names of other code", _INTERNALS)
        found: types.FrameType = frame
        return found

    def globals(self) -> dict[str, Any]:
        """As the builtin."""
        return self._frame().f_globals

    def locals(self) -> Any:
        """As the builtin."""
        frame = self._frame()
        is_function = frame.f_code.co_flags & inspect.CO_OPTIMIZED
        return dict(frame.f_locals) if is_function and sys.version_info >= (3, 13) else frame.f_locals

    def dir(self, *args: Any) -> list[str]:
        """As the builtin."""
        return dir(*args) if args else sorted(self.locals())

    def vars(self, *args: Any) -> Any:
        """As the builtin, but not on the types that make up the interpreter."""
        if len(args) > 1:
            raise TypeError(f"vars expected at most 1 argument, got {len(args)}")
        if not args:
            return self.locals()
        if any(args[0] is kind for kind in _INTERNAL_TYPES):
            raise Refused(f"vars({args[0].__name__})", _INTERNALS)
        return vars(args[0])

    def breakpoint(self, *args: Any, **kwargs: Any) -> None:
        """Refuse: a debugger would wait for ever."""
        raise Refused("breakpoint()", _NO_DEBUGGER)

    # ---- attributes that depend on the object

    def _read_format(self, obj: Any, name: str) -> Any:
        if type(obj) is str and "." not in obj:
            return getattr(obj, name)
        found = getattr(obj, name)
        if isinstance(found, types.BuiltinMethodType) and isinstance(found.__self__, str):
            template = found.__self__
            return found if self._is_harmless(template) else partial(self._formats[name], template)
        if found is str.format or found is str.format_map:
            return self._formats[name]
        return found

    def format(self, template: str, /, *args: Any, **kwargs: Any) -> str:
        """As `str.format`."""
        if self._is_harmless(template):
            return str.format(template, *args, **kwargs)
        return str(self._formatter.vformat(str.__str__(template), args, kwargs))

    def format_map(self, template: str, mapping: Any, /) -> str:
        """As `str.format_map`."""
        if self._is_harmless(template):
            return str.format_map(template, mapping)
        return str(self._formatter.vformat(str.__str__(template), (), mapping))

    def _is_harmless(self, template: Any) -> bool:
        """Return whether formatting may read the template's attributes unseen; what is no template raises later."""
        return not isinstance(template, str) or all(
            self.allow_unseen(name) for name in _templates.attributes_of(str.__str__(template))
        )

    def allow_unseen(self, name: str) -> bool:
        """Return whether a name may be read where no guard sees the object."""
        return name not in self.refused and name not in _names.UNSEEN_NAMES

    def _read_self(self, obj: Any, name: str) -> Any:
        found = getattr(obj, name)
        module = vars(type)["__module__"].__get__(type(found))
        if isinstance(found, types.ModuleType) or str(module).startswith(_OUR_PACKAGE):
            raise AttributeRefused(name, _INTERNALS)
        return found

    def read_reader(self, obj: Any, name: str) -> Any:
        """Return `obj.__getattribute__`, or its kin, in a form that judges the name that it is asked for."""
        found = getattr(obj, name)

        def reader(*args: Any) -> Any:
            if not args:
                return found()
            target = args[0] if len(args) > 1 else getattr(found, "__self__", None)
            asked = plain(list(args)[-1])
            if asked in self.refused or self.is_guarded(asked):
                return self.getattr(target, asked)
            return found(*args[:-1], asked)

        return reader

    def _read_code(self, obj: Any, name: str) -> Any:
        """Return what a code object says of itself, without the code object."""
        found = getattr(obj, name)
        if not isinstance(found, types.CodeType):
            return found
        facts = {fact: getattr(found, fact) for fact in _CODE_FACTS if hasattr(found, fact)}
        constants = tuple(value for value in found.co_consts if not isinstance(value, types.CodeType))
        return types.SimpleNamespace(**facts, co_consts=constants)

    def _read_closure(self, obj: Any, name: str) -> Any:
        found = getattr(obj, name)
        if isinstance(obj, types.FunctionType) and obj.__globals__.get("__builtins__") is not self.builtins:
            raise AttributeRefused(name, _INTERNALS)
        return found

    # ---- source text

    def compile(
        self,
        source: Any,
        filename: Any,
        mode: str,
        flags: int = 0,
        dont_inherit: bool = False,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """As the builtin, for code that the policy lets through."""
        if not dont_inherit:
            flags |= self._frame().f_code.co_flags & _FUTURES
        if flags & ast.PyCF_ONLY_AST:
            return compile(source, filename, mode, flags, True, *args, **kwargs)
        return self.compile_text(source, os.fsdecode(filename), mode, flags, *args, **kwargs)

    def compile_text(
        self, source: Any, filename: str, mode: str, flags: int, *args: Any, **kwargs: Any
    ) -> Any:
        """Return the code of a source that the policy lets through."""
        if isinstance(source, ast.AST):
            tree = copy.deepcopy(source)
        else:
            tree = compile(source, filename, mode, flags | ast.PyCF_ONLY_AST, True)
        text = source if isinstance(source, str) else ""
        tree = self._check(tree, text, filename, self._mode)
        code = compile(tree, filename, mode, flags, True, *args, **kwargs)
        self._compiled[id(code)] = code
        return code

    def exec(self, source: Any, globals: Any = None, locals: Any = None, /, **kwargs: Any) -> None:
        """As the builtin, for code that the policy lets through."""
        frame = self._frame()
        code = self._code(source, "exec", frame)
        exec(code, *self.namespaces(frame, globals, locals), **kwargs)

    def eval(self, source: Any, globals: Any = None, locals: Any = None, /) -> Any:
        """As the builtin, for code that the policy lets through."""
        frame = self._frame()
        code = self._code(source.lstrip(" \t") if type(source) is str else source, "eval", frame)
        return eval(code, *self.namespaces(frame, globals, locals))

    def _code(self, source: Any, mode: str, frame: types.FrameType) -> Any:
        if isinstance(source, (str, bytes, bytearray, memoryview)):
            return self.compile_text(source, "<string>", mode, frame.f_code.co_flags & _FUTURES)
        if not isinstance(source, types.CodeType):
            raise TypeError(f"{mode}() arg 1 must be a string, bytes or code object")
        if self._compiled.get(id(source)) is not source:
            raise Refused(f"{mode}() of this code object", _FOREIGN_CODE)
        return source

    def namespaces(self, frame: types.FrameType, globals: Any, locals: Any) -> tuple[Any, Any]:
        """Return where code runs that `exec` or `eval` is given."""
        if globals is None:
            self.give_builtins(frame.f_globals)
            return frame.f_globals, frame.f_locals if locals is None else locals
        if isinstance(globals, dict):
            self.give_builtins(globals)
        return globals, globals if locals is None else locals

    def give_builtins(self, globals: Any) -> None:
        """Without builtins of its own a namespace would get the real ones; with its own it still needs the guards."""
        given = dict.get(globals, "__builtins__", self.builtins)
        if isinstance(given, types.ModuleType):
            given = vars(given)
        if isinstance(given, dict) and not self.hooks.keys() <= given.keys():
            given = {**given, **self.hooks}
        dict.__setitem__(globals, "__builtins__", given)


def plain(name: Any) -> str:
    """Return the text of a name: a subclass of str could answer differently each time it is asked."""
    if type(name) is str:
        return name
    if not isinstance(name, str):
        getattr(None, name)  # raises the plain error
    return str.__str__(name)
