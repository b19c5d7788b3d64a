"""What was paid for once is not paid for again: after an exception, in a child, in threads, after a kill."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from rlm_runtime.cache import AnswerStore
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Oracle, Request, conversation
from tests.fakes.scripts import turn_of
from tests.fakes.turns import Turn
from tests.runtime.runs import WIRES, Wire, code, nothing_left_behind, scene

ONE_BY_ONE = """
answers = []
for n in range(100):
    answers.append(llm_query(f"question {{n}}"))
    if n == 79 and {fails}: raise ValueError("after most of it")
"""
AS_A_BATCH = """
answers = llm_map([f"question {{n}}" for n in range(80 if {fails} else 100)])
if {fails}: raise ValueError("after most of it")
"""
IN_THREADS = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as threads:
    answers = list(threads.map(llm_query, [f"question {{n}}" for n in range(80 if {fails} else 100)]))
if {fails}: raise ValueError("after most of it")
"""
AWAITED = """
import asyncio
asked = [llm_query(f"question {{n}}") for n in range(80 if {fails} else 100)]
answers = await asyncio.gather(*asked)
if {fails}: raise ValueError("after most of it")
"""
WAYS = {"one by one": ONE_BY_ONE, "as a batch": AS_A_BATCH, "in threads": IN_THREADS, "awaited": AWAITED}


@pytest.mark.parametrize("in_child", [False, True], ids=["root", "child"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_cell_that_raises_after_80_of_100_answers_pays_20_on_the_next_try(
    sandbox: LocalSandbox, tmp_path: Path, way: str, in_child: bool
) -> None:
    oracle = Oracle("paid once")
    tries = conversation(
        code(WAYS[way].format(fails=True), wire="openai"),
        code(WAYS[way].format(fails=False) + "final([str(each) for each in answers])", wire="openai"),
    )
    parent = conversation(code("final(rlm_query('CHILD', schema={'type': 'array'}))", wire="openai"))

    async def script(request: Request) -> Turn:
        if not request.tools:
            return oracle(request)
        return await turn_of(parent if in_child and "CHILD" not in request.text else tries, request)

    async with scene(sandbox, script, store=AnswerStore(tmp_path)) as made:
        with anyio.fail_after(60):
            async with nothing_left_behind():
                outcome = await made.run()

    questions = [f"question {n}" for n in range(100)]
    assert outcome.value == [oracle.says(question) for question in questions]
    assert {made.server.asked[question] for question in questions} == {1}
    assert "after most of it" in str(made.of("cell_ended")[0]["error"])


@WIRES
async def test_a_child_that_was_answered_is_not_run_again(
    sandbox: LocalSandbox, tmp_path: Path, wire: Wire
) -> None:
    ask = "halves = rlm_map('CHILD', contexts=['left', 'right'])\n"
    root = conversation(
        code(ask + "raise ValueError('after it')", wire=wire), code(ask + "final(list(halves))", wire=wire)
    )
    child = conversation(code("final(llm_query(context))", wire=wire))
    oracle = Oracle("halves")

    async def script(request: Request) -> Turn:
        if request.prompt in ("left", "right"):
            return oracle(request)
        return await turn_of(root if "ROOT" in request.text else child, request)

    async with scene(sandbox, script, wire=wire, store=AnswerStore(tmp_path)) as made:
        with anyio.fail_after(60):
            outcome = await made.run("ROOT")

    assert outcome.value == [oracle.says("left"), oracle.says("right")]
    assert len(made.server.requests) == outcome.total_calls == 2 + 2 + 2
