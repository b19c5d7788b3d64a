"""Kills things for as long as asked; see `scripts/crash_test`."""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from .crashes import DOCKER_VICTIMS, VICTIMS, Crashes, DockerCrashes, Wrong


def main() -> int:
    """Run the rounds that the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/crash_test", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="how many kills (default: 300)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same choices")
    parser.add_argument(
        "--durable", action="store_true", help="answers wait for the disk; then nothing may be lost"
    )
    parser.add_argument(
        "--heavy", action="store_true", help="with values of some megabytes, so that copies are made"
    )
    parser.add_argument(
        "--sandbox", choices=("local", "docker"), default="local", help="where the session is"
    )
    known = f"some of {', '.join(VICTIMS)}; with docker of {', '.join(DOCKER_VICTIMS)} (default: all)"
    parser.add_argument("--victims", default="", help=known)
    asked = parser.parse_args()
    kind, possible = (DockerCrashes, DOCKER_VICTIMS) if asked.sandbox == "docker" else (Crashes, VICTIMS)
    victims: list[str] = asked.victims.split(",") if asked.victims else list(possible)
    if unknown := set(victims) - set(possible):
        parser.error(f"unknown victims: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(prefix="rlm-crashes-") as folder:
        return run(kind(Path(folder), asked.durable, asked.seed, asked.heavy), victims, asked.rounds)


def run(crashes: Crashes, victims: list[str], rounds: int) -> int:
    """Run, and print what came of it."""
    chance, began = random.Random(crashes.seed), time.monotonic()
    crashes.begin()
    try:
        for done in range(1, rounds + 1):
            crashes.round(chance.choice(victims))
            if done % 50 == 0 or done == rounds:
                print(f"{done} of {rounds} kills, {time.monotonic() - began:.0f} s", flush=True)
    except Wrong as wrong:
        print(f"WRONG after {sum(crashes.kills.values())} kills: {wrong}")
        return 1
    finally:
        crashes.end()
        print(", ".join(f"{name}: {count}" for name, count in sorted(crashes.kills.items())))
    print(f"Every state was right; {crashes.lost} times a cell was lost with its guest, and that was said.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
