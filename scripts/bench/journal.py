"""Measures the journal: what an entry costs, and asking among very many, beside reading the files for it.

    scripts/bench/journal [--entries N] [--rounds N]

The exit status is 1 if a bar is missed. Times of appending are those of
writing to the system's cache, as `append` does where nobody asks for durable entries.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from rlm_sessions.journal import Journal

from .common import clocked, seconds_of
from .measuring import Bar, Contender, Row, Table, in_turns

KINDS = ("cell", "call", "answer", "ran")
SCANNED = "reading the files"
PAGE = 100
_APPEND_BAR = Bar(20e-6, "<= 20 us")
_PAGE_BAR = Bar(5e-3, "<= 5 ms")
_TEXT_BAR = Bar(0.1, "<= 100 ms")
_BUILD_BAR = Bar(2.0, "<= 2 s")


def main() -> int:
    """Measure, print, and return the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entries", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args()
    with TemporaryDirectory(prefix="rlm-bench-") as name:
        tables = anyio.run(_measure, Path(name) / "journal", asked.entries, asked.rounds)
    missed = [f"{table.title}: {row.name}" for table in tables for row in table.rows if row.met is False]
    for what in missed:
        print(f"missed: {what}")
    return 1 if missed else 0


async def _measure(folder: Path, entries: int, rounds: int) -> list[Table]:
    tables: list[Table] = []
    with Journal.open(folder) as journal:
        for table in (
            _appending(journal, entries),
            _first_question(journal, folder),
            await _questions(journal, folder, entries, rounds),
        ):
            print(f"\n{table.text()}", flush=True)
            tables.append(table)
    return tables


# ---- appending


def _facts(n: int) -> dict[str, Any]:
    """Return what a run of a program that asks a model again and again records."""
    words = f"row {n} of the table says {n * 7919 % 100_003}; " * 8
    return {"code": words} if n % 4 == 0 else {"key": f"{n:064x}", "text": words}


def _appending(journal: Journal, entries: int) -> Table:
    plain = [_seconds_to_append(journal, n) for n in range(entries)]
    durable = [seconds_of(lambda: journal.append("opened", durable=True)) for _ in range(50)]
    return Table(
        f"One entry, while {entries:,} are appended",
        [Row("append", plain, bar=_APPEND_BAR), Row("append, durable", durable)],
    )


def _seconds_to_append(journal: Journal, n: int) -> float:
    facts = _facts(n)
    return seconds_of(lambda: journal.append(KINDS[n % 4], cell=n // 100, **facts))


# ---- asking


def _first_question(journal: Journal, folder: Path) -> Table:
    size = sum(path.stat().st_size for path in folder.glob("*.jsonl"))
    building = seconds_of(journal.entries)
    began = time.perf_counter()
    with Journal.open(folder, writes=False) as reader:
        reader.entries()
        reading = time.perf_counter() - began
    index = sum(path.stat().st_size for path in folder.glob("index.*"))
    return Table(
        "The first question",
        [
            Row("after all of these, with the index to be made", [building], bar=_BUILD_BAR),
            Row("of another reader beside it", [reading]),
            Row("the journal", [size], "bytes"),
            Row("its index", [index], "bytes"),
        ],
    )


async def _questions(journal: Journal, folder: Path, entries: int, rounds: int) -> Table:
    rare = f"row {entries // 2} of"
    asked: dict[str, tuple[Callable[[], object], Bar]] = {
        "the first page": (journal.entries, _PAGE_BAR),
        "the newest page": (lambda: journal.entries(newest_first=True), _PAGE_BAR),
        "a page from the middle": (lambda: journal.entries(after=entries // 2), _PAGE_BAR),
        "a page of one kind": (lambda: journal.entries(kind="answer", after=entries // 2), _PAGE_BAR),
        "a page of two kinds": (lambda: journal.entries(kind=["cell", "ran"]), _PAGE_BAR),
        "the entries of a cell": (lambda: journal.entries(cell=entries // 200), _PAGE_BAR),
        "the last of a kind": (lambda: journal.last("opened"), _PAGE_BAR),
        "after one more entry": (lambda: _one_more(journal), _PAGE_BAR),
        "a page of a common text": (lambda: journal.entries(text="of the table"), _TEXT_BAR),
        "a text that occurs once": (lambda: journal.entries(text=rare), _TEXT_BAR),
        "a text that is not there": (lambda: journal.entries(text="nowhere"), _TEXT_BAR),
    }
    contenders: dict[str, Contender] = {name: clocked(ask) for name, (ask, _) in asked.items()}
    contenders[SCANNED] = clocked(lambda: _scan(folder, rare))
    found = await in_turns(contenders, rounds=rounds)
    rows = [
        Row(name, values, bar=asked[name][1] if name in asked else None) for name, values in found.items()
    ]
    return Table(
        f"Asking for up to {PAGE} of {entries:,} entries",
        rows,
        SCANNED,
        ["reading the files: for a text that occurs once"],
    )


def _one_more(journal: Journal) -> object:
    journal.append("cell", cell=-1)
    return journal.entries(newest_first=True)


def _scan(folder: Path, text: str) -> list[Any]:
    found: list[Any] = []
    for path in sorted(folder.glob("*.jsonl")):
        with path.open("rb") as file:
            found += [entry for entry in map(json.loads, file) if text in str(entry.get("text", ""))]
    return found


if __name__ == "__main__":
    sys.exit(main())
