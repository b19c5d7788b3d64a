"""Calls that wait for the client, as resources: `rlm://calls/HANDLE/NUMBER` is a prompt, whole or a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mcp_types import ReadResourceResult, Resource, ResourceTemplate, TextResourceContents

from . import addresses
from .addresses import Address, no_resource
from .app import App
from .tenants import Tenant
from .texts import plain


class CallFamily:
    """The calls that wait. They are listed nowhere: whoever is to answer them is told of them."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def listed(
        self, tenant: Tenant, after: tuple[Any, ...] | None, count: int, most: int
    ) -> Sequence[tuple[tuple[Any, ...], Resource]]:
        """Return nothing."""
        return []

    def templates(self) -> Sequence[ResourceTemplate]:
        """Return how the address of a call is made."""
        return [
            ResourceTemplate(
                uri_template="rlm://calls/{handle}/{number}{?offset,limit}",
                name="call",
                title="A call that waits for its answer",
                description="The prompt of a call that code waits for, or a part of it; answer_calls takes the answer.",
                mime_type="text/plain",
            )
        ]

    async def read(self, tenant: Tenant, address: Address) -> ReadResourceResult:
        """Return the prompt of a call."""
        address.only(("offset", "limit"))
        _, *rest = address.path
        job = self._app.jobs.found(rest[0], tenant) if len(rest) == 2 else None
        call = job.desk.calls.get(rest[1]) if job is not None else None
        if call is None:
            raise no_resource(address.uri, "no such call waits; answer_calls with the handle tells which do")
        text = TextResourceContents(uri=address.uri, mime_type="text/plain", text=_part(address, call.prompt))
        return ReadResourceResult(contents=[text], ttl_ms=0, cache_scope="private")

    async def subject(self, tenant: Tenant, address: Address) -> str:
        """Return the address itself: a call does not change."""
        await self.read(tenant, address)
        return addresses.write(*address.path)

    async def complete(self, tenant: Tenant, argument: str, value: str) -> Sequence[str]:
        """Return the handles of what waits, or nothing."""
        if argument != "handle":
            return []
        return [job.handle for job in self._app.jobs.of(tenant) if job.handle.startswith(value)]


def _part(address: Address, prompt: str) -> str:
    """Return the part of a prompt that is asked for, and where the next one is."""
    prompt = plain(prompt)
    start = address.number("offset", 0)
    limit = address.number("limit", max(1, len(prompt)), least=1)
    end = start + limit
    if start >= len(prompt) > 0:
        return f"[There is nothing from character {start} on: it has {len(prompt)}.]"
    if end >= len(prompt):
        return prompt[start:]
    more = addresses.write(*address.path, offset=end, limit=limit)
    return f"{prompt[start:end]}\n[Characters {start} to {end} of {len(prompt)}. The next: {more}]"
