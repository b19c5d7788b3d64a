"""How much a client may ask for: requests in a minute, requests at work, wrong tokens.

Standing streams, on which a client only listens, are counted apart, so that they never keep a call waiting.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..callers import tenant_of
from ..settings import HttpSection
from ..tenants import Tenant
from .answers import too_many

Clock = Callable[[], float]

_WRONG_TOKENS_PER_MINUTE = 30
_ADDRESSES = 4096
_TENANTS = 4096


class Bucket:
    """Lets through so many in a minute, and as many at once after a pause."""

    def __init__(self, per_minute: int, clock: Clock) -> None:
        self._per_second = per_minute / 60
        self._most = float(per_minute)
        self._clock = clock
        self._left, self._at = self._most, clock()

    def seconds_to_wait(self) -> float:
        """Return how long until one more is let through; 0 if it is at once."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._per_second)
        self._at = now
        return 0.0 if self._left >= 1 else (1 - self._left) / self._per_second

    def take(self) -> None:
        """Count one."""
        self._left = max(0.0, self._left - 1)


class Share:
    """What one tenant has in use."""

    def __init__(self, http: HttpSection, clock: Clock) -> None:
        self.requests = Bucket(http.requests_per_minute, clock)
        self.at_work = {False: 0, True: 0}  # by whether it is a standing stream

    @property
    def unused(self) -> bool:
        return not any(self.at_work.values())


class Limits:
    """Lets each tenant have its share, and not that of others."""

    def __init__(self, app: ASGIApp, http: HttpSection, *, clock: Clock = time.monotonic) -> None:
        self.app = app
        self._http = http
        self._clock = clock
        self._shares: OrderedDict[Tenant, Share] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        share, standing = self._share(tenant_of()), is_standing(scope)
        refused = self._refused(share, standing=standing)
        if refused is not None:
            await refused(scope, receive, send)
            return
        share.requests.take()
        share.at_work[standing] += 1
        try:
            await self.app(scope, receive, send)
        finally:
            share.at_work[standing] -= 1

    def _refused(self, share: Share, *, standing: bool) -> ASGIApp | None:
        seconds = share.requests.seconds_to_wait()
        if seconds:
            most = self._http.requests_per_minute
            text = f"More than {most} requests in a minute ([http] requests_per_minute). Nothing was done."
            return too_many(text, retry_seconds=math.ceil(seconds))
        if share.at_work[standing] >= self._http.concurrent_requests:
            most = self._http.concurrent_requests
            what = "streams are open" if standing else "requests are at work"
            text = (
                f"{most} {what} already ([http] concurrent_requests). Nothing was done; let one of them end."
            )
            return too_many(text, retry_seconds=1)
        return None

    def _share(self, tenant: Tenant) -> Share:
        share = self._shares.get(tenant)
        if share is None:
            share = self._shares[tenant] = Share(self._http, self._clock)
            self._forget_some()
        self._shares.move_to_end(tenant)
        return share

    def _forget_some(self) -> None:
        if len(self._shares) > _TENANTS:
            oldest = next((who for who, share in self._shares.items() if share.unused), None)
            if oldest is not None:
                del self._shares[oldest]


class Attempts:
    """Slows down who guesses: an address that came with many wrong tokens has to wait."""

    def __init__(self, app: ASGIApp, *, clock: Clock = time.monotonic) -> None:
        self.app = app
        self._clock = clock
        self._wrong: OrderedDict[str, Bucket] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if "authorization" not in Headers(scope=scope):
            await self.app(scope, receive, send)
            return
        address = network_of(scope)
        bucket = self._wrong.get(address)
        seconds = bucket.seconds_to_wait() if bucket else 0.0
        if seconds:
            text = (
                "Too many wrong tokens came from this address. Wait, and use one that this server was given."
            )
            await too_many(text, retry_seconds=math.ceil(seconds))(scope, receive, send)
            return

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._count(address)
            await send(message)

        await self.app(scope, receive, watched)

    def _count(self, address: str) -> None:
        if address not in self._wrong:
            self._wrong[address] = Bucket(_WRONG_TOKENS_PER_MINUTE, self._clock)
            if len(self._wrong) > _ADDRESSES:
                self._wrong.popitem(last=False)
        self._wrong[address].take()
        self._wrong.move_to_end(address)


def network_of(scope: Scope) -> str:
    """Return where a request comes from; with IPv6 that is a network, because anybody has all addresses of one."""
    text = str((scope.get("client") or ("", 0))[0])
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return text[:64]
    if address.version == 6:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def is_standing(scope: Scope) -> bool:
    """Return whether a request only opens a stream to listen on."""
    return scope["method"] == "GET" or Headers(scope=scope).get("mcp-method") == "subscriptions/listen"
