"""Tokens of an authorization server: it is asked whether they are valid, and whose they are (RFC 7662).

An answer is believed for a minute at most, and never longer than the token is valid. Whoever is named in it becomes
a tenant of that authorization server's.
"""

from __future__ import annotations

import json
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, cast
from urllib.parse import quote, urlsplit

import anyio
import anyio.to_thread
import httpx2
from starlette.authentication import AuthenticationError

from ..callers import TenantToken
from ..errors import DoorError
from ..settings import HttpSection
from ..tenants import Tenant
from .guards import is_loopback

_BELIEVED_SECONDS = 60.0
_BELIEVED = 4096
_ANSWER_BYTES = 64 * 1024
_ASKING_SECONDS = 10.0
_ASKING_AT_ONCE = 8
_LONGEST_TOKEN = 16 * 1024


class OAuthUnusable(DoorError):
    """The settings for OAuth cannot be used as they are."""


class NotAnswered(AuthenticationError):
    """The authorization server could not be asked, so nobody knows whether the token is right."""

    def __init__(self) -> None:
        super().__init__("The authorization server does not answer. Nothing was done; try again later.")


@dataclass(frozen=True)
class _Believed:
    token: TenantToken
    until: float


class Introspection:
    """Asks an authorization server of tokens."""

    def __init__(
        self, http: HttpSection, client: httpx2.AsyncClient, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._http = http
        self._client = client
        self._clock = clock
        self._believed: OrderedDict[bytes, _Believed] = OrderedDict()
        self._asking = anyio.CapacityLimiter(_ASKING_AT_ONCE)

    async def verify_token(self, token: str) -> TenantToken | None:
        """Return whose token this is, or nothing if it is not valid. Raise `NotAnswered`."""
        if not token or len(token) > _LONGEST_TOKEN:
            return None
        digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
        believed = self._believed.get(digest)
        if believed is not None and self._clock() < believed.until:
            return believed.token
        self._believed.pop(digest, None)
        found = self._read(await self._ask(token))
        if found is not None:
            self._believe(digest, found)
        return found

    def _believe(self, digest: bytes, token: TenantToken) -> None:
        until = self._clock() + _BELIEVED_SECONDS
        if token.expires_at is not None:
            until = min(until, float(token.expires_at))
        self._believed[digest] = _Believed(token, until)
        if len(self._believed) > _BELIEVED:
            self._believed.popitem(last=False)

    async def _ask(self, token: str) -> dict[str, Any]:
        try:
            with anyio.fail_after(_ASKING_SECONDS):
                async with self._asking:
                    return await self._answer(token)
        except (httpx2.HTTPError, TimeoutError, ValueError, RecursionError) as problem:
            raise NotAnswered from problem

    async def _answer(self, token: str) -> dict[str, Any]:
        form = {"token": token, "token_type_hint": "access_token"}
        answer = bytearray()
        async with self._client.stream("POST", self._http.oauth_introspection, data=form) as response:
            if response.status_code != 200:
                raise ValueError("no answer")
            async for part in response.aiter_bytes():
                answer += part
                if len(answer) > _ANSWER_BYTES:
                    raise ValueError("too long an answer")
        found: object = json.loads(answer)
        if not isinstance(found, dict):
            raise ValueError("no object")
        return cast("dict[str, Any]", found)

    def _read(self, said: dict[str, Any]) -> TenantToken | None:
        subject, issuer = said.get("sub"), said.get("iss", self._http.oauth_issuer)
        expires, begins = said.get("exp"), said.get("nbf")
        if said.get("active") is not True or not isinstance(subject, str) or not subject:
            return None
        if issuer != self._http.oauth_issuer or not all(_is_time(each) for each in (expires, begins)):
            return None
        now = self._clock()
        if (expires is not None and expires <= now) or (begins is not None and begins > now):
            return None
        tenant = Tenant(f"oauth:{issuer}:{subject}")
        return TenantToken(
            client_id=str(said.get("client_id", "")),
            scopes=_words(said.get("scope")),
            expires_at=None if expires is None else int(expires),
            resource=self._resource(said),
            subject=subject,
            claims={"iss": issuer},
            tenant=Tenant(tenant.name, folders=self._http.folders.get(tenant.name, ())),
        )

    def _resource(self, said: dict[str, Any]) -> str | None:
        named: object = said.get("aud", said.get("resource"))
        entries = cast("list[object]", named) if isinstance(named, list) else [named]
        texts = [each for each in entries if isinstance(each, str)]
        ours = self._http.oauth_resource.rstrip("/")
        return next((each for each in texts if each.rstrip("/") == ours), texts[0] if texts else None)


@asynccontextmanager
async def open_introspection(http: HttpSection) -> AsyncGenerator[Introspection]:
    """Make ready to ask the authorization server. Raise `OAuthUnusable` if the settings for it are wrong."""
    check_oauth(http)
    client = await anyio.to_thread.run_sync(_client, http)  # it reads the certificates of this machine
    async with client:
        yield Introspection(http, client)


def check_oauth(http: HttpSection) -> None:
    """Raise `OAuthUnusable` if what is needed is missing, or if secrets would go over the network in the clear."""
    for name in ("oauth_resource", "oauth_introspection", "oauth_client_id", "oauth_client_secret"):
        if not getattr(http, name):
            raise OAuthUnusable(
                f"With oauth_issuer in [http], {name} is needed too. Set it, or remove oauth_issuer."
            )
    for name in ("oauth_issuer", "oauth_introspection"):
        url = urlsplit(str(getattr(http, name)))
        if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname or "")):
            raise OAuthUnusable(f"{name} in [http] must start with https:// (http:// only for this machine).")
    if urlsplit(http.oauth_resource).scheme not in ("http", "https"):
        raise OAuthUnusable(
            "oauth_resource in [http] must be this server's whole address, as https://NAME/mcp."
        )


def _client(http: HttpSection) -> httpx2.AsyncClient:
    # Both are form-encoded first, as RFC 6749 (2.3.1) has it.
    name, secret = quote(http.oauth_client_id, safe=""), quote(http.oauth_client_secret, safe="")
    return httpx2.AsyncClient(
        auth=httpx2.BasicAuth(name, secret),
        timeout=httpx2.Timeout(5.0),
        follow_redirects=False,
        trust_env=False,
        headers={"Accept": "application/json"},
    )


def _is_time(value: object) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _words(value: object) -> list[str]:
    return value.split() if isinstance(value, str) else []
