"""What a run and a child run take beyond what the model takes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from functools import partial

import anyio.to_thread

from rlm import RLM

from .drivers import Driver
from .measuring import Bar, Contender, Row, Table, in_turns
from .runtime_calls import seconds_of_an_answer
from .runtime_model import CHILDREN, LEAF_SECONDS
from .runtime_places import KINDS, OURS, RLMS, Bench, context, measured, measured_of

_CHILD_BAR = Bar(0.010, "<= 10 ms")
_SELDOM = 3


async def measure(bench: Bench, rounds: int) -> list[Table]:
    """Measure a run of one turn, and children of one turn; what the model takes is no part of it."""
    model = statistics.median(await seconds_of_an_answer(bench))
    return [await _runs(bench, rounds, model), await _children(bench, rounds, model)]


async def _runs(bench: Bench, rounds: int, model: float) -> Table:
    with bench.drivers() as drivers:
        async with bench.ours("done") as rlm:
            contenders: dict[str, Contender] = {
                OURS: partial(_run, rlm, model),
                **{name: partial(_run_of, driver, name, model) for name, driver in drivers.items()},
            }
            found = await in_turns(contenders, rounds=rounds, seldom=_seldom(drivers, rounds))
    note = f"without the {model * 1000:.1f} ms that the model takes to answer"
    return Table("A run of one turn: RLM.completion", [Row(*each) for each in found.items()], OURS, [note])


async def _children(bench: Bench, rounds: int, model: float) -> Table:
    instant = f"{OURS}, of a model that answers at once"
    with bench.drivers() as drivers:
        async with (
            bench.ours("late-child") as late,
            bench.ours("child") as child,
            bench.ours("children") as many,
        ):
            contenders: dict[str, Contender] = {
                OURS: partial(_child, late, model + LEAF_SECONDS),
                instant: partial(_child, child, model),
                f"{instant}, each of {CHILDREN} at once": partial(_child, many, model),
            }
            if RLMS in drivers:
                contenders[RLMS] = partial(_child_of, drivers[RLMS], RLMS, model + LEAF_SECONDS)
            found = await in_turns(contenders, rounds=rounds, seldom=_seldom(drivers, rounds))
    rows = [Row(name, each, bar=_CHILD_BAR if name == OURS else None) for name, each in found.items()]
    notes = [
        f"without what its model takes to answer: {LEAF_SECONDS * 1000:.0f} ms, and nothing where it answers at once",
        "a child has a process of its own in the jail, which is made ready while its model thinks",
    ]
    return Table("A child run of one turn: rlm_query", rows, OURS, notes)


def _seldom(drivers: Mapping[str, Driver], rounds: int) -> dict[str, int]:
    return dict.fromkeys(drivers, min(rounds, _SELDOM))


async def _run(rlm: RLM, model: float) -> float:
    text = context()
    began = time.perf_counter()
    await rlm.completion("Do as you do.", context=text)
    return time.perf_counter() - began - model


async def _run_of(driver: Driver, name: str, model: float) -> float:
    ask = partial(driver.ask, "run", model=f"{KINDS[name]}-done", context=context())
    return float((await anyio.to_thread.run_sync(ask))["seconds"]) - model


async def _child(rlm: RLM, model: float) -> float:
    return (await measured(rlm, context()))[0] - model


async def _child_of(driver: Driver, name: str, model: float) -> float:
    seconds = await anyio.to_thread.run_sync(partial(measured_of, driver, name, "late-child", context()))
    return seconds[0] - model
