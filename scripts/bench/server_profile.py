"""Where the time of our own server goes: in its imports, and in the calls of tools."""

from __future__ import annotations

import io
import pstats
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from .server_calls import Cells, burst
from .servers import OURS, Bench, environment_of
from .wire_client import WireClient

_SHOWN = 30
_PROFILED = """
import cProfile, os, sys
target, started, leave, profile = sys.argv.pop(1), os.getpid(), os._exit, cProfile.Profile()
def left(code):
    if os.getpid() == started:
        profile.disable()
        profile.dump_stats(target)
    leave(code)
os._exit = left
import rlm_mcp.cli.serve, rlm_mcp.server, rlm_mcp.stdio, rlm_sandboxes.local, rlm_sessions
from rlm_mcp.cli.main import main
profile.enable()
sys.exit(main())
"""
_IMPORT = re.compile(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)")


def imports(bench: Bench) -> str:
    """Return how much of the time of importing our server each package takes."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import rlm_mcp.server, rlm_mcp.stdio, rlm_mcp.cli.serve"],
        check=True,
        capture_output=True,
        text=True,
        env=environment_of(bench[OURS], bench.folder),
        cwd=bench.folder,
    )
    spent: dict[str, int] = defaultdict(int)
    for own, _, _, module in _IMPORT.findall(done.stderr):
        spent[module.split(".")[0]] += int(own)
    most = sorted(spent.items(), key=lambda one: -one[1])[:_SHOWN]
    lines = [f"  {microseconds / 1000:8.1f} ms  {package}" for package, microseconds in most]
    return "\n".join([f"Imports: {sum(spent.values()) / 1000:.0f} ms, by package", *lines])


def calls(bench: Bench) -> str:
    """Return which functions of our server's process calls spend their time in."""
    server = bench[OURS]

    def one_by_one(cell: str, count: int, client: WireClient) -> None:
        for number in range(count):
            client.call(server.cell(cell.format(number)))

    def at_once(sessions: int, client: WireClient) -> None:
        burst(client, server, sessions, Cells())

    lines = "for line in range(100_000): print('x' * 99)\ny = {}"
    cases: dict[str, Callable[[WireClient], None]] = {
        "1,000 trivial calls, one after another": partial(one_by_one, "1+{}", 1000),
        "500 trivial calls, 50 in flight to one session": partial(at_once, 1),
        "500 trivial calls, 50 in flight to 50 sessions": partial(at_once, 50),
        "10 cells that print 10 MB in one line": partial(one_by_one, "print('x' * (10_000_000 + {}))", 10),
        "10 cells that print 10 MB in 100,000 lines": partial(one_by_one, lines, 10),
    }
    return "\n".join(_profiled(bench, title, act) for title, act in cases.items())


def _profiled(bench: Bench, title: str, act: Callable[[WireClient], None]) -> str:
    target = bench.folder / "calls.prof"
    server = replace(bench[OURS], command=(sys.executable, "-c", _PROFILED, str(target), "serve"))
    with bench.opened(server) as client:
        act(client)
        client.end()
    return f"{title}: functions by their own time\n{_functions(target)}"


def _functions(profile: Path) -> str:
    text = io.StringIO()
    statistics = pstats.Stats(str(profile), stream=text)
    statistics.strip_dirs().sort_stats("tottime").print_stats(_SHOWN)
    return text.getvalue()
