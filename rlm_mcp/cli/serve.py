"""`rlm-mcp serve`: the server, over stdio or over HTTP.

Over stdio nothing but MCP messages is ever written to stdout.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from .output import OK, Out
from .parsing import add_sandbox_settings, add_setting, flags_of

if TYPE_CHECKING:
    from ..app import Surroundings
    from ..sources import Loaded, Sources

_DESCRIPTION = """\
Serve MCP clients: over stdio, which is how they start a server themselves, or over HTTP.

Over HTTP only this machine is listened to, unless --host says otherwise."""
_EXAMPLES = """\
examples:
  rlm-mcp serve                                     on stdio, for the client that starts it
  rlm-mcp serve --files write --memory 4g           code may change the project's files
  rlm-mcp serve --transport http --port 8000        over streamable HTTP
"""
_TRANSPORTS = {
    "stdio": "stdio",
    "streamable-http": "streamable-http",
    "http": "streamable-http",
    "sse": "sse",
}


def add_to(commands: Any) -> None:
    """Add the command to the program's."""
    parser = commands.add_parser(
        "serve",
        aliases=["mcp-serve"],
        help="serve MCP clients, over stdio or HTTP",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "--transport",
        choices=tuple(_TRANSPORTS),
        default="stdio",
        help="how clients reach it: stdio (the default), streamable-http (or just http), or the older sse",
    )
    add_setting(parser, "--host", "http.host", "the address to listen on", metavar="ADDRESS")
    add_setting(parser, "--port", "http.port", "the port to listen on; 0 takes any", metavar="NUMBER")
    parser.add_argument(
        "--new-token",
        action="store_true",
        help="replace the server's own token for HTTP by a new one, and show it",
    )
    add_setting(
        parser, "--timeout", "sandbox.wall_seconds", "how long a cell may run, in seconds", metavar="SECONDS"
    )
    add_sandbox_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Serve until the client leaves, or until told to stop."""
    gc.disable()  # imports leave no garbage, and looking for some takes a tenth of the time until the first answer
    import anyio

    from ..sources import Sources

    sources = Sources.of_process(flags_of(args))
    loaded = sources.load(None)
    log_to_stderr(verbose=loaded.settings.rlm.verbose)
    transport: Any = _TRANSPORTS[args.transport]
    if transport == "stdio":
        if sys.stdin is not None and sys.stdin.isatty():
            Out.of(args).talk("Serving on stdio, as an MCP client would have it. Ctrl-C ends this.")
        _leave(anyio.run(_serve_stdio, sources, loaded))
    _leave(anyio.run(_serve_http, sources, loaded, transport, args.new_token))


def log_to_stderr(*, verbose: bool = False) -> None:
    """Have the log go to stderr, and only what somebody should know, unless more was asked for."""
    named = os.environ.get("RLM_LOG_LEVEL", "").strip().upper()
    level = named if named in logging.getLevelNamesMapping() else "INFO" if verbose else "WARNING"
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(name)s: %(message)s")


def surroundings() -> Surroundings:
    """Return what is found where this process was started."""
    from ..app import Surroundings

    return Surroundings(os.environ.get("CLAUDE_PROJECT_DIR") or None, _working_directory())


def _working_directory() -> Path | None:
    try:
        return Path.cwd()
    except OSError:  # it was removed
        return None


async def _serve_stdio(sources: Sources, loaded: Loaded) -> int:
    import anyio

    from ..app import open_app
    from ..server import make_server
    from ..stdio import Stopped, serve_stdio

    async with open_app(sources, surroundings(), base=loaded) as app:
        server = make_server(app)
        async with anyio.create_task_group() as tasks:

            def make_ready() -> None:
                from ..door import keep_door

                _look_for_garbage_again()
                tasks.start_soon(app.warm_up)
                tasks.start_soon(keep_door, app)

            try:
                await serve_stdio(server, first_request=make_ready)
            except Stopped as stopped:
                return 128 + stopped.signal_number
            finally:
                tasks.cancel_scope.cancel()
    return OK


async def _serve_http(
    sources: Sources, loaded: Loaded, transport: Literal["streamable-http", "sse"], new_token: bool
) -> int:
    from ..app import open_app
    from ..door import open_door
    from ..http import serve_http
    from ..server import make_server

    _look_for_garbage_again()
    async with open_app(sources, surroundings(), base=loaded) as app, open_door(app):
        stopped = await serve_http(app, make_server(app), transport=transport, new_token=new_token)
    return OK if stopped is None else 128 + stopped


def _look_for_garbage_again() -> None:
    gc.freeze()  # what was imported stays
    gc.enable()


def _leave(code: int) -> NoReturn:
    """End the process whatever threads still wait for: all that is to be kept is on the disk."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            continue
    os._exit(code)
