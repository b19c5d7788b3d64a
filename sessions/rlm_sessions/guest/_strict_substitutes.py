"""Safe forms for strict mode of library functions that set attributes, copy objects or build source text."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
import types
from collections.abc import Callable, Generator, Mapping
from typing import Any

from ._module_rules import STRICT_MODULES
from ._names import Door
from ._ownership import ancestry_of, contents_of, is_session_class
from ._refusals import Refused
from ._streams import Errors
from ._substitutes import Substitutes
from ._templates import copy_of_class

_NOT_YOURS = Door("it would change a library's class", "Use it on a class of your own.")
_NO_FILES = Door("there is no file access in this sandbox", "Use level=, format= and stream=.")
_LOG_OPTIONS = frozenset({"level", "format", "datefmt", "force"})
_LOG_FUNCTIONS = "debug info warning error exception critical log".split()
_LOG_STYLE = Door("only the % style is read by the policy", 'Use style="%".')


class StrictSubstitutes(Substitutes):
    """The safe forms for strict mode."""

    def make_factories(self) -> dict[str, Callable[[], Mapping[str, object]]]:
        """Return, for each module that has any, how to make its safe forms."""
        return {
            **super().make_factories(),
            "contextlib": self._contextlib,
            "copy": self._copy,
            "dataclasses": self._dataclasses,
            "functools": self._functools,
            "io": dict,
            "logging": self._logging,
            "os": dict,
            "sys": dict,
            "traceback": self._traceback,
            "typing": lambda: {"get_type_hints": self.get_type_hints},
        }

    # ---- functions that set attributes

    def _contextlib(self) -> Mapping[str, object]:
        return {"redirect_stdout": redirect_stdout, "redirect_stderr": redirect_stderr}

    def _functools(self) -> Mapping[str, object]:
        make = self.singledispatch

        def __init__(method: Any, func: Any) -> None:
            method.dispatcher, method.func = make(func), func

        method = copy_of_class(functools.singledispatchmethod, __init__=__init__)
        return {
            "total_ordering": total_ordering,
            "update_wrapper": self.update_wrapper,
            "wraps": self.wraps,
            "singledispatch": self.singledispatch,
            "singledispatchmethod": method,
        }

    def update_wrapper(
        self,
        wrapper: Any,
        wrapped: Any,
        assigned: Any = functools.WRAPPER_ASSIGNMENTS,
        updated: Any = ("__dict__",),
    ) -> Any:
        """As `functools.update_wrapper`, as far as a cell could do it by hand."""
        guard: Any = self.guard
        missing = object()
        for name in tuple(assigned):
            with contextlib.suppress(AttributeError):
                value = guard.getattr(wrapped, name, missing)
                if value is not missing:
                    guard.setattr(wrapper, name, value)
        if "__dict__" in tuple(updated):
            for name, value in dict(guard.getattr(wrapped, "__dict__", {})).items():
                guard.setattr(wrapper, name, value)
        guard.setattr(wrapper, "__wrapped__", wrapped)
        return wrapper

    def wraps(self, wrapped: Any, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """As `functools.wraps`."""
        return lambda wrapper: self.update_wrapper(wrapper, wrapped, *args, **kwargs)

    def singledispatch(self, func: Any) -> Any:
        """As `functools.singledispatch`; annotations that are text are read by the policy."""
        dispatch: Any = functools.singledispatch(func)
        register_kind = dispatch.register

        def register(cls: Any, func: Any = None) -> Any:
            if func is not None:
                return register_kind(cls, func)
            if isinstance(cls, type) or not hasattr(cls, "__annotations__"):
                return lambda function: register(cls, _given(function))
            return register_kind(next(iter(self.get_type_hints(cls).values())), cls)

        dispatch.register = register
        return dispatch

    # ---- functions that build or run source text

    def _dataclasses(self) -> Mapping[str, object]:
        """Return the functions of `dataclasses`, which make source text of whatever a field says its name is.

        That text gets the rights of a cell, no more.
        """
        import dataclasses

        module = copy_of_module("dataclasses", exec=self._run_generated)
        looked_for = {"InitVar", "KW_ONLY"}  # the copy asks the original for these
        module.update({name: value for name, value in vars(dataclasses).items() if name in looked_for})
        module["builtins"] = types.SimpleNamespace(object=object)
        make = module["dataclass"]

        def dataclass(cls: Any = None, /, **options: Any) -> Any:
            if cls is None:
                return lambda kind: dataclass(kind, **options)
            return self._without_unsafe_patterns(make(own_class(cls, "dataclass"), **options))

        return {**{name: module[name] for name in module["__all__"]}, "dataclass": dataclass}

    def _without_unsafe_patterns(self, kind: Any) -> Any:
        """Return a class without `__match_args__` if matching it by position could read a door."""
        guard: Any = self.guard
        names = contents_of(kind).get("__match_args__", ())
        if not all(guard.may_match(kind, name) for name in names):
            type.__delattr__(kind, "__match_args__")
        return kind

    def _run_generated(self, text: str, globals: Any, locals: Any) -> None:
        names = {"__name__": "__main__", "__builtins__": self.guard.builtins}
        exec(self.guard.compile_text(text, "<string>", "exec", 0), names, locals)

    def get_type_hints(
        self, obj: Any, globalns: Any = None, localns: Any = None, include_extras: bool = False
    ) -> dict[str, Any]:
        """As `typing.get_type_hints`; annotations that are text are read by the policy."""
        owners = reversed(ancestry_of(obj)) if isinstance(obj, type) else (obj,)
        found = {name: hint for owner in owners for name, hint in _annotations_of(owner).items()}
        names = self._names_around(obj) if globalns is None else globalns
        return {name: self._evaluated(hint, names, localns) for name, hint in found.items()}

    def _evaluated(self, hint: Any, names: Any, localns: Any) -> Any:
        guard: Any = self.guard
        if type(hint) is str:
            return guard.eval(hint, names, localns)
        return type(None) if hint is None else hint

    def _names_around(self, obj: Any) -> dict[str, Any]:
        around = obj.__globals__ if isinstance(obj, types.FunctionType) else vars(sys.modules["__main__"])
        return dict(around) if around.get("__builtins__") is self.guard.builtins else {}

    # ---- modules with a way out

    def _copy(self) -> Mapping[str, object]:
        """Return the functions of `copy`, which set whatever attributes an object's `__reduce__` says."""
        guard: Any = self.guard
        module = copy_of_module("copy", setattr=guard.setattr)
        return {name: module[name] for name in module["__all__"]}

    def _traceback(self) -> Mapping[str, object]:
        """Return the functions of `traceback`, which import the module that an error says it is about."""
        module = copy_of_module("traceback")
        module["__builtins__"]["__import__"] = _no_import
        return {name: module[name] for name in STRICT_MODULES["traceback"]}

    def _logging(self) -> Mapping[str, object]:
        """Return the functions of `logging` that would hand out a stream, write a file or read attributes by name."""
        import logging

        return {
            "basicConfig": basic_config,
            "Formatter": copy_of_class(logging.Formatter, __init__=_init_formatter),
            "StreamHandler": _stream_handler(),
            **{name: _after_basic_config(name) for name in _LOG_FUNCTIONS},
        }


