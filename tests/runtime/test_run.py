"""A run takes turns with its model until there is an answer, and tells it what came of its code."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.answers import Ladder
from rlm_runtime.budget import Budget
from rlm_runtime.errors import AnswerInvalid, ModelUnavailable, TokenBudgetExhausted
from rlm_runtime.log import Log, open_log
from rlm_runtime.model import Request as MemoryRequest
from rlm_runtime.rooms import Rooms
from rlm_runtime.run import Job, run
from rlm_runtime.tools import Tool
from rlm_runtime.trajectory import read
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.answering import MemoryModel
from tests.fakes.models import Refusal, Reply, Request, ToolCall, Turn, by_model, conversation
from tests.runtime.runs import LIMITS, WIDE, WIRES, Wire, code, scene


@WIRES
async def test_code_is_run_its_output_is_seen_and_words_are_the_answer(
    sandbox: LocalSandbox, wire: Wire
) -> None:
    root = conversation(code("print(len(context))", wire=wire), Reply("It has 12 characters."))
    async with scene(sandbox, root, wire=wire) as made:
        with anyio.fail_after(20):
            outcome = await made.run("How long?", contexts={"context": "twelve chars"})

    assert (outcome.response, outcome.finish, outcome.partial) == ("It has 12 characters.", "answered", False)
    assert made.outputs() == ["12\n"]
    assert "12\n" in made.server.requests[1].text or "12\n" in made.server.requests[1].results[0].text
    assert "How long?" in made.server.requests[0].prompt and "12 characters" in made.server.requests[0].prompt


@WIRES
async def test_final_ends_the_run_with_a_value_of_code(sandbox: LocalSandbox, wire: Wire) -> None:
    root = conversation(code("final({'n': len(context)})\nprint('never')", wire=wire))
    async with scene(sandbox, root, wire=wire) as made:
        with anyio.fail_after(20):
            outcome = await made.run(contexts={"context": "abc"})

    assert (outcome.value, outcome.response, outcome.finish) == ({"n": 3}, '{"n": 3}', "answered")
    assert made.outputs() == [""]
    assert len(made.server.requests) == 1


async def test_a_native_final_answer_counts_once_something_was_seen(sandbox: LocalSandbox) -> None:
    early = Reply(
        calls=(ToolCall("run_python", {"code": "print(6 * 7)"}), ToolCall("final_answer", {"answer": "41"}))
    )
    root = conversation(
        Reply(calls=(ToolCall("final_answer", {"answer": "40"}),)),
        early,
        Reply(calls=(ToolCall("final_answer", {"answer": "42"}),)),
    )
    async with scene(sandbox, root) as made:
        with anyio.fail_after(20):
            outcome = await made.run()

    assert (outcome.response, outcome.finish) == ("42", "answered")
    assert len(made.server.requests) == 3


# ---- small tasks


@WIRES
async def test_a_small_task_is_answered_directly_with_its_contexts(sandbox: LocalSandbox, wire: Wire) -> None:
    async with scene(sandbox, [Reply("Paris.")], wire=wire) as made:
        with anyio.fail_after(20):
            outcome = await made.run(
                "Capital?", contexts={"country": "France", "n": [1, 2]}, recursive=None, system="Be short."
            )

    asked = made.server.requests[0]
    assert (outcome.response, outcome.value, outcome.finish) == ("Paris.", "Paris.", "direct")
    assert "France" in asked.text and "[1, 2]" in asked.text and asked.prompt.endswith("Capital?")
    assert asked.system == "Be short." and not asked.tools
    assert made.of("note", note="direct")[0]["direct_tokens"] == 8000
    assert not made.of("cell_started")


async def test_a_direct_answer_is_heard_as_it_comes(sandbox: LocalSandbox) -> None:
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async with scene(sandbox, [Reply("It comes in pieces.", pieces=4)]) as made:
        with anyio.fail_after(20):
            outcome = await made.run("Go.", recursive=None, on_text=hear)

    assert "".join(heard) == outcome.response and len(heard) > 1


async def test_a_direct_answer_that_was_cut_off_is_partial(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, [Reply("It is", finish="length")]) as made:
        with anyio.fail_after(20):
            outcome = await made.run("Go.", recursive=None)

    assert (outcome.response, outcome.finish, outcome.partial) == ("It is", "gave_up", True)
    assert "cut off" in outcome.reason


async def test_a_prompt_alone_is_passed_on_as_it_is(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, [Reply("4")]) as made:
        with anyio.fail_after(20):
            await made.run("2 + 2?", recursive=None)

    assert made.server.requests[0].body["messages"] == [{"role": "user", "content": "2 + 2?"}]


@pytest.mark.parametrize(
    ("facts", "direct"),
    [
        ({"contexts": {"context": "x" * 31_000}}, True),
        ({"contexts": {"context": "x" * 33_000}}, False),
        ({"contexts": {"context": "x" * 33_000}, "direct_tokens": 10_000}, True),
        ({"contexts": {"context": "x" * 33_000}, "recursive": False}, True),
        ({"contexts": {"context": "short"}, "recursive": True}, False),
        ({"contexts": {"context": b"bytes"}}, False),
        ({"tools": (Tool("look", "", {}, lambda: 1),)}, False),
        ({"contexts": {"context": "x" * 20_000}, "budget": Budget(tokens=8000)}, False),
    ],
)
async def test_the_rule_says_what_is_small(
    sandbox: LocalSandbox, facts: dict[str, Any], direct: bool
) -> None:
    root = conversation(
        lambda request: Reply("direct") if not request.tools else code("final(1)", wire="openai")
    )
    async with scene(sandbox, root) as made:
        with anyio.fail_after(20):
            outcome = await made.run("Do it.", **({"recursive": None} | facts))

    assert (outcome.finish == "direct") is direct


async def test_a_long_prompt_is_a_variable(sandbox: LocalSandbox) -> None:
    prompt = "Count the a's.\n" + "a" * 200_000
    root = conversation(code("final(prompt.count('a'))", wire="openai"))
    async with scene(sandbox, root) as made:
        with anyio.fail_after(20):
            outcome = await made.run(prompt)

    assert outcome.value == 200_001
    assert len(made.server.requests[0].prompt) < 6_000


# ---- typed answers

NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize("wire", ["openai", "fenced"])
async def test_a_typed_answer_is_mended_in_the_same_cell(sandbox: LocalSandbox, wire: Wire) -> None:
    cell = "try:\n    final({'n': 'seven'})\nexcept AnswerInvalid as problem:\n    print(problem)\nfinal({'n': 7})"
    async with scene(sandbox, conversation(code(cell, wire=wire)), wire=wire) as made:
        with anyio.fail_after(20):
            outcome = await made.run(schema=NUMBER)

    assert outcome.value == {"n": 7}
    assert "'seven' is not of type 'integer'" in made.outputs()[0]


@WIRES
async def test_a_typed_answer_in_words_is_mended_by_the_model(sandbox: LocalSandbox, wire: Wire) -> None:
    root = conversation(code("print(1)", wire=wire), Reply('{"n": "seven"}'), Reply('Here: {"n": 7}'))
    async with scene(sandbox, root, wire=wire) as made:
        with anyio.fail_after(20):
            outcome = await made.run(schema=NUMBER)

    assert (outcome.value, outcome.response, outcome.finish) == ({"n": 7}, '{"n": 7}', "answered")
    assert "is not of type" in str(made.server.requests[2].body)


async def test_a_direct_typed_answer_is_mended_and_given_up_in_the_end(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, [Reply("seven"), Reply('{"n": 7}')]) as made:
        with anyio.fail_after(20):
            outcome = await made.run(schema=NUMBER, recursive=None)
    async with scene(sandbox, lambda _: Reply("seven")) as again:
        with anyio.fail_after(20), pytest.raises(AnswerInvalid) as raised:
            await again.run(schema=NUMBER, recursive=None, on_exhausted="error")

    assert (outcome.value, outcome.finish) == ({"n": 7}, "direct")
    assert (raised.value.partial, len(again.server.requests)) == ("seven", 3)


async def test_a_typed_native_answer_is_a_value(sandbox: LocalSandbox) -> None:
    root = conversation(
        code("print(1)", wire="openai"),
        Reply(calls=(ToolCall("final_answer", {"answer": {"n": "x"}}),)),
        Reply(calls=(ToolCall("final_answer", {"answer": {"n": 7}}),)),
    )
    async with scene(sandbox, root) as made:
        with anyio.fail_after(20):
            outcome = await made.run(schema=NUMBER)

    assert outcome.value == {"n": 7}
    assert made.server.requests[0].tools["final_answer"]["properties"]["answer"] == NUMBER


async def test_a_value_that_json_cannot_carry_is_its_repr(sandbox: LocalSandbox) -> None:
    async with scene(sandbox, conversation(code("final({1, 2})", wire="openai"))) as made:
        with anyio.fail_after(20):
            outcome = await made.run()

    assert outcome.response == "{1, 2}"


# ---- tools


async def stock(item: str, store: str = "main") -> dict[str, Any]:
    return {"item": item, "store": store, "left": 3}


def secret_tool() -> str:
    return "only for the root"


STOCK = Tool(
    "stock",
    "How many are left of an item.",
    {
        "type": "object",
        "properties": {"item": {"type": "string"}, "store": {"type": "string"}},
        "required": ["item"],
    },
    stock,
)
SECRET = Tool("secret_tool", "Nothing for children.", {}, secret_tool, grant=False)


async def test_a_tool_is_native_for_the_root_and_a_function_in_code_and_in_children_that_may_have_it(
    sandbox: LocalSandbox,
) -> None:
    child = conversation(
        code(
            "print(stock(item='pear')['left'])\ntry:\n    secret_tool()\nexcept NameError:\n    final('no')",
            wire="openai",
        )
    )
    root = conversation(
        Reply(calls=(ToolCall("stock", {"item": "apple", "store": "east"}), ToolCall("stock", {"itm": 1}))),
        code("print(stock('plum')['left'], secret_tool())\nfinal(rlm_query('CHILD'))", wire="openai"),
    )

    def script(request: Request) -> Any:
        return (child if "CHILD" in request.text else root)(request)

    async with scene(sandbox, script) as made:
        with anyio.fail_after(20):
            outcome = await made.run("ROOT", tools=(STOCK, SECRET))

    first, second = made.server.requests[1].results
    assert outcome.response == "no"
    assert [call["name"] for call in outcome.tool_calls] == [
        "stock",
        "stock",
        "stock",
        "secret_tool",
        "stock",
    ]
    assert '"left": 3' in first.text and "'item' is a required property" in second.text
    assert made.outputs()[0] == "3\n"
    assert "stock(item, store): How many are left" in made.server.requests[0].system
    assert {"run_python", "stock", "secret_tool", "final_answer"} == made.server.requests[0].tools.keys()
    assert "secret_tool" not in made.server.requests[2].tools


async def test_names_that_a_tool_cannot_have_are_refused_before_anything_is_asked(
    sandbox: LocalSandbox,
) -> None:
    async with scene(sandbox, []) as made:
        for name in ("run_python", "final_answer", "llm_query", "print", "two words"):
            with pytest.raises(ValueError, match="cannot be"):
                await made.run(tools=(Tool(name, "", {}, secret_tool),))

    assert made.server.requests == []


# ---- long conversations


@WIRES
async def test_a_conversation_is_compacted_before_its_window_is_full_and_code_has_it_all(
    sandbox: LocalSandbox, wire: Wire
) -> None:
    def root(request: Request) -> Reply:
        if "replaced by notes" in request.prompt:
            return Reply("Known: first is 'alpha'.", input_tokens=100)
        if request.turn < 1 and "Known:" not in request.text:
            return with_size(code("first = 'alpha'\nprint(first)", wire=wire), request)
        if "Known:" in request.text:
            cell = "final([history[0]['content'][:5], 'alpha' in str(history), first, len(history)])"
            return with_size(code(cell, wire=wire), request)
        return with_size(code(f"print('x' * 7_000, {request.turn})", wire=wire), request)

    async with scene(sandbox, root, wire=wire, windows={"root": 16_000}) as made:
        with anyio.fail_after(30):
            outcome = await made.run("Begin.")

    note = made.of("note", note="compaction")[0]
    begin, whole, first, length = outcome.value
    assert (begin, whole, first) == ("Begin", True, "alpha")
    assert length > 4 and note["by"] == "model"
    assert max(each.body_size for each in map(sized, made.server.requests)) < 4 * 16_000


def with_size(reply: Reply, request: Request) -> Reply:
    return replace(reply, input_tokens=sized(request).body_size // 4)


@dataclass(frozen=True)
class Sized:
    body_size: int


def sized(request: Request) -> Sized:
    return Sized(len(json.dumps(request.body)))


@pytest.mark.parametrize("known", [8192, 32_000])
async def test_a_conversation_with_its_reply_never_exceeds_a_small_window(
    sandbox: LocalSandbox, known: int
) -> None:
    turns = iter([*(code(f"print('{n}' + 'x' * 7000)", wire="openai") for n in range(6)), Reply("done")])
    refused: list[int] = []

    def small(request: Request) -> Turn:
        size = len(str(request.body["messages"])) // 4 + request.body["max_tokens"]
        if size > 8192:
            refused.append(size)
            return Refusal(400, f"This model's maximum context length is 8192 tokens. You requested {size}")
        return with_size(Reply("notes") if "replaced by notes" in request.prompt else next(turns), request)

    async with scene(sandbox, small, windows={"root": known}) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.finish, outcome.response) == ("answered", "done")
    assert made.of("note", note="compaction")
    assert bool(refused) == (known > 8192)


async def test_a_conversation_that_is_compacted_while_its_room_opens_is_kept_for_code_too(
    sandbox: LocalSandbox,
) -> None:
    look = Tool("look", "Looks.", {}, lambda: "x" * 7_000)

    def root(request: Request) -> Turn:
        if "replaced by notes" in request.prompt:
            return Reply("Known: nothing.", input_tokens=100)
        if "Known:" in request.text:
            return code("final([history[0]['content'][:5], len(history)])", wire="openai")
        return with_size(Reply(calls=(ToolCall("look"),)), request)

    large = {"context": "y" * 50_000_000}
    async with scene(sandbox, root, windows={"root": 8_000}) as made:
        with anyio.fail_after(60):
            outcome = await made.run("Begin.", tools=(look,), contexts=large)

    begin, length = outcome.value
    assert begin == "Begin" and length > 4
    assert made.of("note", note="compaction") and len(made.of("cell_started")) == 1


async def test_a_history_is_cut_where_nobody_can_be_asked_for_notes(sandbox: LocalSandbox) -> None:
    def root(request: Request) -> Turn:
        if "replaced by notes" in request.prompt:
            return Refusal(400)
        if "Notes on it:" in request.text:
            return code("final(len(history))", wire="openai")
        return with_size(code(f"print('x' * 7_000, {request.turn})", wire="openai"), request)

    async with scene(sandbox, root, windows={"root": 16_000}) as made:
        with anyio.fail_after(30):
            outcome = await made.run("Begin.")

    assert outcome.finish == "answered"
    assert made.of("note", note="compaction")[0]["by"] == "cutting"


# ---- what a budget cuts


async def test_a_direct_answer_that_a_budget_cut_short_is_an_exhausted_run(sandbox: LocalSandbox) -> None:
    poor: dict[str, Any] = {"recursive": None, "budget": Budget(tokens=900)}
    async with scene(sandbox, lambda _: Reply("word " * 20, finish="length")) as made:
        outcome = await made.run("Tell me all.", **poor)
        with pytest.raises(TokenBudgetExhausted) as caught:
            await made.run("Tell me all.", on_exhausted="error", **poor)

    assert (outcome.finish, outcome.partial) == ("exhausted", True)
    assert outcome.response.strip() == caught.value.partial.strip() == ("word " * 20).strip()


# ---- the record


async def test_the_log_says_what_happened_in_order(sandbox: LocalSandbox, tmp_path: Path) -> None:
    root = conversation(code("final(llm_query('leaf?'))", wire="openai", words="Let me ask."))
    script = by_model({"root": root, "leaf": Reply("Leaf.")})
    async with scene(sandbox, script) as made, open_log(tmp_path, "one") as log:
        with anyio.fail_after(20):
            outcome = await made.run("Ask.", log=log, contexts={"context": "abc"})
    trajectory = await anyio.to_thread.run_sync(read, tmp_path / "one.jsonl")

    kinds = [(event["kind"], event["call_id"], event["depth"]) for event in made.events]
    assert kinds == [
        ("run_started", "0", 0),
        ("call_started", "0.1", 0),
        ("call_ended", "0.1", 0),
        ("cell_started", "0", 0),
        ("call_started", "0.2", 1),
        ("call_ended", "0.2", 1),
        ("cell_ended", "0", 0),
        ("run_ended", "0", 0),
    ]
    assert outcome.trajectory_id == "one" and trajectory is not None
    assert made.events[0]["contexts"]["context"]["size"] == 3
    assert made.events[-1]["response"] == "Leaf." and made.events[-1]["requests"] == 2


async def test_many_runs_at_once_in_one_sandbox_do_not_meet(sandbox: LocalSandbox) -> None:
    def root(request: Request) -> Reply:
        return code("final(context)", wire="openai")

    outcomes: dict[int, str] = {}
    async with scene(sandbox, root) as made:

        async def one(number: int) -> None:
            outcomes[number] = (await made.run(contexts={"context": f"run {number}"})).response

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(one, number)

    assert outcomes == {number: f"run {number}" for number in range(10)}


async def test_a_model_without_native_tools_takes_over_where_the_first_one_is_gone(
    sandbox: LocalSandbox,
) -> None:
    asked: list[MemoryRequest] = []

    async def gone(_: MemoryRequest) -> ModelUnavailable:
        return ModelUnavailable("first", "it is gone", "Start it.")

    def second(request: MemoryRequest) -> str:
        asked.append(request)
        return "```repl\nprint(6 * 7)\n```" if len(asked) == 1 else "It is 42."

    models = [MemoryModel(gone, name="first"), MemoryModel(second, name="second", native_tools=False)]
    with anyio.fail_after(20):
        outcome = await run(
            Job("Go.", recursive=True, budget=WIDE),
            ladder=Ladder(models),
            rooms=Rooms(sandbox, limits=LIMITS),
            log=Log.nowhere(),
        )

    assert (outcome.response, outcome.finish) == ("It is 42.", "answered")
    assert all(not request.tools for request in asked)


@WIRES
async def test_the_usual_budget_is_enough_for_some_turns_and_questions(
    sandbox: LocalSandbox, wire: Wire
) -> None:
    def told(reply: Reply, request: Request) -> Reply:
        return replace(with_size(reply, request), output_tokens=60)

    root = conversation(
        lambda request: told(code("print(context[:200])", wire=wire), request),
        lambda request: told(code("print(llm_query('Sum up: ' + context[:1000]))", wire=wire), request),
        lambda request: told(code("print(len(context))", wire=wire), request),
        lambda request: told(Reply("Fine."), request),
    )
    leaf = Reply("A sum.", input_tokens=300, output_tokens=50)
    async with scene(sandbox, by_model({"root": root, "leaf": leaf}), wire=wire) as made:
        with anyio.fail_after(20):
            outcome = await made.run("Sum up.", contexts={"context": "word " * 100_000}, budget=Budget())

    assert (outcome.response, outcome.finish) == ("Fine.", "answered")
    assert 0 < outcome.total_tokens <= 8000
