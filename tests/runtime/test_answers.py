"""What code in a cell asks is answered once, in order, within the budget; what failed is tried again, or said."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime import schemas
from rlm_runtime.answers import Answerer, ChildJob, ChildResult, Ladder
from rlm_runtime.budget import Budget, Pool, open_pool
from rlm_runtime.cache import AnswerStore, Stored
from rlm_runtime.errors import (
    AnswerInvalid,
    CallBudgetExhausted,
    MaxDepthExceeded,
    ModelBusy,
    ModelRefused,
    ModelUnavailable,
    TokenBudgetExhausted,
    ToolFailed,
    ToolNotFoundError,
)
from rlm_runtime.model import OnText, Reply, Request, Usage
from rlm_runtime.retries import Retries
from rlm_sessions import Answer
from tests.fakes.answering import MemoryLog, MemoryModel, Said, Script, prompt_of

WIDE = Budget(max_subcalls=100_000, tokens=None, at_once=100)
SOON = Retries(tries=4, first_seconds=0.001, most_seconds=0.002, chance=lambda: 0.0)
YES_NO = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}


@dataclass(frozen=True)
class Tool:
    """A tool, as a run is given it."""

    name: str
    handler: Any
    parameters: Mapping[str, Any] = field(default_factory=dict[str, Any])
    description: str = ""
    grant: bool = True


class Setting:
    """An answerer and what stands around it."""

    def __init__(
        self,
        script: Script = prompt_of,
        *,
        model: MemoryModel | None = None,
        budget: Budget = WIDE,
        store: AnswerStore | None = None,
        **more: Any,
    ) -> None:
        self.model = model or MemoryModel(script, usual_output_tokens=10_000)
        self.log = MemoryLog()
        self.pool: Pool = open_pool(budget)
        given: dict[str, Any] = {
            "ladder": Ladder([self.model]),
            "retries": SOON,
            "depth": 0,
            "parent_call_id": "0",
        } | more
        self.answerer = Answerer(pool=self.pool, log=self.log, store=store, **given)

    def cell(self) -> Answer:
        return self.answerer.for_cell()


async def asking(answer: Answer, name: str, payload: dict[str, Any]) -> None:
    await answer(name, payload)


async def gathered(answer: Answer, payloads: list[dict[str, Any]], name: str = "llm_query") -> list[Any]:
    """Ask all at once, and return answers and errors in order."""
    outcomes: list[Any] = [None] * len(payloads)

    async def one(number: int) -> None:
        try:
            outcomes[number] = await answer(name, payloads[number])
        except Exception as problem:
            outcomes[number] = problem

    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for number in range(len(payloads)):
                group.start_soon(one, number)
    return outcomes


def in_turn(*said: Said) -> Script:
    """Say one thing after the other."""
    left = list(said)
    return lambda _: left.pop(0)


# ---- one question


async def test_a_question_is_answered_and_both_are_in_the_log() -> None:
    setting = Setting(lambda _: "Paris")

    answer = await setting.cell()("llm_query", {"prompt": "Capital of France?", "system": "Be short."})

    started, ended = setting.log.events
    assert answer == {"text": "Paris"}
    assert (started["kind"], started["call_id"], started["parent_call_id"], started["depth"]) == (
        "call_started",
        "0.1",
        "0",
        1,
    )
    assert started["prompt"] == [
        {"role": "system", "content": "Be short."},
        {"role": "user", "content": "Capital of France?"},
    ]
    assert (ended["response"], ended["finish"], ended["cached"]) == ("Paris", "stop", False)
    assert ended["token_usage"] == {"input_tokens": 27, "output_tokens": 5}
    assert ended["cost_usd"] == pytest.approx(0.000032) and ended["answered_by"] == "api"


async def test_what_code_names_reaches_the_model() -> None:
    setting = Setting(sub_model="small")

    await setting.cell()("llm_query", {"prompt": "a", "max_tokens": 7, "temperature": 0, "model": "large"})
    await setting.cell()("llm_query", {"prompt": "b"})

    first, second = setting.model.requests
    assert (first.max_tokens, first.temperature, first.model) == (7, 0.0, "large")
    assert (second.max_tokens, second.temperature, second.model) == (None, None, "small")


@pytest.mark.parametrize(
    "payload",
    [
        None,
        "text",
        {},
        {"prompt": 3},
        {"prompt": "a", "max_tokens": 0},
        {"prompt": "a", "max_tokens": True},
        {"prompt": "a", "temperature": float("nan")},
        {"prompt": "a", "temperature": "hot"},
        {"prompt": "a", "group": ["g", 0]},
        {"prompt": "a", "group": [["g"], 1]},
        {"prompt": "a", "schema": "integer"},
        {"prompt": "a", "schema": {"$ref": "https://example.com/schema"}},
        {"prompt": "a", "model": ["x"]},
    ],
)
async def test_a_payload_that_makes_no_sense_is_refused_before_anybody_is_asked(payload: Any) -> None:
    setting = Setting()

    with pytest.raises((TypeError, ValueError)):
        await setting.cell()("llm_query", payload)

    assert setting.model.requests == [] and setting.pool.spent().calls == 0


async def test_nobody_answers_a_call_of_another_name() -> None:
    with pytest.raises(ValueError, match="There is no call 'shell'"):
        await Setting().cell()("shell", {})


# ---- many at once


async def test_a_hundred_questions_are_all_asked_at_once() -> None:
    setting = Setting(model=MemoryModel(seconds=0.05))

    answers = await gathered(setting.cell(), [{"prompt": f"{n}"} for n in range(100)])

    assert answers == [{"text": f"{n}"} for n in range(100)]
    assert setting.model.most_at_once == 100


async def test_a_group_has_its_own_limit() -> None:
    setting = Setting(model=MemoryModel(seconds=0.001))

    await gathered(setting.cell(), [{"prompt": f"{n}", "group": ["g", 3]} for n in range(20)])

    assert setting.model.most_at_once == 3


async def test_one_that_fails_leaves_the_others_alone() -> None:
    def script(request: Request) -> Said:
        return ModelRefused("memory", "no") if prompt_of(request) == "5" else "yes"

    answers = await gathered(Setting(script).cell(), [{"prompt": f"{n}"} for n in range(10)])

    assert [isinstance(each, ModelRefused) for each in answers] == [n == 5 for n in range(10)]


async def test_a_batch_stops_at_the_budget_and_what_was_answered_stays() -> None:
    setting = Setting(budget=replace(WIDE, max_subcalls=7))

    answers = await gathered(setting.cell(), [{"prompt": f"{n}"} for n in range(10)])

    assert [each for each in answers if isinstance(each, dict)] == [{"text": f"{n}"} for n in range(7)]
    assert all(isinstance(each, CallBudgetExhausted) for each in answers[7:])
    refused = [event for event in setting.log.of("call_ended") if "error" in event]
    assert [event["error"]["kind"] for event in refused] == ["CallBudgetExhausted"] * 3


async def test_a_question_below_the_deepest_depth_is_not_asked() -> None:
    setting = Setting(budget=replace(WIDE, max_depth=2), depth=2)

    with pytest.raises(MaxDepthExceeded):
        await setting.cell()("llm_query", {"prompt": "deep"})

    assert setting.model.requests == []
    assert setting.log.of("call_ended")[0]["error"]["kind"] == "MaxDepthExceeded"


# ---- tries


async def test_a_busy_model_is_asked_again_and_each_failure_is_in_the_log() -> None:
    busy = ModelBusy("memory", "too many requests", status=429)
    setting = Setting(in_turn(busy, ModelBusy("memory", "broken", status=500), "at last"))

    answer = await setting.cell()("llm_query", {"prompt": "hello"})

    assert answer == {"text": "at last"}
    assert [(note["tries"], note["error"]["kind"]) for note in setting.log.of("note")] == [
        (1, "ModelBusy"),
        (2, "ModelBusy"),
    ]
    assert setting.pool.spent().requests == 3 and setting.pool.spent().calls == 1


async def test_after_all_tries_the_error_says_how_many_there_were() -> None:
    setting = Setting(lambda _: ModelBusy("memory", "overloaded", status=529))

    with pytest.raises(ModelBusy, match="in 4 tries: overloaded") as caught:
        await setting.cell()("llm_query", {"prompt": "hello"})

    assert caught.value.status == 529 and len(setting.model.requests) == 4


async def test_a_model_that_says_when_to_come_back_is_believed_within_reason() -> None:
    retries = Retries(tries=3, first_seconds=1, most_seconds=4, patience_seconds=100, chance=lambda: 0.5)
    told = [None, 0.0, 7.0, 101.0, -3.0]

    waits = [retries.seconds(1, ModelBusy("m", "busy", retry_after_seconds=each)) for each in told]

    assert waits == [0.75, 0.5, 7.5, None, 0.5]
    assert [retries.seconds(n, ModelBusy("m", "busy")) for n in (1, 2, 3)] == [0.75, 1.5, None]


async def test_nobody_waits_for_a_try_that_would_come_after_the_end() -> None:
    busy = ModelBusy("memory", "too many", status=429, retry_after_seconds=60)
    setting = Setting(lambda _: busy, budget=replace(WIDE, wall_seconds=30))

    with anyio.fail_after(5), pytest.raises(ModelBusy):
        await setting.cell()("llm_query", {"prompt": "hello"})

    assert len(setting.model.requests) == 1


async def test_who_waits_for_another_try_holds_no_place() -> None:
    failed = anyio.Event()

    def script(request: Request) -> Said:
        if prompt_of(request) == "busy":
            failed.set()
            return ModelBusy("memory", "too many", retry_after_seconds=60)
        return "yes"

    answer: Any = None
    setting = Setting(script, budget=replace(WIDE, at_once=1))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(asking, setting.cell(), "llm_query", {"prompt": "busy"})
            await failed.wait()
            answer = await setting.cell()("llm_query", {"prompt": "other"})
            group.cancel_scope.cancel()

    assert answer == {"text": "yes"}


async def test_a_batch_gets_through_to_a_model_that_takes_ten_at_once() -> None:
    model = MemoryModel(seconds=0.002)

    def script(request: Request) -> Said:
        return "yes" if model.at_once <= 10 else ModelBusy("memory", "too many", status=429)

    model.script = script
    retries = Retries(tries=8, first_seconds=0.004, most_seconds=0.05)
    setting = Setting(model=model, retries=retries)

    answers = await gathered(setting.cell(), [{"prompt": f"{n}"} for n in range(100)])

    assert answers == [{"text": "yes"}] * 100


async def test_what_a_failed_try_used_is_counted() -> None:
    broken = ModelBusy("memory", "it broke off")
    broken.usage = Usage(30, 12, 0.25)
    setting = Setting(in_turn(broken, Reply("yes", usage=Usage(30, 1, 0.1))))

    await setting.cell()("llm_query", {"prompt": "hello"})

    assert setting.pool.spent().tokens == 73 and setting.pool.spent().cost_usd == pytest.approx(0.35)


async def test_a_model_that_declines_is_an_error_and_not_an_empty_answer() -> None:
    with pytest.raises(ModelRefused):
        await Setting(lambda _: Reply("", finish="refused")).cell()("llm_query", {"prompt": "hello"})


@pytest.mark.parametrize("schema", [None, YES_NO])
async def test_the_words_of_a_refusal_are_no_answer_and_are_not_stored(
    tmp_path: Path, schema: dict[str, Any] | None
) -> None:
    declined = Reply('I cannot help with {"yes": true}', finish="refused")
    setting = Setting(in_turn(declined, '{"yes": false}'), store=AnswerStore(tmp_path))
    asked = {"prompt": "hello", "schema": schema}

    with pytest.raises(ModelRefused, match="I cannot help"):
        await setting.cell()("llm_query", asked)
    again = await setting.cell()("llm_query", asked)

    assert again == ({"text": '{"yes": false}'} if schema is None else {"value": {"yes": False}})


async def test_a_cancelled_question_ends_in_the_log() -> None:
    setting = Setting(model=MemoryModel(seconds=60))

    with anyio.move_on_after(0.01):
        await setting.cell()("llm_query", {"prompt": "hello"})

    assert setting.log.of("call_ended")[0]["error"]["kind"] == "Cancelled"


# ---- the ladder


async def test_the_next_one_is_asked_when_the_first_is_not_there() -> None:
    def gone(_: Request) -> Said:
        return ModelUnavailable("first", "it is not installed", "Install it.")

    first, second = MemoryModel(gone, name="first"), MemoryModel(name="second", kind="command")
    setting = Setting(ladder=Ladder([first, second]))

    answers = [await setting.cell()("llm_query", {"prompt": text}) for text in ("a", "b")]

    assert answers == [{"text": "a"}, {"text": "b"}]
    assert (len(first.requests), len(second.requests)) == (1, 2)


async def test_without_anybody_to_ask_the_error_says_how_to_get_one() -> None:
    with pytest.raises(ModelUnavailable, match="rlm init"):
        await Setting(ladder=Ladder([])).cell()("llm_query", {"prompt": "hello"})


# ---- typed answers


async def test_a_typed_answer_is_a_value() -> None:
    setting = Setting(lambda _: 'Sure!\n```json\n{"yes": true,}\n```\n')

    answer = await setting.cell()("llm_query", {"prompt": "Is it?", "schema": YES_NO})

    assert answer == {"value": {"yes": True}}
    assert setting.model.requests[0].schema == YES_NO
    assert '"required": ["yes"]' in prompt_of(setting.model.requests[0])


async def test_a_wrong_answer_is_mended_by_the_model_that_gave_it() -> None:
    setting = Setting(in_turn('{"yes": "maybe"}', '{"yes": false}'))

    answer = await setting.cell()("llm_query", {"prompt": "Is it?", "schema": YES_NO})

    mended = setting.log.of("call_started")[1]
    assert answer == {"value": {"yes": False}}
    assert "at $.yes: 'maybe' is not of type 'boolean'" in prompt_of(setting.model.requests[1])
    assert (mended["name"], mended["call_id"], mended["parent_call_id"]) == ("repair", "0.1.1", "0.1")
    assert setting.pool.spent().calls == 1 and setting.pool.spent().requests == 2


async def test_an_answer_that_cannot_be_checked_in_time_is_not_paid_for_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(schemas, "CHECK_SECONDS", 1.0)
    endless = {"type": "string", "pattern": "^(a+)+$"}
    setting = Setting(lambda _: json.dumps("a" * 60 + "!"))

    with pytest.raises(AnswerInvalid, match="the schema must be simpler"):
        await setting.cell()("llm_query", {"prompt": "Say a.", "schema": endless})

    assert len(setting.model.requests) == 1


async def test_an_answer_that_cannot_be_mended_is_an_error_that_shows_it() -> None:
    setting = Setting(lambda _: "I would rather not say.")

    with pytest.raises(AnswerInvalid, match=r"there is no JSON|is not of type") as caught:
        await setting.cell()("llm_query", {"prompt": "Is it?", "schema": YES_NO})

    assert caught.value.text == "I would rather not say." and len(setting.model.requests) == 3


async def test_mending_is_within_the_budget_too() -> None:
    setting = Setting(lambda _: "no", budget=replace(WIDE, tokens=400))

    with pytest.raises(TokenBudgetExhausted):
        await setting.cell()("llm_query", {"prompt": "Is it?", "schema": YES_NO})

    assert setting.pool.spent().tokens <= 400


# ---- answers that were given before


async def test_a_cell_that_failed_pays_only_for_what_it_did_not_have(tmp_path: Path) -> None:
    first, again = (Setting(store=AnswerStore(tmp_path)) for _ in range(2))
    for n in range(80):
        await first.cell()("llm_query", {"prompt": f"{n}"})

    answers = await gathered(again.cell(), [{"prompt": f"{n}"} for n in range(100)])

    assert answers == [{"text": f"{n}"} for n in range(100)]
    assert len(again.model.requests) == again.pool.spent().calls == 20
    assert sum(event["cached"] for event in again.log.of("call_ended")) == 80


async def test_the_same_prompt_in_one_cell_is_asked_again_and_answers_keep_their_order(
    tmp_path: Path,
) -> None:
    setting = Setting(in_turn("one", "two", "three"), store=AnswerStore(tmp_path))
    cell, again = setting.cell(), setting.cell()

    answers = [await cell("llm_query", {"prompt": "same"}) for _ in range(2)]
    repeated = await gathered(again, [{"prompt": "same"}] * 3)

    assert answers == [{"text": "one"}, {"text": "two"}]
    assert repeated == [{"text": "one"}, {"text": "two"}, {"text": "three"}]


async def test_fresh_asks_again_and_replaces_what_was_stored(tmp_path: Path) -> None:
    setting = Setting(in_turn("old", "new"), store=AnswerStore(tmp_path))

    answers = [
        await setting.cell()("llm_query", {"prompt": "same", "fresh": fresh})
        for fresh in (False, True, False)
    ]

    assert answers == [{"text": "old"}, {"text": "new"}, {"text": "new"}]


async def test_a_stored_answer_costs_nothing_even_with_nothing_left(tmp_path: Path) -> None:
    await Setting(store=AnswerStore(tmp_path)).cell()("llm_query", {"prompt": "hello"})
    empty = Setting(store=AnswerStore(tmp_path), budget=Budget(max_subcalls=0, tokens=0))

    answer = await empty.cell()("llm_query", {"prompt": "hello"})

    assert answer == {"text": "hello"} and empty.pool.spent().tokens == 0
    assert empty.log.of("call_ended")[0]["cost_usd"] == 0.0


async def test_another_model_another_prompt_and_another_schema_are_other_answers(tmp_path: Path) -> None:
    setting = Setting(lambda _: '{"yes": true}', store=AnswerStore(tmp_path))
    payloads: list[dict[str, Any]] = [
        {"prompt": "a"},
        {"prompt": "b"},
        {"prompt": "a", "model": "other"},
        {"prompt": "a", "system": "short"},
        {"prompt": "a", "temperature": 0.5},
        {"prompt": "a", "schema": YES_NO},
    ]

    for payload in payloads:
        await setting.cell()("llm_query", payload)

    assert len(setting.model.requests) == len(payloads)


async def test_only_answers_are_stored(tmp_path: Path) -> None:
    setting = Setting(in_turn(ModelRefused("memory", "no"), "yes"), store=AnswerStore(tmp_path))

    answers = [
        *await gathered(setting.cell(), [{"prompt": "a"}]),
        *await gathered(setting.cell(), [{"prompt": "a"}]),
    ]

    assert isinstance(answers[0], ModelRefused) and answers[1] == {"text": "yes"}


class SlowStore(AnswerStore):
    """A store on a disk that takes its time."""

    stored = 0

    async def put(self, key: str, nth: int, stored: Stored) -> None:
        await anyio.wait_all_tasks_blocked()
        await super().put(key, nth, stored)
        self.stored += 1


@pytest.mark.parametrize("schema", [None, YES_NO])
async def test_an_answer_is_on_disk_before_its_place_is_given_on(
    tmp_path: Path, schema: dict[str, Any] | None
) -> None:
    store, stored = SlowStore(tmp_path), list[int]()

    def script(request: Request) -> str:
        stored.append(store.stored)
        return '{"yes": true}'

    setting = Setting(script, store=store, budget=replace(WIDE, at_once=1))
    await gathered(setting.cell(), [{"prompt": str(n), "schema": schema} for n in range(5)])

    assert stored == [0, 1, 2, 3, 4]


async def test_an_answer_that_a_budget_cut_short_is_not_stored(tmp_path: Path) -> None:
    poor = Setting(lambda _: "x" * 200, store=AnswerStore(tmp_path), budget=replace(WIDE, tokens=100))
    rich = Setting(lambda _: "x" * 200, store=AnswerStore(tmp_path))

    short = await poor.cell()("llm_query", {"prompt": "hello"})
    whole = await rich.cell()("llm_query", {"prompt": "hello"})

    assert (len(short["text"]), len(whole["text"])) == (95, 200)


async def test_two_cells_that_ask_the_same_at_once_pay_once(tmp_path: Path) -> None:
    setting = Setting(model=MemoryModel(seconds=0.01), store=AnswerStore(tmp_path))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(asking, setting.cell(), "llm_query", {"prompt": "same"})

    assert len(setting.model.requests) == 1


async def test_when_the_one_that_asks_is_cancelled_the_next_one_asks(tmp_path: Path) -> None:
    asked = anyio.Event()

    async def script(_: Request) -> Said:
        if not asked.is_set():
            asked.set()
            await anyio.sleep_forever()
        return "yes"

    setting = Setting(script, store=AnswerStore(tmp_path))
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            async with anyio.create_task_group() as first:
                first.start_soon(asking, setting.cell(), "llm_query", {"prompt": "same"})
                await asked.wait()
                group.start_soon(asking, setting.cell(), "llm_query", {"prompt": "same"})
                await anyio.wait_all_tasks_blocked()
                first.cancel_scope.cancel()

    assert [event.get("response") for event in setting.log.of("call_ended")] == [None, "yes"]


async def test_what_a_killed_process_paid_for_is_there_for_the_next_one(tmp_path: Path) -> None:
    code = f"""
