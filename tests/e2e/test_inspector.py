"""The command line of the MCP Inspector, which is how other people's tools come to the installed package."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from subprocess import DEVNULL
from typing import Any

import anyio
import pytest

from tests.e2e.grounds import Grounds, node_program, with_node
from tests.e2e.ways import HEADERS, serving
from tests.fakes.models import Reply, ScriptedModel

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


@ERAS
async def test_it_has_a_model_work_and_reads_what_was_done(era: str, grounds: Grounds) -> None:
    async with ScriptedModel(lambda _: Reply("forty-two")) as model:
        settings = {"RLM_BACKEND": "openai", "RLM_MODEL": "small", "RLM_API_BASE": model.url + "/v1"}
        given = _tool("rlm_complete", prompt="What is it?")
        ran = await _over_stdio(grounds, era, *given, settings=settings)
        listed = await _read(grounds, era, "rlm://trajectories")
        [uri] = re.findall(r"rlm://trajectories/[\w-]+", ran.said["content"][0]["text"])
        one = await _read(grounds, era, uri)
        answer = await _read(grounds, era, f"{uri}/answer")

    assert (ran.code, ran.said["isError"]) == (OK, False)
    assert ran.said["content"][0]["text"].startswith("forty-two\n[direct: 1 request")
    assert uri.rpartition("/")[2] in listed and "What is it?" in one
    assert answer == "forty-two"


async def test_a_run_in_the_background_that_ended_with_its_server_is_told_of_by_the_next(
    grounds: Grounds,
) -> None:
    settings = {"RLM_BACKEND": "openai", "RLM_MODEL": "small", "RLM_API_BASE": "http://127.0.0.1:9/v1"}
    given = _tool("rlm_complete", prompt="What is it?", background=True)
    begun = await _over_stdio(grounds, "modern", *given, settings=settings)
    [handle] = re.findall(r"w-[0-9a-f]{16}", begun.said["content"][0]["text"])
    status = await _over_stdio(grounds, "legacy", *_tool("rlm_status", handle=handle), settings=settings)

    assert begun.code == OK and begun.said["content"][0]["text"].startswith("[runs in the background")
    assert status.code == TOOL_FAILED and "cancelled" in status.said["content"][0]["text"]


async def test_it_answers_a_call_that_waits_since_another_server(grounds: Grounds) -> None:
    asked = await _over_stdio(grounds, "legacy", *_call("print('heard', llm_query('Which colour?'))"))
    [handle, *_] = re.findall(r"w-[0-9a-f]{16}", asked.said["content"][0]["text"])
    seen = await _over_stdio(grounds, "modern", *_tool("answer_calls", handle=handle, show="1"))
    done = await _over_stdio(grounds, "modern", *_tool("answer_calls", handle=handle, answers={"1": "red"}))

    assert asked.said["content"][0]["text"].startswith("[waiting: the code asks 1 call")
    assert "Which colour?" in seen.said["content"][0]["text"]
    assert (done.code, done.said["isError"]) == (OK, False)
    assert done.said["content"][0]["text"].startswith("heard red")


async def _read(grounds: Grounds, era: str, uri: str) -> str:
    answer = await _over_stdio(grounds, era, "--method", "resources/read", "--uri", uri)
    assert answer.code == OK, answer
    return str(answer.said["contents"][0]["text"])


def _call(code: str) -> list[str]:
    return _tool("execute_python", code=code)


def _tool(name: str, **arguments: object) -> list[str]:
    return ["--method", "tools/call", "--tool-name", name, "--tool-args-json", json.dumps(arguments)]


async def _over_stdio(
    grounds: Grounds, era: str, *options: str, settings: Mapping[str, str] | None = None
) -> Answer:
    variables = {**grounds.environment, **(settings or {})}
    given = [part for name, value in variables.items() for part in ("-e", f"{name}={value}")]
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
