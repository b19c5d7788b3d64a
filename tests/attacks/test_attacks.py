"""Every attack of the corpus, behind all walls, behind some, and once behind none."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import anyio
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local.linux import LAYERS
from rlm_sessions import Policy
from tests.attacks.attack import Attack
from tests.attacks.corpus import ATTACKS
from tests.attacks.expected import DOCKER_RUNS, NOT_HELD, assert_as_expected
from tests.attacks.ground import Ground, open_ground
from tests.attacks.judge import Stage, open_stage
from tests.attacks.representative import REPRESENTATIVES

_AS_ROOT = os.geteuid() == 0
_ORDINARY_KINDS = (Limits(),)
_ALL_KINDS = (Limits(), Limits(network=True), Limits(processes=4))


@dataclass(frozen=True)
class Run:
    """One way of standing up to attacks."""

    layers: frozenset[str]
    policy: Policy
    kinds: tuple[Limits, ...] = _ORDINARY_KINDS


ALL, JAIL, POLICY, CONTROL = "all layers", "the jail alone", "the policy alone", "nothing"
RUNS: dict[str, Run] = {
    ALL: Run(LAYERS, "auto", _ALL_KINDS),
    JAIL: Run(LAYERS, "off", _ALL_KINDS),
    POLICY: Run(frozenset({"rlimits"}), "strict"),
    CONTROL: Run(frozenset(), "off"),
    **{f"without {layer}": Run(LAYERS - {layer}, "off") for layer in sorted(LAYERS)},
}

_HARMLESS = tuple(attack for attack in ATTACKS if attack.control != "none")
_WITHOUT_ONE = tuple(run for run in RUNS if run.startswith("without "))


def _each(attacks: tuple[Attack, ...]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("attack", attacks, ids=[attack.name for attack in attacks])


def _in(*runs: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stage", runs, indirect=True)


@pytest.fixture(scope="module")
def ground() -> Iterator[Ground]:
    with open_ground() as opened:
        yield opened


@pytest.fixture(scope="module")
async def stage(request: pytest.FixtureRequest, ground: Ground) -> AsyncIterator[Stage]:
    """The place for one run, kept for all its attacks."""
    run = RUNS[request.param]
    async with open_stage(request.param, run.layers, run.policy, ground, kinds=run.kinds) as opened:
        yield opened


@_in(ALL, JAIL)
@_each(ATTACKS)
async def test_an_attack_is_held(stage: Stage, attack: Attack) -> None:
    await _assert_held(stage, attack)


@_in(POLICY)
@_each(_HARMLESS)
async def test_an_attack_is_held_by_the_policy(stage: Stage, attack: Attack) -> None:
    await _assert_held(stage, attack)


@_in(*_WITHOUT_ONE)
@_each(REPRESENTATIVES)
async def test_an_attack_is_held_where_one_layer_is_missing(stage: Stage, attack: Attack) -> None:
    await _assert_held(stage, attack)


@_in(CONTROL)
@_each(tuple(attack for attack in _HARMLESS if _AS_ROOT or attack.control == "succeeds"))
async def test_an_attack_succeeds_where_nothing_holds_it(stage: Stage, attack: Attack) -> None:
    with anyio.fail_after(30):
        breaches = await stage.carry_out(attack)

    assert attack.effect in breaches


async def _assert_held(stage: Stage, attack: Attack) -> None:
    with anyio.fail_after(30):
        breaches = await stage.carry_out(attack)

    assert_as_expected(stage.run, attack, breaches)


def test_every_attack_has_a_name_of_its_own() -> None:
    twice = [name for name, count in Counter(attack.name for attack in ATTACKS).items() if count > 1]

    assert twice == []


def test_what_is_listed_as_not_held_is_there() -> None:
    known = {(run, attack.name) for run in (*RUNS, *DOCKER_RUNS) for attack in ATTACKS}
    listed = {(run, name) for entry in NOT_HELD for run in entry.runs for name in entry.attacks}

    assert listed <= known
    assert all(entry.reason for entry in NOT_HELD)
