"""Resources: what clients can list and read beside calling tools.

They come in families, each with the first part of its addresses: `rlm://sessions/...` is told by the family
"sessions". Another family is one more class that keeps the promise of `Family`, and one more line in `Resources`.

Lists are paged by what was listed last and not by a count, so nothing is left out or told twice when
things come and go between two pages.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
)

from . import addresses
from .addresses import Address
from .app import App
from .call_resources import CallFamily
from .output_resources import OutputFamily
from .session_resources import SessionFamily
from .tenants import Tenant
from .trajectory_resources import TrajectoryFamily

PAGE = 50

_TEMPLATES_STAY_MS = 3_600_000


class Cursor(NamedTuple):
    """Where a list stopped: after which item of a family, and how many of that family came before."""

    family: str
    last: tuple[Any, ...]
    so_far: int


class Family(Protocol):
    """Resources of one kind, all of which have addresses that begin alike."""

    async def listed(
        self, tenant: Tenant, after: tuple[Any, ...] | None, count: int, most: int
    ) -> Sequence[tuple[tuple[Any, ...], Resource]]:
        """Return up to `most` resources to list, each with its place in an order that does not change.

        `after` is the place of the last one that was listed, and `count` how many were.
        """
        ...

    def templates(self) -> Sequence[ResourceTemplate]:
        """Return how the addresses of those are made that are not listed."""
        ...

    async def read(self, tenant: Tenant, address: Address) -> ReadResourceResult:
        """Return what is at an address. Raise `MCPError` if that is nothing of this tenant's."""
        ...

    async def subject(self, tenant: Tenant, address: Address) -> str:
        """Return under which URI changes of a resource are told. Raise `MCPError` if there is none at the address."""
        ...

    async def complete(self, tenant: Tenant, argument: str, value: str) -> Sequence[str]:
        """Return what an argument of a template could be that begins with `value`, best first, without waiting."""
        ...


class Resources:
    """All resources of a server."""

    def __init__(self, app: App) -> None:
        self.families: Mapping[str, Family] = {
            "sessions": SessionFamily(app),
            "outputs": OutputFamily(app),
            "calls": CallFamily(app),
            "trajectories": TrajectoryFamily(app),
        }

    async def list(self, tenant: Tenant, cursor: str | None) -> ListResourcesResult:
        """Answer resources/list."""
        at = None if cursor is None else self._read_cursor(cursor)
        found: list[tuple[Cursor, Resource]] = []
        names = [*self.families]
        for name in names[names.index(at.family) if at else 0 :]:
            after, count = (at.last, at.so_far) if at and at.family == name else (None, 0)
            # One more than there is room for tells whether another page follows.
            items = await self.families[name].listed(tenant, after, count, PAGE + 1 - len(found))
            for number, (last, resource) in enumerate(items, count + 1):
                found.append((Cursor(name, last, number), resource))
        more = _written(found[PAGE - 1][0]) if len(found) > PAGE else None
        resources = [resource for _, resource in found[:PAGE]]
        return ListResourcesResult(resources=resources, next_cursor=more, ttl_ms=0, cache_scope="private")

    def _read_cursor(self, text: str) -> Cursor:
        try:
            family, last, so_far = json.loads(base64.urlsafe_b64decode(text.encode("ascii")))
            if family in self.families:
                return Cursor(family, tuple(last), max(int(so_far), 0))
        except (ValueError, TypeError, OverflowError, RecursionError):
            pass
        raise wrong_cursor(text)

    async def templates(self, tenant: Tenant, cursor: str | None) -> ListResourceTemplatesResult:
        """Answer resources/templates/list, in one page."""
        if cursor is not None:
            raise wrong_cursor(cursor)
        found = [template for family in self.families.values() for template in family.templates()]
        return ListResourceTemplatesResult(
            resource_templates=found, ttl_ms=_TEMPLATES_STAY_MS, cache_scope="private"
        )

    async def read(self, tenant: Tenant, uri: str) -> ReadResourceResult:
        """Answer resources/read."""
        address = addresses.read(uri)
        return await self._family(address).read(tenant, address)

    async def subject(self, tenant: Tenant, uri: str) -> str:
        """Return under which URI changes of a resource are told. Raise `MCPError` if it is none of the tenant's."""
        address = addresses.read(uri)
        return await self._family(address).subject(tenant, address)

    def _family(self, address: Address) -> Family:
        family = self.families.get(address.path[0])
        if family is None:
            known = ", ".join(addresses.write(name) for name in self.families)
            raise addresses.no_resource(address.uri, f"the addresses of this server begin with {known}")
        return family


def wrong_cursor(cursor: str) -> MCPError:
    """Return the error that says that a cursor is none of ours."""
    shown = addresses.printable(cursor[:100])
    return MCPError(
        INVALID_PARAMS,
        f"{shown!r} is not the nextCursor of an earlier answer of this server. Leave the cursor out to begin anew.",
    )


def _written(cursor: Cursor) -> str:
    return base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode()
