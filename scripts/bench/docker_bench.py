"""Measures the docker sandbox: new sessions, cells, snapshots, interrupts, large contexts, memory, many at once.

Each thing is measured beside the local sandbox, beside Docker's own command (`docker run` and `docker exec` for each
cell), and beside the Docker REPLs of two peers, rlms and rlm-runtime, in this run and in turns. Tables show ratios
and the bars that the project holds itself to; the exit status is 1 if one is missed. On a machine that others use
as well, a single run proves little: run it again.

The engine is the one that RLM_TEST_DOCKER_HOST or DOCKER_HOST names or the machine's own; where none answers, root
starts one for the time of this. RLM_TEST_DOCKER_IMAGE names the image, and without it a small one is built.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import anyio

from rlm_sandboxes.docker import DockerSandbox
from rlm_sessions import open_session

from . import docker_cells, docker_crowds, docker_data, docker_starts
from .containers import RLMS, RUNTIME, Bench, attempt, docker, rlms, runtime
from .drivers import Peer, PeerFailed, spared
from .measuring import Table
from .running import Found, Measurement, conclude, line_of, machine, measure_all, parser_of

MEASUREMENTS: dict[str, Measurement[Bench]] = {
    "new": Measurement(docker_starts.measure, 7, 2),
    "trip": Measurement(docker_cells.measure_trips, 12, 3),
    "snapshot": Measurement(docker_cells.measure_snapshots, 5, 2),
    "interrupt": Measurement(docker_cells.measure_interrupts, 9, 3),
    "context": Measurement(docker_data.measure, 3, 1),
    "crowd": Measurement(docker_crowds.measure_speed, 3, 1),
    "memory": Measurement(docker_crowds.measure_memory, 1, 1),
}


def main() -> int:
    """Measure what the arguments ask for; return the exit status."""
    asked = _parser().parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(
        prefix="rlm-bench-", dir=asked.folder, ignore_cleanup_errors=True
    ) as name:
        folder = Path(name).resolve()
        folder.chmod(0o755)
        os.environ["RLM_DOCKER_WORKSPACE_DIR"] = str(folder / "peers")  # where rlms keeps its files
        bench = Bench(asked.image, folder, quick=asked.quick)
        where = anyio.run(_where, bench)
        for what, fact in where.items():
            print(f"{what}: {fact}", flush=True)
        bench, notes = _with_peers(bench, asked)
        for note in notes:
            print(note, flush=True)
        found = anyio.run(_measure, bench, asked)
    if asked.json:
        facts = {"machine": where, "peers": notes, "tables": [table.facts() for table in found.tables]}
        asked.json.write_text(json.dumps(facts, indent=1))
    return conclude(found, time.perf_counter() - began)


def _parser() -> argparse.ArgumentParser:
    parser = parser_of("scripts/bench/docker", __doc__, MEASUREMENTS)
    parser.add_argument("--without-peers", action="store_true", help="neither install nor measure the peers")
    parser.add_argument("--runtime", metavar="FOLDER", type=Path, help="the environment that has rlm-runtime")
    parser.add_argument("--rlms", metavar="FOLDER", type=Path, help="the environment that has rlms")
    parser.add_argument("--rlms-image", metavar="IMAGE", help="an image with dill and requests, for rlms")
    parser.add_argument(
        "--image",
        metavar="IMAGE",
        default=os.environ.get("RLM_TEST_DOCKER_IMAGE", "rlm-python:local"),
        help="an image with Python, for all others",
    )
    parser.add_argument(
        "--folder", metavar="FOLDER", help="keep sessions and contexts on the disk of this folder"
    )
    return parser


async def _where(bench: Bench) -> dict[str, str]:
    """Return what there is to know about where this runs."""
    async with DockerSandbox(bench.image, pull="never") as sandbox, open_session(sandbox) as session:
        isolation = str(session.isolation)
    engine = "{{.ServerVersion}}, {{.Driver}}, cgroup v{{.CgroupVersion}}, {{.DefaultRuntime}}"
    return {
        **machine(),
        "user": "root" if os.geteuid() == 0 else "an ordinary user",
        "engine": docker("info", "--format", engine),
        "client": docker("version", "--format", "{{.Client.Version}}"),
        "image": f"{bench.image}, {bench.run('import platform; print(platform.python_version())')}",
        "isolation": isolation,
    }


# ---- the peers


def _with_peers(bench: Bench, asked: argparse.Namespace) -> tuple[Bench, list[str]]:
    """Return the bench with those peers that work, and what there is to say of each."""
    if asked.without_peers:
        return bench, []
    wanted: dict[str, Peer | None] = {
        RLMS: rlms(asked.rlms, asked.rlms_image or bench.image, bench.folder) if asked.rlms else None,
        RUNTIME: runtime(asked.runtime, bench.image, bench.folder) if asked.runtime else None,
    }
    notes: list[str] = []
    for name, peer in wanted.items():
        if peer is None:
            notes.append(f"{name}: not measured, because it could not be installed")
            continue
        try:
            attempt(peer)
        except (PeerFailed, OSError) as problem:
            notes.append(f"{name}: not measured, because it does not work here: {line_of(problem)}")
            continue
        bench = replace(bench, peers=(*bench.peers, peer))
        if name == RLMS and asked.rlms_image:
            notes.append(
                f"{RLMS}: gets an image with dill and requests in it, which it then installs without a network"
            )
    return bench, notes


# ---- measuring


async def _measure(bench: Bench, asked: argparse.Namespace) -> Found:
    async def measured(measurement: Measurement[Bench], rounds: int) -> list[Table]:
        return await spared(measurement, bench, rounds)

    return await measure_all(MEASUREMENTS, asked, measured, failure=PeerFailed)


if __name__ == "__main__":
    sys.exit(main())
