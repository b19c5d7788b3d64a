"""The main job at work: the server over stdio, and a client that asks of it what a model would."""

from __future__ import annotations

import base64
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import anyio
from mcp import Client, StdioServerParameters
from mcp_types import CallToolResult

FOLDER = Path(__file__).resolve().parent.parent / ".demo"
LINES = 200_000

Story: TypeAlias = tuple[tuple[str, str, dict[str, Any]], ...]

LOAD: Story = (
    (
        "A file of 10 MB becomes a variable; not a byte of it passes through the client",
        "set_repl_context",
        {"files": {"log": "app.log"}},
    ),
)
LOOK: Story = (
    (
        "Code looks at it",
        "execute_python",
        {
            "code": "import re\nfrom collections import Counter\n"
            "slow = [int(ms) for ms in re.findall(r'took (\\d+) ms', log)]\n"
            "by_hour = Counter(line[11:13] for line in log.splitlines() if ' ERROR ' in line)\n"
            "len(log), max(slow), by_hour.most_common(2)"
        },
    ),
    (
        "A plot comes back as an image",
        "execute_python",
        {
            "code": "import matplotlib.pyplot as plt\nhours = sorted(by_hour)\n"
            "plt.figure(figsize=(7, 3))\nplt.bar(hours, [by_hour[hour] for hour in hours])\n"
            "plt.title('errors by hour'); plt.tight_layout(); plt.show()"
        },
    ),
    ("An endless loop is stopped", "execute_python", {"code": "while True:\n    pass", "timeout_s": 1}),
    ("An error shows where it is, and costs nothing", "execute_python", {"code": "by_hour['lunch'] / 0"}),
    ("A wrong argument says what would be right", "execute_python", {"code": "1", "time_out": 5}),
    (
        "Files outside the project are out of reach",
        "execute_python",
        {"code": "open('/etc/hostname').read()"},
    ),
    (
        "So is the network",
        "execute_python",
        {"code": "import urllib.request as r\nr.urlopen('http://127.0.0.1')"},
    ),
)
NEXT_DAY: Story = (
    (
        "The server has ended, and another one runs: the variables are there",
        "execute_python",
        {"code": "max(slow), by_hour.most_common(1)"},
    ),
    ("What there is", "get_repl_context", {}),
)


async def main() -> None:
    """Tell the story in a project made for it."""
    with tempfile.TemporaryDirectory() as home:
        project = Path(home, "project")
        await anyio.to_thread.run_sync(_make_project, project)
        for story in ((*LOAD, *LOOK), NEXT_DAY):
            async with _client(project, Path(home)) as client:
                for title, tool, arguments in story:
                    await _step(client, title, tool, arguments)
    print("# To add it to Claude Code:\n")
    print("claude mcp add rlm -- uvx rlm-mcp\n")
    print("# or, as it stands here:\n")
    print(f"claude mcp add rlm -- {Path(sys.executable).parent / 'rlm-mcp'}")


@asynccontextmanager
async def _client(project: Path, home: Path) -> AsyncGenerator[Client, None]:
    """Start the server as a client does, with a home of its own, and end it."""
    environment = {
        "PATH": os.environ.get("PATH", ""),
        "RLM_CONFIG_DIR": str(home / "config"),
        "RLM_SESSIONS_STATE_DIR": str(home / "state"),
        "RLM_SANDBOX_GRACE_SECONDS": "0.5",
    }
    server = StdioServerParameters(
        command=sys.executable, args=["-m", "rlm_mcp"], env=environment, cwd=str(project)
    )
    async with Client(server) as client:
        yield client


async def _step(client: Client, title: str, tool: str, arguments: dict[str, Any]) -> None:
    """Call a tool, and print what was asked and what was answered."""
    print(f"# {title}")
    code = arguments.get("code")
    others = ", ".join(f"{name}={value!r}" for name, value in arguments.items() if name != "code")
    print(f"-> {tool}({others})")
    if code:
        print("\n".join(f"   | {line}" for line in code.splitlines()))
    print("\n".join(f"<- {line}" for line in _shown(await client.call_tool(tool, arguments))), end="\n\n")


def _shown(result: CallToolResult) -> list[str]:
    lines: list[str] = []
    for block in result.content:
        if block.type == "text":
            lines += block.text.splitlines()
        elif block.type == "image":
            lines.append(f"[{block.mime_type}, saved as {_save(base64.b64decode(block.data))}]")
    return lines


def _save(image: bytes) -> Path:
    path = FOLDER / "plot.png"
    FOLDER.mkdir(exist_ok=True)
    path.write_bytes(image)
    return path


def _make_project(project: Path) -> None:
    shutil.rmtree(FOLDER, ignore_errors=True)
    project.mkdir(mode=0o755)
    with (project / "app.log").open("w") as log:
        for n in range(LINES):
            hour = n * 24 // LINES
            level = "ERROR" if n % (20 + 3 * abs(hour - 14)) == 0 else "INFO"
            log.write(f"2026-01-05T{hour:02d}:{n % 60:02d} {level} request {n} took {n * 7919 % 997} ms\n")


if __name__ == "__main__":
    anyio.run(main)
