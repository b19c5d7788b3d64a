"""What models cost: prices that somebody named, then LiteLLM's list, if that is installed.

The list is read as the file that it is. Importing its package would take seconds, and it would ask the network.
A model that is on neither has no price, which is not a price of nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rlm_runtime.models.json_values import is_object, parsed

_LIST = "model_prices_and_context_window_backup.json"
_MILLION = 1_000_000
_LONG = (100_000, 128_000, 200_000, 256_000, 272_000, 512_000)


@dataclass(frozen=True)
class Price:
    """What a model costs, per million tokens. Long requests cost `long_...` where a service says so."""

    input_usd: float
    output_usd: float
    long_from_tokens: int | None = None
    long_input_usd: float = 0.0
    long_output_usd: float = 0.0

    def of(self, input_tokens: int, output_tokens: int) -> float:
        """Return what one request costs, in dollars."""
        is_long = self.long_from_tokens is not None and input_tokens > self.long_from_tokens
        a_million_in = max(self.input_usd, self.long_input_usd) if is_long else self.input_usd
        a_million_out = max(self.output_usd, self.long_output_usd) if is_long else self.output_usd
        return (input_tokens * a_million_in + output_tokens * a_million_out) / 1_000_000


class Prices:
    """The prices of models: `own` ones first."""

    def __init__(self, own: Mapping[str, Price] | None = None) -> None:
        self._own = dict(own or {})

    def load(self) -> None:
        """Read the list, which takes some milliseconds, so that `of` need not."""
        _listed()

    def names(self, model: str, provider: str = "") -> bool:
        """Whether somebody named the price of this model."""
        return model in self._own or f"{provider}/{model}" in self._own

    def of(self, model: str, provider: str = "") -> Price | None:
        """Return the price of a model; None if it is not known."""
        names = [f"{provider}/{model}", model] if provider else [model]
        named = (self._own.get(name) for name in (model, *names))
        listed = (_price(_listed().get(name)) for name in names)
        return next((price for each in (named, listed) for price in each if price is not None), None)


def listed_window(model: str, provider: str) -> int | None:
    """Return the window of a model of a service, as the list has it; None if it is not there."""
    entry = _listed().get(f"{provider}/{model}") or _listed().get(model) if provider else None
    tokens = entry.get("max_input_tokens") if is_object(entry) else None
    return tokens if isinstance(tokens, int) and tokens > 0 else None


def takes_tools(model: str) -> bool | None:
    """Return whether the list says that a model can be given tools; None if the model is not there."""
    entry = _listed().get(model) or _listed().get(model.partition("/")[2])
    return bool(entry.get("supports_function_calling")) if is_object(entry) else None


@cache
def _listed() -> Mapping[str, Any]:
    spec = find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        try:
            read = parsed((Path(folder) / _LIST).read_bytes())
        except OSError:
            continue
        return read if is_object(read) else {}
    return {}


def _price(entry: object) -> Price | None:
    """Return the price of a line of the list. Prices of nothing are not believed: that is how it says unknown."""
    if not is_object(entry):
        return None
    into, out = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if not isinstance(into, int | float) or not isinstance(out, int | float) or not (into or out):
        return None
    longer = [tokens for tokens in _LONG if f"input{_above(tokens)}" in entry]
    if not longer:
        return Price(into * _MILLION, out * _MILLION)
    long_into = max(entry[f"input{_above(tokens)}"] for tokens in longer)
    long_out = max(entry.get(f"output{_above(tokens)}", out) for tokens in longer)
    return Price(into * _MILLION, out * _MILLION, longer[0], long_into * _MILLION, long_out * _MILLION)


def _above(tokens: int) -> str:
    return f"_cost_per_token_above_{tokens // 1000}k_tokens"
