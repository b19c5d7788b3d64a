"""Measures the local sandbox and its sessions beside plain Python, a plain subprocess and a Jupyter kernel.

All is measured in this run and in turns, and printed as ratios, with the bars that the project
holds itself to. The exit status is 1 if one is missed. On a machine that others use as well, a
single run proves little: run it again.
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

from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import open_session

from . import cells, crowds, peers, starts, texts
from .measuring import Table


class Measurement(NamedTuple):
    """Something to measure, and in how many rounds if nobody says otherwise."""

    measure: Callable[[int], Awaitable[list[Table]]]
    rounds: int


MEASUREMENTS = {
    "start": Measurement(starts.measure, 12),
    "round-trip": Measurement(cells.measure_round_trip, 30),
    "busy": Measurement(cells.measure_busy_code, 7),
    "text": Measurement(texts.measure, 7),
    "memory": Measurement(crowds.measure_memory, 1),
    "crowd": Measurement(crowds.measure_speed, 3),
    "output": Measurement(cells.measure_output, 7),
    "interrupt": Measurement(cells.measure_interrupts, 12),
}


def main() -> int:
    """Measure what the arguments ask for; return the exit status."""
    asked = _parser().parse_args()
    began = time.perf_counter()
    machine = anyio.run(_machine)
    for name, fact in machine.items():
        print(f"{name}: {fact}")
    with tempfile.TemporaryDirectory(prefix="rlm-bench-") as folder:
        peers.settle_jupyter(folder)
        tables = anyio.run(_measure, asked.only or list(MEASUREMENTS), asked.rounds)
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
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything to FILE")
    return parser


async def _machine() -> dict[str, str]:
    """Return what there is to know about where this runs."""
    async with LocalSandbox() as sandbox, open_session(sandbox) as session:
        isolation = str(session.isolation)
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
        "isolation": isolation,
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


async def _measure(names: list[str], rounds: int | None) -> list[Table]:
    found: list[Table] = []
    for name in names:
        measurement = MEASUREMENTS[name]
        for table in await measurement.measure(rounds or measurement.rounds):
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
