"""How long it takes until there is a session."""

from __future__ import annotations

from rlm_sandboxes.local import LocalSandbox

from . import peers
from .common import JUPYTER, PLAIN, clocked, in_thread, project_folder, seconds_to_open
from .measuring import Bar, Contender, Row, Table, in_turns

_LOADED = ("numpy", "pandas")
_FRAME = "import numpy, pandas\nprint(pandas.DataFrame({'a': numpy.arange(3)}).a.sum())"
_KERNELS = 3
_BARS = {
    "session, ready": Bar(0.005, "<= 5 ms"),
    "session with numpy and pandas, ready": Bar(0.012, "<= 12 ms"),
}


async def measure(rounds: int) -> list[Table]:
    """Measure a new session, with every layer on and the zygote warm."""
    with project_folder() as project:
        async with LocalSandbox() as sandbox, LocalSandbox(preload=_LOADED) as loaded:
            contenders: dict[str, Contender] = {
                "session, ready": lambda: seconds_to_open(sandbox),
                "session, first answer": lambda: seconds_to_open(sandbox, code="1+1"),
                "session with a project, ready": lambda: seconds_to_open(sandbox, project=project),
                "session with numpy and pandas, ready": lambda: seconds_to_open(loaded),
                "session with numpy and pandas, first sum": lambda: seconds_to_open(loaded, code=_FRAME),
                "python -I -S -c pass": clocked(peers.bare_python),
                f"{PLAIN}, first answer": clocked(_first_answer_of_plain),
                f"{JUPYTER}, first answer": in_thread(peers.seconds_to_first_answer_of_kernel),
            }
            found = await in_turns(contenders, rounds=rounds, seldom={f"{JUPYTER}, first answer": _KERNELS})
    rows = [Row(name, values, bar=_BARS.get(name)) for name, values in found.items()]
    return [Table("A new session, every layer on, warm zygote", rows, f"{PLAIN}, first answer")]


def _first_answer_of_plain() -> None:
    with peers.plain_repl() as repl:
        assert repl.ask("1+1")["value"] == "2"
