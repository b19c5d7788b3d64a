"""Tokens: who is let in, and what is kept of them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from rlm_mcp.http import announcement
from rlm_mcp.settings import HttpSection, Settings
from rlm_mcp.web.limits import Attempts
from rlm_mcp.web.tokens import TokenFileUnusable, TokensUnusable, configured_keys, keys_of

from .conftest import ALICE, BOB, INITIALIZE, LEGACY, MODERN, Serve, status_of


@pytest.fixture
def unconfigured(flags: dict[str, object], tmp_path: Path) -> None:
    assert flags
    (tmp_path / "config" / "rlm.toml").write_text("", encoding="utf-8")


@pytest.mark.parametrize("token", [None, "wrong-token-0123456789", ALICE + "x", ALICE[:-1], "x" * 9000])
async def test_without_a_right_token_nothing_is_answered(serve: Serve, token: str | None) -> None:
    async with serve() as served:
        answer = await served.post(INITIALIZE, token=token)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer ")
    assert ALICE not in answer.text


async def test_a_token_in_the_address_is_not_accepted(serve: Serve) -> None:
    async with serve() as served:
        answers = [
            await served.get(f"/mcp?{name}={ALICE}", token=None)
            for name in ("token", "access_token", "authorization")
        ]

    assert [answer.status_code for answer in answers] == [401, 401, 401]


async def test_a_token_may_be_given_as_its_digest(serve: Serve) -> None:
    token = "a-token-nobody-sees-here"
    digest = sha256(token.encode()).hexdigest()
    async with serve(tokens={"carol": f"sha256:{digest}"}) as served:
        async with served.client(token, mode=LEGACY) as client:
            result = await client.call_tool("whose", {})
        refused = await served.post(INITIALIZE, token=digest)

    assert "carol" in str(result.content)
    assert refused.status_code == 401


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer \xe9\xe9\xe9\xe9",
        f"Basic {ALICE}",
        ALICE,
        f"Bearer  {ALICE}",
        f"Bearer {ALICE}, {BOB}",
    ],
)
async def test_a_header_that_holds_no_right_token_lets_nobody_in(serve: Serve, header: str) -> None:
    async with serve() as served:
        status = await status_of(served.door.port, host="localhost", Authorization=header)

    assert status == 401


async def test_who_guesses_too_often_has_to_wait(serve: Serve) -> None:
    async with serve() as served:
        statuses = [
            (await served.post(INITIALIZE, token=f"guess-number-{n:020}")).status_code for n in range(40)
        ]

    assert statuses[:30] == [401] * 30
    assert 429 in statuses


async def test_who_guessed_too_often_waits_even_with_a_right_token_and_nobody_else_does() -> None:
    right = False

    async def door(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(status_code=200 if right else 401)(scope, receive, send)

    async def status(address: str) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "client": (address, 1), "headers": [(b"authorization", b"Bearer x")]}
        await attempts(scope, receive=cast("Any", None), send=send)
        return int(sent[0]["status"])

    now = 0.0
    attempts = Attempts(door, clock=lambda: now)
    guessed = [await status("10.0.0.1") for _ in range(31)]
    right = True
    then, elsewhere = await status("10.0.0.1"), await status("10.0.0.2")
    now = 2.0
    later = await status("10.0.0.1")

    assert guessed == [401] * 30 + [429]
    assert (then, elsewhere, later) == (429, 200, 200)


@pytest.mark.usefixtures("unconfigured")
async def test_a_token_is_made_shown_once_and_accepted_later(serve: Serve, tmp_path: Path) -> None:
    async with serve() as served:
        token = served.door.token
        assert token is not None
        told = announcement(served.door, HttpSection())
        async with served.client(token, mode=MODERN) as client:
            first = await client.call_tool("whose", {})
    async with serve() as served:
        shown_again = served.door.token
        told_later = announcement(served.door, HttpSection())
        async with served.client(token, mode=MODERN) as client:
            second = await client.call_tool("whose", {})
    kept = tmp_path / "state" / "http-token"

    assert token in told and token not in told_later and shown_again is None
    assert "the account" in str(first.content) and "the account" in str(second.content)
    assert kept.read_text(encoding="utf-8") == f"sha256:{sha256(token.encode()).hexdigest()}\n"
    assert kept.stat().st_mode & 0o777 == 0o600


@pytest.mark.usefixtures("unconfigured")
async def test_a_new_token_ends_the_old_one(serve: Serve) -> None:
    async with serve() as served:
        old = served.door.token
    async with serve(new_token=True) as served:
        new = served.door.token
        statuses = [(await served.post(INITIALIZE, token=token)).status_code for token in (old, new)]

    assert old != new
    assert statuses == [401, 200]


def test_a_kept_digest_that_is_none_is_not_passed_over(tmp_path: Path) -> None:
    (tmp_path / "http-token").write_text("", encoding="utf-8")
    settings = Settings.model_validate({"sessions": {"state_dir": tmp_path}})

    with pytest.raises(TokenFileUnusable, match="holds no digest"):
        keys_of(settings)


def test_a_kept_digest_is_not_read_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("sha256:" + "0" * 64, encoding="utf-8")
    (tmp_path / "http-token").symlink_to(tmp_path / "elsewhere")
    settings = Settings.model_validate({"sessions": {"state_dir": tmp_path}})

    with pytest.raises(TokenFileUnusable):
        keys_of(settings)


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        ({"alice": "short"}, "at least 16"),
        ({"alice": " " + "x" * 20}, "at least 16"),
        ({"alice": "sha256:12"}, "no such digest"),
        ({"alice": "x" * 20, "bob": "x" * 20}, "the same token"),
        ({"": "x" * 20}, "no name for a tenant"),
        ({" ": "x" * 20}, "no name for a tenant"),
        ({"oauth:https://a:b": "x" * 20}, "no name for a tenant"),
    ],
)
def test_tokens_that_protect_nothing_are_refused(tokens: dict[str, str], said: str) -> None:
    with pytest.raises(TokensUnusable, match=said):
        configured_keys(HttpSection(tokens=tokens))


def test_a_refused_token_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(TokensUnusable) as refused:
        configured_keys(HttpSection(tokens={"alice": "secret-15-chars"}))

    assert "secret-15" not in str(refused.value)


async def test_two_servers_in_one_place_accept_the_token_that_was_made_last(serve: Serve) -> None:
    with anyio.fail_after(30):
        async with serve() as one, serve() as other:
            statuses = [(await each.post(INITIALIZE)).status_code for each in (one, other)]

    assert statuses == [200, 200]
