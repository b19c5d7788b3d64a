"""The scripted model is asked as real clients ask: over HTTP, in either form, whole and streamed."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest

from tests.fakes.models import (
    Breakdown,
    Hangup,
    Oracle,
    Refusal,
    Reply,
    Request,
    ScriptedModel,
    Silence,
    ToolCall,
    Turn,
    backwards,
    by_model,
    conversation,
    failing_first,
)

CALL = ToolCall("run", {"code": "print('äöü')"})
ANTHROPIC = "/v1/messages", {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
OPENAI = "/v1/chat/completions", {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
APIS = pytest.mark.parametrize("api", [ANTHROPIC, OPENAI], ids=["anthropic", "openai"])
Api = tuple[str, dict[str, Any]]


async def test_anthropic_clients_get_text_and_calls_in_one_message() -> None:
    async with ScriptedModel([Reply("Let me see.", (CALL,), input_tokens=7)]) as model:
        message = (await _post(model, ANTHROPIC)).json()

    assert [block["type"] for block in message["content"]] == ["text", "tool_use"]
    assert message["content"][1]["input"] == CALL.arguments
    assert (message["stop_reason"], message["usage"]["input_tokens"]) == ("tool_use", 7)


async def test_openai_clients_get_text_and_calls_in_one_message() -> None:
    async with ScriptedModel([Reply("Let me see.", (CALL,), input_tokens=7)]) as model:
        completion = (await _post(model, OPENAI)).json()

    [choice] = completion["choices"]
    assert choice["message"]["content"] == "Let me see."
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == CALL.arguments
    assert (choice["finish_reason"], completion["usage"]["prompt_tokens"]) == ("tool_calls", 7)


async def test_a_stream_for_anthropic_clients_adds_up_to_the_message() -> None:
    async with ScriptedModel([Reply("Let me see.", (CALL,))]) as model:
        events = await _stream(model, ANTHROPIC)

    deltas = [event["delta"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(delta.get("text", "") for delta in deltas) == "Let me see."
    assert json.loads("".join(delta.get("partial_json", "") for delta in deltas)) == CALL.arguments
    assert (events[0]["type"], events[-1]["type"]) == ("message_start", "message_stop")


async def test_a_stream_for_openai_clients_adds_up_to_the_message() -> None:
    async with ScriptedModel([Reply("Let me see.", (CALL,))]) as model:
        *chunks, last = await _stream(model, OPENAI, stream_options={"include_usage": True})

    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    calls = [call["function"] for delta in deltas for call in delta.get("tool_calls", ())]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Let me see."
    assert json.loads("".join(call["arguments"] for call in calls)) == CALL.arguments
    assert last["usage"]["total_tokens"] == 15


@APIS
async def test_a_refusal_has_its_status_and_says_when_to_come_again(api: Api) -> None:
    async with ScriptedModel([Refusal(429, "Too fast.", retry_after_seconds=2)]) as model:
        answer = await _post(model, api)

    assert (answer.status_code, answer.headers["retry-after"]) == (429, "2")
    assert answer.json()["error"]["message"] == "Too fast."


@APIS
async def test_a_hangup_is_seen_as_one(api: Api) -> None:
    async with ScriptedModel([Hangup(), Hangup(), Hangup(after_events=2)]) as model:
        with pytest.raises(httpx2.RemoteProtocolError):
            await _post(model, api)
        with pytest.raises(httpx2.RemoteProtocolError):
            await _stream(model, api)
        with pytest.raises(httpx2.RemoteProtocolError, match="incomplete"):
            await _stream(model, api)


@APIS
async def test_each_request_takes_the_next_turn_and_none_is_left_at_the_end(api: Api) -> None:
    async with ScriptedModel([Reply("one"), Reply("two")]) as model:
        answers = [await _post(model, api) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200, 200, 400]
    assert "no further turn" in answers[2].text
    assert "one" in answers[0].text and "two" in answers[1].text


async def test_a_function_answers_from_what_was_asked_in_its_own_time() -> None:
    begun, enough = anyio.Event(), anyio.Event()

    async def slow(request: Request) -> Turn:
        begun.set()
        await enough.wait()
        return Reply(request.text.upper())

    answers: list[str] = []
    async with ScriptedModel(slow) as model, anyio.create_task_group() as tasks:

        async def ask() -> None:
            answers.append((await _post(model, ANTHROPIC)).json()["content"][0]["text"])

        with anyio.fail_after(5):
            tasks.start_soon(ask)
            await begun.wait()
            assert not answers
            enough.set()

    assert answers == ["HI"]


async def test_what_came_of_calls_is_read_alike_from_both_forms() -> None:
    block = {"type": "tool_result", "tool_use_id": "1", "content": [{"type": "text", "text": "42"}]}
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    failed = {"type": "tool_result", "tool_use_id": "2", "content": [image], "is_error": True}
    anthropic = Request("anthropic", {}, {"messages": [{"role": "user", "content": [block, failed]}]})
    openai = Request("openai", {}, {"messages": [{"role": "tool", "tool_call_id": "1", "content": "42"}]})

    assert anthropic.results[0] == openai.results[0]
    assert (anthropic.results[1].images, anthropic.results[1].is_error) == (("AAAA",), True)


async def test_the_tools_on_offer_are_read_alike_from_both_forms() -> None:
    schema = {"type": "object"}
    anthropic = Request("anthropic", {}, {"tools": [{"name": "run", "input_schema": schema}]})
    openai = Request("openai", {}, {"tools": [{"function": {"name": "run", "parameters": schema}}]})

    assert anthropic.tools == openai.tools == {"run": schema}


async def test_counting_tokens_takes_no_turn() -> None:
    async with ScriptedModel([Reply("one")]) as model:
        counted = await _post(model, ("/v1/messages/count_tokens", ANTHROPIC[1]))
        answer = await _post(model, ANTHROPIC)

    assert counted.json()["input_tokens"] > 0
    assert (answer.status_code, len(model.requests)) == (200, 1)


async def test_a_connection_serves_one_request_after_another() -> None:
    script: list[Turn] = [Reply("one"), Refusal(429), Reply("two"), Breakdown(), Reply("three")]
    async with ScriptedModel(script) as model, httpx2.AsyncClient(base_url=model.url) as client:
        for stream in (False, False, True, True, True):
            await client.post(OPENAI[0], json=OPENAI[1] | {"stream": stream})

    assert (len(model.requests), model.connections) == (5, 1)


@APIS
async def test_a_stream_can_break_down_with_an_error_of_its_api(api: Api) -> None:
    async with ScriptedModel([Breakdown(after_events=2, kind="overloaded_error")]) as model:
        events = await _stream(model, api)

    assert len(events) == 3
    assert events[-1]["error"]["type"] == "overloaded_error"


@APIS
async def test_a_silent_model_is_silent_until_its_client_goes(api: Api) -> None:
    async with ScriptedModel([Silence(), Silence(after_events=2)]) as model:
        patience = httpx2.Timeout(10, read=0.1)
        async with httpx2.AsyncClient(base_url=model.url, timeout=patience) as client:
            for stream in (False, True):
                with pytest.raises(httpx2.ReadTimeout):
                    await client.post(api[0], json=api[1] | {"stream": stream})
        with anyio.fail_after(5):
            await model.until(lambda model: len(model.left) == 2)

    assert model.at_once == 0


async def test_how_many_were_asked_at_once_and_how_often_is_known() -> None:
    async with ScriptedModel(backwards(3, Reply("Yes."))) as model:
        async with anyio.create_task_group() as tasks:
            for text in ("one", "two", "two"):
                tasks.start_soon(_say, model, text)

    assert (model.most_at_once, model.at_once) == (3, 0)
    assert model.asked == {"one": 1, "two": 2}


async def test_answers_can_come_in_the_opposite_order() -> None:
    came: list[str] = []

    async def say(text: str) -> None:
        came.append(await _say(model, text))

    async with ScriptedModel(backwards(3, lambda request: Reply(request.prompt))) as model:
        async with anyio.create_task_group() as tasks:
            for text in ("one", "two", "three"):
                tasks.start_soon(say, text)

    assert came == [request.prompt for request in reversed(model.requests)]


async def test_a_root_answers_by_its_conversation_and_a_leaf_by_its_secret() -> None:
    leaf, other = Oracle("secret"), Oracle("another secret")
    root = conversation(Reply("first"), lambda request: Reply(f"second after {request.turn}"))
    async with ScriptedModel(by_model({"root": root, "leaf": leaf})) as server:
        said = [
            await _say(server, "Hi", model="root"),
            await _say(server, "Hi", "first", "And?", model="root"),
            await _say(server, "Hi", model="leaf"),
            await _say(server, "Hi", model="root"),
        ]
        unknown = await _post(server, OPENAI, model="nobody")

    assert said == ["first", "second after 1", leaf.says("Hi"), "first"]
    assert leaf.says("Hi") != other.says("Hi") and leaf.says("Hi") != leaf.says("hi")
    assert unknown.status_code == 404


async def test_an_oracle_chooses_among_what_it_may_say() -> None:
    oracle = Oracle("secret", among=("spam", "ham"))

    chosen = [oracle.says(f"line {number}") for number in range(100)]
    assert 20 < chosen.count("spam") < 80
    assert chosen == [oracle.says(f"line {number}") for number in range(100)]


async def test_each_prompt_fails_by_itself_before_it_is_answered() -> None:
    async with ScriptedModel(failing_first(Refusal(500), Reply("Yes."), times=2)) as model:
        bodies = [OPENAI[1] | {"messages": [{"role": "user", "content": text}]} for text in "ababab"]
        statuses = [(await _post(model, (OPENAI[0], body))).status_code for body in bodies]

    assert statuses == [500, 500, 500, 500, 200, 200]


async def _say(server: ScriptedModel, *texts: str, **more: Any) -> str:
    """Have a conversation of OpenAI's form, in which the user speaks first, and return what the model says last."""
    roles = ("user", "assistant") * len(texts)
    messages = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    answer = await _post(server, OPENAI, **({"messages": messages} | more))
    return str(answer.json()["choices"][0]["message"]["content"])


async def _post(server: ScriptedModel, api: Api, **more: Any) -> httpx2.Response:
    path, body = api
    with anyio.fail_after(10):
        async with httpx2.AsyncClient(base_url=server.url) as client:
            return await client.post(path, json=body | more)


async def _stream(model: ScriptedModel, api: Api, **more: Any) -> list[dict[str, Any]]:
    answer = await _post(model, api, stream=True, **more)
    data = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    return [json.loads(each) for each in data if each != "[DONE]"]
