"""How long it takes until there is a session."""

from __future__ import annotations

from functools import partial

import anyio.to_thread

from rlm_sandboxes.local import LocalSandbox

from . import peers
from .common import JUPYTER, PLAIN, clocked, project_folder, seconds_to_open
from .measuring import Bar, Batch, Contender, Row, Table, batches_in_turns

_LOADED = ("numpy", "pandas")
_FRAME = "import numpy, pandas\nprint(pandas.DataFrame({'a': numpy.arange(3)}).a.sum())"
_KERNELS = 3
_BATCH = 5
_BARS = {
    "session, ready": Bar(0.005, "<= 5 ms"),
    "session with numpy and pandas, ready": Bar(0.012, "<= 12 ms"),
}


async def measure(rounds: int) -> list[Table]:
    """Measure a new session, with every layer on and the zygote warm."""
    with project_folder() as project:
        async with LocalSandbox() as sandbox, LocalSandbox(preload=_LOADED) as loaded:
            for warmed_up in (sandbox, loaded):
                await seconds_to_open(warmed_up)
            contenders: dict[str, Contender] = {
                "session, ready": lambda: seconds_to_open(sandbox),
                "session, first answer": lambda: seconds_to_open(sandbox, code="1+1"),
                "session with a project, ready": lambda: seconds_to_open(sandbox, project=project),
                "session with numpy and pandas, ready": lambda: seconds_to_open(loaded),
                "session with numpy and pandas, first sum": lambda: seconds_to_open(loaded, code=_FRAME),
                "python -I -S -c pass": clocked(peers.bare_python),
                f"{PLAIN}, first answer": clocked(_first_answer_of_plain),
            }
            cold: dict[str, list[float]] = {}
            batches: dict[str, Batch] = {
                name: partial(_batch, act, cold.setdefault(name, [])) for name, act in contenders.items()
            }
            kernel = f"{JUPYTER}, first answer"
            batches[kernel] = _kernel
            found = await batches_in_turns(batches, rounds=rounds, seldom={kernel: _KERNELS})
    rows = [Row(name, values, bar=_BARS.get(name)) for name, values in found.items()]
    first = [Row(name, values) for name, values in cold.items()]
    return [
        Table("A new session, every layer on, warm zygote", rows, f"{PLAIN}, first answer"),
        Table("The same, each right after something else ran", first, f"{PLAIN}, first answer"),
    ]


async def _batch(contender: Contender, cold: list[float]) -> list[float]:
    """Return what was measured in a batch, and put its first apart, which the others' traces slow down."""
    cold.append(await contender())
    return [await contender() for _ in range(_BATCH)]


async def _kernel() -> list[float]:
    return [await anyio.to_thread.run_sync(peers.seconds_to_first_answer_of_kernel)]


def _first_answer_of_plain() -> None:
    with peers.plain_repl() as repl:
        assert repl.ask("1+1")["value"] == "2"
