"""`RLM`, as people use it: results, errors, streams, tools, many at once, and what is left behind."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import pydantic
import pytest

from rlm import RLM
from rlm.backends.base import Tool as ToolOfBackends
from rlm.core.exceptions import (
    ModelBusy,
    ModelUnavailable,
    REPLExecutionError,
    RLMError,
    RunFailed,
    TokenBudgetExhausted,
    ToolNotFoundError,
)
from rlm.core.types import RLMResult
from rlm.tools import Tool, file_read
from rlm_runtime.trajectory import read
from rlm_sandboxes import SandboxUnavailable
from tests.fakes.models import (
    Hangup,
    Refusal,
    Reply,
    Request,
    ScriptedModel,
    Silence,
    ToolCall,
    Turn,
    by_model,
    conversation,
)
from tests.runtime.runs import code, descendants

Make: TypeAlias = Callable[..., RLM]

_SHOUT = by_model(
    {
        "root": lambda request: (
            Reply(f"All: {request.results[-1].text}")
            if request.results
            else code("print(*llm_map('shout {item}', context.split()))", wire="openai")
        ),
        "leaf": lambda request: Reply(request.prompt.split()[-1].upper()),
    }
)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """An `RLM` that asks a scripted server, as the environment says, and logs into a folder of its own."""

    def made(server: ScriptedModel, **options: Any) -> RLM:
        environ = {"OPENAI_BASE_URL": f"{server.url}/v1", "OPENAI_API_KEY": "sk-secret-of-mine"}
        usual: dict[str, Any] = {"sub_model": "leaf", "token_budget": None, "log_dir": tmp_path / "logs"}
        given: dict[str, Any] = {"environ": environ} | usual | options
        return RLM("root", "openai", **given)

    return made


def test_the_names_that_people_know_are_those_of_the_runtime() -> None:
    import rlm_runtime

    assert RLM is rlm_runtime.RLM
    assert Tool is ToolOfBackends is rlm_runtime.Tool
    assert REPLExecutionError("failed", "Traceback").stderr == "Traceback"
    assert issubclass(TokenBudgetExhausted, RLMError)


def test_to_import_it_brings_nothing_heavy() -> None:
    heavy = ("mcp", "litellm", "httpx2", "anyio", "jsonschema", "pydantic", "rlm_sessions", "rlm_sandboxes")
    asked = (
        f"import sys, rlm, rlm.tools, rlm.core.exceptions; print([m for m in {heavy!r} if m in sys.modules])"
    )

    ran = subprocess.run(
        [sys.executable, "-c", asked], env=_path(), capture_output=True, text=True, check=True
    )

    assert ran.stdout == "[]\n"


async def test_a_completion_says_what_it_took(make: Make, tmp_path: Path) -> None:
    heard: list[str] = []

    def hear(event: dict[str, Any]) -> None:
        heard.append(event["kind"])

    async with ScriptedModel(_SHOUT) as server:
        rlm = make(server, recursive=True, on_event=hear)
        with anyio.fail_after(60):
            result = await rlm.completion("Shout it.", context="one two three")

    assert isinstance(result, RLMResult)
    assert "ONE TWO THREE" in result.response
    assert (result.total_calls, result.depth_reached, result.finish) == (5, 1, "answered")
    assert result.total_tokens > 0 and result.duration_ms > 0 and result.tool_calls == ()
    assert result.cost_usd is None and not result.partial
    assert heard[0] == "run_started" and heard[-1] == "run_ended"
    assert read(tmp_path / "logs" / f"{result.trajectory_id}.jsonl").state == "ended"


async def test_a_small_task_is_simply_asked_and_opens_no_sandbox(make: Make) -> None:
    before = await anyio.to_thread.run_sync(descendants)
    during: list[set[int]] = []

    async def answer(_: object) -> Turn:
        during.append(await anyio.to_thread.run_sync(descendants))
        return Reply("Four.")

    async with ScriptedModel(answer) as server:
        with anyio.fail_after(30):
            result = await make(server).completion("Two and two?", "Be short.")

    assert (result.response, result.finish, during) == ("Four.", "direct", [before])
    assert server.requests[0].system == "Be short."


async def test_an_answer_by_a_schema_is_a_value(make: Make) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    async with ScriptedModel([Reply("It is 4."), Reply('{"n": 4}')]) as server:
        with anyio.fail_after(30):
            result = await make(server).completion("Two and two?", schema=schema)

    assert result.value == {"n": 4} and json.loads(result.response) == {"n": 4}


async def test_contexts_are_values_and_files_by_name(make: Make, tmp_path: Path) -> None:
    file = tmp_path / "survey.txt"
    file.write_text("from a file", "utf-8")
    root = conversation(
        code("print(context, table['a'], raw)", wire="openai"), lambda r: Reply(r.results[-1].text)
    )
    async with ScriptedModel(root) as server:
        with anyio.fail_after(60):
            result = await make(server).completion(
                "Show.", context=file, contexts={"table": {"a": [1]}, "raw": b"\0"}, recursive=True
            )

    assert "from a file [1] b'\\x00'" in result.response


async def test_completions_at_once_share_what_is_open_and_leave_nothing(make: Make) -> None:
    before = await anyio.to_thread.run_sync(descendants)
    async with ScriptedModel(_SHOUT) as server:
        rlm = make(server, recursive=True)
        with anyio.fail_after(120):
            results = await asyncio.gather(*[rlm.completion("Do.", context=f"a b{n}") for n in range(6)])

    assert ["B" + str(n) in each.response for n, each in enumerate(results)] == [True] * 6
    assert len({each.trajectory_id for each in results}) == 6
    assert await anyio.to_thread.run_sync(descendants) <= before


async def test_within_async_with_the_sandbox_stays_for_the_next_completion(make: Make) -> None:
    before = await anyio.to_thread.run_sync(descendants)
    async with ScriptedModel(_SHOUT) as server:
        with anyio.fail_after(120):
            async with make(server, recursive=True) as rlm:
                await rlm.completion("Do.", context="a b")
                between = await anyio.to_thread.run_sync(descendants)
                await rlm.completion("Do.", context="a c")

    assert between > before
    assert await anyio.to_thread.run_sync(descendants) <= before


async def test_one_that_fails_or_is_cancelled_does_not_end_the_others(make: Make) -> None:
    turns: dict[str, Turn] = {"stay": Silence(), "fail": Refusal(400)}

    def answer(request: Request) -> Turn:
        return turns.get(request.prompt, Reply("Good."))

    async with ScriptedModel(answer) as server:
        rlm = make(server)
        with anyio.fail_after(30):
            stays = asyncio.create_task(rlm.completion("stay"))
            fails = asyncio.create_task(rlm.completion("fail"))
            await server.until(lambda model: model.asked["stay"] == 1)
            stays.cancel()
            good = await rlm.completion("good")
            ended = await asyncio.gather(stays, fails, return_exceptions=True)

    assert good.response == "Good."
    assert isinstance(ended[0], asyncio.CancelledError) and isinstance(ended[1], RLMError)


async def test_each_event_loop_has_its_own(make: Make) -> None:
    async with ScriptedModel(lambda _: Reply("Four.")) as server:
        rlm = make(server)
        with anyio.fail_after(60):
            first = await anyio.to_thread.run_sync(rlm.completion_sync, "One?")
            second = await anyio.to_thread.run_sync(lambda: asyncio.run(rlm.completion("Two?")))
            third = await rlm.completion("Three?")

    assert [each.response for each in (first, second, third)] == ["Four."] * 3


async def test_the_synchronous_way_says_so_where_a_loop_runs(make: Make) -> None:
    async with ScriptedModel([]) as server:
        with pytest.raises(RuntimeError, match=r"await rlm\.completion"):
            make(server).completion_sync("Hello")


async def test_exhaustion_is_an_error_with_the_partial_answer_or_a_partial_result(make: Make) -> None:
    work = code("answer = 'half of it'; print(answer)", wire="openai")
    turns: dict[str, Any] = {"max_turns": 1, "recursive": True}
    async with ScriptedModel(lambda request: Reply("") if not request.tools else work) as server:
        rlm = make(server, token_budget=20_000)
        with anyio.fail_after(60):
            with pytest.raises(RLMError) as raised:
                await rlm.completion("Do.", **turns)
            partial = await rlm.completion("Do.", on_exhausted="partial", **turns)
            with pytest.raises(TokenBudgetExhausted) as tokens:
                await rlm.completion("Do.", recursive=True, token_budget=100)

    assert raised.value.partial == "half of it" and raised.value.trajectory_id
    assert (partial.response, partial.finish, partial.partial) == ("half of it", "exhausted", True)
    assert "max_turns" in partial.reason
    assert (tokens.value.tokens_used, tokens.value.budget) == (0, 100)


async def test_code_that_calls_tools_for_ever_is_ended_by_a_budget_of_its_own(make: Make) -> None:
    def look() -> str:
        return "nothing yet"

    words = "try:\n    while True:\n        look()\nexcept CallBudgetExhausted as problem:\n    final(str(problem))"
    tool = Tool("look", "Look.", {"type": "object", "properties": {}}, look)
    async with ScriptedModel([code(words, wire="openai")]) as server:
        with anyio.fail_after(60):
            result = await make(server, tools=[tool], token_budget=20_000, max_tool_calls=3).completion("Do.")

    assert "max_tool_calls is used up: 3 of 3" in result.response and len(result.tool_calls) == 3


async def test_a_budget_that_failed_tries_used_up_says_what_failed(make: Make) -> None:
    async with ScriptedModel(lambda _: Hangup()) as server:
        with (
            anyio.fail_after(30),
            pytest.raises(TokenBudgetExhausted, match=r"before it failed: .*was lost") as raised,
        ):
            await make(server, token_budget=8000).completion("Two and two?")

    assert isinstance(raised.value.__cause__, ModelBusy)


async def test_a_stream_comes_as_the_model_says_it(make: Make) -> None:
    async with ScriptedModel([Reply("It is four, and no more.")]) as server:
        with anyio.fail_after(30):
            chunks = [chunk async for chunk in make(server).stream("Two and two?")]

    assert len(chunks) > 1 and "".join(chunks) == "It is four, and no more."


async def test_a_stream_of_a_run_ends_with_its_whole_answer(make: Make) -> None:
    async with ScriptedModel(_SHOUT) as server:
        with anyio.fail_after(60):
            chunks = [chunk async for chunk in make(server).stream("Do.", context="a b", recursive=True)]

    assert len(chunks) == 1 and "A B" in chunks[0]


async def test_a_stream_that_broke_off_begins_anew_on_a_line_of_its_own(make: Make) -> None:
    async with ScriptedModel([Hangup(2, Reply("It is five, I think.", pieces=4)), Reply("Four.")]) as server:
        with anyio.fail_after(60):
            chunks = [chunk async for chunk in make(server).stream("Two and two?")]

    assert chunks[0] and "It is five, I think.".startswith(chunks[0]) and chunks[-1] == "\nFour."


async def test_a_stream_that_nobody_reads_on_ends_its_request(make: Make) -> None:
    async with ScriptedModel([Silence(2, Reply("It is four.", pieces=4))]) as server:
        with anyio.fail_after(30):
            async with aclosing(make(server).stream("Two and two?")) as stream:
                first = await anext(stream)
            await server.until(lambda model: len(model.left) == 1)

    assert "It is four.".startswith(first)


async def test_a_failed_stream_raises(make: Make) -> None:
    async with ScriptedModel([Refusal(401)]) as server:
        with anyio.fail_after(30), pytest.raises(RLMError):
            _ = [chunk async for chunk in make(server).stream("Two and two?")]


# ---- tools


def _weather(city: str) -> dict[str, Any]:
    return {"city": city, "degrees": 21}


WEATHER = Tool(
    "weather",
    "The weather in a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    _weather,
)


async def test_a_tool_is_native_for_the_root_and_a_function_in_the_repl_and_in_children(make: Make) -> None:
    in_code = "print(weather('Rome')['degrees'], rlm_query('ask', context='child'))"
    root = conversation(
        Reply(calls=(ToolCall("weather", {"city": "Bern"}),)),
        code(in_code, wire="openai"),
        lambda request: Reply(request.results[-1].text),
    )
    child = conversation(code("final(weather('Oslo')['city'])", wire="openai"))
    script = by_model({"root": root, "leaf": child})
    async with ScriptedModel(script) as server:
        rlm = make(server, tools=[WEATHER])
        with anyio.fail_after(60):
            result = await rlm.completion("How warm?")

    assert "21 Oslo" in result.response
    assert [each["arguments"]["city"] for each in result.tool_calls] == ["Bern", "Rome", "Oslo"]


@dataclass
class _Place:
    name: str


class _Reading(pydantic.BaseModel):
    place: str
    degrees: float


async def _measured(place: str) -> _Reading:
    return _Reading(place=place, degrees=21.5)


def _found(place: str) -> list[_Place]:
    return [_Place(place)]


async def test_what_a_tool_returns_is_a_value_in_code_whatever_its_handler_makes_of_it(make: Make) -> None:
    one_place = {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]}
    tools = [
        Tool("measured", "A measurement.", _Reading.model_json_schema() | one_place, _measured),
        Tool("found", "A place.", one_place, _found),
        Tool("counted", "A number.", {}, lambda: 3),
        Tool("broken", "Fails.", {}, lambda: 1 / 0),
    ]
    in_code = (
        "print(measured(place='Rome')['degrees'], found(place='Oslo')[0]['name'], counted() + 1)\n"
        "try:\n    broken()\n"
        "except Exception as problem:\n    print(type(problem).__name__, problem)\n"
        "try:\n    found(place=7)\n"
        "except Exception as problem:\n    print(type(problem).__name__)"
    )
    root = conversation(code(in_code, wire="openai"), lambda request: Reply(request.results[-1].text))
    async with ScriptedModel(root) as server:
        with anyio.fail_after(60):
            result = await make(server, tools=tools).completion("Measure.")

    assert result.response.splitlines()[1:4] == [
        "21.5 Oslo 4",
        "ToolFailed The tool 'broken' failed: ZeroDivisionError: division by zero",
        "ToolFailed",
    ]


async def test_code_of_execute_code_has_a_session_of_its_own_and_its_errors_are_told(make: Make) -> None:
    in_code = (
        "x = 1\n"
        "print(execute_code(code='print(6 * 7)'))\n"
        "try:\n    execute_code(code='x')\n"
        "except Exception as problem:\n    print(type(problem).__name__, problem)"
    )
    root = conversation(code(in_code, wire="openai"), lambda request: Reply(request.results[-1].text))
    async with ScriptedModel(root) as server:
        with anyio.fail_after(60):
            result = await make(server, tools=["execute_code"]).completion("Run it.")

    assert "42" in result.response and "NameError" in result.response


def test_file_read_reads_what_is_allowed_and_nothing_else(tmp_path: Path) -> None:
    inside, secret = tmp_path / "inside", tmp_path / "secret"
    inside.mkdir()
    secret.write_text("secret", "utf-8")
    (inside / "notes.txt").write_text("0123456789", "utf-8")
    (inside / "*.txt").write_text("a star", "utf-8")
    (inside / "way-out").symlink_to(secret)
    (inside / "folder").symlink_to(tmp_path)
    (inside / "again").symlink_to("notes.txt")
    read_ = file_read([inside]).handler

    def outcome(path: str) -> str:
        try:
            return str(read_(path))
        except OSError as problem:
            return type(problem).__name__

    assert [outcome(each) for each in ("notes.txt", "again", "*.txt", str(inside / "notes.txt"))] == [
        "0123456789",
        "0123456789",
        "a star",
        "0123456789",
    ]
    assert read_("notes.txt", offset=2, length=3) == "234"
    refused = ("../secret", "way-out", "folder/secret", str(secret), "/etc/passwd", "?otes.txt", ".")
    assert {outcome(each) for each in refused} == {"PermissionError", "FileNotFoundError"}


async def test_a_tool_that_is_not_there_is_told_at_once(make: Make) -> None:
    async with ScriptedModel([]) as server:
        with pytest.raises(ToolNotFoundError, match="file_read"):
            make(server, tools=["file_write"])


# ---- what is given

_WRONG: Any = {"max_dept": 3}


def test_a_model_has_to_be_named() -> None:
    with pytest.raises(ModelUnavailable, match="RLM\\("):
        RLM()
    with pytest.raises(ValueError, match="backend is 'cohere'"):
        RLM("m", "cohere")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="docker_memory"):
        RLM("m", docker_memory="much")


@pytest.mark.parametrize(
    ("backend", "variable"), [("openai", "OPENAI_API_KEY"), ("anthropic", "ANTHROPIC_API_KEY")]
)
async def test_a_provider_that_needs_a_key_is_not_asked_without_one(backend: Any, variable: str) -> None:
    rlm = RLM("some-model", backend, log_dir=None, environ={})
    with anyio.fail_after(30):
        with pytest.raises(ModelUnavailable, match=f"{variable}, or api_key"):
            await rlm.completion("Hello")


def test_a_model_and_a_backend_in_the_wrong_order_are_told_so() -> None:
    with pytest.raises(ValueError, match=r"RLM\('gpt-4o', 'openai'\)"):
        RLM("openai", "gpt-4o")  # type: ignore[arg-type]


async def test_an_option_that_does_not_exist_is_refused(make: Make) -> None:
    async with ScriptedModel([]) as server:
        with pytest.raises(TypeError, match="max_dept"):
            await make(server).completion("Hello", **_WRONG)


def test_what_is_given_for_snipara_is_said_to_be_unused() -> None:
    with pytest.warns(UserWarning, match="Snipara"):
        RLM("m", snipara_api_key="key", snipara_project_slug="project")


async def test_a_command_answers_where_no_model_is_named(tmp_path: Path) -> None:
    rlm = RLM(command=[sys.executable, "-c", "print('Four.')"], log_dir=None)
    with anyio.fail_after(60):
        result = await rlm.completion("Two and two?", token_budget=None)

    assert result.response == "Four."


async def test_no_key_stands_in_a_log(make: Make, tmp_path: Path) -> None:
    async with ScriptedModel([Reply("You said sk-secret-of-mine.")]) as server:
        with anyio.fail_after(30):
            await make(server).completion("My key is sk-secret-of-mine.")

    logs = [path.read_bytes() for path in (tmp_path / "logs").glob("*.jsonl")]
    assert logs and not any(b"sk-secret-of-mine" in log for log in logs)


async def test_verbose_tells_on_stderr(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    async with ScriptedModel([Reply("Four.")]) as server:
        with anyio.fail_after(30):
            await make(server, verbose=True).completion("Two and two?")

    told = capsys.readouterr().err
    assert "run_started" in told and "run_ended" in told and "Four." in told


async def test_a_model_that_says_nothing_is_an_error(make: Make) -> None:
    async with ScriptedModel(lambda _: Reply("")) as server:
        with anyio.fail_after(30), pytest.raises(RunFailed, match="nothing"):
            await make(server).completion("Hello?")


def _path() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


async def test_a_sandbox_that_is_not_there_is_told_as_it_is(make: Make, tmp_path: Path) -> None:
    nowhere = {"DOCKER_HOST": f"unix://{tmp_path}/nothing.sock"}

    def answer(request: Request) -> Turn:
        return code("print(1)", wire="openai") if request.tools else Reply("Four.")

    async with ScriptedModel(answer) as server:
        rlm = make(server, environment="docker", environ=nowhere | {"OPENAI_BASE_URL": f"{server.url}/v1"})
        with anyio.fail_after(60):
            with pytest.raises(SandboxUnavailable, match=r"nothing\.sock"):
                await rlm.completion("Do.", recursive=True)
            direct = await rlm.completion("Two and two?")

    assert direct.response == "Four."


async def test_a_model_that_cannot_be_opened_is_told_to_each_and_leaves_nothing() -> None:
    before = await anyio.to_thread.run_sync(descendants)
    one_price: Any = {"m": (1.0,)}
    rlm = RLM("m", "openai", prices=one_price, log_dir=None, environ={})
    with anyio.fail_after(60):
        ended = await asyncio.gather(*[rlm.completion("Hello") for _ in range(3)], return_exceptions=True)
        with pytest.raises(TypeError):
            async with rlm:
                pass

    assert all(isinstance(each, TypeError) for each in ended), ended
    assert await anyio.to_thread.run_sync(descendants) <= before


async def test_a_tool_may_be_named_and_reads_in_the_folder_of_now(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("noted", "utf-8")
    root = conversation(
        Reply(calls=(ToolCall("file_read", {"path": "notes.txt"}),)),
        lambda request: Reply(request.results[-1].text),
    )
    async with ScriptedModel(root) as server:
        with anyio.fail_after(60):
            result = await make(server).completion("Read it.", tools=["file_read"])

    assert "noted" in result.response