@functools.cache
def _stream_handler() -> Any:
    import logging

    def __init__(handler: Any, stream: Any = None) -> None:
        logging.StreamHandler.__init__(handler, Errors() if stream is None else stream)

    return copy_of_class(logging.StreamHandler, __init__=__init__)


def basic_config(stream: Any = None, **options: Any) -> None:
    """As `logging.basicConfig`, for a stream."""
    import logging

    if not options.keys() <= _LOG_OPTIONS:
        raise Refused(f"basicConfig({', '.join(sorted(options.keys() - _LOG_OPTIONS))})", _NO_FILES)
    logging.basicConfig(handlers=[_stream_handler()(stream)], **options)


def _after_basic_config(name: str) -> Callable[..., Any]:
    """Return a function of `logging` that finds a handler there, instead of making one on the real stream."""
    import logging

    function = getattr(logging, name)

    def log(*args: Any, **kwargs: Any) -> None:
        if not logging.getLogger().handlers:
            basic_config()
        function(*args, **kwargs)

    log.__name__ = name
    return log


def _init_formatter(
    formatter: Any, fmt: Any = None, datefmt: Any = None, style: Any = "%", **options: Any
) -> None:
    import logging

    if style != "%":
        raise Refused(f"a log format in style {style!r}", _LOG_STYLE)
    logging.Formatter.__init__(formatter, fmt, datefmt, "%", **options)


@contextlib.contextmanager
def redirect_stdout(new_target: Any) -> Generator[Any, None, None]:
    """As in contextlib, where a subclass can redirect any name of `sys`."""
    before, sys.stdout = sys.stdout, new_target
    try:
        yield new_target
    finally:
        sys.stdout = before


@contextlib.contextmanager
def redirect_stderr(new_target: Any) -> Generator[Any, None, None]:
    """As in contextlib, where a subclass can redirect any name of `sys`."""
    before, sys.stderr = sys.stderr, new_target
    try:
        yield new_target
    finally:
        sys.stderr = before


def _no_import(name: str, *args: Any) -> Any:
    raise ImportError(name)


def own_class(kind: Any, what: str) -> Any:
    """Return a class if the session defined it; a library's class is not a cell's to change."""
    if not issubclass(type(kind), type) or not is_session_class(kind):
        raise Refused(f"{what}() of this object", _NOT_YOURS)
    return kind


def total_ordering(cls: Any) -> Any:
    """As `functools.total_ordering`."""
    return functools.total_ordering(own_class(cls, "total_ordering"))


def _given(function: Any) -> Any:
    if function is None:
        raise TypeError("a function is needed")
    return function


def copy_of_module(name: str, **builtins: Any) -> dict[str, Any]:
    """Return the names of a library module, run once more with other builtins."""
    spec: Any = importlib.util.find_spec(name)
    own = {**vars(sys.modules["builtins"]), **builtins}
    names: dict[str, Any] = {"__name__": name, "__builtins__": own}
    exec(spec.loader.get_code(name), names)
    return names


def _annotations_of(owner: Any) -> dict[str, Any]:
    found = _own_annotations(owner) if isinstance(owner, type) else getattr(owner, "__annotations__", None)
    return dict(found) if isinstance(found, Mapping) else {}


def _own_annotations(kind: type) -> Any:
    if sys.version_info >= (3, 14):
        import annotationlib

        return annotationlib.get_annotations(kind, format=annotationlib.Format.FORWARDREF)
    return contents_of(kind).get("__annotations__", {})
