"""Taking a project: one server owns it, and a second one is given a copy of its own.

Everything here blocks and belongs in a worker thread.
"""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from .journal import Journal, JournalUnwritable
from .keeping import files
from .locks import OwnerLock
from .outputs import Outputs
from .places import Places, ProjectPlaces, private_folder
from .projects import Project, identify

_PATIENCE_SECONDS = 25.0  # as long as the keeper of a server that died may take to write its last snapshots
_COMMANDS_PATIENCE_SECONDS = 1.0  # many an owner is a command from a shell, and soon over
_LOOK_SECONDS = 0.02
_MOST_COPIES = 1000
_COPIED_CHARACTERS = 150


@dataclass
class Claim:
    """A project that is ours: its place, the lock on it, and its records."""

    project: Project
    places: ProjectPlaces
    lock: OwnerLock
    journal: Journal
    outputs: Outputs
    note: str = ""

    def release(self) -> None:
        """Let go of it."""
        self.journal.close()
        self.lock.release()


def claim(places: Places, project: Project) -> Claim:
    """Take `project`, or a copy of it if a server that is alive has it."""
    if project.folder is None:
        project = replace(project, folder=places.folder_of(project.key))
    place = places.project(project)
    lock = OwnerLock(place.lock)
    owner = _acquire(lock)
    if owner is None:
        return _open(project, place, lock)
    return _copy(places, project, place, owner)


def _acquire(lock: OwnerLock) -> str | None:
    """Take a lock; return None, or who has it. One whose owner is dead is waited for: its keeper still writes."""
    began = time.monotonic()
    while not lock.acquire():
        owner, waited = lock.owner(), time.monotonic() - began
        ours = owner is not None and owner.pid == os.getpid()
        if owner is not None and owner.alive and (ours or waited > _COMMANDS_PATIENCE_SECONDS):
            return f"process {owner.pid}" if owner.pid != os.getpid() else "another part of this server"
        if waited > _PATIENCE_SECONDS:
            return "a process that has not written all down yet"
        time.sleep(_LOOK_SECONDS)
    return None


def _open(project: Project, place: ProjectPlaces, lock: OwnerLock, note: str = "") -> Claim:
    try:
        return Claim(project, place, lock, Journal.open(place.journal), Outputs(place.outputs), note)
    except BaseException:
        lock.release()
        raise


def _copy(places: Places, project: Project, original: ProjectPlaces, owner: str) -> Claim:
    """Take a name that was never used, and begin there with what the owner has written down by now."""
    for number in range(2, _MOST_COPIES):
        name = f"{_plain(project.name)} copy {number}"
        copy = replace(identify(named=name), name=name, folder=project.folder)
        place = places.project(copy)
        lock = OwnerLock(place.lock)
        if not lock.acquire():
            continue
        if files.numbers(place.state) or any(place.journal.iterdir()):
            lock.release()
            continue
        step = _copy_state(original.state, place.state)
        note = (
            f"{owner} has the project {project.name!r} open, so this is a copy of it by the name {name!r}"
            f"{'' if step is None else f', made from its state after step {step}'}. Nothing done here changes "
            "the original, and nothing done there is seen here."
        )
        claimed = _open(copy, place, lock, note)
        with suppress(JournalUnwritable):
            claimed.journal.append("copied", cell=step, of=project.key)
        return claimed
    raise OSError("there are a thousand copies of this project; remove some")


def _plain(name: str) -> str:
    """Return a name that means no path, and leaves room for what is added to it."""
    return re.sub(r"[/\\:]+", "-", name).lstrip("~.- ")[:_COPIED_CHARACTERS].rstrip() or "project"


def _copy_state(original: Path, copy: Path) -> int | None:
    """Link the newest snapshot of another folder here; files of snapshots never change, so that is a copy."""
    for _ in range(5):  # its owner goes on, and deletes what it needs no more
        for number in files.numbers(original):
            try:
                manifest = files.read(original, number).manifest
                for digest in files.blobs_of(manifest):
                    target = files.blob_file(copy, digest)
                    private_folder(target.parent.parent)
                    private_folder(target.parent)
                    _link(files.blob_file(original, digest), target)
                _link(files.state_file(original, number), files.state_file(copy, number))
            except (files.Damaged, OSError):
                continue
            return number
    return None


def _link(old: Path, new: Path) -> None:
    with suppress(FileExistsError):
        new.hardlink_to(old)
