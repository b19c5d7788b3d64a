"""Models of a hundred providers, through LiteLLM, which runs in a process of its own (`litellm_worker.py`).

Names are LiteLLM's: "anthropic/claude-sonnet-4-5", "gemini/gemini-2.5-pro", "openai/..." with `api_base` for any
server that speaks as OpenAI's does. A key that is given here goes to models of that provider and to no others;
keys of other providers are those of `environment`, of which the process sees no more than is given.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Self

import anyio

from rlm_runtime.errors import ModelBusy, ModelError, ModelUnavailable
from rlm_runtime.models.direct import DirectModel, Draft
from rlm_runtime.models.failures import Secrets, Server, billed
from rlm_runtime.models.json_values import Json, is_object, parsed
from rlm_runtime.models.openai import ChatCompletions
from rlm_runtime.models.prices import Prices, takes_tools
from rlm_runtime.models.programs import secrets_in
from rlm_runtime.models.providers import provider_of
from rlm_runtime.models.wire_http import MOST_BYTES, OnEvent, shown
from rlm_runtime.models.workers import Worker, WorkerEnded, WorkerUnavailable

_PROGRAM = Path(__file__).with_name("litellm_worker.py")
_NOT_INSTALLED = (
    "Install it with `pip install 'rlm-mcp[llm]'`, "
    'or set backend = "openai" or "anthropic", which do without.'
)
_NOT_STARTED = 'Set backend = "openai" or "anthropic", which do without it, or mend its installation.'
_MOST_LAST_WORDS = 500


class LiteLLMModel(ChatCompletions):
    """A model that LiteLLM asks. `python` is the interpreter that has LiteLLM, where it is not this one."""

    def __init__(
        self,
        model: str,
        *,
        prices: Prices,
        api_key: str = "",
        api_base: str = "",
        environment: Mapping[str, str] | None = None,
        max_tokens: int = 4096,
        timeout_seconds: float = 600,
        idle_seconds: float = 300,
        native_tools: bool | None = None,
        windows: Mapping[str, int] | None = None,
        python: str = sys.executable,
    ) -> None:
        provider = model.partition("/")[0] if "/" in model else ""
        key_setting = f"{provider_of('litellm', model).upper()}_API_KEY"
        seen = dict(environment or {})
        secrets = Secrets(api_key.strip(), *secrets_in(seen))
        has_key = bool(api_key.strip() or seen.get(key_setting))
        server = Server(shown(api_base) or provider or "the provider", key_setting, has_key, secrets)
        self._calls = _Calls(
            Worker(
                [python, "-P", str(_PROGRAM)],
                _environment(seen, model, api_key.strip(), api_base),
                idle_seconds=idle_seconds,
            ),
            server,
            timeout_seconds=timeout_seconds,
        )
        self._takes_tools = native_tools
        super().__init__(
            model,
            url=api_base,
            provider=provider,
            api_key=api_key,
            key_setting=key_setting,
            prices=prices,
            max_tokens=max_tokens,
            timeout_seconds=timeout_seconds,
            native_tools=native_tools is not False,
            windows=windows,
            server=server,
            transport=self._calls,
        )

    async def __aenter__(self) -> Self:
        await DirectModel.__aenter__(self)
        if self._takes_tools is None:
            self.native_tools = takes_tools(self.name) is not False
        return self

    @property
    def worker_pid(self) -> int | None:
        """The number of LiteLLM's process, while one runs."""
        return self._calls.worker.pid

    async def warm_up(self) -> None:
        """Have LiteLLM loaded before it is first asked: that takes seconds. Raise `ModelUnavailable`."""
        await self._calls.warm_up(self.name)

    def _draft(self, whole: Json) -> Draft:
        draft = super()._draft(whole)
        usage = whole.get("usage")
        cost = usage.get("cost_usd") if is_object(usage) else None
        return replace(draft, cost_usd=cost if isinstance(cost, float) and cost > 0 else None)

    def _listed_as(self, model: str) -> tuple[str, str]:
        provider, slash, rest = model.partition("/")
        return (rest, provider) if slash else (model, "")


