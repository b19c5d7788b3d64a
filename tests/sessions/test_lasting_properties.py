"""Whatever is done with several projects, in whatever order, none sees another's variables, and none loses its own."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, Household, Manager, ProjectSession, identify
from tests.sessions.homes import KILLED, NOTES, OTHER, Home, settled, well

Act: TypeAlias = Literal[
    "add", "raise", "set", "delete", "sleep", "close", "kill", "restart", "reset", "look"
]

PROJECTS = (NOTES, OTHER, identify(named="third"))
CARE = Care(limits=Limits(wall_seconds=20, grace_seconds=0), policy="off")
NAMES = ("a", "b", "big")
LOOK = (
    "sorted((n, v if n != 'big' else (len(v), v[0])) for n, v in globals().items() if n in ('a', 'b', 'big'))"
)


class Step(NamedTuple):
    """One thing that is done with one project."""

    project: int
    act: Act
    name: str


ACTS: tuple[Act, ...] = (
    "add",
    "raise",
    "set",
    "delete",
    "sleep",
    "close",
    "kill",
    "restart",
    "reset",
    "look",
)
STEPS = st.builds(Step, st.integers(0, 2), st.sampled_from(ACTS), st.sampled_from(NAMES))
AT_ONCE = st.lists(st.tuples(STEPS, STEPS, STEPS), min_size=4, max_size=14)


class Models:
    """What must be in each project, as plain dictionaries."""

    def __init__(self) -> None:
        self.values: list[dict[str, int]] = [{}, {}, {}]
        self._count = 0

    def next(self, number: int) -> int:
        """Return a value that was never used before, and says whose it is."""
        self._count += 1
        return 10 * self._count + number

    def shown(self, number: int) -> str:
        """Return what a project must show of its variables."""
        values = self.values[number]
        return repr(sorted((n, v if n != "big" else (300_000, v)) for n, v in values.items()))


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rounds=AT_ONCE)
async def test_projects_never_mix_and_never_forget(
    sandbox: LocalSandbox, rounds: Sequence[tuple[Step, Step, Step]]
) -> None:
    with tempfile.TemporaryDirectory() as folder, anyio.fail_after(60):
        home, models = Home(sandbox, Path(folder) / "home"), Models()
        left = list(rounds)
        while left:
            async with home.managed(care=CARE, household=Household(awake=2)) as manager:
                await _until_restart(manager, models, left)
        async with home.managed(care=CARE) as manager:
            for number in range(len(PROJECTS)):
                await _look(await manager.session(PROJECTS[number]), models, number)


async def _until_restart(manager: Manager, models: Models, left: list[tuple[Step, Step, Step]]) -> None:
    """Do what is to be done: each round at once, as far as it is about different projects."""
    while left:
        steps = {step.project: step for step in left.pop(0)}
        waiting = list(steps.values())
        while waiting:  # two at a time, as no more can be awake
            async with anyio.create_task_group() as tasks:
                for step in waiting[:2]:
                    tasks.start_soon(_do, manager, models, step)
            waiting = waiting[2:]
        if any(step.act == "restart" for step in steps.values()):
            return


async def _do(manager: Manager, models: Models, step: Step) -> None:
    project, values = PROJECTS[step.project], models.values[step.project]
    session = await manager.session(project)
    value = models.next(step.project)
    match step.act:
        case "add":
            well(await session.run(_assign(step.name, value)))
            values[step.name] = value
        case "raise":
            await session.run(f"{_assign(step.name, value)}\nraise ValueError")
            values[step.name] = value
        case "set" if step.name != "big":
            await session.set(step.name, value)
            values[step.name] = value
        case "delete" if step.name in values:
            await session.delete(step.name)
            del values[step.name]
        case "sleep":
            assert await session.sleep()
        case "close":
            await manager.close(project)
        case "kill":
            if session.awake:
                await settled(
                    session
                )  # who is killed before may lose a step, and says so: see the crash tests
            result = await session.run(f"a = b = big = 'lost'\n{KILLED}")
            assert result.lost
        case "reset":
            await session.reset()
            values.clear()
        case _:
            await _look(session, models, step.project)


async def _look(session: ProjectSession, models: Models, number: int) -> None:
    result = well(await session.run(LOOK))

    assert result.value == models.shown(number), (result.value, models.shown(number), result.notes)


def _assign(name: str, value: int) -> str:
    return f"{name} = [{value}] * 300_000" if name == "big" else f"{name} = {value}"
