"""Whatever a model does without end, some budget ends it, exactly there, and nothing is left behind."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from rlm_runtime.budget import Budget
from rlm_runtime.errors import (
    CostBudgetExhausted,
    ModelRefused,
    PriceUnknown,
    RunFailed,
    TimeBudgetExhausted,
    TokenBudgetExhausted,
    TurnBudgetExhausted,
)
from rlm_runtime.log import open_log
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import SessionError
from tests.fakes.models import Oracle, Refusal, Reply, Request, Silence, ToolCall, by_model, conversation
from tests.fakes.turns import Turn
from tests.runtime.runs import WIDE, WIRES, Wire, code, nothing_left_behind, scene


def busy(wire: Wire = "openai", input_tokens: int = 10, output_tokens: int = 5) -> Callable[[Request], Turn]:
    """A root that never ends: each turn is another one."""

    def answer(request: Request) -> Turn:
        if "No more code is run" in request.text:
            turn = Reply("As far as I got.")
        else:
            turn = code(f"print({request.turn})", wire=wire)
        return replace(turn, input_tokens=input_tokens, output_tokens=output_tokens)

    return answer


@WIRES
async def test_turns_end_with_a_last_question_and_a_partial_answer(sandbox: LocalSandbox, wire: Wire) -> None:
    async with scene(sandbox, busy(wire), wire=wire) as made:
        with anyio.fail_after(30):
            async with nothing_left_behind():
                outcome = await made.run(budget=replace(WIDE, max_turns=4))

    assert (outcome.response, outcome.finish, outcome.partial) == ("As far as I got.", "exhausted", True)
    assert "max_turns" in outcome.reason
    assert (len(made.server.requests), len(made.outputs())) == (5, 4)


async def test_turns_that_end_are_an_error_where_that_is_wanted(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, busy()) as made:
        with anyio.fail_after(30), pytest.raises(TurnBudgetExhausted) as raised:
            await made.run(budget=replace(WIDE, max_turns=2), on_exhausted="error")

    ended = made.of("run_ended")[0]
    assert raised.value.partial == "As far as I got."
    assert raised.value.trajectory_id == ended["trajectory_id"]
    assert (ended["finish"], ended["error"]["kind"]) == ("exhausted", "TurnBudgetExhausted")


async def test_code_that_asks_for_ever_is_told_at_its_last_call(sandbox: LocalSandbox) -> None:
    root = conversation(
        code("n = 0\nwhile True:\n    llm_query(f'question {n}')\n    n += 1", wire="openai"),
        code("final(n)", wire="openai"),
    )
    async with scene(sandbox, by_model({"root": root, "leaf": Oracle("x")})) as made:
        with anyio.fail_after(30):
            outcome = await made.run(budget=Budget(max_subcalls=7, tokens=None))

    assert (outcome.value, outcome.finish) == (7, "answered")
    assert sum(times for prompt, times in made.server.asked.items() if "question" in prompt) == 7
    assert "CallBudgetExhausted" in made.of("cell_ended")[0]["error"]["traceback"]


async def test_a_batch_that_is_too_large_is_answered_as_far_as_the_budget_goes(sandbox: LocalSandbox) -> None:
    batch = "answers = llm_map([f'question {n}' for n in range(500)])\nfinal([len(answers.ok), len(answers.failed)])"
    root = conversation(code(batch, wire="openai"))
    async with scene(sandbox, by_model({"root": root, "leaf": Oracle("x")})) as made:
        with anyio.fail_after(30):
            outcome = await made.run(budget=Budget(max_subcalls=20, tokens=None, at_once=4))

    assert outcome.value == [20, 480]
    assert sum(times for prompt, times in made.server.asked.items() if "question" in prompt) == 20
    assert made.server.most_at_once == 4


async def test_tokens_are_never_overspent_by_a_model_that_goes_on_for_ever(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, busy(input_tokens=400, output_tokens=100)) as made:
        with anyio.fail_after(30):
            outcome = await made.run(budget=replace(WIDE, tokens=12_000))

    assert (outcome.finish, outcome.partial) == ("exhausted", True)
    assert "token_budget" in outcome.reason
    assert outcome.total_tokens <= 12_000
    assert len(made.server.requests) == outcome.total_calls == outcome.total_tokens // 500 > 3


async def test_a_reply_that_a_budget_made_too_short_is_the_end(sandbox: LocalSandbox) -> None:
    def root(request: Request) -> Turn:
        if request.turn == 0:
            return replace(code("print(1)", wire="openai"), input_tokens=500, output_tokens=1000)
        return Reply(
            "It is about", finish="length", input_tokens=600, output_tokens=request.body["max_tokens"]
        )

    async with scene(sandbox, root) as made:
        with anyio.fail_after(30):
            outcome = await made.run(budget=replace(WIDE, tokens=6_000))

    assert (outcome.finish, outcome.partial) == ("exhausted", True)
    assert "too little for a whole reply" in outcome.reason
    assert outcome.total_tokens <= 6_000


async def test_calls_that_cannot_be_read_do_not_go_on_for_ever(sandbox: LocalSandbox) -> None:
    broken = Reply(calls=(ToolCall("run_python", '{"code": "print(1'),))
    async with scene(sandbox, lambda _: broken) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.finish, len(made.server.requests)) == ("gave_up", 3)
    assert "could not be read" in outcome.reason


async def test_parallel_leaves_never_overspend_the_tokens(sandbox: LocalSandbox) -> None:

    def leaf(request: Request) -> Turn:
        return Reply("fine", input_tokens=30, output_tokens=min(1000, request.body["max_tokens"]))

    batch = "final(len(llm_map([f'question {n}' for n in range(300)]).ok))"
    script = by_model({"root": conversation(code(batch, wire="openai")), "leaf": leaf})
    async with scene(sandbox, script) as made:
        with anyio.fail_after(30):
            outcome = await made.run(budget=replace(WIDE, tokens=40_000))

    assert outcome.total_tokens <= 40_000
    assert outcome.value == len(made.server.requests) - 1
    assert 20 < outcome.value < 80


async def test_a_model_that_keeps_to_no_length_is_asked_no_more_and_the_outcome_says_what_it_took(
    sandbox: LocalSandbox,
) -> None:
    batch = "final([str(each) for each in llm_map([f'question {n}' for n in range(9)])])"
    leaf = Reply("fine", input_tokens=30, output_tokens=6000)
    script = by_model({"root": conversation(code(batch, wire="openai")), "leaf": leaf})
    async with scene(sandbox, script) as made:
        with anyio.fail_after(30):
            outcome = await made.run(budget=replace(WIDE, tokens=12_000, at_once=1))

    ended = made.of("run_ended")[0]
    assert outcome.total_tokens == 12_000 + outcome.over_tokens > 12_000
    assert ended["token_usage"]["over_tokens"] == outcome.over_tokens
    assert len(made.server.requests) < 4 and made.of("note", note="over_bound")


async def test_money_is_never_overspent(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, busy(input_tokens=400, output_tokens=100)) as made:
        with anyio.fail_after(30), pytest.raises(CostBudgetExhausted) as raised:
            await made.run(budget=replace(WIDE, cost_usd=0.012), on_exhausted="error")

    assert 0 < made.of("run_ended")[0]["cost_usd"] <= 0.012
    assert raised.value.trajectory_id


async def test_a_cost_cap_does_not_pass_on_an_unknown_price(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, busy()) as made:
        with anyio.fail_after(30), pytest.raises(PriceUnknown):
            await made.run(model="nobody knows it", budget=replace(WIDE, cost_usd=1.0))

    assert made.server.requests == []
    assert made.of("run_ended")[0]["error"]["kind"] == "PriceUnknown"


@pytest.mark.parametrize(
    "what",
    ["while True: pass", "import time\ntime.sleep(1000)", "llm_query('silent')", "rlm_query('silent child')"],
)
async def test_the_time_ends_whatever_is_in_flight(sandbox: LocalSandbox, what: str) -> None:
    root = conversation(code("answer = 'half of it'\n" + what, wire="openai"))

    async def script(request: Request) -> Turn:
        silent = request.model == "leaf"
        return Silence() if silent else await root(request)  # type: ignore[misc]

    async with scene(sandbox, script) as made:
        with anyio.fail_after(30):
            async with nothing_left_behind():
                outcome = await made.run(budget=replace(WIDE, wall_seconds=0.7))
            await made.server.until(lambda server: server.at_once == 0)

    assert (outcome.finish, outcome.response) == ("exhausted", "half of it")
    assert "wall_seconds" in outcome.reason
    assert made.of("cell_ended", depth=0)[0]["error"]["kind"] == "Cancelled"


async def test_the_time_ends_a_model_that_says_nothing_to_the_first_question(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, [Silence()]) as made:
        with anyio.fail_after(30), pytest.raises(TimeBudgetExhausted):
            await made.run(budget=replace(WIDE, wall_seconds=0.3), on_exhausted="error", recursive=False)


@WIRES
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("", "replied with nothing"),
        ("I will look at it soon.", "only talked"),
    ],
)
async def test_a_model_that_does_nothing_is_nudged_and_then_given_up(
    sandbox: LocalSandbox, wire: Wire, said: str, reason: str
) -> None:
    async with scene(sandbox, lambda _: Reply(said), wire=wire) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.finish, outcome.response, outcome.partial) == ("gave_up", said, True)
    assert reason in outcome.reason
    assert len(made.server.requests) == 3
    assert len(made.of("note", note="nudge")) == 2


@WIRES
async def test_a_model_that_repeats_itself_is_given_up(sandbox: LocalSandbox, wire: Wire) -> None:
    async with scene(sandbox, lambda _: code("print('again')", wire=wire), wire=wire) as made:
        with anyio.fail_after(30), pytest.raises(RunFailed, match="same code with the same output"):
            await made.run(on_exhausted="error")

    assert len(made.outputs()) == 4
    assert "You ran this before" in str(made.server.requests[-1].body)


@WIRES
async def test_a_model_that_goes_round_in_circles_is_given_up(sandbox: LocalSandbox, wire: Wire) -> None:
    steps = itertools.cycle("abc")
    async with scene(sandbox, lambda _: code(f"print('{next(steps)}')", wire=wire), wire=wire) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.finish, len(made.outputs())) == ("gave_up", 6)


@WIRES
async def test_a_model_that_runs_into_the_same_error_again_and_again_is_given_up(
    sandbox: LocalSandbox, wire: Wire
) -> None:
    async with scene(sandbox, lambda _: code("1 / 0", wire=wire), wire=wire) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.finish, len(made.outputs())) == ("gave_up", 4)
    assert "same code with the same output" in outcome.reason


async def test_an_output_without_end_and_memory_without_end_cost_one_cell(sandbox: LocalSandbox) -> None:
    root = conversation(
        code("while True: print('x' * 100_000)", wire="openai"),
        code("print('still here')", wire="openai"),
        Reply("fine"),
    )
    async with scene(sandbox, root) as made:
        with anyio.fail_after(60):
            outcome = await made.run()

    assert outcome.response == "fine"
    assert made.of("cell_ended")[0]["error"]["kind"] == "OutputLimit"
    assert len(made.server.requests[1].results[-1].text) < 10_000
    assert made.outputs()[1] == "still here\n"


async def test_a_repl_that_is_lost_is_opened_again_with_what_was_given(sandbox: LocalSandbox) -> None:
    kill = "mine = 1\nimport os\nos._exit(3)"
    root = conversation(
        code(kill, wire="openai"),
        code("print(context, 'mine' in dir())", wire="openai"),
        Reply("fine"),
    )
    async with scene(sandbox, root, policy="off") as made:
        with anyio.fail_after(60):
            async with nothing_left_behind():
                outcome = await made.run(contexts={"context": "still given"})

    assert made.of("cell_ended")[0]["error"]["kind"] == "SessionLost"
    assert "all your variables are lost" in made.server.requests[1].results[-1].text
    assert made.outputs()[1] == "still given False\n" and outcome.response == "fine"


async def test_a_context_that_no_room_can_hold_is_an_error_of_the_run(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, busy(), memory_bytes=64 * 1024 * 1024) as made:
        with anyio.fail_after(60), pytest.raises(SessionError):
            async with nothing_left_behind():
                await made.run(contexts={"context": "x" * 100_000_000})

    assert made.events[-1]["kind"] == "run_ended" and made.events[-1]["error"]
    assert not made.of("cell_started")


async def test_a_run_that_is_cancelled_ends_every_child_call_and_process(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    child = code("llm_map([f'question {n}' for n in range(4)])", wire="openai")
    root = code("rlm_map(['CHILD'] * 3)", wire="openai")

    def script(request: Request) -> Turn:
        if not request.tools:
            return Silence()
        return child if "CHILD" in request.text else root

    async with scene(sandbox, script) as made, open_log(tmp_path, "cancelled") as log:
        with anyio.fail_after(30):
            async with nothing_left_behind():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(lambda: made.run(log=log))
                    await made.server.until(lambda server: server.at_once == 12)
                    tasks.cancel_scope.cancel()
            await made.server.until(lambda server: server.at_once == 0)

    started = {event["call_id"] for event in made.of("call_started")}
    assert started == {event["call_id"] for event in made.of("call_ended")}
    assert len(made.of("cell_started")) == len(made.of("cell_ended")) == 4
    assert made.events[-1]["kind"] == "run_ended"
    assert made.events[-1]["finish"] == "cancelled"
    assert len(made.server.left) == 12
    last = (await anyio.Path(tmp_path / "cancelled.jsonl").read_text()).splitlines()[-1]
    assert '"kind":"run_ended"' in last


async def test_a_model_that_refuses_is_an_error_of_the_run(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, [Refusal(401)]) as made:
        with anyio.fail_after(30), pytest.raises(ModelRefused) as raised:
            await made.run()

    assert raised.value.trajectory_id == made.events[-1]["trajectory_id"]
    assert made.events[-1]["error"]["kind"] == "ModelRefused"


async def test_a_token_budget_too_small_for_one_turn_costs_nothing(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, busy()) as made:
        with anyio.fail_after(30), pytest.raises(TokenBudgetExhausted):
            await made.run(budget=replace(WIDE, tokens=100), on_exhausted="error")

    assert made.server.requests == []
