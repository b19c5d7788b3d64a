"""Every attack of the corpus in a container, without any language policy; some where walls of it are missing.

Starting a container takes longer than most attacks do, so several are carried out at a time.
"""

from __future__ import annotations

import marshal
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_sandboxes import Program
from rlm_sandboxes.docker import DockerSandbox, processes, sandbox
from rlm_sandboxes.docker.bundle import pack
from rlm_sandboxes.docker.owners import OWNER, own_label
from rlm_sandboxes.docker.plans import container_config
from rlm_sessions import open_session
from tests.attacks.attack import Attack
from tests.attacks.corpus import ATTACKS
from tests.attacks.expected import A_CONTAINER, BARE, NO_FILTER, assert_as_expected
from tests.attacks.ground import Ground, Words, open_ground
from tests.attacks.judge import Belongings, Breaches, Stage
from tests.attacks.representative import REPRESENTATIVES
from tests.docker.engine import engine_of

_AT_ONCE = 4
_OWN = own_label()
_SECONDS = 300  # an attack waits for those before it
_KEPT_CONNECTIONS = 40  # which the library for the engine keeps, to use them again
_HELD_BY_ANY_CONTAINER = (
    "a-linked-name-reads",  # no link leads from one mount to another, and its scratch folder is one
    "a-child-that-outlives-a-session-which-may-have-none",  # the engine ends all that is in its cgroup
)
_NO_FILTER = b"""
def prepare(limits): pass
def hand_over(gate): return False
def install(limits, *, gated=False): return 'switched off'
"""


# ---- carrying out


def _not_yet() -> Breaches:
    return {"host": "it was not carried out"}


@dataclass
class _Verdict:
    breaches: Breaches = field(default_factory=_not_yet)
    known: anyio.Event = field(default_factory=anyio.Event)


class Verdicts:
    """What became of each attack. They are carried out in their order, several at a time."""

    def __init__(self, attacks: Sequence[Attack]) -> None:
        self.before = Belongings()
        self._verdicts = {attack.name: _Verdict() for attack in attacks}
        self._waiting = iter(attacks)

    async def carry_out(self, stage: Stage) -> None:
        """Carry out one attack after the other until none is left."""
        for attack in self._waiting:
            verdict = self._verdicts[attack.name]
            try:
                verdict.breaches = await stage.carry_out(attack)
            finally:
                verdict.known.set()

    async def of(self, attack: Attack) -> Breaches:
        """Return what an attack brought about, as soon as that is known."""
        verdict = self._verdicts[attack.name]
        await verdict.known.wait()
        return verdict.breaches

    async def wait_for_all(self) -> None:
        """Wait until each has been carried out, and its session is closed."""
        for verdict in self._verdicts.values():
            await verdict.known.wait()


@pytest.fixture(scope="module")
async def verdicts(request: pytest.FixtureRequest) -> AsyncIterator[Verdicts]:
    """Carry out the attacks that are asked for in one run, while the tests wait for each in turn."""
    run: str = request.param
    found = Verdicts(_asked_for(request.session.items, run))
    with pytest.MonkeyPatch.context() as patch:
        async with open_stages(run, patch) as stages, anyio.create_task_group() as tasks:
            found.before = Belongings()
            for stage in stages:
                tasks.start_soon(found.carry_out, stage)
            yield found
            tasks.cancel_scope.cancel()


def _asked_for(items: Sequence[pytest.Item], run: str) -> list[Attack]:
    wanted = (getattr(item, "callspec", None) for item in items)
    params: list[dict[str, Any]] = [spec.params for spec in wanted if spec is not None]
    return [found["attack"] for found in params if found.get("verdicts") == run and "attack" in found]


@asynccontextmanager
async def open_stages(run: str, patch: pytest.MonkeyPatch) -> AsyncGenerator[list[Stage], None]:
    """Open a sandbox and, for each attack that may run at once, a neighbour and what lies outside."""
    engine, words = engine_of(), Words.draw()
    async with AsyncExitStack() as stack:
        grounds = [stack.enter_context(open_ground(words)) for _ in range(_AT_ONCE)]
        _take_walls_away(patch, run, [ground.folder for ground in grounds])
        _have_all_note_signals(grounds)
        opened = await stack.enter_async_context(
            DockerSandbox(engine.image, engine=engine.host, pull="never")
        )
        stages: list[Stage] = []
        for ground in grounds:
            neighbour = await stack.enter_async_context(open_session(opened, policy="off"))
            await neighbour.run("neighbour = 'well'")
            stages.append(Stage(run, opened, "off", ground, neighbour, at_once=_AT_ONCE))
        yield stages


