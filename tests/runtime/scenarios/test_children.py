"""Children have rooms of their own, as deep as the host allows, and nothing of one is seen by another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from rlm_runtime.budget import Budget
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Oracle, Reply, Request, conversation
from tests.fakes.scripts import turn_of
from tests.fakes.turns import Answer, Turn
from tests.runtime.runs import WIDE, code, nothing_left_behind, scene

LOOK = """
import os
assert "mine" not in dir() and os.listdir(".") == [], "something of another one is here"
mine = context
open("mine", "w").write(str(mine))
"""


def by_task(scripts: dict[str, Answer], leaf: Answer) -> Callable[[Request], object]:
    """Who steers is told by the task in the first message; who has no instructions is a leaf."""

    async def answer(request: Request) -> Turn:
        if not request.tools:
            return await turn_of(leaf, request)
        return await turn_of(next(scripts[task] for task in scripts if task in request.text), request)

    return answer


async def test_64_shards_are_read_by_children_two_deep_in_parallel(sandbox: LocalSandbox) -> None:
    oracle = Oracle("shards")
    shards = [[f"shard {8 * n + m}" for m in range(8)] for n in range(8)]
    script = by_task(
        {
            "ROOT": conversation(code("final(rlm_map('HALL', contexts=context))", wire="openai")),
            "HALL": conversation(code(LOOK + "final(rlm_map('SHELF', contexts=context))", wire="openai")),
            "SHELF": conversation(code(LOOK + "final(llm_query(context))", wire="openai")),
        },
        oracle,
    )

    async with scene(sandbox, script) as made:  # type: ignore[arg-type]
        with anyio.fail_after(120):
            async with nothing_left_behind():
                outcome = await made.run(
                    "ROOT", contexts={"context": shards}, budget=replace(WIDE, at_once=8)
                )

    assert outcome.value == [f"{answer}" for answer in map(str, expected(oracle, shards))]
    assert (outcome.depth_reached, outcome.total_calls) == (3, 1 + 8 + 64 + 64)
    assert {made.server.asked[shard] for shards_of_one in shards for shard in shards_of_one} == {1}
    assert 1 < made.server.most_at_once <= 8
    assert {event["depth"] for event in made.of("cell_started")} == {0, 1, 2}
    ids = [event["call_id"] for event in made.of("call_started")]
    assert len(ids) == len(set(ids)) == 8 + 64 + outcome.total_calls


def expected(oracle: Oracle, shards: list[list[str]]) -> list[str]:
    """Return what the halls say: a list as JSON."""
    import json

    return [json.dumps([oracle.says(shard) for shard in hall]) for hall in shards]


MEET = """
import os, tempfile

