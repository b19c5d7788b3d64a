"""A run is played again without a model, identical; or goes on with one from where it was cut, or from an event on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.answers import Ladder
from rlm_runtime.budget import Budget
from rlm_runtime.cache import AnswerStore
from rlm_runtime.contexts import ContextFile
from rlm_runtime.errors import ReplayDiverged
from rlm_runtime.log import open_log
from rlm_runtime.replay import Replayed, replay
from rlm_runtime.run import Outcome
from rlm_runtime.tools import Tool
from rlm_runtime.trajectory import Trajectory, read
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import (
    Answerer,
    Hangup,
    Refusal,
    Reply,
    Request,
    backwards,
    by_model,
    conversation,
    failing_first,
)
from tests.runtime.runs import WIDE, Scene, Wire, code, scene

Made = tuple[Trajectory, Outcome]


async def _made(made: Scene, folder: Path, **job: Any) -> Made:
    """Run a job with a log, and return both."""
    with anyio.fail_after(60):
        async with open_log(folder) as log:
            outcome = await made.run(log=log, **job)
    return await anyio.to_thread.run_sync(read, folder / f"{log.trajectory_id}.jsonl"), outcome


async def _again(made: Scene, trajectory: Trajectory, **options: Any) -> Replayed:
    with anyio.fail_after(60):
        return await replay(trajectory, rooms=made.rooms, **options)


def _cut(trajectory: Trajectory, n: int) -> None:
    """Have a log end before event `n`, as if its process had been killed then."""
    lines = trajectory.path.read_bytes().splitlines(keepends=True)
    trajectory.path.write_bytes(b"".join(line for line in lines if json.loads(line)["n"] < n))


async def _read(path: Path) -> Trajectory:
    return await anyio.to_thread.run_sync(read, path)


def _script(wire: Wire, *cells: str, **models: Any) -> Answerer:
    """Return a model whose root runs cells and ends, whose leaves shout, and whose children count."""
    root = conversation(*(code(cell, wire=wire) for cell in cells), Reply("All were shouted."))
    child = conversation(code("final(len(context))", wire=wire))
    return by_model({"root": root, "leaf": _shout, "child": child} | models)


def _shout(request: Request) -> Reply:
    return Reply(request.prompt.split()[-1].upper())


LOOKS = """
parts = context.split()
answers = llm_map('shout {item}', parts)
children = rlm_map('count it', contexts=parts[:2], model='child')
print(*answers, *children)
"""


@pytest.mark.parametrize("wire", ["openai", "anthropic", "fenced"])
async def test_a_run_with_leaves_and_children_is_the_same_without_its_model(
    sandbox: LocalSandbox, tmp_path: Path, wire: Wire
) -> None:
    script = _script(wire, LOOKS, "print(object(), answers[0])")
    async with scene(sandbox, script, wire=wire) as made:
        trajectory, outcome = await _made(made, tmp_path, contexts={"context": "one two three four"})
        asked = len(made.server.requests)
        again = await _again(made, trajectory)

    assert outcome.finish == "answered" and "ONE TWO THREE FOUR 3 3\n" in made.outputs()
    assert len(made.server.requests) == asked == again.from_log == 3 + 4 + 2
    assert again.outcome is not None
    assert _facts(again.outcome) == _facts(outcome)
    assert (again.asked, again.stopped_at) == (0, None)


SAME = {
    "leaves": "final(list(llm_map(['same'] * 4)))",
    "children": "final(list(rlm_map('same', contexts=['same'] * 4, model='child')))",
    "tools": "import asyncio\nfinal(list(await asyncio.gather(*[ask(text='same') for _ in range(4)])))",
}


@pytest.mark.parametrize("kind", SAME)
async def test_calls_that_ask_the_same_get_each_its_own_answer_again(
    sandbox: LocalSandbox, tmp_path: Path, kind: str
) -> None:
    numbers, asked = count(1), list[anyio.Event]()

    def leaf(request: Request) -> Reply:
        return Reply(f"answer {next(numbers)}")

    def in_code(request: Request) -> Reply:
        return code(f"final('answer {next(numbers)}')", wire="openai")

    async def ask(text: str) -> str:
        asked.append(turn := anyio.Event())
        if len(asked) == 4:
            asked[-1].set()
        await turn.wait()
        answer, place = f"answer {next(numbers)}", asked.index(turn)
        asked[place - 1].set()
        return answer

    tools = (Tool("ask", "Ask.", {"type": "object"}, ask),)
    script = _script("openai", SAME[kind], leaf=backwards(4, leaf), child=backwards(4, in_code))
    async with scene(sandbox, script) as made:
        trajectory, outcome = await _made(made, tmp_path, tools=tools)
        again = await _again(made, trajectory)

    assert outcome.value != sorted(outcome.value) == [f"answer {number}" for number in range(1, 5)]
    assert again.outcome is not None and again.outcome.value == outcome.value


async def test_what_tries_may_have_used_is_held_against_the_budget_again(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    budget = Budget(tokens=40_000, max_subcalls=9)
    leaf = failing_first(Hangup(), Reply("yes"), times=2)
    async with scene(sandbox, _script("openai", "print(llm_query('a'))", leaf=leaf)) as made:
        trajectory, outcome = await _made(made, tmp_path, budget=budget)
        again = await _again(made, trajectory)

    assert outcome.unsure_tokens > 4096
    assert again.outcome is not None and again.outcome.unsure_tokens == outcome.unsure_tokens


def _facts(outcome: Outcome) -> dict[str, Any]:
    """Return all of an outcome that is the same each time."""
    return asdict(replace(outcome, trajectory_id="", duration_ms=0.0))


async def test_all_kinds_of_contexts_are_there_again(sandbox: LocalSandbox, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_bytes(b"a line\r\n\xff" * 1000)
    contexts = {
        "text": "x\r\n\0\ud800" * 9000,
        "data": b"\0\xff" * 9000,
        "rows": [{"a": 1}, None],
        "file": ContextFile(file),
    }
    look = "print([(type(each).__name__, len(each)) for each in (text, data, rows, file)], ascii(text[:9]), data[:2], rows)"
    async with scene(sandbox, _script("openai", look)) as made:
        trajectory, _ = await _made(made, tmp_path / "logs", contexts=contexts)
        file.unlink()
        again = await _again(made, trajectory)

    assert again.outcome is not None and "('str', 45000), ('bytes', 18000), ('list', 2)" in made.outputs()[0]


async def test_failed_calls_fail_again_in_the_same_words(sandbox: LocalSandbox, tmp_path: Path) -> None:
    look = """
