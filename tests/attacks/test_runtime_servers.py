"""A model server that wants to do harm ends its own answers, and nothing else: no loop stands, no memory fills, no key is told."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from itertools import repeat
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.abc
import pytest

from rlm_mcp.cli.output import CommandFailed, Out
from rlm_runtime.budget import Budget, Pool
from rlm_runtime.errors import ModelBusy, ModelError, ModelRefused
from rlm_runtime.model import Message, Request
from rlm_runtime.models.anthropic import AnthropicModel
from rlm_runtime.models.command import CommandModel
from rlm_runtime.models.failures import Secrets, Server, retry_after_seconds
from rlm_runtime.models.litellm import LiteLLMModel
from rlm_runtime.models.openai import OpenAIModel
from rlm_runtime.models.prices import Price, Prices

KEY = "4f6c3b9a7d2e8105" * 3
ASK = Request((Message("user", "Hello"),))
PRICES = Prices({"m": Price(1.0, 1.0)})
SERVER = Server("https://server.test", "A_KEY", True, Secrets(KEY))

Endless: TypeAlias = Iterator[bytes]
Direct: TypeAlias = Callable[..., OpenAIModel | AnthropicModel]
BOTH = pytest.mark.parametrize("form", [OpenAIModel, AnthropicModel])


@asynccontextmanager
async def server(*answers: bytes | Endless) -> AsyncGenerator[tuple[str, list[bytes]]]:
    """Yield the address of a server that sends these bytes, whatever it is asked; and the heads that it got."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
    asked, left = list[bytes](), list(answers)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            try:
                asked.append(await stream.receive())
                answer = left.pop(0) if len(left) > 1 else left[0]
                for piece in [answer] if isinstance(answer, bytes) else answer:
                    await stream.send(piece)
                await stream.send_eof()
                await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, OSError):
                pass

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        yield f"http://127.0.0.1:{port}", asked
        tasks.cancel_scope.cancel()


