"""The command line of the MCP Inspector, which is how other people's tools come to the installed package."""

from __future__ import annotations

import json
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import Any

import anyio
import pytest

from tests.e2e.grounds import Grounds, node_program, with_node
from tests.e2e.ways import HEADERS, serving

ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
OK, NOT_ALLOWED, TOOL_FAILED = 0, 3, 5


@dataclass(frozen=True)
class Answer:
    """What the Inspector said."""

    code: int
    said: dict[str, Any]


@ERAS
async def test_it_finds_no_fault_in_the_tools(era: str, grounds: Grounds) -> None:
    answer = await _over_stdio(grounds, era, "--method", "tools/list", "--strict")

    names = [tool["name"] for tool in answer.said["tools"]]
    assert (answer.code, names[0]) == (OK, "execute_python")


@ERAS
async def test_it_calls_a_tool(era: str, grounds: Grounds) -> None:
    answer = await _over_stdio(grounds, era, *_call("print(6 * 7)"))

    assert (answer.code, answer.said["isError"]) == (OK, False)
    assert answer.said["content"] == [{"type": "text", "text": "42"}]


async def test_it_tells_by_its_exit_code_that_a_cell_failed(grounds: Grounds) -> None:
    answer = await _over_stdio(grounds, "modern", *_call("1 / 0"))

    assert (answer.code, answer.said["isError"]) == (TOOL_FAILED, True)


async def test_it_reads_a_resource(grounds: Grounds) -> None:
    answer = await _over_stdio(grounds, "legacy", "--method", "resources/read", "--uri", "rlm://sessions")

    [contents] = answer.said["contents"]
    assert answer.code == OK
    assert json.loads(contents["text"])["sessions"] == []


async def test_it_fills_in_a_prompt(grounds: Grounds) -> None:
    given = ["--prompt-name", "analyse_file", "--prompt-args", "path=app.log", "question=Why?"]
    answer = await _over_stdio(grounds, "modern", "--method", "prompts/get", *given)

    [message] = answer.said["messages"]
    assert answer.code == OK
    assert "app.log" in message["content"]["text"]


@pytest.mark.parametrize("transport", ["http", "sse"])
async def test_it_comes_over_http_with_a_token_and_not_without(transport: str, grounds: Grounds) -> None:
    header = ["--header", *(f"{name}: {value}" for name, value in HEADERS.items())]

    async with serving(grounds, transport) as url:
        target = ["--server-url", url, "--transport", transport]
        answer = await _inspector(grounds, *target, *header, *_call("6 * 7"))
        without = await _inspector(grounds, *target, *_call("6 * 7"))

    assert (answer.code, answer.said["content"][0]["text"]) == (OK, "42")
    assert without.code == NOT_ALLOWED


def _call(code: str) -> list[str]:
    arguments = json.dumps({"code": code})
    return ["--method", "tools/call", "--tool-name", "execute_python", "--tool-args-json", arguments]


async def _over_stdio(grounds: Grounds, era: str, *options: str) -> Answer:
    given = [part for name, value in grounds.environment.items() for part in ("-e", f"{name}={value}")]
    return await _inspector(grounds, *given, "--protocol-era", era, *options, "--", *grounds.server)


async def _inspector(grounds: Grounds, *arguments: str) -> Answer:
    with anyio.fail_after(60):
        ran = await anyio.run_process(
            [node_program("inspector"), "--cli", "-q", "--format", "json", *arguments],
            stdin=DEVNULL,
            cwd=grounds.project,
            env=with_node(grounds.environment),
            check=False,
        )
    said = ran.stdout.decode()
    return Answer(ran.returncode, json.loads(said)["result"] if said.strip() else {})