# ---- the places


def _have_all_note_signals(grounds: list[Ground]) -> None:
    """Tell every ground of a signal to this process, which is the host of all. Who is left first puts back what was."""

    def note(*_: object) -> None:
        for ground in grounds:
            ground.note_signal()

    signal.signal(signal.SIGUSR1, note)


def _take_walls_away(patch: pytest.MonkeyPatch, run: str, outside: list[Path]) -> None:
    if run in (NO_FILTER, BARE):
        patch.setattr(processes, "pack", _pack_without_filter)
    if run == BARE:
        patch.setattr(sandbox, "container_config", partial(_bare_config, outside))


def _pack_without_filter(program: Program) -> bytes:
    magic, modules = marshal.loads(pack(program)[8:])
    code = marshal.dumps(compile(_NO_FILTER, "filters", "exec"))
    modules["rlm_inside.filters"] = (False, _NO_FILTER, code)
    data = marshal.dumps((magic, modules), 2)
    return len(data).to_bytes(8, "big") + data


def _bare_config(outside: list[Path], *arguments: Any) -> dict[str, Any]:
    """Return a container that shares all there is with the machine."""
    config = container_config(*arguments)
    host = config["HostConfig"]
    shared = {"PidMode": "host", "NetworkMode": "host", "IpcMode": "host", "CapAdd": ["SYS_PTRACE"]}
    mounts = [
        {"Type": "bind", "Source": str(path), "Target": str(path), "ReadOnly": False} for path in outside
    ]
    open_ = {"ReadonlyRootfs": False, "CapDrop": [], "SecurityOpt": ["seccomp=unconfined"], "Mounts": mounts}
    environment = [f"{name}={value}" for name, value in os.environ.items()]
    changed = {"User": "0:0", "NetworkDisabled": False, "Env": environment}
    return {**config, **changed, "HostConfig": {**host, **shared, **open_}}


# ---- the tests


def _each(attacks: tuple[Attack, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attack", attacks, ids=[attack.name for attack in attacks])


def _in(run: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("verdicts", [run], indirect=True)


async def _assert_held(run: str, attack: Attack, verdicts: Verdicts) -> None:
    with anyio.fail_after(_SECONDS):
        breaches = await verdicts.of(attack)

    assert_as_expected(run, attack, breaches)


@_in(A_CONTAINER)
@_each(ATTACKS)
async def test_an_attack_is_held_by_a_container(verdicts: Verdicts, attack: Attack) -> None:
    await _assert_held(A_CONTAINER, attack, verdicts)


@_in(A_CONTAINER)
async def test_nothing_is_left_of_the_attacks_but_the_neighbours(verdicts: Verdicts) -> None:
    engine = engine_of()
    ours = ["docker", "--host", engine.host, "ps", "-aq", "--filter", f"label={OWNER}={_OWN}"]

    with anyio.fail_after(_SECONDS):
        await verdicts.wait_for_all()
        containers = (await anyio.run_process(ours)).stdout.split()

    assert len(containers) == _AT_ONCE
    assert verdicts.before.left() == ""
    assert verdicts.before.complaint(most=_KEPT_CONNECTIONS) == ""


@_in(NO_FILTER)
@_each(REPRESENTATIVES)
async def test_an_attack_is_held_by_what_the_engine_does_alone(verdicts: Verdicts, attack: Attack) -> None:
    await _assert_held(NO_FILTER, attack, verdicts)


@_in(BARE)
@_each(tuple(a for a in REPRESENTATIVES if a.control != "none" and a.name not in _HELD_BY_ANY_CONTAINER))
async def test_an_attack_succeeds_in_a_container_that_shares_all(verdicts: Verdicts, attack: Attack) -> None:
    with anyio.fail_after(_SECONDS):
        breaches = await verdicts.of(attack)

    assert attack.effect in breaches
