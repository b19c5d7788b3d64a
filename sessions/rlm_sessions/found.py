"""What is on disk of a session that is to be woken, and which of its snapshots to go on from.

Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .claims import Claim
from .journal_entries import Entry
from .keeping import files
from .keeping.files import Damaged, Kept

STEP_KINDS = ("ran", "set", "load", "delete", "restored", "copied", "reset")
_MOST_LOST = 100


@dataclass(frozen=True)
class Found:
    """What is on disk of a session that is to be woken."""

    kept: Kept | None
    after: int  # the highest number of a step that was ever begun
    answered: tuple[int, ...] = ()  # steps after the snapshot that were answered, ascending
    begun: int = 0  # a cell that was begun and never ended, and none after it
    notes: tuple[str, ...] = ()


def look(claim: Claim, step: int) -> Found:
    """Choose the snapshot to go on from: the newest of a step that was answered.

    `step` is the last one that this process knows to have been answered; the journal knows of others.
    """
    folder = claim.places.state
    answered, begun = max(step, _last_step(claim, *STEP_KINDS)), _last_step(claim, "cell")
    numbers, killed = files.numbers(folder), _killed(claim)
    answers = [number for number in numbers if number <= answered and number not in killed]
    kept, notes = _choose(folder, answers or numbers)
    after = max([answered, begun, kept.number if kept else 0])
    for number in numbers:
        if (number > answered or number in killed) and not (kept and number == kept.number):
            after = max(after, _number_if_whole(folder, number))
            files.state_file(folder, number).unlink(missing_ok=True)  # its step was never answered
    later = tuple(_steps_after(claim, kept.number if kept else 0))
    return Found(kept, after, later, begun if begun > answered else 0, tuple(notes))


def last_step(claim: Claim) -> int:
    """Return the highest number of a step that was ever begun, as far as the journal knows."""
    return max(_last_step(claim, *STEP_KINDS), _last_step(claim, "cell"))


def _killed(claim: Claim) -> set[int]:
    """Return the last steps of which it was answered that nothing they did is kept, whatever their guest has told."""
    entries = claim.journal.entries(kind="ran", newest_first=True, limit=_MOST_LOST).entries
    return {_step_of(entry) for entry in entries if entry.get("lost")}


def _number_if_whole(folder: Path, number: int) -> int:
    try:
        return files.look(folder, number).number
    except Damaged:
        return 0


def _last_step(claim: Claim, *kinds: str) -> int:
    entries = claim.journal.entries(kind=kinds, newest_first=True, limit=1).entries
    return max((_step_of(entry) for entry in entries), default=0)


def _steps_after(claim: Claim, number: int) -> list[int]:
    """Return the steps after that one which were answered, since everything was forgotten last."""
    forgotten = claim.journal.last("reset")
    entries = claim.journal.entries(
        kind=STEP_KINDS[:4],
        after=forgotten["n"] if forgotten else None,
        newest_first=True,
        limit=_MOST_LOST,
    ).entries
    done = [entry for entry in entries if not entry.get("lost")]  # else its answer said that nothing is kept
    return sorted({_step_of(entry) for entry in done if _step_of(entry) > number})


def _step_of(entry: Entry) -> int:
    step = entry.get("cell")
    return step if isinstance(step, int) else 0


def _choose(folder: Path, numbers: Sequence[int]) -> tuple[Kept | None, list[str]]:
    """Return the first snapshot that is whole, and what there is to say of those before it."""
    notes: list[str] = []
    for number in numbers:
        try:
            return files.read(folder, number), notes
        except Damaged as problem:
            notes.append(f"The state after step {number} is damaged ({problem}) and was put aside.")
            put_aside(folder, number)
    return None, notes


def put_aside(folder: Path, number: int) -> None:
    path = files.state_file(folder, number)
    with suppress(OSError):
        path.rename(path.with_suffix(".damaged"))


def forget_state(folder: Path) -> None:
    for number in files.numbers(folder):
        files.state_file(folder, number).unlink(missing_ok=True)
    for blob in (folder / "blobs").glob("*/*"):
        blob.unlink(missing_ok=True)
