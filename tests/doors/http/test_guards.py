"""Names, origins and methods: what is refused before anybody is asked for a token."""

from __future__ import annotations

import socket

import pytest

from .conftest import ALICE, Serve, status_of

BEARER = f"Bearer {ALICE}"


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example:{port}",
        "localhost.evil.example",
        "user@localhost:{port}",
        "localhost:{port}@evil.example",
        "0.0.0.0:{port}",
        "127.0.0.1:{port}/path",
        "169.254.169.254",
        "[::1",
        "localhost:{port}:80",
    ],
)
async def test_a_name_that_is_not_the_servers_is_refused(serve: Serve, host: str | None) -> None:
    async with serve() as served:
        named = None if host is None else host.format(port=served.door.port)
        status = await status_of(served.door.port, host=named, Authorization=BEARER)

    assert status in (400, 421)


@pytest.mark.parametrize("host", ["localhost:{port}", "127.0.0.1:{port}", "LOCALHOST:{port}", "[::1]:{port}"])
async def test_the_names_of_this_machine_are_known(serve: Serve, host: str) -> None:
    async with serve() as served:
        status = await status_of(
            served.door.port, host=host.format(port=served.door.port), Authorization=BEARER
        )

    assert status not in (401, 403, 421)


async def test_names_that_are_allowed_are_known_with_the_port_that_was_named(serve: Serve) -> None:
    allowed = ("rlm.example.org", "other.example.org:*", "third.example.org:8443")
    hosts = ("rlm.example.org", "RLM.example.org", "other.example.org:1", "third.example.org:8443")
    refused = ("rlm.example.org:81", "third.example.org", "xother.example.org:1")
    async with serve(allowed_hosts=allowed) as served:
        good = [await status_of(served.door.port, host=host, Authorization=BEARER) for host in hosts]
        bad = [await status_of(served.door.port, host=host, Authorization=BEARER) for host in refused]

    assert 421 not in good
    assert bad == [421, 421, 421]


async def test_a_server_for_all_addresses_answers_only_to_the_one_that_was_called(serve: Serve) -> None:
    async with serve(host="0.0.0.0") as served:
        called = f"127.0.0.1:{served.door.port}"
        statuses = [
            await status_of(served.door.port, host=host, Authorization=BEARER)
            for host in (
                called,
                "evil.example",
                "10.1.2.3",
                f"0.0.0.0:{served.door.port}",
                socket.gethostname() + "x",
            )
        ]

    assert statuses[0] not in (401, 421)
    assert statuses[1:3] == [421, 421] and statuses[4] == 421


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "https://evil.example",
        "http://localhost.evil.example",
        "http://evil.example:8000",
        "file://",
        "http://a@localhost",
    ],
)
async def test_a_page_from_elsewhere_is_refused(serve: Serve, origin: str) -> None:
    async with serve() as served:
        answer = await served.post({}, headers={"Origin": origin})

    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers


async def test_a_page_of_this_machine_is_let_in_with_a_token_only(serve: Serve) -> None:
    async with serve() as served:
        with_token = await served.post({}, headers={"Origin": "http://localhost:6274"})
        without = await served.post({}, token=None, headers={"Origin": "http://localhost:6274"})

    assert with_token.status_code == 400  # it is no message
    assert without.status_code == 401


async def test_an_allowed_page_is_told_what_it_may_send(serve: Serve) -> None:
    import httpx2

    async with serve(allowed_origins=("https://app.example.org",)) as served, httpx2.AsyncClient() as web:
        asked = {
            "Origin": "https://app.example.org",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,mcp-session-id",
        }
        answer = await web.options(f"{served.base}/mcp", headers=asked)
        other = await web.options(f"{served.base}/mcp", headers={**asked, "Origin": "https://b.example.org"})

    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    assert other.status_code == 403


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "HEAD", "OPTIONS", "CONNECT", "BREW"])
async def test_other_methods_are_not_known(serve: Serve, method: str) -> None:
    import httpx2

    async with serve() as served, httpx2.AsyncClient() as web:
        answer = await web.request(method, f"{served.base}/mcp", headers={"Authorization": BEARER})

    assert answer.status_code == 405


async def test_the_state_of_the_server_is_told_by_any_name_and_without_a_token(serve: Serve) -> None:
    async with serve() as served:
        up = await served.get("/health", token=None, Host="anything.example")
        ready = await served.get("/ready", token=None, Origin="https://evil.example")
        posted = await status_of(served.door.port, host="x", path="/ready")

    assert (up.status_code, up.json()) == (200, {"status": "up"})
    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert posted == 405
