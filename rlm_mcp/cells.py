"""What was run in a project, as its journal tells it. Reading takes no lock. Everything here blocks.

A cell has two entries: "cell" when it begins, with its code, and "ran" when it is over. A cell without the second
one is running, or was when its server ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rlm_sessions import Journal

_STEPS = ("ran", "set", "load", "delete", "restored", "copied", "reset")
_CODE_CHARACTERS, _OUTPUT_CHARACTERS, _WHOLE_CHARACTERS = 2000, 500, 100_000

T = TypeVar("T")
Entry = dict[str, Any]


@dataclass(frozen=True)
class CellPage:
    """Some cells, and the number to go on after."""

    cells: list[dict[str, Any]]
    next: int | None
    damaged: int


def page(place: Path, after: int, limit: int, search: str | None) -> CellPage:
    """Return cells that began after the entry `after`, oldest first; only those that `search` occurs in, if given."""

    def look(journal: Journal) -> CellPage:
        kinds = ("cell", "ran") if search else ("cell",)
        found = journal.entries(kind=kinds, after=after, text=search, limit=limit)
        begun = _begun(journal, found.entries, search)
        return CellPage(_cells(journal, begun, whole=limit == 1), found.next, found.damaged)

    return _reading(place, look, CellPage([], None, 0))


def recent(place: Path, limit: int) -> list[dict[str, Any]]:
    """Return the newest cells, newest first."""

    def look(journal: Journal) -> list[dict[str, Any]]:
        return _cells(journal, journal.entries(kind="cell", limit=limit, newest_first=True).entries)

    return _reading(place, look, [])


def last_step(place: Path) -> int:
    """Return the number of the last step that was answered; 0 if there was none."""

    def look(journal: Journal) -> int:
        entries = journal.entries(kind=_STEPS, limit=1, newest_first=True).entries
        return _step(entries[0]) if entries else 0

    return _reading(place, look, 0)


def _reading(place: Path, look: Callable[[Journal], T], otherwise: T) -> T:
    from rlm_sessions import Journal

    folder = place / "journal"
    if not folder.is_dir():
        return otherwise
    with Journal.open(folder, writes=False) as journal:
        return look(journal)


def _begun(journal: Journal, found: Iterable[Entry], search: str | None) -> list[Entry]:
    """Return the entries of the beginnings of cells, each cell once, whichever of its entries was found."""
    begun: list[Entry] = []
    for entry in found:
        if entry["kind"] == "cell":
            begun.append(entry)
            continue
        before = journal.entries(
            kind="cell", cell=_step(entry), before=entry["n"], limit=1, newest_first=True
        )
        # One that has the text in its code too was found by that, on this page or on one before.
        begun += [cell for cell in before.entries if search is None or search not in _text(cell.get("code"))]
    return begun


def _cells(journal: Journal, begun: Iterable[Entry], *, whole: bool = False) -> list[dict[str, Any]]:
    return [_cell(entry, _end(journal, entry), whole=whole) for entry in begun]


def _end(journal: Journal, begun: Entry) -> Entry | None:
    ran = journal.entries(kind="ran", cell=_step(begun), after=begun["n"], limit=1).entries
    return ran[0] if ran else None


def _cell(begun: Entry, ran: Entry | None, *, whole: bool) -> dict[str, Any]:
    from rlm_sessions import shorten

    keep_code, keep = (_WHOLE_CHARACTERS,) * 2 if whole else (_CODE_CHARACTERS, _OUTPUT_CHARACTERS)
    told: dict[str, Any] = {
        "n": begun["n"],
        "step": _step(begun),
        "time": begun["time"],
        "code": shorten(_text(begun.get("code")), keep=keep_code),
    }
    if ran is None:
        return told | {"ended": False}
    told["seconds"] = ran.get("seconds")
    told["error"] = ran.get("error")
    told["output"] = shorten(_text(ran.get("output")), keep=keep)
    told["value"] = shorten(_text(ran.get("value")), keep=keep)
    told |= {name: ran.get(name) for name in ("changed", "removed", "output_id", "lost", "unheard")}
    return {name: fact for name, fact in told.items() if fact not in (None, "", [])}


def _step(entry: Entry) -> int:
    step = entry.get("cell")
    return step if isinstance(step, int) else 0


def _text(fact: Any) -> str:
    return fact if isinstance(fact, str) else ""
