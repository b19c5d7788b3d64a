"""How long it takes until a server answers, until its commands have spoken, and until it is gone."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from . import processes
from .common import clocked, in_thread
from .measuring import Bar, Contender, Row, Table, in_turns, ratios
from .servers import BARE, OURS, PEER, Bench, Server, environment_of
from .wire_client import Era, ServerFailed

_SLEEP_SECONDS = 1.0
_LEFT_SECONDS = 1.0
_NOTHING = "Python that does nothing"
_EXIT_BAR = Bar(0.3, "<= 0.3 s")


async def measure_starts(bench: Bench, rounds: int) -> list[Table]:
    """Measure the time from the start of a process to its first answer, and to the first result of a tool."""
    results: dict[str, list[float]] = {}
    processor: dict[str, list[float]] = {}

    def start(name: str, server: Server, era: Era) -> Contender:
        def act() -> float:
            with bench.started(server) as client:
                seconds = client.greet(era)
                processor.setdefault(name, []).append(processes.processor_seconds(client.pid))
                client.call(server.value("1+1"))
                results.setdefault(name, []).append(time.perf_counter() - client.began)
                return seconds

        return in_thread(act)

    contenders = {
        _named(server.name, era): start(_named(server.name, era), server, era)
        for server in bench.servers
        for era in server.eras
    }
    greeted = await in_turns(contenders, rounds=rounds, seldom={PEER: max(1, rounds // 2)})
    counted = {name: len(values) for name, values in greeted.items()}
    return [
        Table("Start to the answer to `initialize` (2026: `server/discover`)", _rows(greeted), BARE),
        _times_bare(greeted, bench[OURS].eras),
        Table("Processor time of the server until then", _rows(_last(processor, counted)), BARE),
        Table(
            "Start to the first result of a tool (ours starts a jail for it)",
            _rows(_last(results, counted)),
            BARE,
        ),
    ]


def _named(name: str, era: Era) -> str:
    return name if era == "2025" else f"{name}, {era}"


def _rows(found: dict[str, list[float]]) -> list[Row]:
    return [Row(name, values) for name, values in found.items()]


def _last(found: dict[str, list[float]], counts: dict[str, int]) -> dict[str, list[float]]:
    """Leave out what was found in the round that does not count."""
    return {name: found[name][-count:] for name, count in counts.items()}


def _times_bare(greeted: dict[str, list[float]], eras: Sequence[Era]) -> Table:
    bar = Bar(1.15, "<= 1.15 x")
    rows = [
        Row(_named(OURS, era), ratios(greeted[_named(OURS, era)], greeted[_named(BARE, era)]), "x", bar)
        for era in eras
    ]
    return Table("The same as so many times the bare server's, round for round", rows)


# ---- commands


async def measure_commands(bench: Bench, rounds: int) -> list[Table]:
    """Measure what it takes to import the server, and to be told its version and its options."""
    bars = {f"{OURS} --version": Bar(0.2, "<= 0.2 s"), f"{OURS} --help": Bar(0.3, "<= 0.3 s")}
    contenders = {
        name: clocked(partial(_run, server, words, bench.folder))
        for server in bench.servers
        for name, words in _commands(server).items()
    }
    seldom = {name: max(1, rounds // 3) for name in contenders if name.startswith(PEER)}
    found = await in_turns(contenders, rounds=rounds, seldom=seldom)
    rows = [Row(name, values, bar=bars.get(name)) for name, values in found.items()]
    return [Table("A command, until it has ended", rows, _NOTHING)]


def _commands(server: Server) -> dict[str, list[str]]:
    python, name = sys.executable, server.name
    if name == OURS:
        return {
            f"{name} --version": [python, "-m", "rlm_mcp", "--version"],
            f"{name} --help": [python, "-m", "rlm_mcp", "--help"],
            f"{name}: import its server": [python, "-c", "import rlm_mcp.server, rlm_mcp.stdio"],
        }
    if name == BARE:
        return {
            _NOTHING: [python, "-c", "pass"],
            f"{name}: import the SDK": [python, "-c", "import mcp.server"],
        }
    program = server.command[0]
    own_python = str(Path(program).with_name("python"))
    return {
        f"{name} --version": [program, "--version"],
        f"{name} --help": [program, "--help"],
        f"{name}: import rlm": [own_python, "-c", "import rlm"],
    }


def _run(server: Server, words: Sequence[str], folder: Path) -> None:
    done = subprocess.run(
        words, check=False, capture_output=True, env=environment_of(server, folder), cwd=folder
    )
    if done.returncode:
        raise ServerFailed(server.name, f"{words[-1]!r} ended with {done.returncode}", done.stderr.decode())


# ---- the end


async def measure_exits(bench: Bench, rounds: int) -> list[Table]:
    """Measure the time from the end of a server's input to its own, and look for processes that it left."""
    left: dict[str, list[float]] = {}

    def end(name: str, server: Server, *, at_work: bool) -> Contender:
        def act() -> float:
            with bench.opened(server) as client:
                client.call(server.value("1+1"))
                if at_work:
                    client.send_call(server.cell(f"import time\ntime.sleep({_SLEEP_SECONDS})"))
                    time.sleep(_SLEEP_SECONDS / 4)
                started = processes.known(client.pid)
                seconds = client.end()
                left.setdefault(name, []).append(processes.left_after(started, _LEFT_SECONDS))
                return seconds

        return in_thread(act)

    cases = {
        f"{server.name}{', a call at work' if at_work else ''}": (server, at_work)
        for at_work in (False, True)
        for server in bench.servers
    }
    contenders = {name: end(name, server, at_work=at_work) for name, (server, at_work) in cases.items()}
    seldom = {name: max(1, rounds // 2) for name in cases if not name.startswith(OURS)}
    found = await in_turns(contenders, rounds=rounds, seldom=seldom)
    rows = [Row(n, values, bar=_EXIT_BAR if n.startswith(OURS) else None) for n, values in found.items()]
    none = Bar(0, "none")
    remains = [Row(n, [max(left[n])], "processes", none if n.startswith(OURS) else None) for n in found]
    note = f"The call at work sleeps, and would for {_SLEEP_SECONDS * 3 / 4:g} s more."
    return [
        Table("End of the input to the end of the server", rows, BARE, [note]),
        Table(f"Processes of it that are left {_LEFT_SECONDS:g} s later, at most", remains),
    ]
