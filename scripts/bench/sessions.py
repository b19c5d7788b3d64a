"""Measures what it costs that sessions last: snapshots, waking, and many sessions of many projects.

Each thing is measured beside the same without it, in this run and in turns, and printed as ratios, with the
bars that the project holds itself to. The exit status is 1 if one is missed. On a machine that others use as
well, a single run proves little: run it again.
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
from pathlib import Path
from typing import NamedTuple

import anyio

from . import households, snapshots
from .measuring import Table


class Measurement(NamedTuple):
    """Something to measure, and in how many rounds if nobody says otherwise."""

    measure: Callable[[Path, int], Awaitable[list[Table]]]
    rounds: int


MEASUREMENTS = {
    "snapshot": Measurement(snapshots.measure_cells, 7),
    "array": Measurement(snapshots.measure_array, 10),
    "whole": Measurement(snapshots.measure_until_whole, 7),
    "wake": Measurement(snapshots.measure_waking, 5),
    "crowd": Measurement(households.measure_speed, 3),
    "memory": Measurement(households.measure_memory, 1),
}


def main() -> int:
    """Measure what the arguments ask for; return the exit status."""
    asked = _parser().parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rlm-bench-", dir=asked.folder) as folder:
        machine = _machine(folder)
        for name, fact in machine.items():
            print(f"{name}: {fact}")
        tables = anyio.run(_measure, Path(folder), asked.only or list(MEASUREMENTS), asked.rounds)
    if asked.json:
        asked.json.write_text(
            json.dumps({"machine": machine, "tables": [t.facts() for t in tables]}, indent=1)
        )
    return _conclude(tables, time.perf_counter() - began)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=MEASUREMENTS, help=", ".join(MEASUREMENTS)
    )
    parser.add_argument(
        "--rounds", metavar="N", type=int, help="rounds of each measurement, instead of its own number"
    )
    parser.add_argument("--folder", metavar="FOLDER", help="keep sessions on the disk of this folder")
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything to FILE")
    return parser


def _machine(folder: str) -> dict[str, str]:
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "kept in": f"{folder}, where a file of one block takes {_sync_milliseconds(folder):.2f} ms to be on the disk",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def _sync_milliseconds(folder: str) -> float:
    """Return how long this disk takes for the least that `durable` can wait for."""
    began = time.perf_counter()
    for _ in range(20):
        with (Path(folder) / "synced").open("wb") as file:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
    return (time.perf_counter() - began) / 20 * 1000


async def _measure(folder: Path, names: list[str], rounds: int | None) -> list[Table]:
    found: list[Table] = []
    for name in names:
        measurement = MEASUREMENTS[name]
        for table in await measurement.measure(folder, rounds or measurement.rounds):
            print(f"\n{table.text()}", flush=True)
            found.append(table)
    return found


def _conclude(tables: list[Table], seconds: float) -> int:
    held = [(table, row) for table in tables for row in table.rows if row.bar is not None]
    missed = [f"{table.title}: {row.name}" for table, row in held if not row.met]
    print(f"\n{len(held) - len(missed)} of {len(held)} bars met, in {seconds:.0f} s")
    for what in missed:
        print(f"  missed: {what}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
