"""A tree of children and leaves spends what it may, and asks as many at once as it may: no more and no less."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.answers import Ladder
from rlm_runtime.errors import PriceUnknown
from rlm_runtime.log import Log
from rlm_runtime.models.command import CommandModel
from rlm_runtime.rooms import Rooms
from rlm_runtime.run import Job, run
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Hangup, Oracle, Refusal, Reply, Request, backwards, conversation, late
from tests.fakes.scripts import turn_of
from tests.fakes.turns import Turn
from tests.runtime.runs import LIMITS, WIDE, Wire, code, nothing_left_behind, scene

AT_ONCE = 64
SHARDS = [[f"shard {8 * n + m}" for m in range(8)] for n in range(8)]
ALL = [shard for hall in SHARDS for shard in hall]

CELLS = {
    "ROOT": "found = rlm_map('HALL', contexts=context, schema={'type': 'array'})\n"
    "final([each if isinstance(each, list) else each.kind for each in found])",
    "HALL": "found = rlm_map('SHELF', contexts=context)\n"
    "final([each if isinstance(each, str) else each.kind for each in found])",
    "SHELF": "try:\n    said = llm_query(context)\n"
    "except BudgetExhausted as problem:\n    said = type(problem).__name__\nfinal(said)",
}


@dataclass
class Library:
    """A root whose children's children ask one leaf each; all replies are as long as they may be."""

    output_tokens: int = 400
    used: list[int] = field(default_factory=list[int])
    oracle: Oracle = field(default_factory=lambda: Oracle("library"))

    def __call__(self, request: Request) -> Turn:
        said, size = min(self.output_tokens, request.body["max_tokens"]), len(request.text) // 4
        turn = self.says(request)
        self.used.append(size + said)
        return replace(turn, input_tokens=size, output_tokens=said)

    def says(self, request: Request) -> Reply:
        if "No more code is run" in request.text:
            return Reply("as far as I got")
        if request.tools:
            return code(next(cell for task, cell in CELLS.items() if task in request.text), wire="openai")
        return Reply(self.oracle.says(request.prompt))


def told(value: Any) -> list[str]:
    """Return what was said of each shard, in their order; of a hall that failed, what was said of it."""
    halls: list[Any] = value or ["nothing"] * 8
    return [str(said) for hall in halls for said in ([hall] * 8 if isinstance(hall, str) else hall)]


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"tokens": 60_000}, "TokenBudgetExhausted"),
        ({"tokens": 70_000}, "TokenBudgetExhausted"),
        ({"cost_usd": 0.06}, "CostBudgetExhausted"),
        ({"max_subcalls": 100}, "CallBudgetExhausted"),
        ({"max_depth": 2}, "MaxDepthExceeded"),
    ],
    ids=["60000 tokens", "70000 tokens", "6 cents", "100 subcalls", "depth 2"],
)
async def test_no_budget_is_overshot_by_a_tree_of_children_at_once(
    sandbox: LocalSandbox, limits: dict[str, Any], kind: str
) -> None:
    library, budget = Library(), replace(WIDE, at_once=AT_ONCE, **limits)
    async with scene(sandbox, late(0.02, library)) as made:
        with anyio.fail_after(60):
            async with nothing_left_behind():
                outcome = await made.run("ROOT", contexts={"context": SHARDS}, budget=budget)

    said = told(outcome.value)
    answered = [shard for shard, each in zip(ALL, said, strict=True) if each == library.oracle.says(shard)]
    assert kind in said and len(answered) == sum(made.server.asked[shard] for shard in ALL)
    assert {*said} - {library.oracle.says(shard) for shard in ALL} <= {kind, "nothing"}
    assert outcome.total_tokens == sum(library.used) <= (budget.tokens or math.inf)
    assert sum(library.used) / 1e6 <= (budget.cost_usd or math.inf)
    assert outcome.cost_usd == pytest.approx(sum(library.used) / 1e6)
    assert (outcome.depth_reached, outcome.unsure_tokens) == (min(3, budget.max_depth), 0)
    assert kind != "CallBudgetExhausted" or len(answered) == 100 - 8 - 64