for prompt in ('bad', 'busy', 'good'):
    try:
        print(llm_query(prompt))
    except Exception as problem:
        print(type(problem).__name__, problem)
"""

    def leaf(request: Request) -> Any:
        return {"bad": Refusal(400, "no"), "busy": Refusal(500, "later")}.get(request.prompt, Reply("yes"))

    async with scene(sandbox, _script("openai", look, leaf=leaf)) as made:
        trajectory, outcome = await _made(made, tmp_path)
        again = await _again(made, trajectory)

    assert (
        "ModelRefused" in made.outputs()[0]
        and "ModelBusy" in made.outputs()[0]
        and "6 tries" in made.outputs()[0]
    )
    assert again.outcome is not None and again.outcome.response == outcome.response


async def test_a_budget_that_ran_out_runs_out_again_at_the_same_place(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    look = """
for number in range(6):
    try:
        print(llm_query(f'shout {number} ' + 'x' * 400 * number))
    except Exception as problem:
        print(type(problem).__name__)
"""
    budget = replace(WIDE, tokens=9000, max_subcalls=4)
    async with scene(sandbox, _script("openai", look)) as made:
        trajectory, outcome = await _made(made, tmp_path, budget=budget)
        again = await _again(made, trajectory)

    assert "CallBudgetExhausted" in made.outputs()[0]
    assert again.outcome is not None and _facts(again.outcome) == _facts(outcome)


async def test_what_the_store_answered_it_answers_again_and_costs_no_call(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    look = "print(llm_map('shout {item}', ['a', 'b']))"
    store = AnswerStore(tmp_path / "store")
    async with scene(sandbox, _script("openai", look, look + "#again"), store=store) as made:
        await _made(made, tmp_path / "logs")
        trajectory, outcome = await _made(made, tmp_path / "logs")
        again = await _again(made, trajectory)

    assert len(made.of("call_ended", cached=True)) == 6
    assert again.outcome is not None and _facts(again.outcome) == _facts(outcome)


async def test_tools_answer_from_the_log(sandbox: LocalSandbox, tmp_path: Path) -> None:
    called: list[str] = []

    def price(name: str) -> float:
        called.append(name)
        if name == "nothing":
            raise LookupError("no such thing")
        return 2.5

    tool = Tool(
        "price",
        "The price of a thing.",
        {"type": "object", "properties": {"name": {"type": "string"}}},
        price,
    )
    look = "print(price('tea'), price('tea'))\nprice('nothing')"
    async with scene(sandbox, _script("openai", look)) as made:
        trajectory, outcome = await _made(made, tmp_path, tools=(tool,))
        again = await _again(made, trajectory)

    assert called == ["tea", "tea", "nothing"]
    assert again.outcome is not None and _facts(again.outcome) == _facts(outcome)


async def test_a_direct_answer_is_played_again(sandbox: LocalSandbox, tmp_path: Path) -> None:
    async with scene(sandbox, [Reply("Hello.")]) as made:
        trajectory, outcome = await _made(made, tmp_path, recursive=None)
        again = await _again(made, trajectory)

    assert outcome.finish == "direct"
    assert again.outcome is not None and _facts(again.outcome) == _facts(outcome)


async def test_code_that_does_something_else_is_told_with_its_event(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    async with scene(sandbox, _script("openai", "import os\nprint('id', os.urandom(8).hex())")) as made:
        trajectory, _ = await _made(made, tmp_path)
        with pytest.raises(ReplayDiverged) as caught:
            await _again(made, trajectory)

    ended = next(event for event in trajectory.events if event["kind"] == "cell_ended")
    assert caught.value.event == ended["n"]
    assert "'id " in caught.value.expected or "id " in caught.value.expected
    assert caught.value.expected != caught.value.found


async def test_a_changed_context_is_a_difference(sandbox: LocalSandbox, tmp_path: Path) -> None:
    async with scene(sandbox, _script("openai", LOOKS)) as made:
        trajectory, _ = await _made(made, tmp_path, contexts={"context": "one two"})
        data = trajectory.path.read_bytes().replace(b"shout one", b"shout two")
        trajectory.path.write_bytes(data)
        with pytest.raises(ReplayDiverged) as caught:
            await _again(made, await _read(trajectory.path))

    assert "shout one" in caught.value.found


async def test_a_run_that_was_cut_off_goes_on_and_pays_for_the_rest_only(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    async with scene(sandbox, _script("openai", LOOKS, "print(len(parts))")) as made:
        trajectory, outcome = await _made(made, tmp_path / "a", contexts={"context": "one two three four"})
        leaves = [e for e in trajectory.events if e["kind"] == "call_ended" and e["depth"] == 1]
        _cut(trajectory, leaves[2]["n"])
        cut = await _read(trajectory.path)
        before = len(made.server.requests)
        async with open_log(tmp_path / "a") as log:
            again = await _again(made, cut, live=Ladder([made.model]), log=log)
        resumed = await _read(tmp_path / "a" / f"{log.trajectory_id}.jsonl")
        paid = len(made.server.requests) - before
        once_more = await _again(made, resumed)

    assert cut.state == "cut"
    assert (again.from_log, paid) == (3, 9 - 3)
    assert again.outcome is not None and _facts(again.outcome) == _facts(outcome)
    assert once_more.outcome is not None and once_more.outcome.response == outcome.response


async def test_a_cut_run_is_played_to_where_it_was_cut(sandbox: LocalSandbox, tmp_path: Path) -> None:
    async with scene(sandbox, _script("openai", LOOKS)) as made:
        trajectory, _ = await _made(made, tmp_path, contexts={"context": "one two"})
        last = trajectory.events[-2]["n"]
        _cut(trajectory, last)
        again = await _again(made, await _read(trajectory.path))

    assert again.outcome is None and again.stopped_at is not None
    assert len(made.server.requests) == 2 + 2 + 2


async def test_from_an_event_on_a_live_model_tries_another_way(sandbox: LocalSandbox, tmp_path: Path) -> None:
    async with scene(sandbox, _script("openai", LOOKS, "print('second')")) as made:
        trajectory, _ = await _made(made, tmp_path, contexts={"context": "one two"})
    second = [e for e in trajectory.events if e["kind"] == "call_started" and e["depth"] == 0][1]
    other = _script("openai", "raise SystemError('never asked')", "final('another way')")
    async with scene(sandbox, other) as made:
        again = await _again(made, trajectory, live=Ladder([made.model]), before=second["n"])

    assert again.outcome is not None and again.outcome.response == "another way"
    assert len(made.server.requests) == again.asked == 1
    assert again.from_log == 1 + 2 + 2
