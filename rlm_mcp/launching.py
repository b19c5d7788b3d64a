"""How this server is started from elsewhere on this machine: the command that a client is to run."""

from __future__ import annotations

import json
import sys
import sysconfig
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from .clients import Machine

PACKAGE = "rlm-mcp"
_PROGRAMS = ("rlm-mcp", "rlm")
_IN_DOCKER = frozenset(("rlm.environment=docker", "environment=docker"))
_PASSING = ("archive-v", "environments-v", "builds-v", "pipx/.cache", ".cache/pipx", "pipx\\.cache")


def command_here(machine: Machine, arguments: Sequence[str] = (), *, shared: bool = False) -> tuple[str, ...]:
    """Return the command that serves with `arguments`, by absolute paths unless it is `shared` with others.

    uvx, where there is one, if it would start what runs here: a version that was published, or one that came
    from a place that it can fetch again. Else the program that was installed here.
    """
    uvx, source = uvx_of(machine), _source()
    if uvx and (source == "" or (source is not None and passing())):
        start = ("uvx" if shared else str(uvx), *_from(source, arguments), PACKAGE)
    else:
        start = installed()
    return (*start, "serve", *arguments)


def _from(source: str, arguments: Sequence[str]) -> tuple[str, ...]:
    """Return what tells uvx where to find this package, and with which extra, if it would not know."""
    if _IN_DOCKER.isdisjoint(arguments):
        return ("--from", source) if source else ()
    package = f"{PACKAGE}[docker]"
    return ("--from", f"{package} @ {source}" if source else package)


def typed_here(machine: Machine) -> tuple[str, ...]:
    """Return how this program is called at this machine's terminal."""
    if passing():
        program, *rest = command_here(machine)[:-1]
        return (Path(program).name if machine.program(Path(program).stem) else program, *rest)
    return (PACKAGE,) if machine.program(PACKAGE) else installed()


def uvx_of(machine: Machine) -> Path | None:
    """Return the absolute path of uvx: from the PATH, or from where its installers put it."""
    name = "uvx.exe" if machine.system == "win32" else "uvx"
    of_uv = machine.environment.get("UV", "-")  # uv tells those whom it starts where it is
    usual = (
        Path(of_uv).with_name(name),
        machine.home / ".local" / "bin" / name,
        machine.home / ".cargo" / "bin" / name,
        Path("/opt/homebrew/bin/uvx"),
        Path("/usr/local/bin/uvx"),
    )
    return machine.program("uvx") or next((path for path in usual if path.is_file()), None)


def installed() -> tuple[str, ...]:
    """Return the program that runs now, by absolute paths."""
    started = Path(sys.argv[0] or "-")
    if started.stem in _PROGRAMS and started.is_file():
        return (str(started.absolute()),)
    beside = Path(sysconfig.get_path("scripts")) / (f"{PACKAGE}.exe" if sys.platform == "win32" else PACKAGE)
    if beside.is_file():
        return (str(beside),)
    return (sys.executable, "-P", "-m", "rlm_mcp")  # -P: a client's folder is no place to import from


def passing() -> bool:
    """Return whether the environment that we run in was made for this run, and may be gone soon."""
    return any(part in sys.prefix for part in _PASSING)


def _source() -> str | None:
    """Return "" for a published version, from where else this one came if that can be fetched again, or None."""
    try:
        distribution = metadata.distribution(PACKAGE)
    except metadata.PackageNotFoundError:
        return None
    origin: dict[str, Any] = json.loads(distribution.read_text("direct_url.json") or "{}")
    if not origin:
        return "" if "dev" not in distribution.version else None
    if origin.get("dir_info", {}).get("editable"):
        return None
    version_control = origin.get("vcs_info")
    if version_control:
        revision = version_control.get("requested_revision") or version_control.get("commit_id")
        return f"{version_control['vcs']}+{origin['url']}@{revision}"
    return str(origin["url"])
