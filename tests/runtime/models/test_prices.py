"""Prices come from their owner, then from LiteLLM's list, and are never made up; so are windows."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlm_runtime.model import Message, Request
from rlm_runtime.models import prices
from rlm_runtime.models.litellm import LiteLLMModel
from rlm_runtime.models.prices import Price, Prices, listed_window
from rlm_runtime.models.windows import window_of

LIST = {
    "gpt-x": {"input_cost_per_token": 1e-6, "output_cost_per_token": 2e-6},
    "groq/llama": {
        "input_cost_per_token": 3e-6,
        "output_cost_per_token": 4e-6,
        "max_input_tokens": 131_072,
        "supports_function_calling": True,
    },
    "llama": {"input_cost_per_token": 9e-6, "output_cost_per_token": 9e-6},
    "long": {
        "input_cost_per_token": 1e-6,
        "output_cost_per_token": 2e-6,
        "input_cost_per_token_above_200k_tokens": 3e-6,
        "output_cost_per_token_above_200k_tokens": 4e-6,
        "input_cost_per_token_above_512k_tokens": 2e-6,
    },
    "free": {"input_cost_per_token": 0, "output_cost_per_token": 0},
    "an-image": {"output_cost_per_image": 1},
    "odd": "text",
}


@pytest.fixture
def listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """LiteLLM as far as it is needed: a package with a list, which would end the test if it were imported."""
    package = tmp_path / "litellm"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "model_prices_and_context_window_backup.json").write_text(json.dumps(LIST))
    monkeypatch.syspath_prepend(tmp_path)  # pyright: ignore[reportUnknownMemberType]
    _forget()
    yield
    _forget()


def _forget() -> None:
    prices._listed.cache_clear()  # pyright: ignore[reportPrivateUsage]


@pytest.mark.usefixtures("listed")
def test_a_price_of_ones_own_goes_before_the_list_and_a_provider_before_the_name_alone() -> None:
    own = Prices({"gpt-x": Price(5, 6), "groq/mine": Price(7, 8)})

    assert own.of("gpt-x") == Price(5, 6)
    assert own.of("gpt-x", "openai") == Price(5, 6)
    assert own.of("mine", "groq") == Price(7, 8)
    assert _per_million(own, "llama", "groq") == pytest.approx((3, 4))
    assert _per_million(own, "llama") == pytest.approx((9, 9))
    assert "litellm" not in sys.modules


@pytest.mark.usefixtures("listed")
def test_what_the_list_does_not_know_has_no_price() -> None:
    assert [Prices().of(name) for name in ("nobody", "free", "an-image", "odd")] == [None] * 4


@pytest.mark.usefixtures("listed")
def test_the_list_tells_the_window_of_a_model_only_where_its_service_is_known() -> None:
    assert (listed_window("llama", "groq"), listed_window("llama", ""), listed_window("odd", "groq")) == (
        131_072,
        None,
        None,
    )


@pytest.mark.usefixtures("listed")
def test_a_long_request_costs_what_a_long_one_costs() -> None:
    price = Prices().of("long")

    assert price is not None
    assert price.of(200_000, 1_000_000) == pytest.approx(2.2)
    assert price.of(200_001, 1_000_000) == pytest.approx(4.600003)


def test_without_the_list_only_ones_own_prices_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(_: str) -> None:
        return None

    monkeypatch.setattr(prices, "find_spec", nothing)
    _forget()

    assert (Prices().of("gpt-4o"), Prices({"m": Price(1, 2)}).of("m")) == (None, Price(1, 2))
    _forget()


def _per_million(known: Prices, model: str, provider: str = "") -> tuple[float, float]:
    price = known.of(model, provider)
    assert price is not None
    return price.input_usd, price.output_usd


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("gpt-4.1-mini", 1_047_576),
        ("openai/gpt-4o-2024-08-06", 128_000),
        ("gpt-4", 8_192),
        ("o3-mini", 200_000),
        ("claude-sonnet-4-5", 200_000),
        ("openrouter/anthropic/claude-opus-4.1", 200_000),
        ("gemini/gemini-2.5-pro", 1_048_576),
        ("llama3.1:8b", None),
        ("qwen3", None),
        ("gpt-oss-120b", None),
        ("", None),
    ],
)
def test_a_window_is_known_where_the_name_tells_it_and_nowhere_else(model: str, tokens: int | None) -> None:
    assert window_of(model) == tokens


def test_a_window_of_ones_own_goes_before_what_is_known() -> None:
    own = {"llama3.1:8b": 32_768, "ours/gpt-4o": 8_000}

    assert window_of("llama3.1:8b", own) == window_of("ollama/llama3.1:8b", own) == 32_768
    assert (window_of("ours/gpt-4o", own), window_of("gpt-4o", own)) == (8_000, 128_000)


@pytest.mark.usefixtures("listed")
async def test_a_model_of_litellm_has_the_facts_of_the_list_by_its_name_with_the_provider() -> None:
    async with LiteLLMModel("groq/llama", prices=Prices()) as model:
        assert model.native_tools
        assert model.window_tokens() == 131_072
        assert model.bound(ask(model="groq/llama")).cost_usd == pytest.approx(
            model.bound(ask(model="groq/llama")).input_tokens * 3e-6 + 4096 * 4e-6
        )
        assert model.bound(ask(model="openai/gpt-x")).cost_usd is not None
        assert model.bound(ask(model="openai/nobody-knows")).cost_usd is None


@pytest.mark.usefixtures("listed")
@pytest.mark.parametrize(
    ("model", "takes"),
    [("groq/llama", True), ("openai/gpt-x", False), ("gpt-x", False), ("openai/mine", True)],
)
async def test_a_model_of_litellm_is_given_tools_unless_the_list_says_that_it_takes_none(
    model: str, takes: bool
) -> None:
    async with LiteLLMModel(model, prices=Prices()) as opened:
        assert opened.native_tools is takes
    async with LiteLLMModel(model, prices=Prices(), native_tools=not takes) as told:
        assert told.native_tools is not takes


def ask(**more: Any) -> Request:
    return Request((Message("user", "Hi"),), **more)
