"""A model for the benchmark of the runtime, in a process of its own, so that it works beside who is measured.

    python -m scripts.bench.runtime_model

It prints its address and that of a relay which counts what goes over it, and serves until its input ends. Each line
that comes in is answered with the bytes that went over the relay until then, and those of the texts that were said.

What it answers depends on the name of the model that is asked: `leaf` says yes after 50 ms, `ready` at once, and
`<who>-<what>` writes the program `what` in the form of `who`: ours, rlms or dspy. All come at once but `late`, which
takes 50 ms. A program ends the run that it belongs to with the seconds that it measured.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import anyio
import anyio.abc

from tests.fakes.models import Refusal, Reply, Request, ScriptedModel, ToolCall, Turn

LEAF_SECONDS, YES = 0.050, "yes"
CALLS, BATCHES, CHILDREN = 100, 3, 16

_MEANS = {
    "ours": """
ask_all, end, done = llm_map, final, "done"
def child(model):
    return rlm_query(f"Say done: {context[:40]}", context, model=f"ours-{model}")
def children(count):
    prompts = [f"Say done: {context[:40]} {n}" for n in range(count)]
    return rlm_map(prompts, contexts=[context] * count, model="ours-done")
""",
    "rlms": """
ask_all, done = llm_query_batched, "done"
def child(model):
    return rlm_query(f"Say done: {context[:40]}", model=f"rlms-{model}")
def end(value):
    answer["content"] = str(value)
    answer["ready"] = True
""",
    "dspy": "ask_all, end, done = llm_query_batched, SUBMIT, [1.0]\n",
}
_BATCHES = """
import time
seconds = []
for batch in range(BATCHES):
    prompts = [f"{context} {batch}.{n}: is it so?" for n in range(CALLS)]
    began = time.perf_counter()
    answers = ask_all(prompts)
    seconds.append(time.perf_counter() - began)
    assert list(answers) == ["yes"] * CALLS, answers
end(seconds)
"""
_CHILD = """
import time
began = time.perf_counter()
said = child(MODEL)
seconds = [time.perf_counter() - began]
assert str(said) == "done", said
end(seconds)
"""
_PROGRAMS = {
    "batches": f"BATCHES, CALLS = {BATCHES}, {CALLS}\n{_BATCHES}",
    "batch": f"BATCHES, CALLS = 1, {CALLS}\n{_BATCHES}",
    "child": f"MODEL = 'done'\n{_CHILD}",
    "late-child": f"MODEL = 'late'\n{_CHILD}",
    "children": f"""
import time
began = time.perf_counter()
said = children({CHILDREN})
seconds = [(time.perf_counter() - began) / {CHILDREN}]
assert list(said) == ["done"] * {CHILDREN}, said
end(seconds)
""",
    "said": """
answers = ask_all([f"{n}: {context}" for n in range(100)])
end([float(len(answers.ok))])
""",
    "done": "end(done)\n",
    "late": "end(done)\n",
}


def main() -> None:
    """Serve until the input ends."""
    anyio.run(_serve)


@dataclass
class _Count:
    wire: int = 0
    texts: int = 0


async def _serve() -> None:
    count = _Count()

    def answer(request: Request) -> Turn:
        turn = _turn(request)
        count.texts += len(request.text.encode()) + (len(turn.text) if isinstance(turn, Reply) else 0)
        return turn

    async with (
        ScriptedModel(answer) as model,
        await anyio.create_tcp_listener(local_host="127.0.0.1") as relay,
    ):
        port = relay.extra(anyio.abc.SocketAttribute.local_port)
        target = int(model.url.rpartition(":")[2])

        async def carry(client: anyio.abc.SocketStream) -> None:
            server = await anyio.connect_tcp("127.0.0.1", target)
            async with client, server, anyio.create_task_group() as tasks:
                tasks.start_soon(_carry, client, server, count)
                tasks.start_soon(_carry, server, client, count)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.serve, carry)
            _say([model.url, f"http://127.0.0.1:{port}"])
            async for _ in anyio.wrap_file(sys.stdin):
                _say([count.wire, count.texts])
            tasks.cancel_scope.cancel()


async def _carry(source: anyio.abc.SocketStream, target: anyio.abc.SocketStream, count: _Count) -> None:
    try:
        async for data in source:
            count.wire += len(data)
            await target.send(data)
        await target.send_eof()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError, OSError):
        pass  # one side has gone, and the other sees it


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


def _turn(request: Request) -> Turn:
    if request.model in {"leaf", "ready"}:
        return Reply(YES, delay_seconds=LEAF_SECONDS if request.model == "leaf" else 0.0)
    who, _, what = request.model.partition("-")
    if who not in _MEANS or what not in _PROGRAMS:
        return Refusal(404, f"The model {request.model} does not exist.", code="model_not_found")
    if request.turn:
        return Refusal(400, f"The program failed:\n{request.text[-2000:]}")
    code, seconds = f"{_MEANS[who]}{_PROGRAMS[what]}", LEAF_SECONDS if what == "late" else 0.0
    if who == "ours":
        return Reply("", (ToolCall("run_python", {"code": code}),), delay_seconds=seconds)
    if who == "rlms":
        return Reply(f"```repl{code}```", delay_seconds=seconds)
    told = {"reasoning": "It is so.", "code": f"```python\n{code}```", "completed": ""}
    return Reply("\n\n".join(f"[[ ## {name} ## ]]\n{text}" for name, text in told.items()))


if __name__ == "__main__":
    main()
