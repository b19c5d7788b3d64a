"""Which Python runs in the local sandbox, and whether it may be started outside the jail.

Nothing is executed here: a virtual environment in a project comes from whoever
wrote the project, so its files are read as data. What is trusted is the real
program behind it, and only if it does not itself lie in the project.
"""

from __future__ import annotations

import re
import site
import stat
import sys
from dataclasses import dataclass
from pathlib import Path

from ..errors import InterpreterUnusable

_PYTHON_NAME = re.compile(r"python(3(\.\d+)?)?t?")
_INSTALLED = (Path("/usr"), Path("/opt"), Path("/nix/store"))
_ADVICE = "Name another one, or leave it out to use the server's own."


@dataclass(frozen=True)
class Interpreter:
    """A Python: the real program, the folders of its installed packages, and whether it is trusted.

    `libraries` are the folders that one which is not trusted needs to see, to start inside the jail.
    """

    program: Path
    site: tuple[str, ...]
    trusted: bool
    libraries: tuple[str, ...] = ()


def own_interpreter() -> Interpreter:
    """Return the Python that this process runs in."""
    program = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    folders = [*site.getsitepackages(), *([site.getusersitepackages()] if site.ENABLE_USER_SITE else [])]
    return Interpreter(program, tuple(folder for folder in folders if Path(folder).is_dir()), trusted=True)


def environment_of(workdir: Path) -> Path | None:
    """Return the virtual environment that a project keeps in its folder, if there is one."""
    folder = workdir / ".venv"
    return folder if (folder / "pyvenv.cfg").is_file() else None


def find_interpreter(named: Path, workdir: Path | None) -> Interpreter:
    """Return the Python that `named` means: a program, or the folder of a virtual environment."""
    program = _program_in(named) if named.is_dir() else named
    if not program.exists():
        raise InterpreterUnusable(str(named), "there is no such program", _ADVICE)
    real = program.resolve()
    libraries = _folders_within(real.parent.parent, "lib", "lib64")
    return Interpreter(real, _installed_packages(program, real), _is_trusted(real, workdir), libraries)


def _program_in(folder: Path) -> Path:
    for candidate in (folder / "bin" / "python", folder / "Scripts" / "python.exe"):
        if candidate.exists():
            return candidate
    raise InterpreterUnusable(str(folder), "this folder is not a virtual environment", _ADVICE)


def _is_trusted(real: Path, workdir: Path | None) -> bool:
    """Return whether a program may run outside the jail: ours, or one that the system's owner installed.

    Any other is started inside. Who wrote a project chose where its links lead, be it to a file beside it.
    """
    if workdir is not None and real.is_relative_to(workdir.resolve()):
        return False
    if _PYTHON_NAME.fullmatch(real.stem if real.suffix == ".exe" else real.name) is None:
        return False
    return real.samefile(own_interpreter().program) or _is_installed(real)


def _is_installed(real: Path) -> bool:
    if not any(real.is_relative_to(folder) for folder in _INSTALLED):
        return False
    facts = [path.stat() for path in (real, *real.parents)]
    return all(fact.st_uid == 0 and not fact.st_mode & (stat.S_IWGRP | stat.S_IWOTH) for fact in facts)


def _installed_packages(program: Path, real: Path) -> tuple[str, ...]:
    environment = program.parent.parent
    if not (environment / "pyvenv.cfg").is_file():
        return _packages_below(real.parent.parent)
    own = _packages_below(environment)
    return own + (_packages_below(real.parent.parent) if _sees_system(environment) else ())


def _sees_system(environment: Path) -> bool:
    lines = (environment / "pyvenv.cfg").read_text("utf-8", "replace").lower().splitlines()
    return any(re.fullmatch(r"include-system-site-packages\s*=\s*true\s*", line) for line in lines)


def _packages_below(prefix: Path) -> tuple[str, ...]:
    patterns = ("lib/python3*/site-packages", "lib/python3*/dist-packages", "lib/python3/dist-packages")
    return _folders_within(prefix, *patterns, "local/" + patterns[1], "Lib/site-packages")


def _folders_within(prefix: Path, *patterns: str) -> tuple[str, ...]:
    """Return the folders below `prefix` that match a pattern, without those whose links lead out of it.

    Whoever wrote a project wrote its links too; one that leads elsewhere would show that place to the guest.
    """
    inside = prefix.resolve()
    found = [path.resolve() for pattern in patterns for path in sorted(prefix.glob(pattern)) if path.is_dir()]
    return tuple(dict.fromkeys(str(path) for path in found if path.is_relative_to(inside)))
