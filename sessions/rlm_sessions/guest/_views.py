"""The modules that a cell gets: copies of the library's, without what leaks through them.

`dataclasses.sys` and `random._os` make every module a way to `os`. So a cell gets a view: a plain module object,
as fast as the real one, that holds the same functions and classes under the same names, no other modules, and
none of the names that the rules leave out. Assigning to a view changes that view only, never what libraries see.

Only what a cell states is guarded. Libraries import with their own builtins; C code that imports while a cell calls
it (numpy, strptime) comes here too, and gets the import without the module, which is all it asks for.
"""

from __future__ import annotations

import builtins
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from ._module_rules import ALL, STRICT_MODULES, Rules, is_standard_library
from ._names import Door, is_private
from ._refusals import AttributeRefused, ModuleRefused
from ._streams import StrictSystemView, SystemView

_HIDDEN: Any = object()
_NEVER_SHOWN = frozenset({"__builtins__", "__loader__", "__spec__", "__cached__", "__getattr__", "__dir__"})
_OTHER_MAIN = Door("only code of the session itself can", "Use its variables by their names.")
_LEAK = Door("it is another module, which came along", "Import that module itself.")


class Substitutes(Protocol):
    """What takes the place of some functions: safe forms of them."""

    def of(self, module: str) -> Mapping[str, object]:
        """Return what takes the place of names in a module."""
        ...

    def instead_of(self, value: object) -> object:
        """Return what takes the place of that very object, or the object itself; None hides it."""
        ...


class Provider(Protocol):
    """What the views need from the guard."""

    builtins: dict[str, object]
    substitutes: Any


