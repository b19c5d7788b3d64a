"""A log grows with what was said, in all kinds of runs: with what went to and from models, and with its events.

What was said is measured twice, by somebody else and by the log: as the bytes of all requests and answers, counted by
the model that got them, and as all texts that the log tells of, each once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.budget import Budget
from rlm_runtime.log import open_log
from rlm_runtime.tools import Tool
from rlm_runtime.trajectory import read
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Reply, Request, by_model, conversation
from tests.runtime.runs import code, scene

MANY = Budget(max_subcalls=10_000, tokens=None, at_once=16)
EACH_EVENT_BYTES = 400
SAID = ("prompt", "response", "code", "tool_calls", "tool_results")
NUMBER = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@dataclass(frozen=True)
class Size:
    """How large a log is, and what it is of."""

    log_bytes: int
    carried_bytes: int
    text_bytes: int
    events: int


def _leaf(request: Request) -> Reply:
    return Reply(request.prompt[-3:].upper())


def _mistaken_once(request: Request) -> Reply:
    return Reply('{"n": 3}' if len(request.body["messages"]) > 1 else '{"n": "three"}')


def _shout(text: str) -> str:
    return text.upper()


SHOUT = Tool("shout", "Shout.", {"type": "object", "properties": {"text": {"type": "string"}}}, _shout)

RUNS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "many tiny calls": (["print(len(llm_map([f'is {n} odd' for n in range(300)])))"], {}),
    "a long context in parts": (
        ["print(len(llm_map([context[n : n + 10_000] for n in range(0, 500_000, 10_000)])))"],
        {"contexts": {"context": "".join(f"{n:07d} " for n in range(62_500))}},
    ),
    "many turns": ([f"x{n} = {n}\nprint('seen {n} ' * 50)" for n in range(25)], {}),
    "many short turns": ([f"print({n})" for n in range(25)], {}),
    "children": (["print(rlm_map('count it', contexts=['abc' * n for n in range(8)], model='child'))"], {}),
    "typed answers that are mended": (
        [f"print(llm_map([f'give n of {{n}}' for n in range(30)], schema={NUMBER}, model='typed'))"],
        {},
    ),
}
TOOLS = ["print([shout(text=f'text {n}') for n in range(60)])"], {"tools": (SHOUT,)}
NOT_FROM_MODELS = {"calls of tools by code": TOOLS}


async def _sized(sandbox: LocalSandbox, folder: Path, cells: list[str], job: dict[str, Any]) -> Size:
    root = conversation(*(code(cell, wire="openai") for cell in cells), Reply("All is done."))
    child = conversation(code("print(len(context))", wire="openai"), Reply("It is counted."))
    models = by_model({"root": root, "leaf": _leaf, "child": child, "typed": _mistaken_once})
    async with scene(sandbox, models) as made:
        with anyio.fail_after(60):
            async with open_log(folder) as log:
                outcome = await made.run(log=log, budget=MANY, **job)
        assert outcome.finish == "answered"
        return await anyio.to_thread.run_sync(
            _size, folder / f"{log.trajectory_id}.jsonl", made.server.carried_bytes
        )


def _size(path: Path, carried_bytes: int) -> Size:
    found = read(path)
    wholes = [found.whole(event) for event in found.events]
    texts = {text for event in wholes for name in SAID for text in _texts(event.get(name))}
    said = sum(len(text.encode()) for text in texts)
    return Size(path.stat().st_size, carried_bytes, said, len(found.events))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:  # pyright: ignore[reportUnknownVariableType]
            yield from _texts(each)


@pytest.mark.parametrize("kind", RUNS)
async def test_a_log_is_not_larger_than_three_times_what_went_to_and_from_models(
    sandbox: LocalSandbox, tmp_path: Path, kind: str
) -> None:
    size = await _sized(sandbox, tmp_path, *RUNS[kind])

    assert size.log_bytes < 3 * size.carried_bytes


@pytest.mark.parametrize("kind", RUNS | NOT_FROM_MODELS)
async def test_a_log_is_twice_its_texts_and_some_hundred_bytes_for_each_event(
    sandbox: LocalSandbox, tmp_path: Path, kind: str
) -> None:
    size = await _sized(sandbox, tmp_path, *(RUNS | NOT_FROM_MODELS)[kind])

    assert size.log_bytes < 2 * size.text_bytes + EACH_EVENT_BYTES * size.events


async def test_a_log_of_turns_with_texts_is_not_larger_than_three_times_these(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    size = await _sized(sandbox, tmp_path, *RUNS["many turns"])

    assert size.log_bytes < 3 * size.text_bytes
