"""How much memory a server takes: idle, and with all its processes when sessions are awake."""

from __future__ import annotations

import time

import anyio.to_thread

from . import memory, processes
from .measuring import Bar, Table
from .servers import Bench, Server
from .sums import Sums

_MANY = 20
_EACH = "PSS for each session more"
_REST_SECONDS = 1.5  # after a while without a cell, a session comes to rest
_IDLE_BAR, _SESSION_BAR = Bar(75e6, "<= 75 MB"), Bar(15e6, "<= 15 MB")


async def measure_memory(bench: Bench, rounds: int) -> list[Table]:
    """Look at the memory of a server before its first call, and at that of all its processes after."""
    sums = Sums()
    for _ in range(rounds):
        for server in bench.servers:
            await anyio.to_thread.run_sync(_look, bench, server, sums)
    sums.without_ratios(_EACH)
    return sums.tables()


def _look(bench: Bench, server: Server, sums: Sums) -> None:
    name = server.name
    with bench.opened(server) as client:
        time.sleep(_REST_SECONDS)
        idle = memory.resident(client.pid).now
        sums.add("RSS of the server's own process, idle", name, idle, unit="bytes", bar=_IDLE_BAR)
        found: dict[int, int] = {}
        for count in (0, 1, _MANY):
            for number in range(count):
                client.call(server.cell(f"x = {number}", f"s{number}"))
            time.sleep(_REST_SECONDS)
            found[count] = processes.proportional_bytes(client.pid)
            title = f"PSS of the server and all its processes, {count} sessions"
            sums.add(title.replace("1 sessions", "1 session"), name, found[count], unit="bytes")
    each = (found[_MANY] - found[1]) / (_MANY - 1)
    sums.add(_EACH, name, each, unit="bytes", bar=_SESSION_BAR)