def entries(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []

folders = [".", tempfile.gettempdir(), "/tmp", "/dev/shm", os.path.expanduser("~")]
os.environ["MINE"] = mine = context
for folder in folders:
    try:
        open(os.path.join(folder, "left by " + mine), "w").close()
    except OSError:
        pass
llm_query("all are here: " + mine)
theirs = [name for folder in folders for name in entries(folder) if name.startswith("left by") and mine not in name]
final([mine, theirs, os.environ["MINE"]])
"""


async def test_children_at_once_find_nothing_of_each_other(sandbox: LocalSandbox) -> None:
    """Each leaves something everywhere, and looks only when all others have."""
    children = [f"child {n}" for n in range(4)]
    here, all_here = set[str](), anyio.Event()

    async def leaf(request: Request) -> Turn:
        here.add(request.prompt)
        if len(here) == len(children):
            all_here.set()
        await all_here.wait()
        return Reply("all are")

    ask = code("final(rlm_map('CHILD', contexts=context, schema={'type': 'array'}))", wire="openai")
    script = by_task({"ROOT": conversation(ask), "CHILD": conversation(code(MEET, wire="openai"))}, leaf)
    async with scene(sandbox, script) as made:  # type: ignore[arg-type]
        with anyio.fail_after(60):
            async with nothing_left_behind():
                outcome = await made.run("ROOT", contexts={"context": children})

    assert outcome.value == [[child, [], child] for child in children]


async def test_a_child_at_the_deepest_level_cannot_ask_and_is_told_so(sandbox: LocalSandbox) -> None:
    child = conversation(
        code("try:\n    llm_query('deeper')\nexcept MaxDepthExceeded as e:\n    print(e)", wire="openai"),
        lambda request: Reply(request.results[-1].text.split("\n")[1]),
    )
    script = by_task(
        {"ROOT": conversation(code("final(rlm_query('CHILD'))", wire="openai")), "CHILD": child}, Oracle("x")
    )

    async with scene(sandbox, script) as made:  # type: ignore[arg-type]
        with anyio.fail_after(30):
            outcome = await made.run("ROOT", budget=replace(WIDE, max_depth=1))

    assert "This would be depth 2, and max_depth is 1" in outcome.response
    told = next(request for request in made.server.requests if "CHILD" in request.text)
    assert "cannot ask models" in told.system and "llm_query" not in told.system
    assert not made.server.asked["deeper"]


DEEPER = """
try:
    answer = rlm_query("DEEPER")
except MaxDepthExceeded as problem:
    print(problem)
else:
    final(answer)
"""


async def test_children_that_start_children_for_ever_end_at_max_depth(sandbox: LocalSandbox) -> None:
    script = by_task(
        {"DEEPER": conversation(code(DEEPER, wire="openai"), Reply("no deeper"))},
        Oracle("x"),
    )

    async with scene(sandbox, script) as made:  # type: ignore[arg-type]
        with anyio.fail_after(60):
            async with nothing_left_behind():
                outcome = await made.run("DEEPER", budget=Budget(max_depth=3, tokens=None))

    assert (outcome.response, outcome.depth_reached) == ("no deeper", 3)
    assert len(made.server.requests) == 4 + 1


async def test_a_child_without_an_answer_is_an_error_that_code_can_catch(sandbox: LocalSandbox) -> None:
    root = conversation(
        code(
            "try:\n    rlm_query('CHILD')\nexcept CallFailed as e:\n    final([e.kind, str(e)])",
            wire="openai",
        )
    )
    script = by_task({"ROOT": root, "CHILD": lambda _: Reply("")}, Oracle("x"))

    async with scene(sandbox, script) as made:  # type: ignore[arg-type]
        with anyio.fail_after(30):
            outcome = await made.run("ROOT")

    assert outcome.value[0] == "RunFailed"
    assert "replied with nothing" in outcome.value[1]


async def test_a_part_of_an_answer_of_a_child_is_not_taken_for_the_whole(sandbox: LocalSandbox) -> None:
    root = conversation(
        code("try:\n    rlm_query('CHILD')\nexcept BudgetExhausted as e:\n    final(str(e))", wire="openai")
    )

    def child(request: Request) -> Turn:
        if "No more code is run" in request.text:
            return Reply("half of it")
        return code(f"print({request.turn})", wire="openai")

    script = by_task({"ROOT": root, "CHILD": child}, Oracle("x"))
    async with scene(sandbox, script) as made:  # type: ignore[arg-type]
        with anyio.fail_after(30):
            outcome = await made.run("ROOT", budget=replace(WIDE, max_turns=2))

    assert "max_turns is used up" in outcome.response and outcome.response.endswith("half of it")
    assert made.of("call_ended", depth=1)[-1]["error"]["kind"] == "TurnBudgetExhausted"


@pytest.mark.parametrize("wire", ["openai", "fenced"])
async def test_a_typed_child_gives_a_value(sandbox: LocalSandbox, wire: str) -> None:
    schema = {"type": "array", "items": {"type": "integer"}}
    child = conversation(
        code("try:\n    final('seven')\nexcept AnswerInvalid:\n    final([7])", wire=wire)  # type: ignore[arg-type]
    )
    root = conversation(
        code(f"final(rlm_query('CHILD', schema={schema})[0] + 1)", wire=wire)  # type: ignore[arg-type]
    )

    def script(request: Request) -> object:
        return child(request) if "CHILD" in request.prompt else root(request)

    async with scene(sandbox, script, wire=wire) as made:  # type: ignore[arg-type]
        with anyio.fail_after(30):
            outcome = await made.run("ROOT")

    assert outcome.value == 8