import anyio, os, signal
from pathlib import Path
from tests.runtime.test_answers import Setting
from rlm_runtime.cache import AnswerStore

async def main():
    setting = Setting(store=AnswerStore(Path({str(tmp_path)!r})))
    cell = setting.cell()
    async def one(n):
        await cell("llm_query", {{"prompt": str(n)}})
        print(n, flush=True)
        if n == 79:
            os.kill(os.getpid(), signal.SIGKILL)
    for n in range(80):
        await one(n)

anyio.run(main)
"""
    with anyio.fail_after(60):
        killed = await anyio.run_process(
            [sys.executable, "-c", code],
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
    again = Setting(store=AnswerStore(tmp_path))
    answers = await gathered(again.cell(), [{"prompt": f"{n}"} for n in range(100)])

    assert killed.returncode == -signal.SIGKILL and len(killed.stdout.split()) == 80
    assert len(again.model.requests) == 20 and answers[0] == {"text": "0"}


# ---- child runs


async def test_a_child_gets_its_own_depth_and_the_tools_that_may_be_granted() -> None:
    jobs: list[ChildJob] = []

    async def child(job: ChildJob) -> ChildResult:
        jobs.append(job)
        return ChildResult("done")

    tools = (Tool("open", len), Tool("kept", len, grant=False))
    setting = Setting(child=child, tools=tools, depth=1)
    cell = setting.cell()

    answer = await cell("rlm_query", {"prompt": "look", "context": [1, 2], "model": "m"})
    await cell("rlm_query", {"prompt": "look again", "tools": []})
    with pytest.raises(ToolNotFoundError, match="There are: open"):
        await cell("rlm_query", {"prompt": "look", "tools": ["kept"]})

    assert answer == {"text": "done"}
    assert (jobs[0].depth, jobs[0].call_id, jobs[0].context, jobs[0].model) == (2, "0.1", [1, 2], "m")
    assert [tool.name for tool in jobs[0].tools] == ["open"] and jobs[1].tools == ()


async def test_how_deep_a_call_is_is_not_for_code_to_say() -> None:
    jobs: list[ChildJob] = []

    async def child(job: ChildJob) -> ChildResult:
        jobs.append(job)
        return ChildResult("done")

    setting = Setting(child=child, depth=1, budget=replace(WIDE, max_depth=2))
    forged: dict[str, Any] = {"prompt": "deeper", "depth": 0, "call_id": "0", "parent_call_id": ""}
    await setting.cell()("rlm_query", forged)
    deepest = Setting(child=child, depth=2, budget=replace(WIDE, max_depth=2))
    with pytest.raises(MaxDepthExceeded):
        await deepest.cell()("rlm_query", forged)

    assert [(job.depth, job.call_id) for job in jobs] == [(2, "0.1")]


async def test_what_a_child_answered_is_stored_unless_it_is_partial(tmp_path: Path) -> None:
    count = 0

    async def child(job: ChildJob) -> ChildResult:
        nonlocal count
        count += 1
        return ChildResult(job.prompt, value={"yes": True}, partial=job.prompt == "partial")

    setting = Setting(child=child, store=AnswerStore(tmp_path))

    answers = [
        await setting.cell()("rlm_query", {"prompt": prompt, "schema": YES_NO})
        for prompt in ("whole", "whole", "partial", "partial")
    ]

    assert answers == [{"value": {"yes": True}}] * 4 and count == 3
    assert setting.pool.spent().calls == 3


async def test_a_child_whose_value_is_not_what_was_asked_for_is_an_error() -> None:
    async def child(_: ChildJob) -> ChildResult:
        return ChildResult("maybe", value="maybe")

    with pytest.raises(AnswerInvalid):
        await Setting(child=child).cell()("rlm_query", {"prompt": "a", "schema": YES_NO})


async def test_a_child_that_asks_what_its_parent_was_asked_ends_at_the_depth_and_not_in_a_standstill(
    tmp_path: Path,
) -> None:
    store, budget = AnswerStore(tmp_path), replace(WIDE, max_depth=3, at_once=1)
    payload = {"prompt": "again", "group": ["g", 1]}

    async def child(job: ChildJob) -> ChildResult:
        mine = Answerer(
            ladder=Ladder([]),
            pool=top.pool,
            log=top.log,
            store=store,
            child=child,
            depth=job.depth,
            parent_call_id=job.call_id,
        )
        return ChildResult((await mine.for_cell()("rlm_query", payload))["text"])

    top = Setting(store=store, budget=budget, child=child)
    with anyio.fail_after(5), pytest.raises(MaxDepthExceeded):
        await top.cell()("rlm_query", payload)

    assert top.pool.spent().depth_reached == 3


async def test_where_nothing_starts_children_the_error_says_what_to_do() -> None:
    with pytest.raises(ModelUnavailable, match="llm_query"):
        await Setting().cell()("rlm_query", {"prompt": "a"})


# ---- tools


ADD = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}


def add(a: int, b: int) -> int:
    return a + b


async def add_async(a: int, b: int) -> int:
    await anyio.lowlevel.checkpoint()
    return a + b


def add_later(a: int, b: int) -> Any:
    return add_async(a, b)


@pytest.mark.parametrize("handler", [add, add_async, add_later])
async def test_a_tool_is_called_with_its_arguments(handler: Any) -> None:
    setting = Setting(tools=[Tool("add", handler, ADD)])

    answer = await setting.cell()("tool", {"name": "add", "arguments": {"a": 2, "b": 3}})

    started, ended = setting.log.events
    assert answer == 5
    assert started["tool_calls"] == [{"name": "add", "arguments": {"a": 2, "b": 3}}]
    assert ended["tool_results"] == [{"name": "add", "output": 5}]


async def test_a_handler_that_blocks_holds_up_nobody() -> None:
    go = threading.Event()
    setting = Setting(tools=[Tool("wait", lambda: go.wait(10))])

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(asking, setting.cell(), "tool", {"name": "wait"})
            await setting.cell()("llm_query", {"prompt": "meanwhile"})
            go.set()

    assert setting.log.of("call_ended")[0]["response"] == "meanwhile"


@pytest.mark.parametrize("arguments", [{"a": 1}, {"a": 1, "b": "2"}, {"a": 1, "b": 2, "c": 3}])
async def test_wrong_arguments_are_refused_before_the_handler_sees_them(arguments: dict[str, Any]) -> None:
    setting = Setting(tools=[Tool("add", lambda **_: pytest.fail("it was called"), ADD)])  # pyright: ignore[reportUnknownLambdaType]

    with pytest.raises(ToolFailed, match="ArgumentsInvalid"):
        await setting.cell()("tool", {"name": "add", "arguments": arguments})


async def test_a_tool_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ToolNotFoundError, match="There are: add"):
        await Setting(tools=[Tool("add", add)]).cell()("tool", {"name": "remove", "arguments": {}})


async def test_what_a_handler_keeps_secret_is_in_no_error_and_in_no_log() -> None:
    def handler() -> None:
        raise OSError(
            "GET https://me:hunter2@example.com/?api_key=abc123&q=x with Bearer eyJhbGciOi, sk-0123456789abcdefghij"
        )

    setting = Setting(tools=[Tool("fetch", handler)])
    with pytest.raises(ToolFailed, match="OSError: GET https://me:") as caught:
        await setting.cell()("tool", {"name": "fetch"})

    told = str(caught.value) + json.dumps(setting.log.events)
    assert not [secret for secret in ("hunter2", "abc123", "eyJ", "0123456789abc") if secret in told]


async def test_a_handler_that_ends_the_program_ends_its_own_call_only() -> None:
    with pytest.raises(ToolFailed, match="SystemExit"):
        await Setting(tools=[Tool("leave", sys.exit)]).cell()("tool", {"name": "leave"})


async def test_a_result_is_json_whatever_it_was() -> None:
    setting = Setting(tools=[Tool("path", lambda: {"where": Path("a"), "pair": (1, 2)})])

    assert await setting.cell()("tool", {"name": "path"}) == {"where": "a", "pair": [1, 2]}


# ---- the end


async def test_final_hands_over_its_value() -> None:
    finals: list[Any] = []

    answer = await Setting(on_final=finals.append).cell()("final", {"value": {"a": [1]}, "repr": "..."})

    assert answer is None and finals == [{"a": [1]}]


async def test_the_names_of_calls_are_those_of_the_order_in_which_code_asked() -> None:
    setting = Setting(model=MemoryModel(seconds=0.001))

    await gathered(setting.cell(), [{"prompt": f"{n}", "schema": {"type": "string"}} for n in range(20)])

    named = {
        event["call_id"]: event["prompt"][0]["content"].split("\n")[0]
        for event in setting.log.of("call_started")
    }
    assert named == {f"0.{n + 1}": f"{n}" for n in range(20)}


# ---- tools that end nothing


async def test_code_that_calls_a_tool_for_ever_comes_to_an_end() -> None:
    tool = Tool("nap", lambda: "slept")
    setting = Setting(tools=[tool], budget=replace(WIDE, max_tool_calls=3))
    cell = setting.cell()
    for _ in range(3):
        await cell("tool", {"name": "nap"})
    with pytest.raises(CallBudgetExhausted, match="max_tool_calls is used up: 3 of 3"):
        await cell("tool", {"name": "nap"})


async def test_a_budget_that_a_tool_keeps_for_itself_is_a_failure_of_the_tool() -> None:
    def complete() -> str:
        raise TokenBudgetExhausted(100, 100)

    with pytest.raises(ToolFailed, match="TokenBudgetExhausted: The token_budget is used up"):
        await Setting(tools=[Tool("complete", complete)]).cell()("tool", {"name": "complete"})


# ---- who is asked


class Gone(MemoryModel):
    """A model that turns out not to be there."""

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        raise ModelUnavailable("gone", "it is not there", "Get another.")


async def test_a_question_that_is_passed_on_counts_as_one_call() -> None:
    setting = Setting(
        ladder=Ladder([Gone(), Gone(), model := MemoryModel()]), budget=replace(WIDE, max_subcalls=1)
    )
    answer = await setting.cell()("llm_query", {"prompt": "a"})

    assert answer == {"text": "a"} and len(model.requests) == 1
    assert setting.pool.spent().calls == 1


async def test_two_runs_that_ask_a_person_the_same_do_not_wait_for_each_other(tmp_path: Path) -> None:
    store, both = AnswerStore(tmp_path), anyio.Event()

    async def think(request: Request) -> str:
        if model.at_once == 2:
            both.set()
        await both.wait()
        return "thought"

    model = MemoryModel(think, kind="client")
    settings = [Setting(model=model, store=store) for _ in range(2)]
    with anyio.fail_after(10):
        async with anyio.create_task_group() as tasks:
            for setting in settings:
                tasks.start_soon(asking, setting.cell(), "llm_query", {"prompt": "same"})

    assert len(model.requests) == 2


async def test_a_stored_answer_of_a_child_is_that_of_its_models(tmp_path: Path) -> None:
    asked = list[tuple[str, str]]()
    for root, leaf in [("small", ""), ("large", ""), ("large", "leaf"), ("large", "leaf")]:

        async def child(job: ChildJob, root: str = root, leaf: str = leaf) -> ChildResult:
            asked.append((root, leaf))
            return ChildResult("done")

        setting = Setting(
            model=MemoryModel(name=root), store=AnswerStore(tmp_path), child=child, sub_model=leaf
        )
        await setting.cell()("rlm_query", {"prompt": "q"})

    assert asked == [("small", ""), ("large", ""), ("large", "leaf")]


# ---- tries that came to nothing


def lost() -> ModelBusy:
    problem = ModelBusy("memory", "The connection was lost")
    problem.may_be_billed = True
    return problem


async def test_tries_that_may_be_billed_are_held_against_the_budget_and_logged() -> None:
    model = MemoryModel(in_turn(*(lost() for _ in range(10))), usual_output_tokens=100)
    setting = Setting(model=model, budget=replace(WIDE, tokens=250), retries=replace(SOON, tries=9))

    with pytest.raises((TokenBudgetExhausted, ModelBusy)):
        await setting.cell()("llm_query", {"prompt": "x" * 10, "max_tokens": 100})

    spent = setting.pool.spent()
    told = [event.get("unsure_tokens", 0) for event in setting.log.events]
    assert len(model.requests) == 3  # of which the last one had to be short
    assert (spent.tokens, spent.unsure_tokens) == (0, sum(told))
    assert 220 < spent.unsure_tokens <= 250 and spent.unsure_cost_usd == pytest.approx(sum(told) / 1e6)


async def test_tries_that_were_turned_away_cost_nothing() -> None:
    setting = Setting(in_turn(*(ModelBusy("memory", "no", status=429) for _ in range(3)), "yes"))
    await setting.cell()("llm_query", {"prompt": "x"})

    assert setting.pool.spent().unsure_tokens == 0


# ---- one of many


def batch(size: int) -> list[dict[str, Any]]:
    return [{"prompt": f"question {n}", "group": ["a", 16]} for n in range(size)]


async def test_many_questions_do_not_wait_for_each_other_within_a_small_budget() -> None:
    together = anyio.Event()

    async def script(request: Request) -> str:
        if setting.model.at_once == 12:
            together.set()
        await together.wait()
        return "short"

    model = MemoryModel(script, usual_output_tokens=4096)
    setting = Setting(model=model, budget=Budget(tokens=8000))
    answers = await gathered(setting.cell(), batch(12))

    assert answers == [{"text": "short"}] * 12
    assert setting.pool.spent().tokens <= 8000


async def test_one_question_alone_has_all_that_is_left() -> None:
    setting = Setting(model=MemoryModel(usual_output_tokens=4096), budget=Budget(tokens=8000))

    await setting.cell()("llm_query", {"prompt": "alone"})

    assert [request.max_tokens for request in setting.model.requests] == [None]


async def test_an_answer_longer_than_its_share_is_asked_for_again_in_full() -> None:
    model = MemoryModel(lambda _: "x" * 3000, usual_output_tokens=4096)
    setting = Setting(model=model, budget=Budget(tokens=12_000))

    [answer] = await gathered(setting.cell(), batch(1))
    short, whole = model.requests
    [ended] = setting.log.of("call_ended")
    note = next(event for event in setting.log.of("note") if event["note"] == "cut_short")

    assert answer == {"text": "x" * 3000}
    assert (short.max_tokens, whole.max_tokens) == (note["output_tokens"], None)
    assert ended["token_usage"]["output_tokens"] == note["output_tokens"] + 3000
    assert sum(ended["token_usage"].values()) == setting.pool.spent().tokens


async def test_an_answer_that_was_cut_to_its_share_is_given_when_no_more_is_left_and_not_stored(
    tmp_path: Path,
) -> None:
    model = MemoryModel(lambda _: "x" * 3000, usual_output_tokens=4096)
    setting = Setting(model=model, budget=Budget(tokens=540), store=AnswerStore(tmp_path))

    [answer] = await gathered(setting.cell(), batch(1))

    assert answer == {"text": "x" * 512}
    assert await anyio.to_thread.run_sync(lambda: [*tmp_path.glob("??/*")]) == []
    assert setting.pool.spent().tokens <= 540


async def test_a_model_that_takes_more_than_it_may_is_told_of_and_asked_no_more() -> None:
    model = MemoryModel(usage=lambda _request, _text: Usage(100, 900, 0.0))
    setting = Setting(model=model, budget=replace(WIDE, tokens=500))

    first, second = [(await gathered(setting.cell(), [{"prompt": text}]))[0] for text in ("one", "two")]
    notes = [event for event in setting.log.of("note") if event["note"] == "over_bound"]

    assert first == {"text": "one"} and isinstance(second, TokenBudgetExhausted)
    assert len(model.requests) == 1 and notes[0]["tokens"] == 1000
    assert (setting.pool.spent().tokens, setting.pool.spent().over_tokens) == (1000, 500)
