"""Measures the runtime: a hundred questions at once, a run, a child run, the log, the import, LiteLLM.

All ask one scripted model, in a process of its own, over HTTP on this machine. Beside ours, with sandbox, log and
store, are a client that does nothing but ask, and two peers, rlms and dspy.RLM, in this run and in turns. Tables
show ratios and the bars that the project holds itself to; the exit status is 1 if one is missed. On a machine that
others use as well, a single run proves little: run it again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import anyio

from . import runtime_calls, runtime_rest, runtime_runs
from .drivers import PeerFailed, spared
from .measuring import Table
from .running import Found, Measurement, conclude, machine, measure_all, parser_of
from .runtime_places import DSPY, RLMS, Bench, serving

MEASUREMENTS: dict[str, Measurement[Bench]] = {
    "calls": Measurement(runtime_calls.measure, 10, 4),
    "runs": Measurement(runtime_runs.measure, 20, 6),
    "log": Measurement(runtime_rest.measure_log, 3, 1),
    "import": Measurement(runtime_rest.measure_imports, 7, 3),
    "litellm": Measurement(runtime_rest.measure_litellm, 3, 1),
}


def main() -> int:
    """Measure what the arguments ask for; return the exit status."""
    asked = _parser().parse_args()
    began = time.perf_counter()
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # peers would ask the network for it, and wait
    where = machine()
    for what, fact in where.items():
        print(f"{what}: {fact}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rlm-bench-", dir=asked.folder) as folder, serving() as model:
        named = [] if asked.without_peers else [(RLMS, asked.rlms), (DSPY, asked.dspy)]
        for name, _ in (each for each in named if each[1] is None):
            print(f"{name}: not measured, because it is not installed")
        peers = tuple((name, environment) for name, environment in named if environment is not None)
        bench = Bench(model, Path(folder).resolve(), peers, asked.litellm)
        found = anyio.run(_measure, bench, asked)
    if asked.json:
        facts = {"machine": where, "tables": [table.facts() for table in found.tables]}
        asked.json.write_text(json.dumps(facts, indent=1))
    return conclude(found, time.perf_counter() - began)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("scripts/bench/runtime", __doc__, MEASUREMENTS)
    parser.add_argument("--without-peers", action="store_true", help="neither install nor measure the peers")
    parser.add_argument("--rlms", metavar="FOLDER", type=Path, help="the environment that has rlms")
    parser.add_argument("--dspy", metavar="FOLDER", type=Path, help="the environment that has dspy")
    parser.add_argument("--litellm", metavar="PYTHON", type=Path, help="a Python that has LiteLLM")
    parser.add_argument("--folder", metavar="FOLDER", help="keep logs on the disk of this folder")
    return parser


async def _measure(bench: Bench, asked: argparse.Namespace) -> Found:
    async def measured(measurement: Measurement[Bench], rounds: int) -> list[Table]:
        return await spared(measurement, bench, rounds)

    return await measure_all(MEASUREMENTS, asked, measured, failure=PeerFailed)


if __name__ == "__main__":
    sys.exit(main())
