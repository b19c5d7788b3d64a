"""Runs all checks at once, each within a time of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import anyio.to_thread

from ..settings import Settings
from ..sources import Sources
from . import access, configuration, docker, entries, handshake, machine, sessions
from .results import Case, Check, State

_Async: TypeAlias = Callable[[Case], Awaitable[list[Check]]]
_Blocking: TypeAlias = Callable[[Case], list[Check]]

_NEEDED = ("Python", "Packages", "Isolation", "State", "Handshake")
_HANGS = "Something that it asked hangs: a slow disk, a network folder, or a machine that has much to do."
_SECONDS = 4.0
_ANSWERING_SECONDS = 60.0
_STARTING_SECONDS = 10.0  # what starts processes of its own: a busy machine is not a broken one


async def check_all(sources: Sources, *, online: bool = False) -> list[Check]:
    """Return what was found, in the order in which a reader wants it. Only `online` is a model asked."""
    found: dict[str, list[Check]] = {
        "": [Check("Settings", "fail", "they could not be read in time", _HANGS)]
    }
    case = Case(Settings(), sources, None)
    with anyio.move_on_after(_SECONDS):
        found[""], case = await anyio.to_thread.run_sync(
            configuration.configuration, sources, abandon_on_cancel=True
        )
    blocking: dict[str, _Blocking] = {
        "Python": machine.python,
        "Packages": machine.packages,
        "State": machine.state,
        "Model": access.model,
        "Snipara": access.snipara,
        "Clients": entries.entries,
    }
    starting: dict[str, _Async] = {
        "Isolation": sessions.isolation,
        "Docker": docker.docker,
        "Handshake": handshake.handshake,
    }
    if online:
        starting["Model answers"] = access.online
    async with anyio.create_task_group() as tasks:
        for name, look in blocking.items():
            tasks.start_soon(_look, found, name, _in_thread(look), case, _SECONDS)
        for name, start in starting.items():
            seconds = _ANSWERING_SECONDS if name == "Model answers" else _STARTING_SECONDS
            tasks.start_soon(_look, found, name, start, case, seconds)
    order = (
        "Python",
        "Packages",
        "",
        "Isolation",
        "State",
        "Handshake",
        "Clients",
        "Model",
        *(["Model answers"] if online else []),
        "Snipara",
        "Docker",
    )
    return [check for name in order for check in found[name]]


def _in_thread(look: _Blocking) -> _Async:
    async def looked(case: Case) -> list[Check]:
        return await anyio.to_thread.run_sync(look, case, abandon_on_cancel=True)

    return looked


async def _look(found: dict[str, list[Check]], name: str, look: _Async, case: Case, seconds: float) -> None:
    worst: State = "fail" if name in _NEEDED else "warn"
    found[name] = [Check(name, worst, f"no answer within {seconds:.0f} seconds", _HANGS)]
    with anyio.move_on_after(seconds):
        try:
            found[name] = await look(case)
        except Exception as problem:  # noqa: BLE001 -- one check that breaks must not hide what the others found
            what = f"{type(problem).__name__}: {problem}"
            found[name] = [Check(name, worst, what, "This is a defect; report it.")]
