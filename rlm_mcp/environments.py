"""Where a project's code runs, as its settings say, and which of the settings count there.

An environment is a value: projects with equal ones share a place to run in, whoever has that open.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from .keys import KEYS, Key
from .sources import Loaded
from .tenants import OWNER, Tenant

if TYPE_CHECKING:
    from rlm_sandboxes import Limits

    from .settings import Settings


@dataclass(frozen=True)
class Local:
    """A jail that the kernel of this machine makes."""

    python: Path | None


@dataclass(frozen=True)
class Docker:
    """A container for each session."""

    image: str
    python: str
    cpus: float
    network: str
    mounts: tuple[Path, ...]
    copy_files: bool
    runtime: str
    host: str
    pull: Literal["missing", "never"]
    warm: int


Environment: TypeAlias = Local | Docker


def environment_of(settings: Settings, tenant: Tenant = OWNER) -> Environment:
    """Return where code runs. Folders that the account may read are not for its tenants."""
    rlm = settings.rlm
    if rlm.environment == "local":
        return Local(settings.sandbox.python)
    return Docker(
        image=rlm.docker_image,
        python=rlm.docker_python,
        cpus=rlm.docker_cpus,
        network=rlm.docker_network,
        mounts=() if tenant.name else rlm.docker_mounts,
        copy_files=rlm.docker_copy_files,
        runtime=rlm.docker_runtime,
        host=rlm.docker_host,
        pull=rlm.docker_pull,
        warm=rlm.docker_warm,
    )


def limits_of(settings: Settings, tenant: Tenant = OWNER) -> Limits:
    """Return what a session may use and see there."""
    from rlm_sandboxes import Limits

    sandbox, rlm = settings.sandbox, settings.rlm
    in_docker = rlm.environment == "docker"
    return Limits(
        wall_seconds=sandbox.wall_seconds,
        cpu_seconds=sandbox.cpu_seconds,
        grace_seconds=sandbox.grace_seconds,
        memory_bytes=rlm.docker_memory if in_docker else sandbox.memory_bytes,
        processes=sandbox.processes,
        threads=sandbox.threads,
        open_files=sandbox.open_files,
        file_bytes=sandbox.file_bytes,
        scratch_bytes=sandbox.scratch_bytes,
        output_bytes=sandbox.output_bytes,
        files=sandbox.files,
        network=has_network(settings),
        readable=() if tenant.name else sandbox.folders,
    )


def has_network(settings: Settings) -> bool:
    """Return whether code has a network."""
    if settings.rlm.environment == "docker":
        return not settings.rlm.docker_network_disabled
    return settings.sandbox.network


def folders_of(settings: Settings, tenant: Tenant = OWNER) -> tuple[Path, ...]:
    """Return the folders outside of its project that code may read."""
    if tenant.name:
        return ()
    mounts = settings.rlm.docker_mounts if settings.rlm.environment == "docker" else ()
    return (*settings.sandbox.folders, *mounts)


# ---- what to say


def way_to_more(settings: Settings, limit: str, value: str) -> str:
    """Return where the user can allow more of what a cell had too little of."""
    key = KEYS[f"sandbox.{limit}"]
    if settings.rlm.environment == "docker" and key.dotted in _IN_DOCKER:
        key = KEYS[_IN_DOCKER[key.dotted]]
        value = "false" if key.kind == "switch" else value
    asked = "" if value == "..." else f" = {value}"
    return (
        f"The user can allow more by {key.name}{asked} in [{key.section}] of their rlm.toml (`rlm-mcp config path` "
        f"says where that is), or by {key.variable} in the environment of the server."
    )


def notes_of(loaded: Loaded) -> tuple[str, ...]:
    """Return which settings were given that do not count where the code runs."""
    settings = loaded.settings
    if settings.rlm.environment != "docker":
        return ()
    given = [dotted for dotted in _IN_DOCKER if loaded.origins[dotted].source != "default"]
    if settings.sandbox.network == has_network(settings):
        given = [dotted for dotted in given if dotted != "sandbox.network"]
    return tuple(_of_unused(loaded, KEYS[dotted], KEYS[_IN_DOCKER[dotted]]) for dotted in given)


def _of_unused(loaded: Loaded, key: Key, other: Key) -> str:
    value = other.shown(getattr(loaded.settings.rlm, other.name))
    return (
        f"{key.spoken} ({loaded.origins[key.dotted].where}) does not count in Docker: "
        f"{other.name} = {value} in [{other.section}] does."
    )


_IN_DOCKER: Mapping[str, str] = {
    "sandbox.memory_bytes": "rlm.docker_memory",
    "sandbox.network": "rlm.docker_network_disabled",
    "sandbox.python": "rlm.docker_python",
}
