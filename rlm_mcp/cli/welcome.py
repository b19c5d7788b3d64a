"""What somebody reads who types `rlm-mcp` at a terminal to see what it is."""

from __future__ import annotations

import json
import shlex

from .output import OK, Out


def welcome(out: Out) -> int:
    """Say what this is, how to add it to a client, and what commands there are."""
    from ..clients import Machine
    from ..launching import command_here, typed_here
    from .main import COMMANDS, DOCUMENTATION, version

    machine = Machine.here()
    program, *arguments = command_here(machine)
    entry = json.dumps({"command": program, "args": arguments})
    bold = "bold"
    out.say(f"{out.style('rlm-mcp', bold)} {version()}: a Python that a model can use")
    out.say()
    out.say("An MCP server that gives each project one jailed Python session, whose variables stay.")
    out.say(
        "MCP clients start it themselves, with stdin as a pipe. This is a terminal, so here is how to begin:"
    )
    out.say()
    out.say(out.style("Add it to Claude Code", bold))
    out.say(f"  claude mcp add rlm -- {shlex.join([program, *arguments])}")
    out.say(
        out.style("Add it to Claude Desktop", bold) + " (in claude_desktop_config.json, under mcpServers)"
    )
    out.say(f'  "rlm": {entry}')
    out.say(out.style("Or have it done", bold))
    out.say(f"  {shlex.join([*typed_here(machine), 'install'])}")
    out.say()
    out.say(out.style("Commands", bold))
    for each in COMMANDS:
        out.say(f"  rlm-mcp {each.name:<12}{each.help}")
    out.say()
    out.say(f"`rlm-mcp COMMAND --help` tells more about one. Documentation: {DOCUMENTATION}")
    return OK
