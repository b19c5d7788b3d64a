"""Measures our MCP server over stdio: its start, calls, many sessions at once, large data, memory, its end.

Each thing is measured beside a bare server on the same SDK, which runs code in its own process, and beside the
peer rlm-runtime, in this run and in turns, by the same client. Tables show ratios and the bars that the project
holds itself to; the exit status is 1 if one is missed. On a machine that others use as well, a single run
proves little: run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import anyio

from . import server_calls, server_data, server_memory, server_profile, server_starts
from .measuring import Table
from .servers import PEER, Bench, Server, bare, ours, peer
from .wire_client import ServerFailed


class Measurement(NamedTuple):
    """Something to measure, and in how many rounds if nobody says otherwise, at length or quickly."""

    measure: Callable[[Bench, int], Awaitable[list[Table]]]
    rounds: int
    quick: int


MEASUREMENTS = {
    "start": Measurement(server_starts.measure_starts, 10, 3),
    "commands": Measurement(server_starts.measure_commands, 10, 3),
    "trip": Measurement(server_calls.measure_trips, 12, 3),
    "new": Measurement(server_calls.measure_new_sessions, 20, 5),
    "rate": Measurement(server_calls.measure_rates, 5, 2),
    "sleep": Measurement(server_calls.measure_sleepers, 3, 1),
    "busy": Measurement(server_calls.measure_beside_busy, 2, 1),
    "value": Measurement(server_data.measure_values, 3, 1),
    "output": Measurement(server_data.measure_outputs, 5, 2),
    "memory": Measurement(server_memory.measure_memory, 1, 1),
    "exit": Measurement(server_starts.measure_exits, 6, 2),
}


class Found(NamedTuple):
    """What was measured, and which measurements could not be made at all."""

    tables: list[Table]
    failed: list[str]


def main() -> int:
    """Measure what the arguments ask for; return the exit status."""
    asked = _parser().parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(
        prefix="rlm-bench-", dir=asked.folder, ignore_cleanup_errors=True
    ) as folder:
        bench = Bench(Path(folder).resolve(), (ours(), bare()), asked.quick)
        if asked.profile:
            print(f"{server_profile.imports(bench)}\n\n{server_profile.calls(bench)}")
            return 0
        machine = _machine()
        for name, fact in machine.items():
            print(f"{name}: {fact}")
        bench, missing = _with_peer(bench, asked.peer, wanted=asked.wants_peer)
        found = anyio.run(_measure, bench, asked.only or list(MEASUREMENTS), asked.rounds, missing)
    if asked.json:
        facts = {"machine": machine, "tables": [table.facts() for table in found.tables]}
        asked.json.write_text(json.dumps(facts, indent=1))
    return _conclude(found, time.perf_counter() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench/server",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=MEASUREMENTS, help=", ".join(MEASUREMENTS)
    )
    parser.add_argument("--quick", action="store_true", help="measure less often")
    parser.add_argument(
        "--rounds", metavar="N", type=int, help="rounds of each measurement, instead of its own number"
    )
    parser.add_argument(
        "--no-peer", dest="wants_peer", action="store_false", help="neither install nor measure the peer"
    )
    parser.add_argument("--peer", metavar="FOLDER", type=Path, help="the environment that has the peer")
    parser.add_argument(
        "--profile", action="store_true", help="measure nothing, but show where the time of our server goes"
    )
    parser.add_argument("--folder", metavar="FOLDER", help="keep sessions on the disk of this folder")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything to FILE")
    return parser


def _machine() -> dict[str, str]:
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


# ---- the peer


def _with_peer(bench: Bench, environment: Path | None, *, wanted: bool) -> tuple[Bench, str]:
    """Return the bench with the peer if there is one that works, and else why there is none."""
    if not wanted:
        return bench, ""
    if environment is None:
        return bench, f"{PEER}: not measured, because it is not installed"
    found = peer(environment.absolute())
    try:
        _try(bench, found)
    except (ServerFailed, OSError) as problem:
        return bench, f"{PEER}: not measured, because it does not work here: {_line(problem)}"
    return replace(bench, servers=(*bench.servers, found)), ""


def _try(bench: Bench, server: Server) -> None:
    with bench.opened(server) as client:
        client.call(server.value("1+1"))


def _line(problem: Exception) -> str:
    return str(problem).splitlines()[0][:200]


# ---- measuring


async def _measure(bench: Bench, names: list[str], rounds: int | None, missing: str) -> Found:
    found = Found([], [])
    for name in names:
        measurement = MEASUREMENTS[name]
        often = rounds or (measurement.quick if bench.quick else measurement.rounds)
        try:
            tables = await _spared(measurement, bench, often, missing)
        except ServerFailed as problem:
            print(f"\n{name}: could not be measured.\n{problem}", flush=True)
            found.failed.append(f"{name}: could not be measured: {_line(problem)}")
            continue
        for table in tables:
            print(f"\n{table.text()}", flush=True)
        found.tables.extend(tables)
    return found


async def _spared(measurement: Measurement, bench: Bench, rounds: int, missing: str) -> list[Table]:
    """Measure; without the peer, when it fails."""
    try:
        tables = await measurement.measure(bench, rounds)
    except ServerFailed as problem:
        if problem.server != PEER:
            raise
        missing = f"{PEER}: not measured, because it failed: {_line(problem)}"
        tables = await measurement.measure(bench.without(PEER), rounds)
    return [replace(table, notes=[*table.notes, *([missing] if missing else [])]) for table in tables]


def _conclude(found: Found, seconds: float) -> int:
    held = [(table, row) for table in found.tables for row in table.rows if row.bar is not None]
    missed = [f"{table.title}: {row.name}" for table, row in held if not row.met]
    print(f"\n{len(held) - len(missed)} of {len(held)} bars met, in {seconds:.0f} s")
    for what in missed + found.failed:
        print(f"  missed: {what}")
    return 1 if missed or found.failed else 0


if __name__ == "__main__":
    sys.exit(main())
