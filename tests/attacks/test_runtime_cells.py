"""Code in a cell that wants to do harm by what it asks: it gets an error, and nobody else is held up or told anything."""

from __future__ import annotations

import json
import socket
import tracemalloc
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_mcp.jobs import Job
from rlm_mcp.tenants import OWNER
from rlm_mcp.waiting import Call, Desk, Spec
from rlm_runtime.answers import Answerer, ChildJob, ChildResult, Ladder
from rlm_runtime.budget import MAX_REFUSED_CHARACTERS, Budget, Pool
from rlm_runtime.errors import BudgetExhausted, CallBudgetExhausted, ToolNotFoundError
from rlm_runtime.model import Message, Reply, Request, Usage
from rlm_runtime.models.bounds import most_tokens
from rlm_runtime.retries import Retries
from rlm_runtime.schemas import shape_of
from rlm_sessions import Answer
from tests.fakes.answering import MemoryLog, MemoryModel

WIDE = Budget(max_subcalls=100_000, tokens=None)


@dataclass
class Cell:
    """What answers the calls of one cell."""

    budget: Budget = WIDE
    said: str = "Yes."
    log: MemoryLog = field(default_factory=MemoryLog)

    def __post_init__(self) -> None:
        self.pool = Pool(self.budget)
        self.model = MemoryModel(lambda _: self.said)

    def answer(self) -> Answer:
        answerer = Answerer(
            ladder=Ladder([self.model]),
            pool=self.pool,
            log=self.log,
            store=None,
            child=_no_child,
            depth=0,
            parent_call_id="0",
            retries=Retries(tries=1),
        )
        return answerer.for_cell()


async def _no_child(job: ChildJob) -> ChildResult:
    raise AssertionError("no child is ever started here")


# ---- schemas


@pytest.mark.parametrize(
    "part",
    [
        {"allOf": [{"$id": "http://ADDRESS/a", "$ref": "#part"}]},
        {"allOf": [{"$id": "http://ADDRESS/b", "$dynamicRef": "#part"}]},
        {"$schema": "http://json-schema.org/draft-04/schema#", "allOf": [{"id": "http://ADDRESS/c", "allOf": [{"$ref": "#part"}]}]},
        {"allOf": [{"$id": "file:///etc/hostname", "$ref": "#part"}]},
    ],
)  # fmt: skip
async def test_no_address_in_a_schema_is_ever_asked(part: Mapping[str, Any]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        schema = {"$schema": part.get("$schema", "https://json-schema.org/draft/2020-12/schema")}
        schema |= {"allOf": [{"$ref": "#/unknown/part"}], "unknown": {"part": _with(part, address)}}
        with anyio.fail_after(30):
            problems = await (await shape_of(schema)).problems({"a": 1})

        assert "cannot be used" in problems[0]
        with pytest.raises(BlockingIOError):
            listener.accept()


def _with(value: Mapping[str, Any], address: str) -> Any:
    return json.loads(json.dumps(value).replace("ADDRESS", address))


@pytest.mark.parametrize("keyword", ["unevaluatedProperties", "unevaluatedItems"])
async def test_a_schema_whose_check_takes_twice_as_long_for_each_level_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch, keyword: str
) -> None:
    monkeypatch.setattr("rlm_runtime.schemas.CHECK_SECONDS", 2.0)
    schema: dict[str, Any] = {"properties": {"a": True}, "prefixItems": [True]}
    for _ in range(40):
        schema = {"allOf": [schema], keyword: False}
    shape = await shape_of(schema)

    with anyio.fail_after(30):
        problems = await shape.problems({"a": 1} if keyword == "unevaluatedProperties" else [1])

    assert "takes longer" in problems[0]


# ---- prompts


@pytest.mark.parametrize(
    "prompt",
    ["e" + "\u0301\u0316" * 200_000, "ﷺ" * 1_000_000, "\u1ec0\u0330" * 200_000],
    ids=["marks", "long", "both"],
)
def test_a_prompt_that_is_slow_to_normalise_is_bounded_without_that(prompt: str) -> None:
    start = most_tokens(Request((Message("user", prompt[:1000]),)))

    assert len(prompt.encode()) <= most_tokens(Request((Message("user", prompt),)))
    assert start >= 1000


def test_the_bound_of_a_long_text_is_none_that_its_normal_form_exceeds() -> None:
    import unicodedata

    for piece in ("ﷺ½", "\u1ec0\u0330", "\u01da\u0324\u0316", "각\u11a8", "\U0001109a\u0301", "ｶﾞ"):
        text = piece * 1000
        normal = unicodedata.normalize("NFKC", text)
        assert most_tokens(Request((Message("user", text),))) >= len(normal.encode())


