"""Takes in what the host sends along and goes on in it. It may meet any Python 3, and must be valid in all."""

import sys

if sys.version_info < (3, 9):  # noqa: UP036
    sys.stderr.write("it is Python %d.%d, and 3.9 is the oldest that works" % sys.version_info[:2])  # noqa: UP031
    sys.exit(72)

import importlib.abc
import marshal
import os
from importlib.machinery import ModuleSpec
from importlib.util import MAGIC_NUMBER

_PLACE = "/.rlm/"  # where the modules would lie, for tracebacks


class _Brought(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads the modules that the host sent along: name -> (whether a package, source, code)."""

    def __init__(self, magic: bytes, modules: "dict[str, tuple[bool, bytes, bytes]]") -> None:
        self._compiled = magic == MAGIC_NUMBER
        self._modules = modules

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        if name not in self._modules:
            return None
        spec = ModuleSpec(name, self, origin=self._place(name), is_package=self._modules[name][0])
        spec.has_location = True
        return spec

    def _place(self, name: str) -> str:
        return _PLACE + name.replace(".", "/") + ("/__init__.py" if self._modules[name][0] else ".py")

    def create_module(self, spec: ModuleSpec) -> None:
        return None

    def exec_module(self, module: object) -> None:
        name = vars(module)["__name__"]
        _, source, code = self._modules[name]
        content = marshal.loads(code) if self._compiled else compile(source, self._place(name), "exec")
        exec(content, vars(module))

    def get_source(self, name: str) -> str:
        """Return the text of a module, which tracebacks show."""
        return self._modules[name][1].decode()


def _exactly(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, min(size - len(data), 1 << 16))
        if not more:
            os._exit(0)
        data += more
    return data


def _main() -> None:
    size = int.from_bytes(_exactly(8), "big")
    magic, modules = marshal.loads(_exactly(size))
    sys.meta_path.insert(0, _Brought(magic, modules))
    importlib.import_module("rlm_inside.guard").main()


_main()
