"""What is written down of jobs that wait for the client, so that no restart loses them.

    PLACE/waiting/<handle>.jsonl

    {"form": 2, "tool": ..., "arguments": ..., "project": ...}      the job, to be run again
    {"expires_at": ...}                                             until when it waits; the last one counts
    {"id": ..., "key": ..., "messages": ..., "schema": ...}         a call
    {"id": ..., "text": ...}                                        the answer to a call

A record only grows: what is new is one write, whatever is there already. A line that was torn is as if it had
not been written, and is written again.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from .waiting import CELL, Call, Spec, is_handle

FOLDER, SUFFIX = "waiting", ".jsonl"
MOST_KEPT_CHARACTERS, MOST_KEPT_BYTES = 8 * 1024 * 1024, 256 * 1024 * 1024

_FORM = 2
_FLAGS: int = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


class Record:
    """The record of one job. Whoever begins one writes all of it anew, in place of what was there before."""

    def __init__(self, place: Path, handle: str) -> None:
        self._place = place
        self._handle = handle
        self._path = place / FOLDER / f"{handle}{SUFFIX}"
        self._begun = self._torn = False
        self._calls = set[str]()
        self._answers = set[str]()
        self._expires_at = 0.0
        self._room = MOST_KEPT_CHARACTERS

    def write(self, spec: Spec, calls: Sequence[Call]) -> None:
        """Write down what is not yet. Blocks. Raise `OSError`."""
        new = [call for call in calls if call.id not in self._calls]
        answered = [call for call in calls if call.text is not None and call.id not in self._answers]
        lines = [*_expiry(spec, self._expires_at), *self._of_calls(new), *map(_answer, answered)]
        if not self._begun:
            self._begin(_text([_job(spec), *lines]))
        elif lines:
            self._append(_text(lines))
        self._expires_at = spec.expires_at
        self._calls.update(call.id for call in new)
        self._answers.update(call.id for call in answered)

    def remove(self) -> None:
        """Remove it. Blocks."""
        remove_record(self._place, self._handle)

    def _of_calls(self, calls: Iterable[Call]) -> Iterator[dict[str, Any]]:
        """Yield calls. Very long prompts are left out: the code makes them again when it runs again."""
        for call in calls:
            size = sum(len(content) for _, content in call.messages)
            kept = [list(each) for each in call.messages] if size <= self._room else []
            self._room -= size if kept else 0
            yield {"id": call.id, "key": call.key, "messages": kept, "schema": call.schema}

    def _begin(self, data: bytes) -> None:
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        beside = self._path.with_name(f".tmp-{secrets.token_hex(8)}")
        try:
            _write(beside, os.O_CREAT | os.O_EXCL, data)
            beside.replace(self._path)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise
        self._begun = True

    def _append(self, data: bytes) -> None:
        try:
            _write(self._path, os.O_APPEND, b"\n" + data if self._torn else data)
        except OSError:
            self._torn = True
            raise
        self._torn = False


def _job(spec: Spec) -> dict[str, Any]:
    return {
        "form": _FORM,
        "tool": spec.tool,
        "arguments": dict(spec.arguments),
        "project": spec.project,
    }


def _expiry(spec: Spec, written: float) -> list[dict[str, Any]]:
    return [] if spec.expires_at == written else [{"expires_at": spec.expires_at}]


def _answer(call: Call) -> dict[str, Any]:
    return {"id": call.id, "text": call.text}


def _text(lines: Iterable[Mapping[str, Any]]) -> bytes:
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def _write(path: Path, how: int, data: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | how | _FLAGS, 0o600), "wb") as file:  # noqa: PTH123 -- links are refused
        file.write(data)


def read_record(place: Path, handle: str) -> tuple[Spec, list[Call]] | None:
    """Return what was written down; None if there is nothing, or nothing that is still waited for. Blocks."""
    path = place / FOLDER / f"{handle}{SUFFIX}"
    try:
        with open(os.open(path, os.O_RDONLY | _FLAGS), "rb") as file:  # noqa: PTH123 -- links are refused
            lines = list(_lines(file.read(MOST_KEPT_BYTES + 1)))
        job = lines[0]
        until = [line["expires_at"] for line in lines if "expires_at" in line]
        spec = Spec(job["tool"], job["arguments"], job["project"], float(until[-1]))
        waits = job["form"] == _FORM and spec.expires_at > time.time()
        found = (spec, _calls(lines)) if waits else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        found = None
    if found is None:
        remove_record(place, handle)
    return found


def _lines(data: bytes) -> Iterator[dict[str, Any]]:
    """Yield the lines that are whole."""
    for line in data.splitlines():
        try:
            facts: Any = json.loads(line)
        except ValueError:
            continue
        if isinstance(facts, dict):
            yield cast("dict[str, Any]", facts)


def _calls(lines: Iterable[Mapping[str, Any]]) -> list[Call]:
    calls = dict[str, Call]()
    for line in lines:
        if "key" in line:
            messages = tuple((str(role), str(content)) for role, content in line["messages"])
            calls[str(line["id"])] = Call(str(line["id"]), str(line["key"]), messages, line["schema"])
        elif "text" in line and line["id"] in calls:
            call = calls[line["id"]]
            call.text = str(line["text"])
            call.answered.set()
    return list(calls.values())


def remove_record(place: Path, handle: str) -> None:
    """Remove what was written down. Blocks."""
    folder = place / FOLDER
    try:
        (folder / f"{handle}{SUFFIX}").unlink(missing_ok=True)
        folder.rmdir()  # unless others are there
    except OSError:
        pass


def cells_waiting_in(place: Path) -> list[str]:
    """Return the handles of the cells that wait in a project. Blocks."""
    return [handle for handle, spec, _ in all_waiting_in(place) if spec.tool == CELL]


def all_waiting_in(place: Path) -> list[tuple[str, Spec, list[Call]]]:
    """Return what waits in a project, by its handle; what expired is removed. Blocks."""
    try:
        names = sorted(entry.name.removesuffix(SUFFIX) for entry in os.scandir(place / FOLDER))
    except OSError:
        return []
    found = [(name, read_record(place, name)) for name in names if is_handle(name)]
    return [(name, *record) for name, record in found if record is not None]
