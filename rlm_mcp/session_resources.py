"""The family `rlm://sessions`: what sessions there are, what is in each, and what was run in it.

A session that is asleep is told of from what is on disk. Nothing here wakes one, waits for one or takes its lock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from mcp_types import Annotations, ReadResourceResult, Resource, ResourceTemplate, TextResourceContents

from . import addresses, cells
from .addresses import Address
from .app import App
from .known import Known, key_of, known_project, known_projects
from .tenants import Tenant

if TYPE_CHECKING:
    from rlm_sandboxes import Layer
    from rlm_sessions import ProjectSession

JSON = "application/json"
MOST_ON_A_PAGE = 200

_ON_A_PAGE, _CELLS_ON_A_PAGE, _RECENT_CELLS = 100, 20, 10
_MOST_CELLS_ON_A_PAGE = 100
_MOST_VARIABLES = 500
_PATIENCE_SECONDS = 5.0
_NO_VARIABLES = "get_repl_context wakes the session and lists its variables"


class SessionFamily:
    """What can be read of the sessions of a tenant."""

    def __init__(self, app: App) -> None:
        self._app = app

    # ---- what there is

    async def listed(
        self, tenant: Tenant, after: tuple[Any, ...] | None, count: int, most: int
    ) -> Sequence[tuple[tuple[Any, ...], Resource]]:
        """Return the list of all sessions, and then each in the order of the keys."""
        projects = await known_projects(self._app, tenant)
        first = [] if after is not None else [(("",), _index(len(projects)))]
        last = str(after[0]) if after else ""
        rest = [((known.key,), _listed(known)) for known in projects if known.key > last]
        return [*first, *rest][:most]

    def templates(self) -> Sequence[ResourceTemplate]:
        """Return how to page, and how to ask for one session and what was run in it."""
        return _TEMPLATES

    async def subject(self, tenant: Tenant, address: Address) -> str:
        """Return under which URI changes of a resource are told."""
        kind, named = _parts(address)
        if kind == "index":
            return addresses.write("sessions")
        return session_uri(await key_of(self._app, tenant, named, address.uri))

    async def complete(self, tenant: Tenant, argument: str, value: str) -> Sequence[str]:
        """Return the projects whose names or keys begin with `value`, the last used first."""
        return await projects_like(self._app, tenant, value) if argument == "project" else []

    # ---- reading

    async def read(self, tenant: Tenant, address: Address) -> ReadResourceResult:
        """Return what is at an address, as JSON."""
        kind, named = _parts(address)
        if kind == "index":
            told = await self._index(tenant, address)
        elif kind == "session":
            address.only(())
            told = await self._session(tenant, await known_project(self._app, tenant, named, address.uri))
        else:
            told = await self._cells(await known_project(self._app, tenant, named, address.uri), address)
        text = addresses.printable(json.dumps(told, ensure_ascii=False, indent=1))
        contents = TextResourceContents(uri=address.uri, mime_type=JSON, text=text)
        return ReadResourceResult(contents=[contents], ttl_ms=0, cache_scope="private")

    async def _index(self, tenant: Tenant, address: Address) -> dict[str, Any]:
        address.only(("after", "limit"))
        limit = address.number("limit", _ON_A_PAGE, least=1, most=MOST_ON_A_PAGE)
        projects = await known_projects(self._app, tenant)
        rest = [known for known in projects if known.key > address.query.get("after", "")]
        shown = rest[:limit]
        steps = await anyio.to_thread.run_sync(lambda: [cells.last_step(known.place) for known in shown])
        told: dict[str, Any] = {
            "sessions": [_told(known, step) for known, step in zip(shown, steps, strict=True)],
            "total": len(projects),
        }
        if len(rest) > limit:
            told["next"] = addresses.write("sessions", after=shown[-1].key, limit=limit)
        return told

    async def _session(self, tenant: Tenant, known: Known) -> dict[str, Any]:
        step = await anyio.to_thread.run_sync(cells.last_step, known.place)
        recent = await anyio.to_thread.run_sync(cells.recent, known.place, _RECENT_CELLS)
        told = _told(known, step)
        told |= await self._inside(tenant, known)
        told["recent_cells"] = recent
        told["cells"] = addresses.write("sessions", known.key, "cells")
        return told

    async def _inside(self, tenant: Tenant, known: Known) -> dict[str, Any]:
        """Tell what only a session that is open knows: how it is isolated, and what it holds."""
        session = self._open_session(tenant, known.key)
        if session is None:
            return {"isolation": None, "variables": None, "variables_note": _NO_VARIABLES}
        isolation = session.isolation
        told: dict[str, Any] = {"isolation": None}
        if isolation is not None:
            layers = [_told_of_layer(layer) for layer in isolation.layers]
            told["isolation"] = {"strong": isolation.strong, "layers": layers}
        return told | await _variables(session)

    def _open_session(self, tenant: Tenant, key: str) -> ProjectSession | None:
        """Return the session if it is open here."""
        manager = self._app.managers().get(tenant)
        return None if manager is None else manager.found(key)

    async def _cells(self, known: Known, address: Address) -> dict[str, Any]:
        address.only(("after", "limit", "search"))
        limit = address.number("limit", _CELLS_ON_A_PAGE, least=1, most=_MOST_CELLS_ON_A_PAGE)
        after = address.number("after", 0)
        search = address.query.get("search") or None
        page = await anyio.to_thread.run_sync(lambda: cells.page(known.place, after, limit, search))
        told: dict[str, Any] = {"project": known.name, "key": known.key, "cells": page.cells}
        if page.next is not None:
            more = {"search": search} if search else {}
            told["next"] = addresses.write(
                "sessions", known.key, "cells", after=page.next, limit=limit, **more
            )
        if page.damaged:
            told["damaged_lines"] = page.damaged
        return told


async def projects_like(app: App, tenant: Tenant, value: str) -> list[str]:
    """Return the names of projects that begin with `value`; the key where a name is not the only one of its kind."""
    projects = sorted(await known_projects(app, tenant), key=lambda known: -known.last_used)
    names = Counter(known.name.casefold() for known in projects)
    wanted = value.casefold()
    return [
        known.name if names[known.name.casefold()] == 1 else known.key
        for known in projects
        if known.name.casefold().startswith(wanted) or known.key.startswith(wanted)
    ]


def session_uri(key: str) -> str:
    """Return the URI of a session."""
    return addresses.write("sessions", key)


def _parts(address: Address) -> tuple[str, str]:
    """Return what is meant, and of which project."""
    path = address.path
    if len(path) == 1:
        return "index", ""
    if len(path) == 2:
        return "session", path[1]
    if len(path) == 3 and path[2] == "cells":
        return "cells", path[1]
    raise addresses.no_resource(address.uri, "of a session there are rlm://sessions/PROJECT and .../cells")


# ---- telling


async def _variables(session: ProjectSession) -> dict[str, Any]:
    if not session.awake or session.waking:
        return {"variables": None, "variables_note": _NO_VARIABLES}
    with anyio.move_on_after(_PATIENCE_SECONDS):
        found = await session.variables()
        told = [
            {"name": each.name, "type": each.type, "size_bytes": each.size_bytes, "preview": each.preview}
            for each in found[:_MOST_VARIABLES]
        ]
        return {"variables": told, "variables_total": len(found)}
    return {"variables": None, "variables_note": "the session is too busy to tell; try again"}


def _told_of_layer(layer: Layer) -> dict[str, Any]:
    told: dict[str, Any] = {"name": layer.name, "holds": layer.holds}
    return told if layer.holds else told | {"why": layer.detail}


def _told(known: Known, step: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "project": known.name,
        "key": known.key,
        "folder": known.folder,
        "state": known.info.state if known.info is not None else "asleep",
        "step": max(step, known.info.step if known.info is not None else 0),
        "last_used": moment(known.last_used),
        "kept_bytes": known.kept.bytes_by_kind if known.kept is not None else {},
        "uri": session_uri(known.key),
    }
    if known.info is not None and known.info.state == "busy":
        told["running"] = {"code": known.info.code, "seconds": round(known.info.since_seconds, 1)}
        told["waiting"] = known.info.waiting
    if known.info is not None and known.info.problem:
        told["problem"] = known.info.problem
    return told


def moment(seconds: float) -> str:
    """Return a time as ISO 8601."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").removesuffix("+00:00") + "Z"