# ---- what a payload says


@pytest.mark.parametrize("most", [0, -1, True, 1.5, "8", 10**9, 10**400, float("inf"), [8]])
async def test_a_length_that_nobody_can_mean_is_refused_and_the_next_question_is_answered(most: Any) -> None:
    answer = Cell(Budget(tokens=1_000_000)).answer()

    with anyio.fail_after(10), pytest.raises(ValueError, match="max_tokens is a number from 1"):
        await answer("llm_query", {"prompt": "a", "max_tokens": most})

    assert await answer("llm_query", {"prompt": "b"}) == {"text": "Yes."}


@pytest.mark.parametrize(
    "model",
    [
        "huggingface/http://127.0.0.1:1/x",
        "oobabooga/https://evil.test",
        "http://169.254.169.254/latest",
        "//evil.test/m",
        "-o/etc/passwd",
        "--dangerously-skip-permissions",
        "m\n--option",
        "m\0",
        "a" * 201,
        "моdel",
    ],
)
@pytest.mark.parametrize("call", ["llm_query", "rlm_query"])
async def test_a_model_is_named_and_no_address_and_no_option(call: str, model: str) -> None:
    cell = Cell()

    with pytest.raises(ValueError, match="model is the name of a model"):
        await cell.answer()(call, {"prompt": "a", "model": model})

    assert cell.model.requests == []


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4.1-mini",
        "openai/gpt-5",
        "bedrock/us.anthropic.claude-v1:0",
        "@cf/meta/llama-3",
        "ft:gpt-4o:org::id",
    ],
)
async def test_names_of_models_as_they_are_in_use_are_taken(model: str) -> None:
    assert await Cell().answer()("llm_query", {"prompt": "a", "model": model}) == {"text": "Yes."}


async def test_names_of_groups_do_not_pile_up() -> None:
    answer = Cell(Budget(max_subcalls=0)).answer()
    tracemalloc.start()
    try:
        for number in range(40):
            with pytest.raises(BudgetExhausted):
                await answer("llm_query", {"prompt": "a", "group": [f"{number}" * 1_000_000, 1]})
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 10_000_000


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("llm_query", {"prompt": "x" * 8_000_000}),
        ("rlm_query", {"prompt": "x" * 8_000_000}),
        ("tool", {"name": "none", "arguments": {"x": "x" * 8_000_000}}),
    ],
)
async def test_code_that_is_refused_and_asks_on_does_not_fill_the_log(
    name: str, payload: dict[str, Any]
) -> None:
    cell = Cell(Budget(max_subcalls=0))
    answer = cell.answer()

    for _ in range(50):
        with pytest.raises((CallBudgetExhausted, ToolNotFoundError)):
            await answer(name, payload)

    assert sum(len(str(event)) for event in cell.log.events) <= MAX_REFUSED_CHARACTERS + 8_000_000
    with pytest.raises(CallBudgetExhausted, match="end the code"):
        await answer("llm_query", {"prompt": "a"})


async def test_a_usage_without_measure_ends_the_budget_and_not_the_books() -> None:
    cell = Cell(Budget(tokens=1_000_000, cost_usd=1.0))
    usage = Usage(10**15, 10**15, 1e300)
    cell.model = MemoryModel(lambda _: Reply("Yes.", usage=usage))
    answer = cell.answer()

    assert await answer("llm_query", {"prompt": "a"}) == {"text": "Yes."}
    with pytest.raises(BudgetExhausted):
        await answer("llm_query", {"prompt": "b"})
    assert cell.pool.spent().tokens == 2 * 10**15


# ---- what a client answers


async def test_a_flood_of_answers_that_nobody_wants_is_told_in_a_few_words(tmp_path: Path) -> None:
    calls = [Call(str(number), f"key {number}", (("user", "Hello"),)) for number in range(0, 1000, 2)]
    for call in calls:
        call.wanted = True
    spec = Spec("execute_python", {}, "project")
    job = Job(spec, (OWNER, "project"), tmp_path, answer_seconds=60, desk=Desk(calls))

    with anyio.fail_after(30):
        told = await job.give({f"wrong {number}": "a" for number in range(10_000)} | {"2": "right"})

    assert len(told) <= 30 and "9980 more" in told[-1]
    assert calls[1].text == "right"