@pytest.mark.parametrize("limit", [5, 16, 64])
async def test_as_many_are_asked_at_once_over_all_children_as_may_be_and_never_more(
    sandbox: LocalSandbox, limit: int
) -> None:
    library, full = Library(), anyio.Event()

    async def script(request: Request) -> Turn:
        if not request.tools:
            if made.server.at_once == limit:
                full.set()
            await full.wait()
        return library(request)

    async with scene(sandbox, script) as made:
        with anyio.fail_after(60):
            outcome = await made.run(
                "ROOT", contexts={"context": SHARDS}, budget=replace(WIDE, at_once=limit)
            )

    assert told(outcome.value) == [library.oracle.says(shard) for shard in ALL]
    assert made.server.most_at_once == limit


@pytest.mark.parametrize(("asked", "limit"), [("llm_map(many, max_concurrency=5)", 5), ("llm_map(many)", 16)])
async def test_a_batch_is_asked_as_many_at_once_as_it_may_be_and_keeps_its_order(
    sandbox: LocalSandbox, asked: str, limit: int
) -> None:
    oracle, many = Oracle("batch"), [f"question {n}" for n in range(100)]
    answer = backwards(limit, oracle)
    root = conversation(code(f"many = context\nfinal([str(each) for each in {asked}])", wire="openai"))
    count = itertools.count()

    async def script(request: Request) -> Turn:
        if request.tools:
            return await turn_of(root, request)
        if request.prompt == "question 50":
            return Refusal(400, "not this one")
        return await turn_of(answer if next(count) < limit else oracle, request)

    async with scene(sandbox, script) as made:
        with anyio.fail_after(30):
            outcome = await made.run(contexts={"context": many})

    assert [said for n, said in enumerate(outcome.value) if n != 50] == [
        oracle.says(question) for question in many if question != "question 50"
    ]
    assert "not this one" in outcome.value[50]
    assert made.server.most_at_once == limit


@pytest.mark.parametrize("wire", ["openai", "anthropic"])
async def test_streams_that_break_off_are_held_against_the_budget_at_their_most(
    sandbox: LocalSandbox, wire: Wire
) -> None:
    async def hear(text: str) -> None:
        pass

    broken = Hangup(after_events=3, reply=Reply("This is never said to its end.", pieces=5))
    async with scene(sandbox, lambda _: broken, wire=wire) as made:
        with anyio.fail_after(30):
            outcome = await made.run(
                "Tell me.", recursive=False, budget=replace(WIDE, tokens=7_000), on_text=hear
            )

    assert (outcome.finish, outcome.partial) == ("exhausted", True)
    assert 0 < outcome.unsure_tokens <= 7_000 and outcome.total_tokens == 0
    assert len(made.server.requests) == len(made.of("note", note="no_answer"))


PROGRAM = """
said=$(cat)
case "$said" in
*ROOT*) printf '```repl\\nfinal(len(llm_map([f"question {n}" for n in range(200)]).ok))\\n```\\n' ;;
*) echo "that is so" ;;
esac
"""


async def test_a_program_that_tells_no_usage_is_counted_at_its_most_and_never_beyond_the_budget(
    sandbox: LocalSandbox,
) -> None:
    async with CommandModel(["sh", "-c", PROGRAM], at_once=4) as model:
        with anyio.fail_after(60):
            async with nothing_left_behind():
                outcome = await run(
                    Job("ROOT", budget=replace(WIDE, tokens=8_000), recursive=True),
                    ladder=Ladder([model]),
                    rooms=Rooms(sandbox, limits=LIMITS),
                    log=Log.nowhere(),
                )

    assert outcome.finish == "answered" and 0 < outcome.value < 200
    assert outcome.total_tokens + outcome.unsure_tokens <= 8_000 and outcome.cost_usd is None


async def test_a_program_that_has_no_price_is_not_asked_under_a_cost_cap(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    async with CommandModel(["sh", "-c", f"touch {asked}; echo 4"]) as model:
        with anyio.fail_after(30), pytest.raises(PriceUnknown):
            await run(
                Job("Two and two?", budget=replace(WIDE, cost_usd=1.0)),
                ladder=Ladder([model]),
                rooms=Rooms(sandbox, limits=LIMITS),
                log=Log.nowhere(),
            )

    assert not await anyio.Path(asked).exists()
