"""Limits are values that cannot be wrong."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sandboxes import Limits, LimitsInvalid

NUMBERS = [
    field.name
    for field in fields(Limits)
    if isinstance(field.default, (int, float)) and field.name != "network"
]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, "5", None, True, 2**60])
def test_a_number_that_cannot_be_kept_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(LimitsInvalid, match=name) as refused:
        replace(Limits(), **{name: value})

    assert refused.value.field == name


@given(st.sampled_from(NUMBERS), st.integers(32 * 2**20, 2**53))
def test_every_large_whole_number_is_taken(name: str, value: int) -> None:
    assert getattr(replace(Limits(), **{name: value}), name) == value  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("files", "all"),
        ("files", None),
        ("network", 1),
        ("network", "yes"),
        ("readable", ("text",)),
        ("readable", [Path("/a")]),
        ("readable", (Path("relative"),)),
        ("threads", 4.5),
    ],
)
def test_a_switch_of_another_kind_is_refused(name: str, value: Any) -> None:
    with pytest.raises(LimitsInvalid, match=name):
        replace(Limits(), **{name: value})


def test_what_is_not_asked_for_is_closed() -> None:
    limits = Limits()

    assert (limits.files, limits.network, limits.processes, limits.readable) == ("read", False, 0, ())


def test_limits_do_not_change() -> None:
    with pytest.raises(FrozenInstanceError):
        Limits().network = True  # type: ignore[misc]
