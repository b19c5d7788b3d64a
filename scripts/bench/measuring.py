"""Measuring things side by side: in turns, so that whatever slows this machine down slows all of them.

What is compared are the medians of one run. No figure means much by itself, on a machine that
others use too; the ratio of two that were measured in turns does.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Contender = Callable[[], Awaitable[float]]
Batch = Callable[[], Awaitable[list[float]]]

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"))
_MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Bar:
    """What the median of a row must not exceed, in the unit of that row."""

    most: float
    text: str


@dataclass(frozen=True)
class Row:
    """What was measured of one contender. `unit` is "s", "bytes", "x" or a word for what is counted."""

    name: str
    values: Sequence[float]
    unit: str = "s"
    bar: Bar | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def p95(self) -> float:
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, math.ceil(0.95 * len(ordered)) - 1)]

    @property
    def met(self) -> bool | None:
        """Whether the bar is met; None where there is none."""
        return None if self.bar is None else self.median <= self.bar.most


@dataclass(frozen=True)
class Table:
    """Some rows that belong together, and the name of the one that the others are compared with."""

    title: str
    rows: Sequence[Row]
    reference: str = ""
    notes: Sequence[str] = field(default_factory=tuple[str, ...])

    def ratio(self, row: Row) -> float | None:
        """Return how many times the reference a row is, where the two can be compared."""
        for reference in self.rows:
            if reference.name == self.reference and reference.unit == row.unit and reference.median:
                return row.median / reference.median
        return None

    def text(self) -> str:
        """Return the table as a terminal shows it."""
        heads = ("", "median", "p95", "n", "ratio", "bar")
        lines = [heads, *(self._cells(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
        shown = [
            "  "
            + "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:5], widths[1:5]), line[5]]).rstrip()
            for line in lines
        ]
        return "\n".join([self._title(), *shown, *(f"  {note}" for note in self.notes)])

    def _title(self) -> str:
        return f"{self.title}\n  (ratio: to {self.reference})" if self.reference else self.title

    def _cells(self, row: Row) -> tuple[str, ...]:
        ratio = self.ratio(row)
        verdict = "" if row.bar is None else f"{row.bar.text}: {'met' if row.met else 'MISSED'}"
        spread = shown(row.p95, row.unit) if len(row.values) > 1 else ""
        times = "" if ratio is None else f"{ratio:.2f} x"
        return (row.name, shown(row.median, row.unit), spread, str(len(row.values)), times, verdict)

    def facts(self) -> dict[str, object]:
        """Return the table as plain data."""
        return {
            "title": self.title,
            "reference": self.reference,
            "rows": [self._facts(row) for row in self.rows],
        }

    def _facts(self, row: Row) -> dict[str, object]:
        return {
            "name": row.name,
            "unit": row.unit,
            "median": row.median,
            "p95": row.p95,
            "count": len(row.values),
            "ratio": self.ratio(row),
            "bar": None if row.bar is None else row.bar.most,
            "met": row.met,
        }


def shown(value: float, unit: str) -> str:
    """Return a value as a person reads it."""
    if unit == "s":
        scale, name = next(((s, n) for s, n in _SECONDS if value >= s), _SECONDS[-1])
        return f"{value / scale:.3g} {name}" if value < 1000 * scale else f"{value / scale:.0f} {name}"
    if unit == "bytes":
        return f"{value / _MEGABYTE:.2f} MB"
    return f"{value:.3f} x" if unit == "x" else f"{value:,.0f} {unit}"


async def in_turns(
    contenders: Mapping[str, Contender], *, rounds: int, seldom: Mapping[str, int] | None = None
) -> dict[str, list[float]]:
    """Let every contender do its thing in each round, in changing order; return what each one measured.

    Those named in `seldom`, because they are slow, take part in so many rounds only. A first round is
    not counted.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(-1, rounds):
        for name in _order(list(contenders), number):
            turns = min(rounds, (seldom or {}).get(name, rounds))
            if number >= 0 and number % (rounds // turns) == 0 and len(found[name]) < turns:
                value = await contenders[name]()
                found[name].append(value)
            elif number == -1:
                await contenders[name]()
    return found


async def batches_in_turns(
    batches: Mapping[str, Batch], *, rounds: int, seldom: Mapping[str, int]
) -> dict[str, list[float]]:
    """Do the same with batches, for what is fast only once it is warm; those in `seldom` have so many turns."""
    found: dict[str, list[float]] = {name: [] for name in batches}
    for number in range(rounds):
        for name in _order(list(batches), number):
            turns = min(rounds, seldom.get(name, rounds))
            if (number * turns) // rounds != ((number - 1) * turns) // rounds:
                found[name] += await batches[name]()
    return found


def _order(names: list[str], number: int) -> list[str]:
    first = number % len(names)
    return names[first:] + names[:first]


def ratios(ours: Sequence[float], reference: Sequence[float]) -> list[float]:
    """Return round for round how many times `reference` is in `ours`."""
    return [a / b for a, b in zip(ours, reference, strict=True)]


def mean_ratio(values: Iterable[float]) -> float:
    """Return the mean of ratios, in which twice as fast outweighs twice as slow."""
    return math.exp(statistics.fmean(map(math.log, values)))
