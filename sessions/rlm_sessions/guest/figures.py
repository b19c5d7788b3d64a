"""Shows matplotlib's figures when code says `plt.show()`, and not only at the end of its cell.

The backend that draws without a window does nothing there, so a cell that closes its figures after
showing them would show none. Its `show` is replaced, whenever that module is imported.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import Any, Callable

_BACKEND = "matplotlib.backends.backend_agg"


def on_show(act: Callable[[], None]) -> None:
    """Have `act` called by `plt.show()`, now or as soon as matplotlib is imported."""
    module = sys.modules.get(_BACKEND)
    if module is not None:
        _replace(module, act)
    else:
        sys.meta_path.insert(0, _Finder(act))


def _replace(module: Any, act: Callable[[], None]) -> None:
    def show(*args: Any, **kwargs: Any) -> None:
        """Show all figures that are open."""
        act()

    module.show = show


class _Finder:
    """Finds the one module as others do, and has it changed once it is loaded."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != _BACKEND:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, self._act)  # type: ignore[assignment]
        return spec


class _Loader:
    """Loads as another does, and changes what was loaded."""

    def __init__(self, loader: Any, act: Callable[[], None]) -> None:
        self._loader = loader
        self._act = act

    def create_module(self, spec: Any) -> Any:
        return self._loader.create_module(spec)

    def exec_module(self, module: types.ModuleType) -> None:
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        _replace(module, self._act)
