"""How long a call takes: alone, among many in flight, and while another session is busy."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import anyio.to_thread

from . import processes
from .common import in_thread
from .measuring import Bar, Batch, Contender, Row, Table, batches_in_turns, in_turns
from .servers import BARE, MAIN, OURS, PEER, Bench, Server
from .wire_client import Call, WireClient

_BATCH = 50
_PROCESSOR = "Processor time of the server's own process, each call"
_IN_FLIGHT = 50
_BURST = 500
_SLEEP_SECONDS = 0.2
_BUSY_SECONDS = 1.0
_MOST_LOOKS, _PAUSE_SECONDS = 15, 0.02
_BUSY = f"import time\nend = time.monotonic() + {_BUSY_SECONDS}\nwhile time.monotonic() < end:\n    pass"


class Cells:
    """Cells that are never twice the same, because the peer remembers what it has run."""

    def __init__(self) -> None:
        self._number = 0

    def __call__(self, server: Server, session: str = MAIN) -> Call:
        self._number += 1
        return server.value(f"1+{self._number}", session)


# ---- one after another


async def measure_trips(bench: Bench, rounds: int) -> list[Table]:
    """Measure calls one after another, and the processor time that each costs the server's own process."""
    cells, processor = Cells(), dict[str, list[float]]()
    with ExitStack() as stack:
        batches: dict[str, Batch] = {}
        for server in bench.servers:
            for era in server.eras:
                client = stack.enter_context(bench.opened(server, era))
                marked = server.name if era == "2025" else f"{server.name}, {era}"
                trips: dict[str, Callable[[], Call]] = {f"{marked}: `1+i`": partial(cells, server)}
                if server.nothing:
                    trips[f"{marked}: nothing"] = server.nothing
                for name, trip in trips.items():
                    _trip(client, trip)  # the first one wakes what has to be woken
                    batches[name] = _batch(partial(_trips, client, trip, processor, name))
        found = await batches_in_turns(batches, rounds=rounds, seldom={})
    nothing = f"{BARE}: nothing"
    return [
        Table("A call, one after another", _rows(found), nothing),
        Table("What ours costs beyond the bare server's no-op", _beyond(found)),
        Table(
            _PROCESSOR,
            [Row(name, processor[name]) for name in found],
            nothing,
        ),
    ]


def _batch(act: Callable[[], list[float]]) -> Batch:
    async def batch() -> list[float]:
        return await anyio.to_thread.run_sync(act)

    return batch


def _trips(
    client: WireClient, trip: Callable[[], Call], processor: dict[str, list[float]], name: str
) -> list[float]:
    before = processes.processor_seconds(client.pid)
    found = [_trip(client, trip) for _ in range(_BATCH)]
    used = processes.processor_seconds(client.pid) - before
    processor.setdefault(name, []).append(used / _BATCH)
    return found


def _trip(client: WireClient, trip: Callable[[], Call]) -> float:
    return client.call(trip()).seconds


def _rows(found: dict[str, list[float]]) -> list[Row]:
    return [Row(name, values) for name, values in found.items()]


def _beyond(found: dict[str, list[float]]) -> list[Row]:
    rows: list[Row] = []
    for era in ("", ", 2026"):
        ours, nothing = (Row("", found[n]) for n in (f"{OURS}{era}: `1+i`", f"{BARE}{era}: nothing"))
        more = ours.median - nothing.median
        rows.append(Row(f"p50{era}", [more], bar=Bar(0.0005, "<= 0.5 ms")))
        rows.append(Row(f"p95{era}", [ours.p95 - nothing.p95]))
    whole = Row("", found[f"{OURS}: `1+i`"])
    return [*rows, Row("p95, all of it", [whole.p95], bar=Bar(0.002, "<= 2 ms"))]


# ---- the first one of a session


async def measure_new_sessions(bench: Bench, rounds: int) -> list[Table]:
    """Measure the first call of a session, in a server that has others already."""
    cells, bar = Cells(), Bar(0.060, "<= 60 ms")
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for server in bench.servers:
            client = stack.enter_context(bench.opened(server))
            contenders[server.name] = in_thread(partial(_first, client, server, cells, iter(range(1000))))
        found = await in_turns(contenders, rounds=rounds)
    rows = [Row(n, v, bar=bar if n == OURS else None) for n, v in found.items()]
    return [Table("The first call of a session", rows, BARE)]


def _first(client: WireClient, server: Server, cells: Cells, numbers: Iterator[int]) -> float:
    return client.call(cells(server, f"new{next(numbers)}")).seconds


# ---- many in flight


