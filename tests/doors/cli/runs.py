"""Trajectories as a run writes them, for tests of what shows them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio

from rlm_runtime.trajectory import Log, open_log

RUN: dict[str, Any] = {"call_id": "0", "parent_call_id": "", "depth": 0}
USAGE = {"input_tokens": 1000, "output_tokens": 204}
PROMPT = "How many errors are in the log?"


def write(folder: Path, **options: Any) -> str:
    """Write a trajectory and return its id."""
    return anyio.run(lambda: written(folder, **options))


async def written(
    folder: Path,
    *,
    finish: str = "answered",
    cut: bool = False,
    model: str = "gpt-test",
    id_: str | None = None,
    **facts: Any,
) -> str:
    """Write a trajectory and return its id."""
    async with open_log(folder, id_) as log:
        await begin(log, model)
        if not cut:
            await end(log, finish, **facts)
    return log.trajectory_id


async def begin(log: Log, model: str = "gpt-test") -> None:
    """Write what happens before the end."""
    contexts = {"context": await log.keep("line\n" * 1000)}
    await log.write("run_started", **RUN, prompt=PROMPT, model=model, contexts=contexts)
    root: dict[str, Any] = {"call_id": log.call_id("0"), "parent_call_id": "0", "depth": 0}
    messages = [{"role": "system", "content": "You have a REPL. " * 50}, {"role": "user", "content": PROMPT}]
    await log.write("call_started", **root, name="root", prompt=messages, model=model)
    await log.write(
        "call_ended", **root, response="I ask.", token_usage=USAGE, cost_usd=0.01, duration_ms=1500.0
    )
    await log.write("cell_started", **RUN, code="print(llm_query('count'))")
    leaf: dict[str, Any] = {"call_id": log.call_id("0"), "parent_call_id": "0", "depth": 1}
    asked = [{"role": "user", "content": "count \x1b[31m"}]
    await log.write("call_started", **leaf, name="llm_query", prompt=asked, model="small")
    error = {"kind": "ModelBusy", "message": "too many requests"}
    await log.write("call_ended", **leaf, error=error, duration_ms=20.0)
    await log.write("cell_ended", **RUN, tool_results=[{"output": "42\n"}], duration_ms=25.0)


async def end(log: Log, finish: str = "answered", **more: Any) -> None:
    """Write the end."""
    facts: dict[str, Any] = {"finish": finish, "cost_usd": 0.01, "duration_ms": 1600.0} | more
    facts["token_usage"] = {"total_tokens": 1204}
    await log.write("run_ended", **RUN, response="42", calls=1, depth_reached=1, **facts)
