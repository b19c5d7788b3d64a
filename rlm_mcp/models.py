"""Which model answers calls from code, as the settings say it, and what opens it.

A key belongs to the provider and to the address for which the user gave it. It goes nowhere else, whatever the file
of a project says, trusted or not; and of the environment a model sees the keys of its own provider only.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import anyio.to_thread

if TYPE_CHECKING:
    from rlm_runtime import Budget, Model, Prices

    from .settings import RlmSection

Client: TypeAlias = Literal["litellm", "openai", "anthropic", "command"]

_CLASSES: Mapping[Client, str] = {
    "litellm": "LiteLLMModel",
    "openai": "OpenAIModel",
    "anthropic": "AnthropicModel",
    "command": "CommandModel",
}

_OWN = "RLM_"
_UNREPLACED = "${"  # as some clients hand on what is unset


@dataclass(frozen=True)
class Choice:
    """A model to be opened. Calls with equal ones share it."""

    client: Client
    model: str = ""
    api_base: str = ""
    api_key: str = field(default="", repr=False)
    environment: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    prices: tuple[tuple[str, tuple[float, float]], ...] = ()
    max_tokens: int = 4096
    command: tuple[str, ...] = ()
    at_once: int = 2
    seconds: float = 600.0


def choices_of(rlm: RlmSection, own: RlmSection, environment: Mapping[str, str]) -> list[Choice]:
    """Return what may be asked, first the first. `own` is what the user says, without any project's file."""
    if rlm.backend == "none":
        return []
    chosen: list[Choice] = []
    if rlm.model and rlm.backend != "command":
        chosen.append(_api(rlm, own, environment))
    if rlm.command:
        chosen += _command(rlm, environment)
    return chosen


def _command(rlm: RlmSection, environment: Mapping[str, str]) -> list[Choice]:
    """Return the command, unless it is what has started us."""
    from rlm_runtime import WITHIN_COMMAND

    if environment.get(WITHIN_COMMAND):
        return []
    seen = _usable(environment, without=_OWN) | {WITHIN_COMMAND: "1"}
    choice = Choice(
        "command",
        rlm.model if rlm.backend == "command" else "",
        environment=tuple(sorted(seen.items())),
        prices=tuple(sorted(rlm.prices.items())),
        max_tokens=rlm.max_tokens,
        command=rlm.command,
        at_once=rlm.command_at_once,
        seconds=rlm.command_seconds,
    )
    return [choice]


def _api(rlm: RlmSection, own: RlmSection, environment: Mapping[str, str]) -> Choice:
    from rlm_runtime import ADDRESS_OF, KEY_OF, seen_by

    client = cast("Client", rlm.backend)
    same_address = rlm.api_base == own.api_base
    is_own = same_address and (client, _provider(rlm)) == (own.backend, _provider(own))
    seen = _usable(environment) if same_address else {}
    key = (own.api_key if is_own else "") or seen.get(KEY_OF.get(client, ""), "")
    providers = {_provider(rlm), _provider(rlm, rlm.sub_model)}
    return Choice(
        client,
        rlm.model,
        rlm.api_base or seen.get(ADDRESS_OF.get(client, ""), ""),
        key,
        tuple(sorted(seen_by(providers, seen).items())) if client == "litellm" else (),
        tuple(sorted(rlm.prices.items())),
        rlm.max_tokens,
    )


def _provider(rlm: RlmSection, model: str = "") -> str:
    from rlm_runtime import provider_of

    return provider_of(rlm.backend, model or rlm.model)


def _usable(environment: Mapping[str, str], without: str = "\0") -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if value.strip() and not value.startswith(_UNREPLACED) and not name.startswith(without)
    }


def secrets_of(choices: list[Choice]) -> list[str]:
    """Return what must stand in no log."""
    from rlm_runtime import secrets_in

    values = [each.api_key for each in choices]
    values += [value for each in choices for value in secrets_in(dict(each.environment))]
    return [value for value in values if value]


def budget_of(
    rlm: RlmSection,
    *,
    client_only: bool = False,
    of_cell: bool = False,
    asked: Mapping[str, float] | None = None,
) -> Budget:
    """Return what one run, or the code of one cell, may spend. A cell has a clock of its own.

    A client that answers by itself is given at once all that there is to be answered. What is `asked` for
    may only be less than the settings say.
    """
    from rlm_runtime import Budget

    asked = asked or {}
    costs = [each for each in (rlm.cost_budget_usd, asked.get("cost_budget_usd")) if each is not None]
    return Budget(
        max_depth=int(min(rlm.max_depth, asked.get("max_depth", rlm.max_depth))),
        max_subcalls=int(min(rlm.max_subcalls, asked.get("max_subcalls", rlm.max_subcalls))),
        tokens=int(min(rlm.token_budget, asked.get("token_budget", rlm.token_budget))),
        cost_usd=min(costs, default=None),
        wall_seconds=None if of_cell else min(rlm.wall_seconds, asked.get("wall_seconds", rlm.wall_seconds)),
        at_once=max(rlm.at_once, 1000) if client_only else rlm.at_once,
    )


@asynccontextmanager
async def open_model(choice: Choice) -> AsyncGenerator[Model]:
    """Open a model. Raise `ModelUnavailable` if it cannot be had here."""
    import rlm_runtime

    await anyio.to_thread.run_sync(
        getattr, rlm_runtime, _CLASSES[choice.client]
    )  # others need not wait for that
    async with _model_of(choice) as model:
        yield model


def _model_of(choice: Choice) -> AbstractAsyncContextManager[Model]:
    if choice.client == "command":
        from rlm_runtime import CommandModel

        return CommandModel(
            choice.command,
            at_once=choice.at_once,
            timeout_seconds=choice.seconds,
            model=choice.model,
            environment=dict(choice.environment),
            max_tokens=choice.max_tokens,
            prices=_prices(choice),
        )
    given: dict[str, Any] = {
        "prices": _prices(choice),
        "api_key": choice.api_key,
        "max_tokens": choice.max_tokens,
    }
    if choice.client == "litellm":
        from rlm_runtime import LiteLLMModel

        return LiteLLMModel(
            choice.model, api_base=choice.api_base, environment=dict(choice.environment), **given
        )
    if choice.api_base:
        given["api_base"] = choice.api_base
    if choice.client == "anthropic":
        from rlm_runtime import AnthropicModel

        return AnthropicModel(choice.model, **given)
    from rlm_runtime import OpenAIModel

    return OpenAIModel(choice.model, **given)


def _prices(choice: Choice) -> Prices:
    from rlm_runtime import Price, Prices

    return Prices({name: Price(*pair) for name, pair in choice.prices})
