"""How long a hundred questions take that a model answers in 50 ms each, asked at once by code in a REPL."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeAlias
from urllib.parse import urlsplit

import anyio.to_thread

from .drivers import Driver
from .measuring import Bar, Batch, Row, Table, batches_in_turns
from .runtime_model import BATCHES, CALLS, LEAF_SECONDS, YES
from .runtime_places import DSPY, OURS, RLMS, Bench, context, measured, measured_of

FLOOR = "a bare client"
_BAR = Bar(0.150, "<= 150 ms")
_NAMES = ("first", "second", "third")
_SELDOM = 3
_Connection: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def measure(bench: Bench, rounds: int) -> list[Table]:
    """Measure three batches of one run, by what asks as many at once as it does by itself and as many as there are."""
    with bench.drivers() as drivers:
        batches: dict[str, Batch] = {OURS: partial(_ours, bench), FLOOR: partial(_bare, bench)}
        for name, driver in drivers.items():
            batches[name] = partial(_peer, driver, name)
            batches[f"{name}, raised to {CALLS} at once"] = partial(_peer, driver, name, at_once=CALLS)
        await _ours(bench)
        seldom = {name: min(rounds, _SELDOM) for name in batches if name not in (OURS, FLOOR)}
        found = await batches_in_turns(batches, rounds=rounds, seldom=seldom)
    rows = [row for name, values in found.items() for row in _rows(name, values)]
    title = f"{CALLS} questions at once, of which each takes {LEAF_SECONDS * 1000:.0f} ms"
    return [Table(title, rows, f"{FLOOR}, second batch", _notes(drivers))]


def _notes(drivers: Mapping[str, Driver]) -> list[str]:
    notes = ["with connections of its own for each run, log and store"]
    if RLMS in drivers:
        notes.append(f"{RLMS}: one batch, because questions of a second one fail on connections of the first")
    if DSPY in drivers:
        notes.append(f"{DSPY}: code in a plain subprocess, without a sandbox")
    return notes


def _rows(name: str, values: Sequence[float]) -> list[Row]:
    each = 1 if name.startswith(RLMS) else BATCHES
    bar = _BAR if name == OURS else None
    return [Row(f"{name}, {_NAMES[n]} batch", values[n::each], bar=bar) for n in range(each)]


async def _ours(bench: Bench) -> list[float]:
    async with bench.ours("batches") as rlm:
        return await measured(rlm, context(40))


async def _peer(driver: Driver, name: str, *, at_once: int | None = None) -> list[float]:
    what = "batch" if name == RLMS else "batches"
    return await anyio.to_thread.run_sync(
        partial(measured_of, driver, name, what, context(40), at_once=at_once)
    )


# ---- the floor: as little as a client can do


async def _bare(bench: Bench) -> list[float]:
    """Ask the same over bare connections, opened by the first batch and kept for the others."""
    seconds: list[float] = []
    connections: list[_Connection | None] = [None] * CALLS
    asked = context(40)
    for batch in range(BATCHES):
        requests = [
            _request(bench.model.url, "leaf", f"{asked} {batch}.{n}: is it so?") for n in range(CALLS)
        ]
        began = time.perf_counter()
        connections = list(await asyncio.gather(*map(_ask, requests, connections)))
        seconds.append(time.perf_counter() - began)
    for connection in connections:
        if connection is not None:
            connection[1].close()
    return seconds


async def seconds_of_an_answer(bench: Bench, *, often: int = 20) -> list[float]:
    """Return how long a model that answers at once takes for that over a connection that is there."""
    request = _request(bench.model.url, "ready", "Is it so?")
    connection, seconds = await _ask(request, None), list[float]()
    for _ in range(often):
        began = time.perf_counter()
        await _ask(request, connection)
        seconds.append(time.perf_counter() - began)
    connection[1].close()
    return seconds


def _request(url: str, model: str, prompt: str) -> tuple[str, int, bytes]:
    at = urlsplit(url)
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}]}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {at.netloc}\r\ncontent-length: {len(body)}\r\n\r\n"
    return at.hostname or "", at.port or 80, head.encode() + body


async def _ask(request: tuple[str, int, bytes], connection: _Connection | None) -> _Connection:
    host, port, data = request
    reader, writer = connection or await asyncio.open_connection(host, port)
    writer.write(data)
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    body = await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
    if json.loads(body)["choices"][0]["message"]["content"] != YES:
        raise RuntimeError(f"The model answered {body.decode()}")
    return reader, writer
