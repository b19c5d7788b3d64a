"""Whatever a model replies, and whatever it gives as its answer, the run goes on or ends, and says how."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.log import open_log
from rlm_runtime.tools import Tool
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Reply, ToolCall, by_model, conversation
from tests.runtime.runs import WIRES, Wire, code, nothing_left_behind, scene


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_calls_of_tools_that_are_not_there_do_not_go_on_for_ever(
    sandbox: LocalSandbox, wire: Wire
) -> None:
    invented = Reply(
        "I look it up.", (ToolCall("web_search", {"q": "it"}), ToolCall("bash", {"command": "ls"}))
    )
    async with scene(sandbox, lambda _: invented, wire=wire) as made:
        with anyio.fail_after(30):
            async with nothing_left_behind():
                outcome = await made.run()

    assert (outcome.finish, outcome.partial, len(made.server.requests)) == ("gave_up", True, 3)
    assert made.outputs() == []
    results = made.server.requests[-1].results
    assert len(results) == 4 and all("There is no tool" in result.text for result in results)


async def test_three_calls_at_once_that_cannot_be_read_are_one_mistake(sandbox: LocalSandbox) -> None:
    broken = Reply(calls=(ToolCall("run_python", '{"code": "print(1'),) * 3)
    root = conversation(broken, code("print('fine')", wire="openai"), Reply("Done."))
    async with scene(sandbox, root) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.response, outcome.finish, made.outputs()) == ("Done.", "answered", ["fine\n"])


REFUSED = {"openai": "content_filter", "fenced": "content_filter", "anthropic": "refusal"}


@WIRES
@pytest.mark.parametrize("said", ["I will not say more.", "Well:\n```repl\nprint('cut off here')\n"])
async def test_a_reply_that_ends_in_a_refusal_is_the_end_and_no_code_of_it_is_run(
    sandbox: LocalSandbox, wire: Wire, said: str
) -> None:
    root = conversation(code("print(1)", wire=wire), Reply(said, finish=REFUSED[wire]))
    async with scene(sandbox, root, wire=wire) as made:
        with anyio.fail_after(30):
            outcome = await made.run()

    assert (outcome.finish, outcome.partial, outcome.reason) == ("gave_up", True, "The model refused.")
    assert (outcome.response.strip(), made.outputs()) == (said.strip(), ["1\n"])


@pytest.mark.parametrize("arguments", [{"itm": "pear"}, {"item": "nothing"}])
async def test_a_tool_that_fails_in_the_same_way_again_and_again_is_the_end(
    sandbox: LocalSandbox, arguments: dict[str, str]
) -> None:
    root = Reply(calls=(ToolCall("stock", arguments),))
    async with scene(sandbox, lambda _: root) as made:
        with anyio.fail_after(30):
            outcome = await made.run(tools=(STOCK,))

    assert (outcome.finish, outcome.partial, len(made.server.requests)) == ("gave_up", True, 4)
    assert "You ran this before" in made.server.requests[-1].results[-1].text


def stock(item: str) -> int:
    return {"pear": 3}[item]


STOCK = Tool(
    "stock", "How many are left.", {"type": "object", "properties": {"item": {}}, "required": ["item"]}, stock
)


@pytest.mark.parametrize(
    ("cell", "response", "value"),
    [
        ("final(b'\\x00\\xff')", r"b'\x00\xff'", None),
        ("final(float('nan'))", "nan", None),
        ("final({'a': [1.5, float('inf')]})", "{'a': [1.5, inf]}", None),
        ("final(None)", "null", None),
        ("final('')", "", ""),
        ("final([])", "[]", []),
        ("final(False)", "false", False),
    ],
)
async def test_any_value_can_be_an_answer_and_its_log_is_json(
    sandbox: LocalSandbox, tmp_path: Path, cell: str, response: str, value: Any
) -> None:
    async with (
        scene(sandbox, conversation(code(cell, wire="openai"))) as made,
        open_log(tmp_path, "odd") as log,
    ):
        with anyio.fail_after(30):
            outcome = await made.run(log=log)

    assert (outcome.finish, outcome.partial) == ("answered", False)
    assert (outcome.response, outcome.value if value is not None else None) == (response, value)
    await assert_log_is_json(tmp_path / "odd.jsonl")


async def assert_log_is_json(path: Path) -> None:
    """Each line is JSON as others read it, without NaN and infinities."""
    for line in (await anyio.Path(path).read_text()).splitlines():
        json.loads(line, parse_constant=refused)


def refused(word: str) -> None:
    raise AssertionError(f"{word} is no JSON")


@WIRES
async def test_a_number_that_json_does_not_have_is_no_typed_answer_and_stands_in_no_log(
    sandbox: LocalSandbox, tmp_path: Path, wire: Wire
) -> None:
    root = conversation(
        code("x = llm_query('how much?', schema={'type': 'number'})\nprint(x)\nfinal([x])", wire=wire),
        Reply("4"),
    )
    script = by_model({"root": root, "leaf": conversation(Reply("NaN"), Reply("Infinity"), Reply("4"))})
    async with scene(sandbox, script, wire=wire) as made, open_log(tmp_path, "odd") as log:
        with anyio.fail_after(30):
            outcome = await made.run(log=log)

    await assert_log_is_json(tmp_path / "odd.jsonl")
    assert outcome.value == [4]


def same(x: Any) -> Any:
    return x


async def test_what_json_does_not_have_stands_in_no_log_and_reaches_code_as_text(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    odd = Tool("odd", "", {}, lambda: [float("nan"), -math.inf, {1, 2}, b"bytes"])
    echo = Tool("echo", "", {"type": "object", "properties": {"x": {}}}, same)
    root = conversation(
        Reply(calls=(ToolCall("odd"),)),
        code("final([odd(), echo(x=float('inf')), echo(x=[1.5, float('nan')])])", wire="openai"),
    )
    async with scene(sandbox, root) as made, open_log(tmp_path, "odd") as log:
        with anyio.fail_after(30):
            outcome = await made.run(log=log, tools=(odd, echo), contexts={"context": {"a": float("nan")}})

    assert outcome.value == [["nan", "-inf", "{1, 2}", "b'bytes'"], "inf", [1.5, "nan"]]
    await assert_log_is_json(tmp_path / "odd.jsonl")
