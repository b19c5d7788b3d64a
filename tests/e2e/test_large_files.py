"""A file far larger than any message becomes a variable: not over the wire, and hardly larger than it is."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio

from tests.e2e.grounds import Grounds, descendants

SIZE = 100_000_000
LINE = b"a line of plain text, as there are many in a log\r\n"
MOST_BYTES_SAID = 10_000
MOST_TIMES = 1.3
PATIENCE = 30


def memory_bytes(pid: int) -> int:
    """Return the memory that a process and all below it have for themselves: no page of a file counts."""
    return sum(_own_bytes(number) for number in {pid, *(number for number, _ in descendants(pid))})


def _own_bytes(pid: int) -> int:
    """Return it for one process, none if it has ended; what it shares is divided, where a user may look so closely."""
    try:
        try:
            told, names = Path(f"/proc/{pid}/smaps_rollup").read_text(), ("Pss_Anon", "Pss_Shmem")
        except PermissionError:
            told, names = Path(f"/proc/{pid}/status").read_text(), ("RssAnon", "RssShmem")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    found = {line.split(":")[0]: line.split()[1] for line in told.split("\n") if line.endswith("kB")}
    return 1024 * sum(int(found.get(name, 0)) for name in names)  # a process at its end has no memory left


async def _memory_when_kept(pid: int, before: int) -> int:
    """Return what is in use when no copy of the guest is writing its state down, or after a while."""
    used = memory_bytes(pid)
    with anyio.move_on_after(PATIENCE):
        while used - before > MOST_TIMES * SIZE:
            await anyio.sleep(0.05)
            used = memory_bytes(pid)
    return used


async def test_100_mb_by_path_are_not_on_the_wire_and_take_little_more_memory_than_they_are(
    grounds: Grounds,
) -> None:
    (grounds.project / "app.log").write_bytes((LINE * (SIZE // len(LINE) + 1))[:SIZE])
    said = 0
    with anyio.fail_after(120):
        async with await anyio.open_process(
            grounds.server, stdin=PIPE, stdout=PIPE, stderr=None, env=grounds.environment, cwd=grounds.project
        ) as server:
            assert server.stdin is not None and server.stdout is not None
            read = b""

            async def ask(method: str, **params: Any) -> Any:
                nonlocal said, read
                message = (
                    json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
                    + b"\n"
                )
                await server.stdin.send(message)  # type: ignore[union-attr]
                said += len(message)
                while b"\n" not in read:
                    read += await server.stdout.receive()  # type: ignore[union-attr]
                line, _, read = read.partition(b"\n")
                said += len(line)
                return json.loads(line)["result"]

            async def call(name: str, **arguments: Any) -> str:
                answer = await ask("tools/call", name=name, arguments=arguments)
                assert not answer.get("isError"), answer
                return str(answer["content"][0]["text"])

            about = {"name": "test", "version": "1"}
            await ask("initialize", protocolVersion="2025-11-25", capabilities={}, clientInfo=about)
            await call("execute_python", code="1")
            before = memory_bytes(server.pid)
            loaded = await call("set_repl_context", files={"log": "app.log"})
            found = await call("execute_python", code="len(log), log.count('\\r\\n'), log[-5:]")
            after = await _memory_when_kept(server.pid, before)
            await server.stdin.aclose()
            await server.wait()

    assert loaded == f"log: {SIZE} characters from app.log"
    assert found.startswith(f"({SIZE}, {SIZE // len(LINE)}, ")
    assert said < MOST_BYTES_SAID
    assert after - before <= MOST_TIMES * SIZE
