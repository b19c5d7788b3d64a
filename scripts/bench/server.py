"""Measures our MCP server over stdio: its start, calls, many sessions at once, large data, memory, its end.

Each thing is measured beside a bare server on the same SDK, which runs code in its own process, and beside the
peer rlm-runtime, in this run and in turns, by the same client. Tables show ratios and the bars that the project
holds itself to; the exit status is 1 if one is missed. On a machine that others use as well, a single run
proves little: run it again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import anyio

from . import server_calls, server_data, server_memory, server_profile, server_starts
from .measuring import Table
from .running import Found, Measurement, conclude, line_of, machine, measure_all, parser_of
from .servers import PEER, Bench, Server, bare, ours, peer
from .wire_client import ServerFailed

MEASUREMENTS: dict[str, Measurement[Bench]] = {
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
        where = machine()
        for name, fact in where.items():
            print(f"{name}: {fact}")
        bench, missing = _with_peer(bench, asked.peer, wanted=asked.wants_peer)
        found = anyio.run(_measure, bench, asked, missing)
    if asked.json:
        facts = {"machine": where, "tables": [table.facts() for table in found.tables]}
        asked.json.write_text(json.dumps(facts, indent=1))
    return conclude(found, time.perf_counter() - began)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("scripts/bench/server", __doc__, MEASUREMENTS)
    parser.add_argument(
        "--no-peer", dest="wants_peer", action="store_false", help="neither install nor measure the peer"
    )
    parser.add_argument("--peer", metavar="FOLDER", type=Path, help="the environment that has the peer")
    parser.add_argument(
        "--profile", action="store_true", help="measure nothing, but show where the time of our server goes"
    )
    parser.add_argument("--folder", metavar="FOLDER", help="keep sessions on the disk of this folder")
    return parser


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
        return bench, f"{PEER}: not measured, because it does not work here: {line_of(problem)}"
    return replace(bench, servers=(*bench.servers, found)), ""


def _try(bench: Bench, server: Server) -> None:
    with bench.opened(server) as client:
        client.call(server.value("1+1"))


# ---- measuring


async def _measure(bench: Bench, asked: argparse.Namespace, missing: str) -> Found:
    async def spared(measurement: Measurement[Bench], rounds: int) -> list[Table]:
        return await _spared(measurement, bench, rounds, missing)

    return await measure_all(MEASUREMENTS, asked, spared, failure=ServerFailed)


async def _spared(measurement: Measurement[Bench], bench: Bench, rounds: int, missing: str) -> list[Table]:
    """Measure; without the peer, when it fails."""
    try:
        tables = await measurement.measure(bench, rounds)
    except ServerFailed as problem:
        if problem.server != PEER:
            raise
        missing = f"{PEER}: not measured, because it failed: {line_of(problem)}"
        tables = await measurement.measure(bench.without(PEER), rounds)
    return [replace(table, notes=[*table.notes, *([missing] if missing else [])]) for table in tables]


if __name__ == "__main__":
    sys.exit(main())
