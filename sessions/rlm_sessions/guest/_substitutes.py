"""Safe forms of the few library functions that read, write or run what they are told by name.

Each does what the original does, and asks the guard on the way. Where the original is a class that cells subclass,
the safe form is a copy with one method changed: a subclass would hand out the original as its base.
"""

from __future__ import annotations

import builtins
import importlib
import io
import os
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from . import _templates
from ._files import Files
from ._module_rules import ONLY
from ._refusals import ModuleRefused
from ._views import LoadedModules

_Factory = Callable[[], Mapping[str, object]]

_TIMED = """
def _inner(_it, _timer{arguments}):
    {setup}
    _t0 = _timer()
    for _i in _it:
        {statement}
        pass
    return _timer() - _t0
"""


class Guard(Protocol):
    """What the substitutes ask."""

    files: Files
    builtins: dict[str, object]
    modules: Any

    def getattr(self, *args: Any) -> Any: ...
    def allow_unseen(self, name: str) -> bool: ...
    def compile_text(self, source: Any, filename: str, mode: str, flags: int) -> Any: ...
    def give_builtins(self, globals: Any) -> None: ...


class Substitutes:
    """The safe forms for permissive mode, made when the module they belong to is first imported."""

    def __init__(self, guard: Guard) -> None:
        self.guard = guard
        self._by_module = self.make_factories()
        own = {name: (getattr(builtins, name, None), value) for name, value in guard.builtins.items()}
        self._by_identity = {id(real): (real, value) for real, value in own.values() if real is not None}
        self._hide(os, ONLY["os"])
        self._hide(sys, ONLY["sys"])

    def __reduce__(self) -> tuple[Callable[[Any], Substitutes], tuple[Guard]]:
        return substitutes_of, (self.guard,)

    def make_factories(self) -> dict[str, _Factory]:
        """Return, for each module that has any, how to make its safe forms."""
        return {
            "builtins": self._builtins,
            "codecs": lambda: {"open": self.guard.files.codecs_open},
            "importlib": self._importlib,
            "importlib.util": lambda: {"find_spec": self.find_spec},
            "inspect": lambda: {"getmembers": self.getmembers, "getmodule": self.getmodule},
            "io": lambda: {"FileIO": self.guard.files.file_io_class()},
            "operator": lambda: {"attrgetter": self.attrgetter, "methodcaller": self.methodcaller},
            "os": self._os,
            "pickle": self._pickle,
            "sys": lambda: {"modules": LoadedModules(self.guard.modules)},
            "string": lambda: {"Formatter": _templates.guarded_formatter(self.guard.getattr)},
            "tempfile": lambda: {"mkstemp": self.guard.files.mkstemp},
            "timeit": self._timeit,
        }

    def of(self, module: str) -> Mapping[str, object]:
        """Return what takes the place of names in a module."""
        factory = self._by_module.get(module)
        return factory() if factory is not None else {}

    def instead_of(self, value: object) -> object:
        """Return what takes the place of that very object, or the object itself; None hides it."""
        return self._by_identity.get(id(value), (value, value))[1]

    def _hide(self, module: types.ModuleType, shown: frozenset[str]) -> None:
        functions = (types.FunctionType, types.BuiltinFunctionType)
        for name, value in vars(module).items():
            if isinstance(value, functions) and name not in shown:
                self._by_identity.setdefault(id(value), (value, None))

    # ---- attributes by name

    def attrgetter(self, *names: Any) -> Callable[[Any], Any]:
        """As `operator.attrgetter`, and the very same where every name is harmless on every object."""
        import operator

        names = tuple(str.__str__(name) if isinstance(name, str) else name for name in names)
        paths = [name.split(".") for name in names if isinstance(name, str)]
        if len(paths) < len(names) or all(self.guard.allow_unseen(part) for path in paths for part in path):
            return operator.attrgetter(*names)
        if len(paths) == 1:
            return lambda obj: self.follow(obj, paths[0])
        return lambda obj: tuple(self.follow(obj, path) for path in paths)

    def methodcaller(self, name: Any, /, *args: Any, **kwargs: Any) -> Callable[[Any], Any]:
        """As `operator.methodcaller`, and the very same where the name is harmless on every object."""
        import operator

        name = str.__str__(name) if isinstance(name, str) else name
        if not isinstance(name, str) or self.guard.allow_unseen(name):
            return operator.methodcaller(name, *args, **kwargs)
        return lambda obj: self.guard.getattr(obj, name)(*args, **kwargs)

    def follow(self, obj: Any, path: list[str]) -> Any:
        """Return what is at the end of a path of attributes."""
        for name in path:
            obj = self.guard.getattr(obj, name)
        return obj

    def getmembers(self, object: Any, predicate: Any = None) -> list[tuple[str, Any]]:
        """As `inspect.getmembers`."""
        import inspect

        shown = [(name, value) for name, value in inspect.getmembers(object) if self.guard.allow_unseen(name)]
        return [(name, value) for name, value in shown if predicate is None or predicate(value)]

    # ---- modules by name

    def _builtins(self) -> Mapping[str, object]:
        own = {name: value for name, value in self.guard.builtins.items() if not name.startswith("<")}
        return {**own, "__import__": self.guard.modules.by_function}

    def _importlib(self) -> Mapping[str, object]:
        return {"import_module": self.guard.modules.import_module, "reload": self.reload}

    def reload(self, module: types.ModuleType) -> types.ModuleType:
        """As `importlib.reload` for installed packages; a view is what it was."""
        return module if self.guard.modules.is_view(module) else importlib.reload(module)

    def find_spec(self, name: str, package: Any = None) -> Any:
        """Return what people ask a spec for, without the loader that comes with it."""
        from importlib.util import find_spec

        found = find_spec(name, package)
        if found is None:
            return None
        facts = ("name", "origin", "submodule_search_locations", "has_location", "parent")
        return types.SimpleNamespace(**{fact: getattr(found, fact) for fact in facts})

    def getmodule(self, object: Any, _filename: Any = None) -> Any:
        """As `inspect.getmodule`, with what an import would give."""
        import inspect

        if self.guard.modules.is_view(object):
            return object
        module = inspect.getmodule(object, _filename)
        try:
            return module if module is None else self.guard.modules.shown(module)
        except ModuleRefused:
            return None

    def _pickle(self) -> Mapping[str, object]:
        import pickle

        find = self._find_class

        class Unpickler(pickle.Unpickler):
            """As the original; finds what a cell could import."""

            def find_class(self, module_name: str, global_name: str, /) -> Any:
                return find(module_name, global_name, super().find_class)

        def load(file: Any, **options: Any) -> Any:
            return Unpickler(file, **options).load()

        def loads(data: Any, /, **options: Any) -> Any:
            return Unpickler(io.BytesIO(data), **options).load()

        return {"Unpickler": Unpickler, "load": load, "loads": loads}

    def _find_class(self, module: str, name: str, find: Callable[[str, str], Any]) -> Any:
        module, name = _names_of_today(module, name)
        if module == "__main__":
            return find(module, name)
        found = self.guard.modules.import_module(
            module.lstrip("_")
        )  # the C module's names are the public one's too
        return self.follow(found, name.split("."))

    def _os(self) -> Mapping[str, object]:
        files = self.guard.files
        return {
            "open": files.open_descriptor,
            "close": files.close,
            "read": files.read,
            "write": files.write,
            "fdopen": files.open,
        }

    # ---- source text

    def _timeit(self) -> Mapping[str, object]:
        import timeit

        make_inner = self._timed

        def __init__(
            self_: Any,
            stmt: Any = "pass",
            setup: Any = "pass",
            timer: Any = timeit.default_timer,
            globals: Any = None,
        ) -> None:
            self_.timer = timer
            self_.inner = make_inner(stmt, setup, {} if globals is None else globals)

        Timer = _templates.copy_of_class(timeit.Timer, __init__=__init__)  # noqa: N806  it is a class

        def time(
            stmt: Any = "pass",
            setup: Any = "pass",
            timer: Any = timeit.default_timer,
            number: int = 1_000_000,
            globals: Any = None,
        ) -> float:
            seconds: float = Timer(stmt, setup, timer, globals).timeit(number)
            return seconds

        def repeat(
            stmt: Any = "pass",
            setup: Any = "pass",
            timer: Any = timeit.default_timer,
            repeat: int = 5,
            number: int = 1_000_000,
            globals: Any = None,
        ) -> list[float]:
            seconds: list[float] = Timer(stmt, setup, timer, globals).repeat(repeat, number)
            return seconds

        return {"Timer": Timer, "timeit": time, "repeat": repeat}

    def _timed(self, statement: Any, setup: Any, namespace: dict[str, Any]) -> Any:
        """Return the function that a `timeit.Timer` runs and times."""
        given = {"_statement": statement, "_setup": setup}
        calls = {name: part for name, part in given.items() if callable(part)}
        text = {name: f"{name}()" if name in calls else str(part) for name, part in given.items()}
        source = _TIMED.format(
            arguments="".join(f", {name}={name}" for name in calls),
            setup=text["_setup"].replace("\n", "\n    "),
            statement=text["_statement"].replace("\n", "\n        "),
        )
        self.guard.give_builtins(namespace)
        exec(self.guard.compile_text(source, "<timeit>", "exec", 0), namespace, calls)
        return calls["_inner"]


def _names_of_today(module: str, name: str) -> tuple[str, str]:
    """Return what old pickle protocols write in Python 2's names."""
    import _compat_pickle

    module, name = _compat_pickle.NAME_MAPPING.get((module, name), (module, name))
    return _compat_pickle.IMPORT_MAPPING.get(module, module), name


def substitutes_of(guard: Any) -> Substitutes:
    """Return the substitutes of a guard: what a snapshot of one of them is read back as."""
    found: Substitutes = guard.substitutes
    return found
