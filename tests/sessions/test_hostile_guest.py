"""A guest that turned hostile ends its own session and nothing else."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import Limits, Package, Program
from rlm_sessions import Session, SessionEnded, SessionError
from tests.fakes.sandbox import FakeSandbox

HOSTILE = Program(
    Package("rlm_hostile", Path(__file__).parent.parent / "programs" / "hostile"), "rlm_hostile.main:main"
)


@asynccontextmanager
async def hostile_session(limits: Limits | None = None) -> AsyncGenerator[Session, None]:
    """A session whose guest sends what the first cell says."""
    limits = limits or Limits(wall_seconds=1, grace_seconds=0.1)
    async with FakeSandbox() as sandbox, sandbox.start(HOSTILE, None, limits) as process:
        session = Session(process, limits, None, 1000)
        async with anyio.create_task_group() as tasks:
            await session.begin("off")
            tasks.start_soon(session.listen)
            yield session
            tasks.cancel_scope.cancel()


RAN = "frame('ran', {'cell': 1}, b'%s')"
BREAKING = {
    "garbage": "b'x' * 100",
    "garbage after a frame": "frame('output', {'cell': 1, 'stream': 'out'}, b'hello') + b'garbage'",
    "another token": "bytes(16) + struct.pack('!II', 2, 0) + b'[]'",
    "a header that is too long": "token + struct.pack('!II', 2**31, 0)",
    "a body that is too long": "token + struct.pack('!II', 2, 2**31)",
    "a header that is no JSON": "token + struct.pack('!II', 2, 0) + b'{]'",
    "a header that is no pair": "token + struct.pack('!II', 2, 0) + b'{}'",
    "a header nested too deep": "token + struct.pack('!II', 200000, 0) + b'[' * 200000",
    "an unknown kind": "frame('nonsense', {})",
    "a kind that names a method": "frame('late', {})",
    "a kind that is no text": "frame(5, {})",
    "facts that are no mapping": "frame('ran', [])",
    "a second ready": "frame('ready', {})",
    "another cell that ran": "frame('ran', {'cell': 99}, b'{}')",
    "a cell number that is no number": "frame('ran', {'cell': '1'}, b'{}')",
    "an outcome that is no JSON": RAN % "{",
    "an outcome nested too deep": "frame('ran', {'cell': 1}, b'[' * 500000)",
    "an outcome that is no mapping": RAN % "[]",
    "an outcome without changes": RAN % "{}",
    "an outcome with a wrong value": RAN % '{"value": 5, "changed": [], "removed": []}',
    "an outcome with a wrong error": RAN % '{"error": 5, "changed": [], "removed": []}',
    "an error without a name": RAN % '{"error": {}, "changed": [], "removed": []}',
    "an outcome of wrong names": RAN % '{"changed": [5], "removed": []}',
    "an outcome of too many parts": "frame('ran', {'cell': 1}, b'[' + b'[],' * 1500000 + b'[]]')",
    "output without a cell": "frame('output', {}, b'x')",
    "a reply without a number": "frame('reply', {})",
}


@pytest.mark.parametrize("code", BREAKING.values(), ids=BREAKING)
async def test_a_guest_that_breaks_the_protocol_ends_its_session(code: str) -> None:
    with anyio.fail_after(20):
        async with hostile_session() as session:
            try:
                result = await session.run(code)
                ended = result.lost and result.error is not None and "lost" in result.error.message
            except SessionEnded as problem:
                ended = "broke the protocol" in problem.reason
            assert ended
            try:
                await session.run("1")
            except SessionEnded:
                return
    raise AssertionError("the session went on")


async def test_a_limit_that_does_not_exist_is_not_believed() -> None:
    told = '{"error": {"name": "E", "message": "m", "traceback": "", "limit": "grace_seconds"}, "changed": [], "removed": []}'

    with anyio.fail_after(20):
        async with hostile_session() as session:
            result = await session.run(RAN % told)

    assert result.error is not None and result.error.limit is None


async def test_texts_are_cut_to_what_may_be_held() -> None:
    told = 'b\'{"value": "\' + b"x" * 3000000 + b\'", "changed": [], "removed": []}\''

    with anyio.fail_after(20):
        async with hostile_session() as session:
            result = await session.run(f"frame('ran', {{'cell': 1}}, {told})")

    assert result.value is not None and len(result.value) <= 100_000


async def test_output_beyond_its_limit_is_not_held_and_ends_the_session() -> None:
    limits = Limits(wall_seconds=10, output_bytes=1_000_000)
    code = "b''.join(frame('output', {'cell': 1, 'stream': 'out'}, b'x' * 1000000) for _ in range(50))"

    with anyio.fail_after(20):
        async with hostile_session(limits) as session:
            result = await session.run(code)

    assert result.lost and len(result.output) < 2000


async def test_what_is_shown_is_capped_in_kind_number_and_size() -> None:
    code = """b''.join([
        *[frame('display', {'mime': 'text/html'}, b'<script>') for _ in range(5)],
        *[frame('display', {'mime': 'image/png'}, b'x' * 4000000) for _ in range(30)],
        frame('ran', {'cell': 1}, b'{"changed": [], "removed": []}'),
    ])""".replace("\n", " ")

    with anyio.fail_after(30):
        async with hostile_session() as session:
            result = await session.run(code)

    assert {shown.mime for shown in result.displays} == {"image/png"}
    assert sum(len(shown.data) for shown in result.displays) <= 32 * 1024 * 1024


async def test_a_frame_that_never_ends_holds_little_memory() -> None:
    code = "token + struct.pack('!II', 100, 30000000) + b'x' * 20000000"

    tracemalloc.start()
    try:
        with anyio.fail_after(20):
            async with hostile_session() as session:
                result = await session.run(code)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert result.lost
    assert peak < 200_000_000


LYING_LISTS = {
    "no JSON": b"{",
    "no pair": b"[1]",
    "no list": b"[5, 1]",
    "short": b'[[["a"]], 1]',
    "wrong types": b'[[[1, 2, "x", 4]], 1]',
}


@pytest.mark.parametrize("body", LYING_LISTS.values(), ids=LYING_LISTS)
async def test_a_listing_that_is_a_lie_ends_the_session(body: bytes) -> None:
    with anyio.fail_after(20):
        async with hostile_session() as session:
            ended = False
            async with anyio.create_task_group() as tasks:
                # The guest sends its lie when it gets its first cell; the listing asked for before waits for it.
                async def look() -> None:
                    nonlocal ended
                    try:
                        await session.variables()
                    except SessionError:
                        ended = True

                tasks.start_soon(look)
                await anyio.sleep(0.05)
                tasks.start_soon(ignore_end, session, f"frame('reply', {{'id': 1}}, {body!r})")
    assert ended


async def ignore_end(session: Session, code: str) -> None:
    """Run a cell in a session that will end."""
    try:
        await session.run(code)
    except SessionEnded:
        return