class _Calls:
    """What carries requests to LiteLLM's process, and makes errors of what goes wrong there."""

    def __init__(self, worker: Worker, server: Server, *, timeout_seconds: float) -> None:
        self.worker = worker
        self._server = server
        self._timeout_seconds = timeout_seconds

    async def __aenter__(self) -> Self:
        await self.worker.__aenter__()
        return self

    async def __aexit__(self, *problem: object) -> None:
        await self.worker.__aexit__(*problem)

    async def warm_up(self, model: str) -> None:
        try:
            await self.worker.ready()
        except WorkerUnavailable as problem:
            raise self._unavailable(model, problem) from None

    async def post(self, model: str, body: Json, on_event: OnEvent | None = None) -> Json | None:
        """Return the reply; None if `on_event` heard it as events. Raise `ModelError`."""
        call = {**body, "timeout": self._timeout_seconds}
        try:
            with anyio.move_on_after(self._timeout_seconds):
                return await self._ask(model, call, on_event)
        except WorkerUnavailable as problem:
            raise self._unavailable(model, problem) from None
        except WorkerEnded as problem:
            reason = self._server.secrets.hide(problem.last_words)[-_MOST_LAST_WORDS:] or "without a word"
            raise self._server.lost(model, f"LiteLLM's process ended ({reason})") from None
        raise self._server.lost(model, f"There was no answer in {self._timeout_seconds:g} seconds")

    async def _ask(self, model: str, call: Json, on_event: OnEvent | None) -> Json | None:
        heard = 0
        async with self.worker.asked(call) as answers:
            async for answer in answers:
                if "failure" in answer:
                    failure = self._failure(model, answer["failure"])
                    raise billed(failure) if heard else failure
                if "whole" in answer:
                    return await self._end(model, answer["whole"], on_event)
                heard += len(str(answer["event"]))
                if heard > MOST_BYTES:
                    reason = f"The answer is larger than {MOST_BYTES >> 20} MiB"
                    raise billed(self._server.refused(model, reason))
                if on_event:
                    await on_event(answer["event"])
        raise self._server.lost(model, "LiteLLM's process said nothing more")

    async def _end(self, model: str, whole: Json | None, on_event: OnEvent | None) -> Json | None:
        if whole is None and on_event and not await on_event(None):
            raise self._server.lost(model, "The stream ended before the reply did")
        return whole

    def _failure(self, model: str, failure: Json) -> ModelError:
        """Return the error for a failure. A status that LiteLLM made up says only whether to ask again."""
        body, status, guessed = failure["body"], failure["status"], failure["guessed"] or 500
        said = (parsed(body) or body) if isinstance(body, str) else body
        if status is not None:
            return self._server.failure(model, status, failure["headers"], said)
        within = self._server.failure_within(model, said) if guessed >= 500 and is_object(said) else None
        if within:
            return within
        likely = self._server.failure(model, guessed, {}, said)
        reason = likely.reason.replace(f" (HTTP {guessed})", "")
        if not isinstance(likely, ModelBusy) or failure["for_good"]:
            return self._server.refused(model, reason)
        return (self._server.lost if failure["sent"] else self._server.busy)(model, reason)

    def _unavailable(self, model: str, problem: WorkerUnavailable) -> ModelUnavailable:
        if problem.is_missing:
            return ModelUnavailable(model, "LiteLLM is not installed", _NOT_INSTALLED)
        reason = self._server.secrets.hide(str(problem))[-_MOST_LAST_WORDS:]
        return ModelUnavailable(model, f"LiteLLM cannot be started ({reason})", _NOT_STARTED)


def _environment(given: Mapping[str, str], model: str, api_key: str, api_base: str) -> dict[str, str]:
    """Return all that the process sees of the environment. What it has for itself, it takes out when it starts."""
    own = {"MODEL": model, "API_KEY": api_key, "API_BASE": api_base}
    return {**given, **{f"RLM_LITELLM_{name}": value for name, value in own.items()}}
