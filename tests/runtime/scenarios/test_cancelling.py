"""A run that is cancelled ends at once, wherever it is: calls, cells, tools, children, waits, and its log says so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.answers import Ladder
from rlm_runtime.budget import Budget, open_pool
from rlm_runtime.cache import AnswerStore
from rlm_runtime.events import Event
from rlm_runtime.log import Log, open_log
from rlm_runtime.retries import Retries
from rlm_runtime.run import Job, run
from rlm_runtime.tools import Tool
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Oracle, Refusal, Reply, Request, Silence
from tests.fakes.scripts import turn_of
from tests.fakes.turns import Turn
from tests.runtime.runs import WIDE, Scene, Wire, code, nothing_left_behind, scene

PATIENT = Retries(first_seconds=60, most_seconds=60)
OFTEN = 20
SILENCE = Silence()


class Point:
    """Where a run is to be when it is cancelled: it is there once an event satisfies `here`, or `set` was called."""

    def __init__(self, here: Callable[[Event], bool] = lambda _: False) -> None:
        self.reached = anyio.Event()
        self._here = here

    def hear(self, event: Event) -> None:
        if self._here(event):
            self.reached.set()


@dataclass(frozen=True)
class Case:
    """A run that never ends by itself, and the point at which it is cancelled."""

    root: Turn | Callable[[Request], Turn]
    here: Callable[[Event], bool]
    leaf: Turn = SILENCE
    budget: Budget = WIDE
    schema: dict[str, Any] | None = None
    recursive: bool = True
    wire: Wire = "openai"
    tools: tuple[Tool, ...] = ()
    streams: bool = False
    contexts: dict[str, Any] = field(default_factory=dict[str, Any])


def started(name: str, *, depth: int = 0, nth: int = 1) -> Callable[[Event], bool]:
    """Return what is true of the `nth` event that says that such a call, or a cell, was started."""
    seen = list[Event]()

    def here(event: Event) -> bool:
        if event["kind"] == f"{name}_started" and event["depth"] == depth:
            seen.append(event)
        return len(seen) >= nth

    return here


def noted(note: str) -> Callable[[Event], bool]:
    return lambda event: event.get("note") == note


def nested(request: Request) -> Turn:
    """A root and a child that start children, and those a batch."""
    if "LOWEST" in request.text:
        return code("llm_map([str(n) for n in range(4)])", wire="openai")
    below = "LOWEST" if "MIDDLE" in request.text else "MIDDLE"
    return code(f"rlm_map(['{below}'] * 2)", wire="openai")


def compacting(request: Request) -> Turn:
    if "replaced by notes" in request.prompt:
        return Silence()
    return replace(code(f"print('x' * 7_000, {request.turn})", wire="openai"), input_tokens=199_000)


async def sleeping() -> None:
    await anyio.sleep_forever()


def blocking() -> None:
    time.sleep(0.5)


def tool(handler: Callable[[], Any]) -> Tool:
    return Tool("work", "Works.", {}, handler)


def cell(text: str) -> Turn:
    return code(text, wire="openai")


CASES = {
    "before the first answer": lambda: Case(Silence(), started("call")),
    "in a direct answer": lambda: Case(Silence(), started("call"), recursive=False),
    "in a stream": lambda: Case(Silence(after_events=2), lambda _: False, recursive=False, streams=True),
    "in the stream of anthropic": lambda: Case(
        Silence(after_events=4), lambda _: False, recursive=False, streams=True, wire="anthropic"
    ),
    "while the room opens": lambda: Case(
        cell("1"), lambda event: event["kind"] == "call_ended", contexts={"context": "x" * 20_000_000}
    ),
    "in a cell that computes": lambda: Case(cell("while True: pass"), started("cell")),
    "in a cell that sleeps": lambda: Case(cell("import time; time.sleep(600)"), started("cell")),
    "in a cell that waits for a thread": lambda: Case(
        cell("import threading; threading.Event().wait()"), started("cell")
    ),
    "in a question": lambda: Case(cell("llm_query('a')"), started("call", depth=1)),
    "in a batch": lambda: Case(
        cell("llm_map([str(n) for n in range(50)])"), started("call", depth=1, nth=40)
    ),
    "in a batch in threads": lambda: Case(
        cell(
            "from concurrent.futures import ThreadPoolExecutor\n"
            "list(ThreadPoolExecutor(8).map(llm_query, map(str, range(8))))"
        ),
        started("call", depth=1, nth=8),
    ),
    "in an async batch": lambda: Case(
        cell("import asyncio\nawait asyncio.gather(*[llm_query(str(n)) for n in range(8)])"),
        started("call", depth=1, nth=8),
    ),
    "while others are in flight": lambda: Case(
        cell("llm_map(['a', 'b'])"), started("call", depth=1, nth=2), budget=replace(WIDE, at_once=1)
    ),
    "before another try": lambda: Case(
        cell("llm_query('a')"), noted("no_answer"), leaf=Refusal(429, retry_after_seconds=200)
    ),
    "before another try of the root": lambda: Case(Refusal(503), noted("no_answer")),
    "in a repair": lambda: Case(
        lambda request: Silence() if request.turn else Reply("seven"),
        noted("answer_invalid"),
        schema={"type": "integer"},
        recursive=False,
    ),
    "while notes are written": lambda: Case(compacting, started("call", nth=3)),
    "in a tool": lambda: Case(cell("work()"), started("call", depth=1), tools=(tool(sleeping),)),
    "in a tool that blocks": lambda: Case(cell("work()"), started("call", depth=1), tools=(tool(blocking),)),
    "in children two deep": lambda: Case(nested, started("call", depth=3, nth=4)),
    "while children open": lambda: Case(nested, started("call", depth=2)),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_a_run_that_is_cancelled_is_over_at_once_wherever_it_is(
    sandbox: LocalSandbox, tmp_path: Path, case: Callable[[], Case]
) -> None:
    made_of = case()
    point = Point(made_of.here)
    pool = open_pool(made_of.budget)

    async def hear(text: str) -> None:
        point.reached.set()

    over, oracle = anyio.Event(), Oracle("again")

    async def script(request: Request) -> Turn:
        if over.is_set():
            return oracle(request)
        steers = request.model == "root" or request.tools
        return await turn_of(made_of.root if steers else made_of.leaf, request)

    async with scene(sandbox, script, wire=made_of.wire) as made:
        job = Job(
            "Do it.",
            contexts=made_of.contexts,
            schema=made_of.schema,
            sub_model="leaf",
            budget=made_of.budget,
            recursive=made_of.recursive,
            tools=made_of.tools,
        )

        def look(event: Event) -> None:
            made.events.append(event)
            point.hear(event)

        async def go(log: Log) -> None:
            await run(
                job,
                ladder=Ladder([made.model]),
                rooms=made.rooms,
                log=log,
                pool=pool,
                store=AnswerStore(tmp_path / "answers"),
                retries=PATIENT,
                on_event=look,
                on_text=hear if made_of.streams else None,
            )

        with anyio.fail_after(30):
            async with nothing_left_behind():
                async with open_log(tmp_path, "cancelled") as log, anyio.create_task_group() as tasks:
                    tasks.start_soon(go, log)
                    await point.reached.wait()
                    tasks.cancel_scope.cancel()
            await made.server.until(lambda server: server.at_once == 0)
            assert_all_ended(made)
            assert pool.in_flight == 0
            over.set()
            await assert_can_be_asked_again(made, oracle)

    last = (await anyio.Path(tmp_path / "cancelled.jsonl").read_text()).splitlines()[-1]
    assert '"kind":"run_ended"' in last and '"finish":"cancelled"' in last


def assert_all_ended(made: Scene) -> None:
    """Each call and cell that was started has ended in the log, and the run last."""
    for what in ("call", "cell"):
        begun = sorted(event["call_id"] for event in made.of(f"{what}_started"))
        assert begun == sorted(event["call_id"] for event in made.of(f"{what}_ended"))
    assert made.events[-1]["kind"] == "run_ended"


async def assert_can_be_asked_again(made: Scene, oracle: Oracle) -> None:
    """What was left behind of connections holds up nobody who comes later."""
    said = list[str]()

    async def one(number: int) -> None:
        said.append((await made.run(f"question {number}", recursive=False)).response)

    async with anyio.create_task_group() as tasks:
        for number in range(OFTEN):
            tasks.start_soon(one, number)
    assert sorted(said) == sorted(oracle.says(f"question {number}") for number in range(OFTEN))
