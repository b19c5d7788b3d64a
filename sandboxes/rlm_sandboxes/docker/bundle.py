"""What is sent along into a container: the program, and what runs it there, as one piece of bytes.

Modules are sent as source, and beside it compiled by the Python that we run in: an image with the
same version of Python is spared that work.
"""

from __future__ import annotations

import marshal
from functools import lru_cache
from importlib.util import MAGIC_NUMBER
from pathlib import Path

from ..sandbox import Package, Program

_INSIDE = Package("rlm_inside", Path(__file__).parent / "inside")
_JAIL = Package("rlm_jail", Path(__file__).parent.parent / "local" / "jail")
_OF_THE_JAIL = ("rlm_jail", "rlm_jail.questions", "rlm_jail.seccomp", "rlm_jail.syscalls", "rlm_jail.system")
_PLACE = "/.rlm/"  # as in inside/boot.py
_MARSHAL_VERSION = 2  # which every Python reads, where it is not code

Module = tuple[bool, bytes, bytes]


def boot_text() -> str:
    """Return the program that an interpreter is started with."""
    return (_INSIDE.folder / "boot.py").read_text()


@lru_cache(maxsize=4)
def pack(program: Program) -> bytes:
    """Return the program as `boot.py` takes it in, its length first."""
    modules: dict[str, Module] = {}
    for package in (_INSIDE, *program.libraries, program.package):
        modules.update(_modules(package))
    jail = _modules(_JAIL)
    modules.update({name: jail[name] for name in _OF_THE_JAIL})
    data = marshal.dumps((MAGIC_NUMBER, modules), _MARSHAL_VERSION)
    return len(data).to_bytes(8, "big") + data


def _modules(package: Package) -> dict[str, Module]:
    found: dict[str, Module] = {}
    for path in sorted(package.folder.rglob("*.py")):
        parts = path.relative_to(package.folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join((package.name, *(parts[:-1] if is_package else parts)))
        source = path.read_bytes()
        if name == "rlm_inside.boot":
            continue
        place = _PLACE + name.replace(".", "/") + ("/__init__.py" if is_package else ".py")
        found[name] = (is_package, source, marshal.dumps(compile(source, place, "exec", dont_inherit=True)))
    return found
