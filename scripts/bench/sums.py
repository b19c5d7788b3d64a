"""Values that come one at a time, put together into tables."""

from __future__ import annotations

from .measuring import Bar, Row, Table
from .servers import BARE, OURS


class Sums:
    """What was measured, by the name of the table and of the row."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, list[float]]] = {}
        self._kinds: dict[str, tuple[str, Bar | None]] = {}
        self._alone: set[str] = set()

    def add(self, table: str, row: str, value: float, *, unit: str = "s", bar: Bar | None = None) -> None:
        """Keep a value. The bar is for our own rows."""
        self._rows.setdefault(table, {}).setdefault(row, []).append(value)
        self._kinds[table] = unit, bar

    def without_ratios(self, table: str) -> None:
        """Have the rows of a table not compared, because some are as good as nothing."""
        self._alone.add(table)

    def tables(self) -> list[Table]:
        """Return all of it."""
        return [self._table(title, rows) for title, rows in self._rows.items()]

    def _table(self, title: str, rows: dict[str, list[float]]) -> Table:
        unit, bar = self._kinds[title]
        shown = [Row(n, v, unit, bar if n.startswith(OURS) else None) for n, v in rows.items()]
        bare = [] if title in self._alone else [name for name in rows if name.startswith(BARE)]
        return Table(title, shown, bare[0] if bare else "")
