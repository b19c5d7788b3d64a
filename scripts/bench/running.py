"""What runs many measurements: their choice on the command line, the machine they ran on, and the verdict."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

from .measuring import Table

Bench = TypeVar("Bench")


class Measurement(NamedTuple, Generic[Bench]):
    """Something to measure, and in how many rounds if nobody says otherwise, at length or quickly."""

    measure: Callable[[Bench, int], Awaitable[list[Table]]]
    rounds: int
    quick: int


class Found(NamedTuple):
    """What was measured, and which measurements could not be made at all."""

    tables: list[Table]
    failed: list[str]


def parser_of(program: str, about: str | None, measurements: Mapping[str, object]) -> argparse.ArgumentParser:
    """Return a parser with what can be chosen everywhere."""
    parser = argparse.ArgumentParser(
        prog=program, description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--only", metavar="NAME", action="append", choices=measurements, help=", ".join(measurements)
    )
    parser.add_argument("--quick", action="store_true", help="measure less often")
    parser.add_argument(
        "--rounds", metavar="N", type=int, help="rounds of each measurement, instead of its own number"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write everything to FILE")
    return parser


def machine() -> dict[str, str]:
    """Return what there is to know about where this runs."""
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}",
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


async def measure_all(
    measurements: Mapping[str, Measurement[Bench]],
    asked: argparse.Namespace,
    spared: Callable[[Measurement[Bench], int], Awaitable[list[Table]]],
    *,
    failure: type[Exception],
) -> Found:
    """Measure what was asked for, each by `spared`, and print it. One that raises `failure` is passed over."""
    found = Found([], [])
    for name in asked.only or measurements:
        measurement = measurements[name]
        often = asked.rounds or (measurement.quick if asked.quick else measurement.rounds)
        try:
            tables = await spared(measurement, often)
        except failure as problem:
            print(f"\n{name}: could not be measured.\n{problem}", flush=True)
            found.failed.append(f"{name}: could not be measured: {line_of(problem)}")
            continue
        for table in tables:
            print(f"\n{table.text()}", flush=True)
        found.tables.extend(tables)
    return found


def line_of(problem: Exception) -> str:
    """Return the beginning and the end of what an error says."""
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return " ... ".join((lines[0], lines[-1]) if len(lines) > 1 else lines)[:400]


def conclude(found: Found, seconds: float) -> int:
    """Print how many bars were met; return the exit status."""
    held = [(table, row) for table in found.tables for row in table.rows if row.bar is not None]
    missed = [f"{table.title}: {row.name}" for table, row in held if not row.met]
    print(f"\n{len(held) - len(missed)} of {len(held)} bars met, in {seconds:.0f} s")
    for what in missed + found.failed:
        print(f"  missed: {what}")
    return 1 if missed or found.failed else 0