class Modules:
    """The views of one session, and the import functions that hand them out."""

    def __init__(self, provider: Provider, *, strict: bool) -> None:
        self._provider = provider
        self._strict = strict
        self._rules = Rules(strict=strict)
        self._views: dict[int, tuple[types.ModuleType, types.ModuleType, int]] = {}

    # ---- the ways in

    def statement(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        """Serve an import statement: `__import__` of the builtins of a cell."""
        if type(fromlist) is list:  # C code asks with a list, a statement with None or a tuple
            self._load_for_c_code(name, globals, locals, fromlist, level)
            return None  # C code takes the module from sys.modules; whoever else calls this way gets nothing
        full = self._absolute(name, globals, level)
        if full == "__main__":
            return self._main(sys.modules[full])
        self._admit(full)
        if not is_standard_library(full):
            return self._installed(full, name, globals, locals, fromlist, level)
        builtins.__import__(full)
        if not fromlist:
            return self._linked(full)
        view = self.view(full)
        self._provide(view, full, fromlist)
        return view

    def by_function(
        self, name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0
    ) -> Any:
        """Serve a cell that calls `__import__` itself."""
        return self.statement(name, globals, locals, tuple(fromlist or ()), level)

    def import_module(self, name: str, package: str | None = None) -> Any:
        """As `importlib.import_module`."""
        full = importlib.util.resolve_name(name, package)
        self.statement(full)
        return self.view(full) if is_standard_library(full) else sys.modules[full]

    def star(self, name: str, level: int) -> None:
        """Serve `from name import *` where the policy does not leave it to the interpreter."""
        frame = sys._getframe(1)
        if frame.f_code.co_flags & 0x2:  # CO_NEWLOCALS: a function
            raise SyntaxError("import * only allowed at module level")
        module = vars(self.statement(name, frame.f_globals, None, ("*",), level))
        names = module.get("__all__") or [name for name in module if not name.startswith("_")]
        frame.f_locals.update({name: module[name] for name in names})

    # ---- deciding

    def _load_for_c_code(self, name: str, globals: Any, locals: Any, fromlist: Any, level: int) -> None:
        """Loading runs a module, so in strict mode only what is loaded already or what C code is known to load."""
        if type(name) is not str:
            raise TypeError("module name must be a string")
        is_known = name in sys.modules or (_is_internal(name) and is_standard_library(name))
        if self._strict and not is_known:
            raise ModuleRefused(name, self._rules.module_door(name) or _OTHER_MAIN)
        builtins.__import__(name, globals, locals, fromlist, level)

    def _absolute(self, name: str, globals: Any, level: int) -> str:
        if type(name) is not str:
            raise TypeError("module name must be a string")
        package = globals.get("__package__") if level and isinstance(globals, dict) else None
        if not level:
            return name
        if not isinstance(package, str) or not package:
            raise ImportError("attempted relative import with no known parent package")
        return importlib.util.resolve_name("." * level + name, package)

    def _admit(self, full: str) -> None:
        door = self._rules.module_door(full)
        if door is not None:
            raise ModuleRefused(full, door)

    def _main(self, module: types.ModuleType) -> types.ModuleType:
        """Return the session's own module; the host's program would be another matter."""
        if self._strict or vars(module).get("__builtins__") is not self._provider.builtins:
            raise ModuleRefused("__main__", _OTHER_MAIN)
        return module

    def _installed(
        self, full: str, name: str, globals: Any, locals: Any, fromlist: Any, level: int
    ) -> types.ModuleType:
        module: types.ModuleType = builtins.__import__(name, globals, locals, fromlist, level)
        for attribute in fromlist or ():
            value = vars(module).get(attribute)
            if isinstance(value, types.ModuleType) and not _is_part_of(value, full.partition(".")[0]):
                self._admit_by_name(value, full, attribute)
        return module

    def _admit_by_name(self, value: types.ModuleType, full: str, attribute: str) -> None:
        if is_standard_library(value.__name__) or self._rules.module_door(value.__name__) is not None:
            raise ModuleRefused(full, _LEAK, attribute=attribute)

    # ---- views

    def shown(self, module: types.ModuleType) -> types.ModuleType:
        """Return what a cell gets for a module: a view of Python's own, any other as it is."""
        name = module.__name__
        if name == "__main__":
            return self._main(module)
        self._admit(name)
        return self.view(name) if is_standard_library(name) else module

    def is_view(self, module: object) -> bool:
        """Return whether a module is one of the views of this session."""
        return any(view is module for _, view, _ in self._views.values())

    def view(self, full: str) -> types.ModuleType:
        """Return the view of a module that is loaded and admitted."""
        real = sys.modules[full]
        known = self._views.get(id(real))
        if known is not None and known[2] == len(vars(real)):
            return known[1]
        view = known[1] if known is not None else self._empty(full, real)
        self._views[id(real)] = real, view, len(vars(real))
        self._fill(view, full, real)
        return view

    def _empty(self, full: str, real: types.ModuleType) -> types.ModuleType:
        view = self._kind_of(full)(full, real.__doc__)
        for name in ("__loader__", "__spec__", "__package__"):
            del vars(view)[name]
        if self._rules.has_reasons(full) or "__getattr__" in vars(real):
            vars(view)["__getattr__"] = self._late(full, real, view)
        return view

    def _kind_of(self, full: str) -> type[types.ModuleType]:
        if full != "sys":
            return types.ModuleType
        return StrictSystemView if self._strict else SystemView

    def _fill(self, view: types.ModuleType, full: str, real: types.ModuleType) -> None:
        shown = vars(view)
        substitutes = self._provider.substitutes.of(full)
        for name, value in list(vars(real).items()):
            if name in shown or not self._is_handed_out(full, real, name):
                continue
            given = substitutes[name] if name in substitutes else self._exposed(full, name, value)
            if given is not _HIDDEN:
                shown[name] = given
        if "__all__" in shown:
            shown["__all__"] = [name for name in real.__all__ if name in shown or "__getattr__" in shown]

    def _is_handed_out(self, full: str, real: types.ModuleType, name: str) -> bool:
        if name in _NEVER_SHOWN:
            return False
        if not self._strict:
            return self._rules.name_door(full, name) is None
        if name in ("__all__", "__version__") or f"{full}.{name}" in STRICT_MODULES:
            return True
        if STRICT_MODULES[full] == ALL and name not in getattr(real, "__all__", (name,)):
            return False
        return not name.startswith("_") and self._rules.name_door(full, name) is None

    def _exposed(self, full: str, name: str, value: Any) -> Any:
        if not isinstance(value, types.ModuleType):
            value = self._provider.substitutes.instead_of(value)
            return _HIDDEN if value is None else value
        inner = f"{full}.{name}"
        if sys.modules.get(inner) is not value or self._rules.module_door(inner) is not None:
            return _HIDDEN
        return _HIDDEN if is_private(name) else self.view(inner)

    def _late(self, full: str, real: types.ModuleType, view: types.ModuleType) -> Callable[[str], Any]:
        """Return a view's `__getattr__`: the reason for what is left out, and what the real module makes late."""

        def __getattr__(name: str) -> Any:
            door = self._rules.name_door(full, name)
            if door is not None and hasattr(real, name):
                raise AttributeRefused(f"{full}.{name}", door)
            is_late = "__getattr__" in vars(real) and name not in _NEVER_SHOWN
            if is_late and door is None and hasattr(real, name):
                value = self._exposed(full, name, getattr(real, name))
                if value is not _HIDDEN:
                    return value
            raise _no_attribute(view, full, name)

        return __getattr__

    def _linked(self, full: str) -> types.ModuleType:
        """Return the view of the first part of a dotted name, with the other parts below it."""
        parts = full.split(".")
        view = top = self.view(parts[0])
        for count in range(2, len(parts) + 1):
            inner = self.view(".".join(parts[:count]))
            vars(view)[parts[count - 1]] = inner
            view = inner
        return top

    def _provide(self, view: types.ModuleType, full: str, names: Any) -> None:
        """Make sure that a view has all that a `from` import takes: the interpreter would look further by itself."""
        for name in names:
            if name != "*" and not hasattr(view, name) and not self._provide_module(view, full, name):
                door = self._rules.name_door(full, name)
                if hasattr(sys.modules[full], name):
                    raise ModuleRefused(full, door or _LEAK, attribute=name)
                raise _cannot_import(view, full, name)

    def _provide_module(self, view: types.ModuleType, full: str, name: str) -> bool:
        inner = f"{full}.{name}"
        if not hasattr(sys.modules[full], "__path__") or not _exists(inner):
            return False
        self._admit(inner)
        builtins.__import__(inner)
        vars(view)[name] = self.view(inner)
        return True


class LoadedModules(Mapping[str, Any]):
    """What a cell gets for `sys.modules`: the names of all loaded modules, and those it could import."""

    def __init__(self, modules: Modules) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Any:
        try:
            return self._modules.shown(sys.modules[name])
        except ModuleRefused:
            raise KeyError(name) from None

    def __iter__(self) -> Iterator[str]:
        return iter(list(sys.modules))

    def __len__(self) -> int:
        return len(sys.modules)

    def __contains__(self, name: object) -> bool:
        return name in sys.modules


def _is_internal(name: str) -> bool:
    return name.startswith(("_", "encodings."))


def _exists(full: str) -> bool:
    try:
        return importlib.util.find_spec(full) is not None
    except (ImportError, ValueError):
        return False


def _is_part_of(module: types.ModuleType, package: str) -> bool:
    return module.__name__.partition(".")[0] == package


def _no_attribute(view: types.ModuleType, full: str, name: str) -> AttributeError:
    problem = AttributeError(f"module {full!r} has no attribute {name!r}")
    problem.name, problem.obj = name, view  # for the suggestion in a traceback
    return problem


def _cannot_import(view: types.ModuleType, full: str, name: str) -> ImportError:
    place = getattr(view, "__file__", None)
    return ImportError(
        f"cannot import name {name!r} from {full!r} ({place or 'unknown location'})", name=full, path=place
    )
