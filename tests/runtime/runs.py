"""Runs for tests: a scripted model over HTTP, the real jail, and what is left of them."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import anyio
import anyio.to_thread
import pytest

from rlm_runtime.answers import Ladder
from rlm_runtime.budget import Budget
from rlm_runtime.cache import AnswerStore
from rlm_runtime.events import Event
from rlm_runtime.log import Log
from rlm_runtime.models.anthropic import AnthropicModel
from rlm_runtime.models.openai import OpenAIModel
from rlm_runtime.models.prices import Price, Prices
from rlm_runtime.retries import Retries
from rlm_runtime.rooms import Rooms
from rlm_runtime.run import Job, Outcome, run
from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Policy
from tests.fakes.models import Answer, Reply, ScriptedModel, ToolCall

Wire: TypeAlias = Literal["openai", "anthropic", "fenced"]

WIRES = pytest.mark.parametrize("wire", ["openai", "anthropic", "fenced"])
WIDE = Budget(max_subcalls=10_000, tokens=None, at_once=16)
SOON = Retries(tries=6, first_seconds=0.001, most_seconds=0.002, chance=lambda: 0.0)
PRICES = Prices({name: Price(1.0, 1.0) for name in ("root", "leaf", "child")})
LIMITS = Limits(wall_seconds=60, grace_seconds=0.5)


def code(text: str, *, wire: Wire, words: str = "") -> Reply:
    """Return a reply that has some code run."""
    if wire == "fenced":
        return Reply(f"{words}\n```repl\n{text}\n```\n")
    return Reply(words, (ToolCall("run_python", {"code": text}),))


@dataclass
class Scene:
    """A model, a sandbox and a log, and the events of all runs."""

    server: ScriptedModel
    model: OpenAIModel | AnthropicModel
    rooms: Rooms
    wire: Wire
    store: AnswerStore | None = None
    events: list[Event] = field(default_factory=list[Event])

    async def run(self, prompt: str = "Do it.", *, log: Log | None = None, **job: Any) -> Outcome:
        """Run a job with the models "root" and "leaf"."""
        facts: dict[str, Any] = {"budget": WIDE, "sub_model": "leaf", "recursive": True} | job
        heard = facts.pop("on_text", None)
        return await run(
            Job(prompt, **facts),
            ladder=Ladder([self.model]),
            rooms=self.rooms,
            log=log or Log.nowhere(),
            store=self.store,
            retries=SOON,
            on_event=self.events.append,
            on_text=heard,
        )

    def of(self, kind: str, **facts: Any) -> list[Event]:
        """Return the events of a kind that have these facts."""
        return [
            event
            for event in self.events
            if event["kind"] == kind and all(event.get(name) == value for name, value in facts.items())
        ]

    def outputs(self) -> list[str]:
        """Return what the cells printed."""
        return [event["tool_results"][0]["output"] for event in self.of("cell_ended")]


@asynccontextmanager
async def scene(
    sandbox: LocalSandbox,
    script: Answer | list[Answer],
    *,
    wire: Wire = "openai",
    store: AnswerStore | None = None,
    windows: Mapping[str, int] | None = None,
    policy: Policy = "auto",
    **limits: Any,
) -> AsyncGenerator[Scene]:
    """Open a scene with a model that follows `script`."""
    given: dict[str, Any] = {"api_key": "key", "prices": PRICES, "windows": windows or {"root": 200_000}}
    async with ScriptedModel(script) as server:  # type: ignore[arg-type]
        if wire == "anthropic":
            model: OpenAIModel | AnthropicModel = AnthropicModel("root", api_base=server.url, **given)
        else:
            model = OpenAIModel("root", api_base=f"{server.url}/v1", native_tools=wire == "openai", **given)
        async with model:
            yield Scene(
                server, model, Rooms(sandbox, limits=replace(LIMITS, **limits), policy=policy), wire, store
            )


# ---- what is left behind


def descendants(of: int | None = None) -> set[int]:
    """Return the processes that this one started, and those started by them; none where the system does not tell."""
    listed = Path("/proc").iterdir() if Path("/proc/self/stat").exists() else ()
    parents = dict(each for each in map(_parent_of, listed) if each is not None)
    found, level = set[int](), {of or os.getpid()}
    while level:
        level = {pid for pid, parent in parents.items() if parent in level} - found
        found |= level
    return found


def _parent_of(entry: Path) -> tuple[int, int] | None:
    if not entry.name.isdecimal():
        return None
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except OSError:
        return None  # it has just ended
    return None if state == "Z" else (int(entry.name), int(parent))


def folders() -> set[Path]:
    """Return what lies in the folder for temporary things."""
    return set(Path(tempfile.gettempdir()).iterdir())


@asynccontextmanager
async def nothing_left_behind() -> AsyncGenerator[None]:
    """Fail if what is done meanwhile leaves a process or a folder behind."""
    processes, there = await anyio.to_thread.run_sync(descendants), await anyio.to_thread.run_sync(folders)
    yield
    assert await anyio.to_thread.run_sync(descendants) <= processes
    assert await anyio.to_thread.run_sync(folders) <= there
