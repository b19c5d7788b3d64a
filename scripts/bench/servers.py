"""The servers that are measured beside each other: ours, the least that one can be, and a peer.

Each is started as a host would start it, with a home folder and a project folder of its own. How their tools
differ is known here and nowhere else.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from .wire_client import Call, Era, WireClient

OURS, BARE, PEER = "rlm-mcp", "bare SDK server", "rlm-runtime 2.1.3"
MAIN = "main"
"""The session that a call means unless it says otherwise."""

_BARE = '''
import contextlib, io
from mcp.server import MCPServer

server, sessions = MCPServer("bare", log_level="WARNING"), {}

@server.tool(structured_output=False)
async def nothing() -> str:
    """Do nothing."""
    return ""

@server.tool(structured_output=False)
async def execute_python(code: str, session: str) -> str:
    """Run Python in this very process."""
    names, printed = sessions.setdefault(session, {}), io.StringIO()
    with contextlib.redirect_stdout(printed):
        try:
            shown = compile(code, "<cell>", "eval")
        except SyntaxError:
            exec(code, names)
        else:
            print(eval(shown, names))
    return printed.getvalue()

@server.tool(structured_output=False)
async def set_value(name: str, value: str, session: str) -> str:
    """Set a variable."""
    sessions.setdefault(session, {})[name] = value
    return f"{name}: text of {len(value)}"

server.run()
'''


@dataclass(frozen=True)
class Server:
    """One of those that are measured: how it is started, and what its tools are called with.

    `execute` takes code and a session, `set_value` a name, a text and a session. `shows` is how a cell shows
    the value of an expression, and `variable` how it reads what was set.
    """

    name: str
    command: tuple[str, ...]
    execute: Callable[[str, str], Call]
    set_value: Callable[[str, str, str], Call]
    nothing: Callable[[], Call] | None = None
    shows: str = "{}"
    variable: str = "{}"
    environment: Mapping[str, str] = field(default_factory=dict[str, str])
    eras: tuple[Era, ...] = ("2025", "2026")

    def cell(self, code: str, session: str = MAIN) -> Call:
        """Return the call that runs code."""
        return self.execute(code, session)

    def value(self, expression: str, session: str = MAIN) -> Call:
        """Return the call that shows the value of an expression."""
        return self.execute(self.shows.format(expression), session)


def ours() -> Server:
    """Return this project's server."""
    return Server(
        OURS,
        (sys.executable, "-m", "rlm_mcp", "serve"),
        lambda code, session: ("execute_python", {"code": code, "project": session}),
        lambda name, text, session: ("set_repl_context", {"values": {name: text}, "project": session}),
    )


def bare() -> Server:
    """Return a server that does as little as one can do with the SDK, and runs code in its own process."""
    return Server(
        BARE,
        (sys.executable, "-c", _BARE),
        lambda code, session: ("execute_python", {"code": code, "session": session}),
        lambda name, text, session: ("set_value", {"name": name, "value": text, "session": session}),
        nothing=lambda: ("nothing", {}),
    )


def peer(environment: Path) -> Server:
    """Return the peer that is installed in a virtual environment, as it fares best without a network."""

    def set_value(name: str, text: str, session: str) -> Call:
        return "set_repl_context", {"key": name, "value": json.dumps(text), "session_id": session}

    return Server(
        PEER,
        (str(environment / "bin" / "rlm"), "mcp-serve"),
        lambda code, session: ("execute_python", {"code": code, "session_id": session}),
        set_value,
        shows="result = {}",
        variable="context['{}']",
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        eras=("2025",),
    )


@dataclass(frozen=True)
class Bench:
    """What a measurement gets: the servers, a folder for what they write, and whether to be brief."""

    folder: Path
    servers: tuple[Server, ...]
    quick: bool = False

    def __getitem__(self, name: str) -> Server:
        return next(server for server in self.servers if server.name == name)

    def without(self, name: str) -> Bench:
        """Return the same without one of the servers."""
        return replace(self, servers=tuple(server for server in self.servers if server.name != name))

    @contextmanager
    def opened(self, server: Server, era: Era = "2025") -> Generator[WireClient, None, None]:
        """Keep a server that has been greeted, for the length of a block."""
        with self.started(server) as client:
            client.greet(era)
            yield client

    @contextmanager
    def started(self, server: Server) -> Generator[WireClient, None, None]:
        """Keep a server that nobody has spoken to, for the length of a block."""
        with TemporaryDirectory(dir=self.folder, ignore_cleanup_errors=True) as name:
            home, project = Path(name) / "home", Path(name) / "project"
            home.mkdir()
            project.mkdir()
            client = WireClient(
                server.name, server.command, folder=project, environment=environment_of(server, home)
            )
            try:
                yield client
            finally:
                client.close()


def environment_of(server: Server, home: Path) -> dict[str, str]:
    """Return the environment of a server, in which nothing of ours is set, byte code being written included."""
    plain = {"PATH": os.environ.get("PATH", os.defpath), "HOME": str(home), "LANG": "C.UTF-8"}
    return plain | dict(server.environment)
