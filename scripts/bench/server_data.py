"""Large values and large outputs: how long they take, how much of them comes back, and what they weigh."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

from . import processes
from .measuring import Bar, Table
from .servers import MAIN, OURS, Bench, Server
from .sums import Sums
from .wire_client import Answer, Call, WireClient

_MEGABYTE = 1_000_000
_LINE = "a line of a log, forty characters of it\n"
_REPEATS = 20
_SMALL_ANSWER = Bar(500, "<= 500 B")
_SETTING_BARS = {10: Bar(0.110, "<= 110 ms"), 100: Bar(1.2, "<= 1.2 s")}
_PEAK_BARS = {100: Bar(600 * _MEGABYTE, "<= 6 x the text")}
_SHORT_ANSWER = Bar(50_000, "<= 50 kB")


# ---- values


async def measure_values(bench: Bench, rounds: int) -> list[Table]:
    """Measure setting a large text, by value and by file, and calls while it is held."""
    sums = Sums()
    for number in range(rounds):
        for server in _turned(bench, number):
            _value(bench, server, 10, sums, by_file=False)
            if server.name == OURS:
                _value(bench, server, 100, sums, by_file=True)
            elif number == 0 and not bench.quick:
                _value(bench, server, 100, sums, by_file=False)
    return sums.tables()


def _value(bench: Bench, server: Server, megabytes: int, sums: Sums, *, by_file: bool) -> None:
    text = _LINE * (megabytes * _MEGABYTE // len(_LINE))
    row = f"{server.name}, by {'file' if by_file else 'value'}"
    times, bar = f"of {megabytes} MB", _SETTING_BARS[megabytes]
    with bench.opened(server) as client:
        client.call(server.value("1+1"))
        call = _loading(client.folder, text) if by_file else server.set_value("big", text, MAIN)
        answer = client.call(call)
        sums.add(f"Setting a text {times}", row, answer.seconds, bar=bar)
        sums.add(f"Answer to setting a text {times}", row, answer.size_bytes, unit="B", bar=_SMALL_ANSWER)
        _held(client, server, megabytes, sums, row)
        peak = processes.peak_bytes(client.pid)
        sums.add(
            f"Peak memory, server and session, {times}",
            row,
            peak,
            unit="bytes",
            bar=_PEAK_BARS.get(megabytes),
        )


def _loading(project: Path, text: str) -> Call:
    path = project / "big.txt"
    path.write_text(text)
    return "set_repl_context", {"files": {"big": str(path)}}


def _held(client: WireClient, server: Server, megabytes: int, sums: Sums, row: str) -> None:
    """Measure calls in a session that holds a large text, from right after it was set.

    The first one of each is counted only where the slowest is looked for: it may come while the text is still
    being written down.
    """
    slowest = 0.0
    session = "" if row.endswith("file") else MAIN
    length = f"len({server.variable.format('big')})"
    for number in range(_REPEATS + 1):
        for what, expression, most in (
            ("`len` of it", f"{length} + {number}", 0.003),
            ("`1+i` beside it", f"1 + {number}", 0.0015),
        ):
            seconds = client.call(_in_session(server, expression, session)).seconds
            slowest = max(slowest, seconds)
            if number:
                bar = Bar(most, f"<= {most * 1000:g} ms")
                sums.add(f"With {megabytes} MB held: {what}", row, seconds, bar=bar)
    sums.add(f"With {megabytes} MB held: the slowest of these", row, slowest)


def _in_session(server: Server, expression: str, session: str) -> Call:
    """Return the call that shows a value; files are loaded into the session of the project's own folder."""
    name, arguments = server.value(expression, session)
    return name, {key: value for key, value in arguments.items() if value != ""}


def _turned(bench: Bench, number: int) -> tuple[Server, ...]:
    first = number % len(bench.servers)
    return bench.servers[first:] + bench.servers[:first]


# ---- outputs


async def measure_outputs(bench: Bench, rounds: int) -> list[Table]:
    """Measure printing much, as one line and as many, and how much of it comes back."""
    sums = Sums()
    cells = {
        "10 MB in one line": "print('x' * (10_000_000 + {}))",
        "10 MB in 100,000 lines": "for line in range(100_000): print('x' * 99)\ny = {}",
    }
    with ExitStack() as stack:
        clients = {server.name: stack.enter_context(bench.opened(server)) for server in bench.servers}
        for number in range(-1, rounds):  # the first round is not counted
            for server in _turned(bench, number):
                for what, cell in cells.items():
                    answer = clients[server.name].call(server.cell(cell.format(number)))
                    if number >= 0:
                        _printed(sums, server.name, what, answer)
    return sums.tables()


def _printed(sums: Sums, name: str, what: str, answer: Answer) -> None:
    bar = Bar(0.060, "<= 60 ms") if "one line" in what else None
    sums.add(f"Printing {what}", name, answer.seconds, bar=bar)
    sums.add(f"Answer to printing {what}", name, answer.size_bytes, unit="B", bar=_SHORT_ANSWER)
