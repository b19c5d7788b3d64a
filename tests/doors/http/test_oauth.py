"""Tokens of an authorization server, asked over real sockets."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import anyio
import anyio.abc
import httpx2
import pytest

from rlm_mcp.settings import HttpSection
from rlm_mcp.web.oauth import Introspection, OAuthUnusable, check_oauth

from .conftest import ALICE, INITIALIZE, LEGACY, MODERN, Serve, Served
from .test_hostile import MODERN_HEADERS, calling

RESOURCE = "https://rlm.example.org/mcp"


@dataclass
class Authority:
    """A small authorization server: what it says of which token, and what it was asked."""

    says: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    asked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])  # the token and who asked
    answer: bytes | None = None  # what it says whatever it is asked
    port: int = 0

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def knows(self, token: str, **facts: Any) -> None:
        self.says[token] = {
            "active": True,
            "sub": "dora",
            "client_id": "some-client",
            "aud": RESOURCE,
            "scope": "rlm other",
            "exp": int(time.time()) + 600,
            "iss": self.issuer,
            **facts,
        }

    async def serve(self, stream: anyio.abc.SocketStream) -> None:
        async with stream:
            head = b""
            while b"\r\n\r\n" not in head:
                head += await stream.receive()
            text, _, body = head.partition(b"\r\n\r\n")
            headers = dict(line.split(": ", 1) for line in text.decode().lower().split("\r\n")[1:])
            while len(body) < int(headers["content-length"]):
                body += await stream.receive()
            await stream.send(self.answer_to(body.decode(), text.decode()))

    def answer_to(self, form: str, head: str) -> bytes:
        token = parse_qs(form)["token"][0]
        given = head.split("uthorization: Basic ")[1].split("\r\n")[0]
        self.asked.append((token, base64.b64decode(given).decode()))
        if self.answer is not None:
            return self.answer
        said = json.dumps(self.says.get(token, {"active": False})).encode()
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(said) + said


@pytest.fixture
async def authority() -> AsyncGenerator[Authority]:
    one = Authority()
    async with await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener:
        one.port = listener.extra(anyio.abc.SocketAttribute.local_port)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(listener.serve, one.serve)
            yield one
            tasks.cancel_scope.cancel()


@asynccontextmanager
async def protected(serve: Serve, authority: Authority) -> AsyncGenerator[Served]:
    async with serve(
        oauth_issuer=authority.issuer,
        oauth_resource=RESOURCE,
        oauth_introspection=f"{authority.issuer}/introspect",
        oauth_client_id="rlm:server",
        oauth_client_secret="s p+c/ret",
        oauth_scopes=("rlm",),
    ) as served:
        yield served


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_who_has_a_token_of_the_authority_is_a_tenant_of_its(
    serve: Serve, authority: Authority, mode: str
) -> None:
    authority.knows("doras-token")
    with anyio.fail_after(30):
        async with protected(serve, authority) as served, served.client("doras-token", mode=mode) as client:
            said = str((await client.call_tool("whose", {})).content)

    assert f"oauth:{authority.issuer}:dora" in said
    assert authority.asked[0] == ("doras-token", "rlm%3Aserver:s%20p%2Bc%2Fret")


async def test_tokens_of_the_configuration_go_on_working_and_are_not_asked_about(
    serve: Serve, authority: Authority
) -> None:
    async with protected(serve, authority) as served, served.client(ALICE) as client:
        said = str((await client.call_tool("whose", {})).content)

    assert "alice" in said
    assert authority.asked == []


@pytest.mark.parametrize(
    ("facts", "status"),
    [
        ({"active": False}, 401),
        ({"active": "true"}, 401),
        ({"active": 1}, 401),
        ({"sub": None}, 401),
        ({"sub": ""}, 401),
        ({"sub": ["dora"]}, 401),
        ({"iss": "https://other.example"}, 401),
        ({"aud": "https://other.example/mcp"}, 401),
        ({"aud": None}, 401),
        ({"aud": []}, 401),
        ({"aud": RESOURCE + "/more"}, 401),
        ({"exp": 1}, 401),
        ({"exp": "never"}, 401),
        ({"nbf": 10**10}, 401),
        ({"scope": "other"}, 403),
        ({"scope": None}, 403),
        ({"aud": ["https://other.example", RESOURCE + "/"]}, 200),
    ],
)
async def test_only_a_token_that_is_valid_here_and_now_is_accepted(
    serve: Serve, authority: Authority, facts: dict[str, Any], status: int
) -> None:
    authority.knows("a-token", **facts)
    async with protected(serve, authority) as served:
        answer = await served.post(calling("whose", {}), token="a-token", headers=MODERN_HEADERS)

    assert answer.status_code == status
    if status != 200:
        assert "/.well-known/oauth-protected-resource/mcp" in answer.headers["www-authenticate"]


async def test_where_to_get_a_token_is_told_to_everybody(serve: Serve, authority: Authority) -> None:
    async with protected(serve, authority) as served:
        answer = await served.get("/.well-known/oauth-protected-resource/mcp", token=None)
        evil = await served.get("/.well-known/oauth-protected-resource/mcp", token=None, Host="evil.example")

    assert answer.status_code == 200
    assert answer.json()["resource"] == RESOURCE
    assert answer.json()["authorization_servers"] == [authority.issuer]
    assert answer.json()["scopes_supported"] == ["rlm"]
    assert evil.status_code == 421


async def test_an_answer_is_believed_for_a_while_and_not_beyond_the_tokens_end(authority: Authority) -> None:
    now = 1000.0
    authority.knows("long", exp=10_000)
    authority.knows("short", exp=1030)
    http = HttpSection(
        oauth_issuer=authority.issuer,
        oauth_resource=RESOURCE,
        oauth_introspection=f"{authority.issuer}/introspect",
    )
    async with httpx2.AsyncClient(auth=httpx2.BasicAuth("a", "b")) as web:
        asking = Introspection(http, web, clock=lambda: now)
        first = [await asking.verify_token(token) for token in ("long", "short", "long", "short")]
        asked_first = len(authority.asked)
        now = 1031.0
        short = await asking.verify_token("short")
        await asking.verify_token("long")
        asked_then = len(authority.asked)
        now = 1061.0
        authority.says["long"]["active"] = False
        long = await asking.verify_token("long")

    assert None not in first
    assert (asked_first, asked_then) == (2, 3)
    assert short is None and long is None


BAD_ANSWERS = {
    "an error": b"HTTP/1.1 500 No\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "a redirect": b"HTTP/1.1 302 No\r\nLocation: http://127.0.0.1:1/\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
    "no JSON": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nyes!",
    "no object": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\ntrue",
    "far too much": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 200000\r\n\r\n"
    + b" " * 200_000,
    "deep": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 60000\r\n\r\n" + b"[" * 60_000,
    "nothing": b"",
}


@pytest.mark.parametrize("bad", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
async def test_an_authority_that_does_not_answer_lets_nobody_in_and_says_so(
    serve: Serve, authority: Authority, bad: bytes
) -> None:
    authority.answer = bad
    with anyio.fail_after(30):
        async with protected(serve, authority) as served:
            answer = await served.post(INITIALIZE, token="some-token")
            alice = await served.post(INITIALIZE)

    assert answer.status_code == 503
    assert "authorization server does not answer" in answer.text
    assert alice.status_code == 200


async def test_an_authority_is_not_asked_by_who_guesses(serve: Serve, authority: Authority) -> None:
    async with protected(serve, authority) as served:
        statuses = [(await served.post(INITIALIZE, token=f"guess-{n}")).status_code for n in range(40)]

    assert 429 in statuses
    assert len(authority.asked) == statuses.count(401)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"oauth_introspection": ""}, "oauth_introspection is needed"),
        ({"oauth_resource": ""}, "oauth_resource is needed"),
        ({"oauth_client_secret": ""}, "oauth_client_secret is needed"),
        ({"oauth_introspection": "http://auth.example/i"}, "must start with https"),
        ({"oauth_issuer": "http://auth.example"}, "must start with https"),
        ({"oauth_resource": "rlm"}, "whole address"),
    ],
)
def test_settings_that_would_not_work_or_tell_secrets_are_refused(wrong: dict[str, str], said: str) -> None:
    right = {
        "oauth_issuer": "https://auth.example",
        "oauth_resource": RESOURCE,
        "oauth_introspection": "https://auth.example/i",
        "oauth_client_id": "a",
        "oauth_client_secret": "b",
    }
    check_oauth(HttpSection.model_validate(right))

    with pytest.raises(OAuthUnusable, match=said):
        check_oauth(HttpSection.model_validate({**right, **wrong}))