def _index(count: int) -> Resource:
    return Resource(
        uri=addresses.write("sessions"),
        name="sessions",
        title="All sessions",
        description=f"The {count} projects with a session, open or asleep: state, step, size on disk.",
        mime_type=JSON,
        annotations=Annotations(audience=["user", "assistant"], priority=0.5),
    )


def _listed(known: Known) -> Resource:
    state = known.info.state if known.info is not None else "asleep"
    where = f" in {known.folder}" if known.folder else ""
    return Resource(
        uri=session_uri(known.key),
        name=f"session-{known.key}",
        title=addresses.printable(f"Session of {known.name}"),
        description=addresses.printable(
            f"The session of {known.name}{where} ({state}): variables, isolation, recent cells."
        ),
        mime_type=JSON,
        annotations=Annotations(audience=["user", "assistant"], last_modified=moment(known.last_used)),
    )


_TEMPLATES = (
    ResourceTemplate(
        uri_template="rlm://sessions{?after,limit}",
        name="sessions-page",
        title="Sessions, by page",
        description="Sessions in the order of their keys; `after` is the last key of the page before.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="rlm://sessions/{project}",
        name="session",
        title="One session",
        description="State, isolation, variables and recent cells of a project, by its name or key. Wakes nothing.",
        mime_type=JSON,
    ),
    ResourceTemplate(
        uri_template="rlm://sessions/{project}/cells{?after,limit,search}",
        name="cells",
        title="Cells of a session",
        description="What was run, oldest first: step, code, seconds, error, output. `search` finds a text in "
        "code or output; `after` is the `n` of the cell before. With limit=1 code and output are whole.",
        mime_type=JSON,
    ),
)
