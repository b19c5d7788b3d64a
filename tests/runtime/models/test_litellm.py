"""The real LiteLLM, the oldest and the newest that we take, in its own process, against a server over real HTTP."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.errors import ModelBusy, ModelError, ModelRefused
from rlm_runtime.model import Message, OnText, Request, ToolSpec, ToolUse
from rlm_runtime.models.litellm import LiteLLMModel
from rlm_runtime.models.prices import Price, Prices
from tests.fakes.models import (
    Answer,
    Breakdown,
    Hangup,
    Refusal,
    Reply,
    ScriptedModel,
    Silence,
    ToolCall,
    Turn,
)
from tests.fakes.models import Request as Asked
from tests.fakes.scripts import turn_of

KEY = "sk-proj-0123456789abcdefSECRET"
ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {}, "b": {}}})
PRICES = Prices({"openai/m": Price(1.0, 10.0)})
CLAUDE = "anthropic/claude-sonnet-4-5"
_ROOT = Path(__file__).parents[3]


def python_of(version: str) -> str:
    """Return the Python of an environment that has this LiteLLM, and nothing of this project."""
    folder = Path(os.environ.get("RLM_LITELLM_DIR") or _ROOT / ".venv-litellm")
    python = folder / version / "bin" / "python"
    if not python.exists():
        pytest.fail(f"There is no {python}. scripts/test makes it; RLM_LITELLM_DIR says where it lies.")
    return str(python)


@dataclass(repr=False)
class Stage:
    """A server whose script each test sets, and a LiteLLM that is warm."""

    server: ScriptedModel
    openai: LiteLLMModel
    anthropic: LiteLLMModel
    script: Answer

    def play(self, *turns: Answer) -> None:
        """Answer so, from the first request of this test on."""
        script = iter(turns)
        self.server.requests.clear()
        self.server.left.clear()
        self.server.most_at_once = 0
        self.script = turns[0] if len(turns) == 1 else lambda request: turn_of(next(script), request)


@asynccontextmanager
async def staged(version: str) -> AsyncGenerator[Stage]:
    stages: list[Stage] = []

    async def answer(request: Asked) -> Turn:
        return await turn_of(stages[0].script, request)

    def model(name: str, base: str) -> LiteLLMModel:
        return LiteLLMModel(name, api_key=KEY, api_base=base, prices=PRICES, python=python_of(version))

    async with ScriptedModel(answer) as server:
        async with model("openai/m", f"{server.url}/v1") as openai, model(CLAUDE, server.url) as anthropic:
            stages.append(Stage(server, openai, anthropic, Reply("Hello.")))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(openai.warm_up)
                tasks.start_soon(anthropic.warm_up)
            yield stages[0]


@pytest.fixture(scope="module", params=["oldest", "newest"])
async def stage(request: pytest.FixtureRequest) -> AsyncGenerator[Stage]:
    async with staged(request.param) as stage:
        yield stage


@pytest.fixture(params=["openai", "anthropic"])
def model(stage: Stage, request: pytest.FixtureRequest) -> LiteLLMModel:
    return stage.openai if request.param == "openai" else stage.anthropic


def ask(text: str = "Hi", **more: Any) -> Request:
    return Request((Message("user", text),), **more)


def listener() -> tuple[list[str], OnText]:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    return heard, hear


# ---- replies


async def test_a_reply_has_its_text_and_its_usage(stage: Stage, model: LiteLLMModel) -> None:
    stage.play(Reply("Hello.", input_tokens=100, output_tokens=20))

    reply = await model.complete(ask(max_tokens=77))

    assert (reply.text, reply.finish) == ("Hello.", "stop")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == (100, 20, False)
    assert stage.server.requests[0].body["max_tokens"] == 77


async def test_a_stream_is_heard_as_it_comes_and_adds_up_to_the_same_reply(
    stage: Stage, model: LiteLLMModel
) -> None:
    said = Reply("Let me see: äöü 🙂.", (ToolCall("add", {"a": 1}), ToolCall("add", {"b": "äöü"})), pieces=5)
    stage.play(said)
    heard, hear = listener()

    whole = await model.complete(ask(tools=(ADD,)))
    streamed = await model.complete(ask(tools=(ADD,)), on_text=hear)

    assert len(heard) > 2 and "".join(heard) == streamed.text == whole.text == said.text
    uses = [(use.name, use.arguments) for use in streamed.tool_uses]
    assert uses == [(use.name, use.arguments) for use in whole.tool_uses]
    assert uses == [("add", {"a": 1}), ("add", {"b": "äöü"})]
    assert (streamed.finish, streamed.usage) == (whole.finish, whole.usage) == ("tools", whole.usage)
    assert streamed.usage.tokens == 15 and not streamed.usage.estimated


async def test_what_came_of_tools_is_told_in_the_form_of_the_api(stage: Stage, model: LiteLLMModel) -> None:
    stage.play(Reply("3"))
    uses = (ToolUse("t1", "add", {"a": 1}), ToolUse("t2", "add", {"a": 2}))
    results = (
        Message("tool", "3", tool_use_id="t1"),
        Message("tool", "no", tool_use_id="t2", is_error=True),
    )
    asked = (
        Message("system", "Be short."),
        Message("user", "Add."),
        Message("assistant", "", uses),
        *results,
    )

    await model.complete(Request(asked, tools=(ADD,)))

    [request] = stage.server.requests
    assert [result.text for result in request.results] == ["3", "no"]
    assert ("Be short." in request.system, request.turn) == (True, 1)
    assert set(request.tools) == {"add"}


async def test_a_schema_is_passed_on_where_it_can_be(stage: Stage) -> None:
    stage.play(Reply('{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}

    reply = await stage.openai.complete(ask(schema=schema))

    assert json.loads(reply.text) == {"a": 1}
    assert stage.server.requests[0].body["response_format"]["json_schema"]["schema"] == schema


async def test_what_a_server_does_not_take_is_left_out(stage: Stage) -> None:
    def picky(request: Asked) -> Turn:
        refused = "temperature" in request.body
        return Refusal(400, "Unsupported parameter: 'temperature'.") if refused else Reply("Yes.")

    stage.play(picky)

    assert (await stage.openai.complete(ask(temperature=0.5))).text == "Yes."


async def test_a_price_of_ones_own_is_what_it_costs(stage: Stage) -> None:
    stage.play(Reply("Hello.", input_tokens=100, output_tokens=20))

    reply = await stage.openai.complete(ask())

    assert reply.usage.cost_usd == pytest.approx(0.0003)
    assert (stage.openai.bound(ask()).cost_usd or 0) >= 0.0003


async def test_a_price_that_litellm_knows_is_what_it_costs_also_when_it_streams(stage: Stage) -> None:
    stage.play(Reply("Hello.", input_tokens=1000, output_tokens=100))

    plain = await stage.openai.complete(ask(model="openai/gpt-4o"))
    streamed = await stage.openai.complete(ask(model="openai/gpt-4o"), on_text=listener()[1])

    assert plain.usage.cost_usd == streamed.usage.cost_usd == pytest.approx(0.0035)


async def test_an_unknown_price_is_unknown_and_not_nothing(stage: Stage) -> None:
    stage.play(Reply("Hello."))

    for hears in ({}, {"on_text": listener()[1]}):
        reply = await stage.openai.complete(ask(model="openai/nobody-knows"), **hears)
        assert reply.usage.tokens == 15 and reply.usage.cost_usd is None
    assert stage.openai.bound(ask(model="openai/nobody-knows")).cost_usd is None


async def test_usage_that_is_not_reported_is_estimated_and_never_too_low(stage: Stage) -> None:
    said = "Grüße, 世界! " * 10
    stage.play(Reply(said, reports_usage=False))
    request = ask("Wie geht's?", model="openai/silent")

    for hears in ({}, {"on_text": listener()[1]}):
        reply = await stage.openai.complete(request, **hears)
        assert reply.usage.estimated
        assert reply.usage.output_tokens >= len(said.encode())
        assert reply.usage.input_tokens == stage.openai.bound(request).input_tokens


# ---- what goes wrong


@pytest.mark.parametrize(
    ("status", "error"),
    [
        *((status, ModelRefused) for status in (400, 401, 403, 404)),
        *((status, ModelBusy) for status in (408, 429, 500, 503, 529)),
    ],
)
async def test_a_failure_is_known_by_its_status_and_not_by_its_words(
    stage: Stage, model: LiteLLMModel, status: int, error: type[ModelBusy | ModelRefused]
) -> None:
    stage.play(Refusal(status, "rate_limit_error or authentication_error, and invalid_request_error"))

    with pytest.raises(error, match="rate_limit_error or") as raised:
        await model.complete(ask())

    assert raised.value.status == status
    assert len(stage.server.requests) == 1  # nothing is tried twice


async def test_a_request_that_makes_no_sense_to_a_server_is_refused(
    stage: Stage, model: LiteLLMModel
) -> None:
    stage.play(Refusal(422, "No sense."))

    for hears in ({}, {"on_text": listener()[1]}):
        with pytest.raises(ModelRefused) as raised:
            await model.complete(ask(), **hears)
        assert raised.value.status == 422


async def test_when_to_come_again_is_passed_on(stage: Stage, model: LiteLLMModel) -> None:
    stage.play(Refusal(429, retry_after_seconds=2.5))

    for hears in ({}, {"on_text": listener()[1]}):
        with pytest.raises(ModelBusy) as raised:
            await model.complete(ask(), **hears)
        assert raised.value.retry_after_seconds == 2.5


@pytest.mark.parametrize(
    "script",
    [Hangup(), Hangup(after_events=3), Hangup(after_events=3, quiet=True), Breakdown(after_events=3)],
    ids=["at once", "within", "quietly within", "error event"],
)
async def test_a_stream_that_does_not_come_to_its_end_is_no_answer(
    stage: Stage, model: LiteLLMModel, script: Turn
) -> None:
    stage.play(script)

    with pytest.raises(ModelBusy) as raised, anyio.fail_after(20):
        await model.complete(ask(), on_text=listener()[1])

    assert raised.value.may_be_billed


@pytest.mark.parametrize("name", ["openai/m", CLAUDE])
async def test_a_server_that_is_not_there_bills_nothing(name: str) -> None:
    async with ScriptedModel([]) as server:
        base = server.url
    given: dict[str, Any] = {"api_key": KEY, "prices": PRICES, "python": python_of("newest")}

    async with LiteLLMModel(name, api_base=base, **given) as model:
        with pytest.raises(ModelBusy) as raised, anyio.fail_after(60):
            await model.complete(ask())

    assert not raised.value.may_be_billed


async def test_a_model_without_its_provider_is_refused_in_words_that_help(stage: Stage) -> None:
    with pytest.raises(ModelRefused, match="Put it in front: openai/") as raised:
        await stage.openai.complete(ask(model="leaf"))

    assert not raised.value.may_be_billed


async def test_a_key_goes_to_its_provider_only_and_is_never_shown(stage: Stage) -> None:
    stage.play(Refusal(401, f"Incorrect API key provided: {KEY}."))

    with pytest.raises(ModelRefused) as raised:
        await stage.openai.complete(ask())
    with pytest.raises((ModelRefused, ModelBusy)):
        await stage.openai.complete(ask(model="anthropic/claude-haiku-4-5", max_tokens=5))

    [request] = stage.server.requests  # the other one would have gone to its own service, without our key
    assert KEY in request.headers["authorization"]
    shown = raised.getrepr(showlocals=True, funcargs=True, chain=True)
    assert KEY not in f"{raised.value!r} {vars(raised.value)} {shown} {stage.openai!r}"
    assert KEY not in _arguments_of(stage.openai)


# ---- many at once, and their end


async def test_a_hundred_calls_run_at_once(stage: Stage) -> None:
    everybody = anyio.Event()
    stage.server.at_once = 0

    async def answer(request: Asked) -> Turn:
        if stage.server.at_once == 100:
            everybody.set()
        await everybody.wait()
        return Reply(request.prompt)

    stage.play(answer)
    said: dict[int, str] = {}

    async def one(number: int) -> None:
        said[number] = (await stage.openai.complete(ask(f"n{number}"))).text

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            for number in range(100):
                tasks.start_soon(one, number)

    assert said == {number: f"n{number}" for number in range(100)}


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_that_is_cancelled_hangs_up_at_once(
    stage: Stage, model: LiteLLMModel, streamed: bool
) -> None:
    stage.play(Silence(after_events=4 if streamed else 0))
    begun = anyio.Event()

    async def hear(_: str) -> None:
        begun.set()

    async def call() -> None:
        await model.complete(ask(), on_text=hear if streamed else None)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(call)
            await stage.server.until(lambda server: bool(server.requests))
            if streamed:
                await begun.wait()
            tasks.cancel_scope.cancel()
        await stage.server.until(lambda server: bool(server.left))
    stage.play(Reply("one"))
    assert (await model.complete(ask())).text == "one"


async def test_a_model_that_never_answers_is_given_up_after_its_time(stage: Stage) -> None:
    stage.play(Silence())
    model = stage.openai
    calls: Any = model._calls  # pyright: ignore[reportPrivateUsage]
    calls._timeout_seconds, before = 0.5, calls._timeout_seconds
    try:
        with anyio.fail_after(20):
            with pytest.raises(ModelBusy, match=r"no answer in 0\.5 seconds"):
                await model.complete(ask())
            await stage.server.until(lambda server: bool(server.left))
    finally:
        calls._timeout_seconds = before


def _arguments_of(model: LiteLLMModel) -> str:
    return Path(f"/proc/{model.worker_pid}/cmdline").read_bytes().decode()


@pytest.mark.parametrize("version", ["oldest", "newest"])
async def test_without_a_key_it_is_said_which_one_is_missing_and_nothing_counts_as_spent(
    version: str,
) -> None:
    wanted = {"gpt-4o": "OPENAI_API_KEY", "claude-sonnet-4-5": "ANTHROPIC_API_KEY"}
    told: dict[str, ModelError] = {}
    with anyio.fail_after(90):
        async with LiteLLMModel("gpt-4o", prices=PRICES, python=python_of(version)) as gpt:
            async with LiteLLMModel("claude-sonnet-4-5", prices=PRICES, python=python_of(version)) as claude:
                for model in (gpt, claude):
                    with pytest.raises(ModelError) as raised:
                        await model.complete(ask())
                    told[model.name] = raised.value

    assert {name: type(problem) for name, problem in told.items()} == dict.fromkeys(wanted, ModelRefused)
    assert all(wanted[name] in str(problem) for name, problem in told.items())
    assert "OPENAI_API_KEY" not in str(told["claude-sonnet-4-5"])
    assert not any(problem.may_be_billed for problem in told.values())