async def measure_rates(bench: Bench, rounds: int) -> list[Table]:
    """Measure trivial calls with many in flight, to one session and to as many sessions."""
    cells, bar, processor = Cells(), Bar(0.001, ">= 1,000 calls/s"), dict[str, list[float]]()
    with ExitStack() as stack:
        contenders: dict[str, Contender] = {}
        for server in bench.servers:
            client = stack.enter_context(bench.opened(server))
            for count in (1, _IN_FLIGHT):
                name = f"{server.name}, {count} session{'s' if count > 1 else ''}"
                contenders[name] = in_thread(
                    partial(_counted_burst, client, server, count, cells, processor.setdefault(name, []))
                )
        found = await in_turns(contenders, rounds=rounds)
    rows = [Row(n, v, bar=bar if n.startswith(OURS) else None) for n, v in found.items()]
    rates = [Row(row.name, [1 / row.median], "calls/s") for row in rows]
    reference = f"{BARE}, 1 session"
    return [
        Table(f"Time for each of {_BURST} trivial calls, {_IN_FLIGHT} in flight", rows, reference),
        Table("The same as calls in a second", rates, reference),
        Table(_PROCESSOR, [Row(name, values[1:]) for name, values in processor.items()], reference),
    ]


def _counted_burst(
    client: WireClient, server: Server, sessions: int, cells: Cells, processor: list[float]
) -> float:
    before = processes.processor_seconds(client.pid)
    seconds = burst(client, server, sessions, cells)
    processor.append((processes.processor_seconds(client.pid) - before) / _BURST)
    return seconds


def burst(client: WireClient, server: Server, sessions: int, cells: Cells) -> float:
    """Have so many calls in flight until all are answered; return the seconds that each of them took of it."""
    calls = [cells(server, f"s{number % sessions}") for number in range(_BURST)]
    began = time.perf_counter()
    for call in calls[:_IN_FLIGHT]:
        client.send_call(call)
    for call in calls[_IN_FLIGHT:]:
        client.hear()
        client.send_call(call)
    for _ in range(_IN_FLIGHT):
        client.hear()
    return (time.perf_counter() - began) / _BURST


# ---- sessions beside each other


async def measure_sleepers(bench: Bench, rounds: int) -> list[Table]:
    """Measure how long many sessions take that each sleep for a while, all at once."""
    tables: list[Table] = []
    for count, most in ((10, 0.35), (_IN_FLIGHT, 1.0)):
        asked = bench.without(PEER).without(BARE) if bench.quick and count > 10 else bench
        rows: list[Row] = []
        for server in asked.servers:
            with bench.opened(server) as client:
                _all_at_once(client, server, count, 0)  # wakes them
                times = rounds if server.name == OURS else 1
                values = [_all_at_once(client, server, count, _SLEEP_SECONDS) for _ in range(times)]
            bar = Bar(most, f"<= {most:g} s") if server.name == OURS else None
            rows.append(Row(server.name, values, bar=bar))
        tables.append(
            Table(f"{count} sessions that each sleep {_SLEEP_SECONDS:g} s, all at once", rows, BARE)
        )
    return tables


def _all_at_once(client: WireClient, server: Server, count: int, sleep: float) -> float:
    began = time.perf_counter()
    cell = f"import time\ntime.sleep({sleep})"
    for number in range(count):
        client.send_call(server.cell(cell, f"s{number}"))
    for _ in range(count):
        client.hear()
    return time.perf_counter() - began


# ---- while another is busy


async def measure_beside_busy(bench: Bench, rounds: int) -> list[Table]:
    """Measure what other requests wait for while a session computes."""
    tables: list[Table] = []
    cells = Cells()
    for what, most in (("ping", 0.005), ("tools/list", 0.005), ("a call of another session", 0.010)):
        rows: list[Row] = []
        for server in bench.servers:
            with bench.opened(server) as client:
                for session in (MAIN, "other"):
                    client.call(cells(server, session))
                values: list[float] = []
                for _ in range(rounds if server.name == OURS else 1):
                    values += _beside_busy(client, server, what, cells)
            bar = Bar(most, f"<= {most * 1000:g} ms") if server.name == OURS else None
            rows.append(Row(server.name, values, bar=bar))
        tables.append(Table(f"While a session computes for {_BUSY_SECONDS:g} s: {what}", rows, BARE))
    return tables


def _beside_busy(client: WireClient, server: Server, what: str, cells: Cells) -> list[float]:
    """Ask again and again while a cell computes; return how long each answer took to come."""
    busy, found = client.send_call(server.cell(_BUSY)), list[float]()
    time.sleep(0.1)
    while not client.has(busy) and len(found) < _MOST_LOOKS:
        answer = client.call(cells(server, "other")) if what.startswith("a call") else client.ask(what)
        found.append(answer.seconds)
        time.sleep(_PAUSE_SECONDS)
    client.wait(busy)
    return found or [math.nan]
