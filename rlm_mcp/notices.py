"""Telling clients that something changed, in both eras of the protocol.

A client of 2026 listens on a stream that is the answer to its request. One of 2025 is sent notifications as long
as it is connected, of lists always and of resources that it subscribed to.

Either is a `_Listener`: what it wants, and what it is still to be told, each thing once. Who publishes only notes
that down, so no client however slow makes anybody wait, and what is noted cannot grow beyond what it wants. A task
that ends with the stream or connection does the telling. Nobody hears of another tenant's changes.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY, ResourcesListChanged, ResourceUpdated
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import event_to_notification
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    EmptyResult,
    InitializeRequestParams,
    NotificationParams,
    SubscribeRequestParams,
    SubscriptionFilter,
    SubscriptionsAcknowledgedNotification,
    SubscriptionsAcknowledgedNotificationParams,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    UnsubscribeRequestParams,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from .app import App, Change
from .callers import UnknownCaller, tenant_of
from .resources import Resources
from .tenants import Tenant

MOST_SUBSCRIPTIONS = 200
MOST_LISTENERS = 1000
TOGETHER_SECONDS = 0.1

_log = logging.getLogger(__name__)
_Event = ResourcesListChanged | ResourceUpdated
_Send = Callable[[_Event], Awaitable[None]]


class _Listener:
    """A client that wants to hear of changes, and what it is still to be told."""

    def __init__(self, tenant: Tenant, *, lists: bool, client: InitializeRequestParams | None = None) -> None:
        self.tenant = tenant
        self.client = client
        self._lists = lists
        self._uris: dict[str, str] = {}  # as the client wrote it -> under which its changes are told
        self._pending: dict[_Event, None] = {}
        self._something = anyio.Event()
        self._over = False

    @property
    def subscriptions(self) -> int:
        """How many resources it wants to hear of."""
        return len(self._uris)

    def want(self, uri: str, subject: str) -> None:
        """Tell it of a resource from now on."""
        self._uris[uri] = subject

    def want_no_more(self, uri: str) -> None:
        """Tell it no more of a resource."""
        self._uris.pop(uri, None)
        self._pending.pop(ResourceUpdated(uri), None)

    def note(self, change: Change) -> None:
        """Note what there is to tell of a change."""
        if change.kind == "listed" and self._lists:
            self._pending[ResourcesListChanged()] = None
        changed = _with_those_above(change.uri)
        for uri, subject in self._uris.items():
            if subject in changed:
                self._pending[ResourceUpdated(uri)] = None
        if self._pending:
            self._something.set()

    def end(self) -> None:
        """Have the telling end when all is told."""
        self._over = True
        self._something.set()

    async def tell(self, send: _Send) -> None:
        """Tell what there is to tell, until it is ended. What changes often within a moment is told once."""
        while True:
            await self._something.wait()
            if not self._over:
                await anyio.sleep(TOGETHER_SECONDS)
            if not self._over:
                self._something = anyio.Event()
            pending, self._pending = self._pending, {}
            for event in pending:
                await send(event)
            if self._over and not self._pending:
                return


def _with_those_above(uri: str) -> set[str]:
    """Return a URI and those it is a part of; the list of all sessions changes with each of them."""
    scheme, _, path = uri.partition("://")
    parts = path.split("/")
    return {f"{scheme}://{'/'.join(parts[:count])}" for count in range(1, len(parts) + 1)} if path else set()


class Notices:
    """Who wants to hear of changes."""

    def __init__(self, app: App, resources: Resources | None = None) -> None:
        self._resources = resources or Resources(app)
        self._listeners: set[_Listener] = set()
        self._connected: dict[int, _Listener] = {}
        app.listeners.append(self.publish)

    @property
    def listening(self) -> int:
        """How many clients hear of changes now."""
        return len(self._listeners)

    def join(self, server: Server[Any]) -> None:
        """Have a server tell of the clients that connect to it, up to 2025-11-25."""
        server.add_notification_handler("notifications/initialized", NotificationParams, self.attend)

    async def publish(self, change: Change) -> None:
        """Note a change for those that want to hear of it."""
        for listener in self._listeners:
            if listener.tenant.name == change.tenant.name:
                listener.note(change)

    def close(self) -> None:
        """End all streams as the protocol wants it: with an answer, when all is told."""
        for listener in self._listeners:
            listener.end()

    # ---- from 2026-07-28 on

    async def listen(
        self, ctx: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Answer subscriptions/listen: go on telling until the client leaves or the server ends."""
        tenant, wanted = tenant_of(), params.notifications
        self._check_room(tenant)
        uris = await self._own(tenant, wanted.resource_subscriptions or ())
        listener = _Listener(tenant, lists=wanted.resources_list_changed is True)
        for uri, subject in uris.items():
            listener.want(uri, subject)
        meta: dict[str, Any] = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}

        async def send(event: _Event) -> None:
            notification = event_to_notification(event, meta)
            await ctx.session.send_notification(notification, related_request_id=ctx.request_id)

        self._listeners.add(listener)
        try:
            await _acknowledge(ctx, wanted, list(uris), meta)
            await listener.tell(send)
        finally:
            self._listeners.discard(listener)
        return SubscriptionsListenResult(_meta=meta)

    async def _own(self, tenant: Tenant, uris: Sequence[str]) -> dict[str, str]:
        """Return which URIs are those of resources of this tenant, each with that under which changes are told."""
        if len(uris) > MOST_SUBSCRIPTIONS:
            raise MCPError(INVALID_PARAMS, _too_many())
        found: dict[str, str] = {}
        for uri in uris:
            try:
                found[uri] = await self._resources.subject(tenant, uri)
            except MCPError:
                continue
        return found

    def _check_room(self, tenant: Tenant) -> None:
        if sum(listener.tenant.name == tenant.name for listener in self._listeners) >= MOST_LISTENERS:
            raise MCPError(
                INVALID_REQUEST,
                f"{MOST_LISTENERS} clients listen for changes already. Read the resources again now and then instead.",
            )

    # ---- up to 2025-11-25

    async def attend(self, ctx: ServerRequestContext[Any, Any], params: NotificationParams | None) -> None:
        """Take notifications/initialized: go on telling as long as the client is connected.

        The SDK cancels what it runs for a connection when that ends, so this is also how one is known to be gone.
        """
        client = ctx.session.client_params
        if (
            client is None
            or ctx.protocol_version in MODERN_PROTOCOL_VERSIONS
            or id(client) in self._connected
        ):
            return
        try:
            listener = _Listener(tenant_of(), lists=True, client=client)
            self._check_room(listener.tenant)
        except (UnknownCaller, MCPError) as problem:
            _log.debug("A client is told of no changes: %s", problem)
            return

        async def send(event: _Event) -> None:
            if isinstance(event, ResourceUpdated):
                await ctx.session.send_resource_updated(event.uri)
            else:
                await ctx.session.send_resource_list_changed()

        self._listeners.add(listener)
        self._connected[id(client)] = listener
        try:
            await listener.tell(send)
        finally:
            self._listeners.discard(listener)
            del self._connected[id(client)]

    async def subscribe(
        self, ctx: ServerRequestContext[Any, Any], params: SubscribeRequestParams
    ) -> EmptyResult:
        """Answer resources/subscribe. Raise `MCPError` for what is no resource of the tenant."""
        subject = await self._resources.subject(tenant_of(), str(params.uri))
        listener = self._listener_of(ctx)
        if listener is None or listener.tenant.name != tenant_of().name:
            raise MCPError(INVALID_REQUEST, "Send notifications/initialized first; then subscribe again.")
        if listener.subscriptions >= MOST_SUBSCRIPTIONS:
            raise MCPError(INVALID_PARAMS, _too_many())
        listener.want(str(params.uri), subject)
        return EmptyResult()

    async def unsubscribe(
        self, ctx: ServerRequestContext[Any, Any], params: UnsubscribeRequestParams
    ) -> EmptyResult:
        """Answer resources/unsubscribe."""
        if listener := self._listener_of(ctx):
            listener.want_no_more(str(params.uri))
        return EmptyResult()

    def _listener_of(self, ctx: ServerRequestContext[Any, Any]) -> _Listener | None:
        return self._connected.get(id(ctx.session.client_params))


async def _acknowledge(
    ctx: ServerRequestContext[Any, Any], wanted: SubscriptionFilter, uris: list[str], meta: dict[str, Any]
) -> None:
    """Tell the client what it will hear of. Tools and prompts never change, so that is promised and kept."""
    honored = SubscriptionFilter(
        tools_list_changed=wanted.tools_list_changed or None,
        prompts_list_changed=wanted.prompts_list_changed or None,
        resources_list_changed=wanted.resources_list_changed or None,
        resource_subscriptions=uris or None,
    )
    told = SubscriptionsAcknowledgedNotificationParams(notifications=honored, _meta=meta)
    await ctx.session.send_notification(
        SubscriptionsAcknowledgedNotification(params=told), related_request_id=ctx.request_id
    )


def _too_many() -> str:
    return (
        f"A client can subscribe to {MOST_SUBSCRIPTIONS} resources. "
        "Subscribe to rlm://sessions, which changes with each."
    )