def ok(body: object, *, kind: str = "application/json", head: str = "") -> bytes:
    """Return an answer with this body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = ["HTTP/1.1 200 OK", f"content-type: {kind}", f"content-length: {len(data)}"]
    return "\r\n".join([*lines, *([head] if head else []), "", ""]).encode() + data


def completion(**message: Any) -> dict[str, Any]:
    """Return a chat completion with a message."""
    return {"model": "m", "choices": [{"message": message, "finish_reason": "stop"}]}


async def reply_of(url: str, form: Direct = OpenAIModel, *, streamed: bool = False, **given: Any) -> Any:
    """Return what a model at that address replies."""

    async def hear(text: str) -> None:
        assert isinstance(text, str)

    async with form("m", prices=PRICES, api_key=KEY, api_base=url, **given) as model:
        return await model.complete(ASK, on_text=hear if streamed else None)


# ---- what a reply says


@pytest.mark.parametrize(
    "told", ["1e999", "-1e999", "NaN", "-7", "1" + "0" * 30, "1" + "0" * 400, '"many"', "[]", "{}", "true"]
)
@BOTH
async def test_a_usage_that_lies_is_no_number_of_tokens_that_anything_breaks_on(
    form: Direct, told: str
) -> None:
    names = ("prompt_tokens", "completion_tokens", "input_tokens", "output_tokens")
    usage = "{" + ",".join(f'"{name}": {told}' for name in names) + "}"
    whole = {**completion(content="Hi."), "content": [{"type": "text", "text": "Hi."}], "usage": "USAGE"}
    body = json.dumps(whole).replace('"USAGE"', usage).encode()
    async with server(ok(body)) as (url, _):
        with anyio.fail_after(10):
            reply = await reply_of(url, form)

    assert reply.text == "Hi."
    assert 0 <= reply.usage.input_tokens <= 10**15 and 0 <= reply.usage.output_tokens <= 10**15


@pytest.mark.parametrize(
    "call",
    [
        {"id": 7, "function": {"name": None, "arguments": "{}"}},
        {"id": ["x"], "function": {"name": "f", "arguments": "{}"}},
        {"id": "1", "function": {"name": {"a": 1}, "arguments": "{}"}},
        {"id": "1", "function": "f"},
        None,
    ],
)
async def test_a_call_of_a_tool_that_has_no_name_is_an_answer_that_did_not_come(call: object) -> None:
    async with server(ok(completion(content="", tool_calls=[call]))) as (url, _):
        with anyio.fail_after(10), pytest.raises(ModelBusy, match="does not have the form"):
            await reply_of(url)


@pytest.mark.parametrize(
    "arguments", ['{"x": ' + "[" * 500 + "]" * 500 + "}", '{"x": NaN}', '{"x": -Infinity}']
)
async def test_arguments_that_nobody_can_pass_on_are_told_to_the_model(arguments: str) -> None:
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    async with server(ok(completion(content="", tool_calls=[call]))) as (url, _):
        with anyio.fail_after(10):
            reply = await reply_of(url)

    assert reply.tool_uses[0].problem and not reply.tool_uses[0].arguments


async def test_a_reply_that_calls_a_crowd_of_tools_is_refused() -> None:
    crowd = [{"id": str(n), "function": {"name": "f", "arguments": "{}"}} for n in range(1001)]
    async with server(ok(completion(content="", tool_calls=crowd))) as (url, _):
        with anyio.fail_after(10), pytest.raises(ModelRefused, match="1001 tools"):
            await reply_of(url)


async def test_a_stream_of_very_many_calls_is_put_together_in_a_moment() -> None:
    crowd = [{"id": str(n), "function": {"name": "f"}} for n in range(40_000)]
    event = {"choices": [{"delta": {"tool_calls": crowd}, "finish_reason": "tool_calls"}]}
    body = f"data: {json.dumps(event)}\n\ndata: [DONE]\n\n".encode()
    async with server(ok(body, kind="text/event-stream")) as (url, _):
        with anyio.fail_after(20), pytest.raises(ModelRefused, match="40000 tools"):
            await reply_of(url, streamed=True)


@pytest.mark.parametrize(
    "delta", ['{"refusal": {"a": 1}}', '{"content": 7, "refusal": 7}', '{"tool_calls": [{"index": []}]}', "7"]
)
async def test_events_of_the_wrong_form_are_an_answer_that_did_not_come(delta: str) -> None:
    event = f'{{"choices": [{{"delta": {delta}, "finish_reason": "stop"}}]}}'
    body = f"data: {event}\n\ndata: [DONE]\n\n".encode()
    async with server(ok(body, kind="text/event-stream")) as (url, _):
        with anyio.fail_after(10), pytest.raises(ModelBusy, match="form of this API"):
            await reply_of(url, streamed=True)


@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_of_millions_of_parts_is_refused_before_it_is_read(streamed: bool) -> None:
    parts = b'{"choices":[' + b"[]," * 700_000 + b"[]]}"
    body, kind = (
        (b"data: " + parts + b"\n\n", "text/event-stream") if streamed else (parts, "application/json")
    )
    async with server(ok(body, kind=kind)) as (url, _):
        with anyio.fail_after(20), pytest.raises(ModelRefused, match="so many parts"):
            await reply_of(url, streamed=streamed)


# ---- how a reply comes


def endless(head: bytes, piece: bytes) -> Endless:
    """Return an answer that never ends."""
    yield head
    yield from repeat(piece)


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: endless(b"HTTP/1.1 200 OK\r\nx: ", b"y" * 65536),
        lambda: endless(b"HTTP/1.1 200 " + b"O" * 100, b"K" * 65536),
        lambda: endless(HEAD + b"transfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n", b"z" * 65536),
        lambda: endless(HEAD + b"transfer-encoding: chunked\r\n\r\n", b"garbage\r\n"),
        lambda: endless(HEAD + b"\r\n", b"data: no end of a line" * 3000),
        lambda: endless(HEAD + b"\r\n", b": a comment\n\n" * 5000),
        lambda: endless(b"HTTP/1.1 200 OK\r\ncontent-length: -5\r\n\r\n", b"x"),
    ],
    ids=["a header", "a reason", "a chunk", "garbage", "a line", "comments", "a length"],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_without_end_is_ended_by_its_size(
    monkeypatch: pytest.MonkeyPatch, answer: Callable[[], Endless], streamed: bool
) -> None:
    monkeypatch.setattr("rlm_runtime.models.wire_http.MOST_BYTES", 4_000_000)
    async with server(answer()) as (url, _):
        with anyio.fail_after(30), pytest.raises(ModelError):
            await reply_of(url, streamed=streamed)


@BOTH
async def test_a_server_that_dribbles_is_ended_by_the_time(form: Direct) -> None:
    answer = iter([b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b"{"])
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)

    async def serve(stream: anyio.abc.SocketStream) -> None:
        async with stream:
            for piece in answer:
                await stream.send(piece)
            await anyio.sleep_forever()

    async with listener, anyio.create_task_group() as tasks:
        tasks.start_soon(listener.serve, serve)
        url = f"http://127.0.0.1:{listener.extra(anyio.abc.SocketAttribute.local_port)}"
        with anyio.fail_after(10), pytest.raises(ModelBusy, match=r"no answer in 0\.2 seconds"):
            await reply_of(url, form, timeout_seconds=0.2)
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed_so_the_key_goes_nowhere_else(status: int) -> None:
    async with server(ok(completion(content="Owned."))) as (elsewhere, got):
        for target in (f"{elsewhere}/v1/chat/completions", "file:///etc/passwd", "//elsewhere.test/"):
            moved = f"HTTP/1.1 {status} Moved\r\nlocation: {target}\r\ncontent-length: 0\r\n\r\n".encode()
            async with server(moved) as (url, _):
                with anyio.fail_after(10), pytest.raises(ModelRefused) as refusal:
                    await reply_of(url)
            assert KEY not in str(refusal.value)

        assert got == []


async def test_what_is_packed_is_not_unpacked() -> None:
    import gzip

    bomb = gzip.compress(b"[" * 50_000_000)
    async with server(ok(bomb, head="content-encoding: gzip")) as (url, asked):
        with anyio.fail_after(10), pytest.raises(ModelBusy, match="no JSON"):
            await reply_of(url)

    assert b"accept-encoding: identity" in asked[0].lower()


# ---- what a failure says


@pytest.mark.parametrize("length", [440, 453, 470, 485, 492])
def test_a_key_that_a_long_failure_repeats_is_not_told_in_part(length: int) -> None:
    failure = SERVER.failure("m", 400, {}, {"error": {"message": "x" * length + KEY + " is what you sent"}})

    assert KEY[:8] not in str(failure)


@pytest.mark.parametrize("body", ["<" * 64_000, "<style " * 9000, "<style>" * 9000, "<title><" * 8000])
def test_a_page_that_never_closes_its_tags_is_read_in_a_moment(body: str) -> None:
    assert isinstance(SERVER.failure("m", 400, {}, body), ModelRefused)


def test_what_a_server_says_of_a_failure_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    failure = SERVER.failure("m", 400, {}, {"error": "no\x1b]0;owned\x07\x1b[2J\u202e\x9b31m"})

    Out(color="never").fail(CommandFailed(str(failure), hint="one\ntwo\x1b[0m"))

    shown = capsys.readouterr().err
    assert "owned" in shown and all(each.isprintable() or each == "\n" for each in shown)


@pytest.mark.parametrize("form", ["{}", "[{}]"])
def test_a_failure_within_failures_without_end_is_still_a_failure(form: str) -> None:
    body: object = "why"
    for _ in range(990):
        body = {"error": body} if form == "{}" else [body]

    assert isinstance(SERVER.failure("m", 400, {}, body), ModelRefused)


@pytest.mark.parametrize(
    "told",
    [
        "Thu, 01 Jan 1970 00:00:00 +99999999999999999999999",
        "Thu, 01 Jan 99999999999999999999 00:00:00 GMT",
        "inf",
        "NaN",
        "soon",
        "-1e999",
        "(" * 10_000,
    ],
)
def test_a_time_to_wait_that_is_none_is_as_if_it_were_not_told(told: str) -> None:
    assert retry_after_seconds({"retry-after": told}) in (None, 0.0)


# ---- programs


async def _asked_of(tmp_path: Path, code: str, **given: Any) -> Any:
    """Return what a program replies that calls itself `claude`."""
    program = tmp_path / "claude"
    program.write_text(f"#!{sys.executable}\n{code}")
    program.chmod(0o700)
    async with CommandModel([str(program)], **given) as model:
        return await model.complete(ASK)


async def test_a_program_that_never_ends_a_line_is_ended_by_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlm_runtime.models.claude_code.MOST_BYTES", 4_000_000)
    with anyio.fail_after(30), pytest.raises(ModelRefused, match="printed more than"):
        await _asked_of(tmp_path, "import sys\nwhile True:\n    sys.stdout.write('x' * 65536)\n")


@pytest.mark.parametrize("told", ['"1e9"', "1e999", "NaN", "-5", "{}", "1e300", "true"])
async def test_a_program_that_lies_about_its_cost_breaks_nothing(tmp_path: Path, told: str) -> None:
    usage = f'{{"input_tokens": {told}, "output_tokens": {told}}}'
    lines = (
        '{"type": "stream_event", "event": {"type": "message_start", "message": {"model": "m", "usage": USAGE}}}',
        '{"type": "stream_event", "event": {"type": "content_block_start", "index": 0, '
        '"content_block": {"type": "text", "text": "Hi."}}}',
        '{"type": "stream_event", "event": {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": USAGE}}',
        '{"type": "stream_event", "event": {"type": "message_stop"}}',
        f'{{"type": "result", "total_cost_usd": {told}, "usage": USAGE}}',
    )
    said = "\n".join(lines).replace("USAGE", usage)
    pool = Pool(Budget(cost_usd=None))
    with anyio.fail_after(30):
        reply = await _asked_of(tmp_path, f"print({said!r})")
        async with pool.request(OpenAIModel("m", prices=PRICES), ASK) as admitted:
            admitted.settle(reply.usage)

    cost = pool.spent().cost_usd
    assert reply.text == "Hi." and 0 <= pool.spent().tokens <= 2 * 10**15
    assert cost is None or 0 <= cost <= 1e12


async def test_a_key_at_the_edge_of_what_is_shown_of_a_program_is_not_told_in_part(tmp_path: Path) -> None:
    code = "import os, sys\nsys.stderr.write(os.environ['MY_KEY'] + 'y' * 480)\nsys.exit(2)\n"
    with anyio.fail_after(30), pytest.raises(ModelRefused) as refusal:
        await _asked_of(tmp_path, code, environment={"MY_KEY": KEY, "PATH": "/usr/bin:/bin"})

    assert KEY[-16:] not in str(refusal.value)


# ---- LiteLLM


def litellm(url: str) -> LiteLLMModel:
    """Return a model behind the real LiteLLM."""
    folder = Path(os.environ.get("RLM_LITELLM_DIR") or Path(__file__).resolve().parents[2] / ".venv-litellm")
    python = str(folder / "newest" / "bin" / "python")
    return LiteLLMModel(
        "openai/m", prices=PRICES, api_key=KEY, api_base=f"{url}/v1", timeout_seconds=60, python=python
    )


async def test_litellm_is_kept_from_what_a_server_wants_it_to_do() -> None:
    """Its redirects are not followed, what is packed stays so, and of what never ends a part is read."""
    import gzip

    bomb = gzip.compress(b"[" * 300_000_000, 1)
    failure = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\n\r\n"
    async with server(ok(completion(content="Owned."))) as (elsewhere, got):
        moved = (
            f"HTTP/1.1 307 Moved\r\nlocation: {elsewhere}/v1/chat/completions\r\ncontent-length: 0\r\n\r\n"
        )
        answers: list[bytes | Endless] = [
            moved.encode(),
            ok(bomb, head="content-encoding: gzip"),
            endless(failure, b'{"error": "' + b"y" * 65536),
            endless(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n", b"x" * 65536),
        ]
        said: list[str] = []
        async with server(*answers) as (url, _), litellm(url) as model:
            for _ in answers:
                with anyio.fail_after(90), pytest.raises(ModelRefused) as refusal:
                    await model.complete(ASK)
                said.append(str(refusal.value))
            assert _most_memory(model.worker_pid) < 1_000_000_000

        assert got == []
    for words, word in zip(said, ["307", "packed", "yyy", "larger than 64 MiB"], strict=True):
        assert word in words and KEY[:8] not in words


def _most_memory(pid: int | None) -> int:
    """Return the most memory that a process ever had, in bytes; nothing where the system does not tell."""
    status = Path(f"/proc/{pid}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
