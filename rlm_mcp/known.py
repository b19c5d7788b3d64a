"""The projects of a tenant that something is known of: those that are open here, and those kept on disk.

Looking wakes no session, takes no lock and makes nothing on the disk.
"""

from __future__ import annotations

import os
import time
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import anyio.to_thread

from .addresses import no_resource
from .app import App, root_of
from .tenants import Tenant

if TYPE_CHECKING:
    from rlm_sessions import KeptProject, SessionInfo

_MOST_NAMED = 10


@dataclass(frozen=True)
class Known:
    """A project, as it is open in this server, as it is kept on disk, or both."""

    key: str
    name: str
    folder: str | None
    place: Path
    info: SessionInfo | None
    kept: KeptProject | None

    @property
    def last_used(self) -> float:
        """When it was used last, by the clock on the wall."""
        here = time.time() - (time.monotonic() - self.info.used_at) if self.info is not None else 0.0
        return max(here, self.kept.last_used if self.kept is not None else 0.0)


async def known_projects(app: App, tenant: Tenant) -> list[Known]:
    """Return the projects of a tenant in the order of their keys, which nothing changes."""
    manager = app.managers().get(tenant)
    sessions = {info.project.key: info for info in manager.sessions()} if manager is not None else {}
    root = await root_folder(app, tenant)
    kept = await anyio.to_thread.run_sync(_kept, root)
    return [
        _known(key, root / "projects" / key, sessions.get(key), kept.get(key))
        for key in sorted(sessions.keys() | kept.keys())
    ]


def _kept(root: Path) -> dict[str, KeptProject]:
    from rlm_sessions import Places

    return {kept.key: kept for kept in Places(root).kept()}


def _known(key: str, place: Path, info: SessionInfo | None, kept: KeptProject | None) -> Known:
    if info is not None:
        folder = str(info.project.folder) if info.project.folder is not None else None
        return Known(key, info.project.name, folder, place, info, kept)
    assert kept is not None
    return Known(key, kept.name, kept.folder, place, None, kept)


async def known_project(app: App, tenant: Tenant, named: str, uri: str) -> Known:
    """Return the project with this key or name. Raise `MCPError` if there is none, or several of the name."""
    projects = await known_projects(app, tenant)
    found = [known for known in projects if known.key == named]
    found = found or [known for known in projects if _folded(known.name) == _folded(named)]
    if not found:
        raise no_resource(uri, f"no project of yours has the key or name {named[:100]!r}")
    if len(found) > 1:
        keys = ", ".join(known.key for known in found[:_MOST_NAMED])
        raise no_resource(
            uri, f"{len(found)} projects have the name {named[:100]!r}; use one of the keys {keys}"
        )
    return found[0]


async def key_of(app: App, tenant: Tenant, named: str, uri: str) -> str:
    """Return the key of the project with this key or name, at little cost if it is a key. Raise `MCPError`."""
    root = await root_folder(app, tenant)
    if named in {place.name for place in await anyio.to_thread.run_sync(places_of, root)}:
        return named
    return (await known_project(app, tenant, named, uri)).key


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold())


async def root_folder(app: App, tenant: Tenant) -> Path:
    """Return where everything of a tenant is kept."""
    return await anyio.to_thread.run_sync(root_of, app.settings, tenant)


def places_of(root: Path) -> list[Path]:
    """Return the folders of all projects kept under a root, without looking into them. Blocks."""
    try:
        with os.scandir(root / "projects") as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return []
