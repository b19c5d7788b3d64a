"""What is particular to OpenAI's chat completions, and to the servers that speak them in their own way."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_runtime.errors import ModelRefused
from rlm_runtime.model import Message, Request, ToolUse
from rlm_runtime.models.openai import OpenAIModel
from rlm_runtime.models.prices import Prices
from tests.fakes.models import Refusal, Reply, ScriptedModel, Turn
from tests.fakes.models import Request as Asked

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def opened(server: ScriptedModel, **more: Any) -> OpenAIModel:
    return OpenAIModel("m", api_base=f"{server.url}/v1", prices=Prices(), **more)


def ask(text: str = "Hi", **more: Any) -> Request:
    return Request((Message("user", text),), **more)


async def test_a_schema_is_given_to_the_server_strictly_where_it_leaves_nothing_open() -> None:
    async with ScriptedModel([Reply("{}")] * 3) as server, opened(server) as model:
        for schema in (SCHEMA, {"type": "object", "properties": {"a": SCHEMA}}, {"type": "array"}):
            await model.complete(ask(schema=schema))

    formats = [request.body.get("response_format") for request in server.requests]
    assert formats[0] == {
        "type": "json_schema",
        "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
    }
    assert formats[1] is not None and formats[1]["json_schema"]["strict"] is False
    assert formats[2] is None  # the API takes objects only, so the instructions have to do


async def test_a_server_that_takes_no_schema_is_asked_without_one_from_then_on() -> None:
    def plain(request: Asked) -> Turn:
        if "response_format" in request.body:
            return Refusal(400, "This response_format type is unavailable now")
        return Reply("{}")

    async with ScriptedModel(plain) as server, opened(server) as model:
        for _ in range(2):
            assert (await model.complete(ask(schema=SCHEMA))).text == "{}"

    assert ["response_format" in each.body for each in server.requests] == [True, False, False]


async def test_a_schema_that_the_server_does_not_take_says_nothing_about_others() -> None:
    def picky(request: Asked) -> Turn:
        schema = request.body.get("response_format", {}).get("json_schema", {}).get("schema", SCHEMA)
        return (
            Reply("{}") if schema == SCHEMA else Refusal(400, "Invalid schema for response_format 'answer'")
        )

    async with ScriptedModel(picky) as server, opened(server) as model:
        for schema in ({"type": "object"}, {"type": "object"}, SCHEMA):
            await model.complete(ask(schema=schema))

    assert ["response_format" in each.body for each in server.requests] == [True, False, False, True]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (
            "max_completion_tokens",
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
        ),
        ("max_tokens", "Unrecognized request argument supplied: max_completion_tokens"),
    ],
)
async def test_the_limit_of_a_reply_is_named_as_the_model_wants_it(
    wanted: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(request: Asked) -> Turn:
        return Reply("Yes.") if wanted in request.body else Refusal(400, said, code="unsupported_parameter")

    async with ScriptedModel(picky) as server, opened(server) as model:
        other = "max_completion_tokens" if wanted == "max_tokens" else "max_tokens"
        monkeypatch.setattr(model, "_limit", other)
        for _ in range(2):
            await model.complete(ask(max_tokens=9))
        await model.complete(ask(model="another", max_tokens=9))

    assert [request.body.get(wanted) for request in server.requests] == [None, 9, 9, None, 9]


async def test_all_that_a_server_does_not_take_is_left_out() -> None:
    words = {
        "temperature": "Unsupported value: 'temperature' does not support 0.0 with this model.",
        "stop": "Unsupported parameter: 'stop' is not supported with this model.",
        "stream_options": "Extra inputs are not permitted: stream_options",
    }

    def picky(request: Asked) -> Turn:
        wrong = next((word for word in words if word in request.body), "")
        return Refusal(422, words[wrong]) if wrong else Reply("a STOP b", input_tokens=3)

    async def hear(_: str) -> None:
        pass

    async with ScriptedModel(picky) as server, opened(server) as model:
        reply = await model.complete(ask(temperature=0.0, stop=("STOP",)), on_text=hear)

    assert (reply.text, reply.usage.estimated) == ("a ", True)
    assert len(server.requests) == 4


async def test_a_limit_that_is_too_large_is_no_matter_of_names() -> None:
    said = "max_tokens is too large: 99999. This model supports at most 16384 completion tokens."
    async with ScriptedModel([Refusal(400, said)]) as server, opened(server) as model:
        with pytest.raises(ModelRefused, match="too large"):
            await model.complete(ask(max_tokens=99999))

    assert len(server.requests) == 1


async def test_what_is_wrong_in_a_request_is_said_with_its_place() -> None:
    body = '{"detail": [{"loc": ["body", "messages", 0], "msg": "Field required", "type": "missing"}]}'
    async with ScriptedModel([Refusal(422, body=body)]) as server, opened(server) as model:
        with pytest.raises(ModelRefused, match=r"body\.messages\.0: Field required"):
            await model.complete(ask())


async def test_an_account_without_credit_is_not_asked_again_though_its_status_is_429() -> None:
    script = [Refusal(429, "You exceeded your current quota.", code="insufficient_quota")]
    async with ScriptedModel(script) as server, opened(server) as model:
        with pytest.raises(ModelRefused, match="top it up"):
            await model.complete(ask())


@pytest.mark.parametrize(
    ("said", "finish", "text"),
    [
        (Reply("cut", finish="length"), "length", "cut"),
        (Reply(refusal="I cannot help."), "refused", "I cannot help."),
        (Reply("", finish="content_filter"), "refused", ""),
    ],
)
async def test_how_a_reply_ended_is_told(said: Reply, finish: str, text: str) -> None:
    async def hear(_: str) -> None:
        pass

    async with ScriptedModel([said, said]) as server, opened(server) as model:
        replies = [await model.complete(ask()), await model.complete(ask(), on_text=hear)]

    assert [(reply.finish, reply.text) for reply in replies] == [(finish, text)] * 2


async def test_tokens_of_reasoning_that_only_the_total_names_are_counted() -> None:
    usage = '{"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 215}'
    body = f'{{"choices": [{{"message": {{"content": "x"}}, "finish_reason": "stop"}}], "usage": {usage}}}'
    async with ScriptedModel([Refusal(200, body=body)]) as server, opened(server) as model:
        reply = await model.complete(ask())

    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 205)


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
async def test_what_a_model_thinks_is_no_reply_and_counts_where_nothing_is_reported(name: str) -> None:
    whole = f'{{"choices": [{{"message": {{"content": "x", "{name}": "{"y" * 500}"}}, "finish_reason": "stop"}}]}}'
    delta = whole.replace('"message"', '"delta"')
    script = [
        Refusal(200, body=whole),
        Refusal(200, body=f"data: {delta}\n\n", headers={"content-type": "text/event-stream"}),
    ]
    async with ScriptedModel(script) as server, opened(server) as model:
        replies = [await model.complete(ask()), await model.complete(ask(), on_text=_nothing)]

    assert [reply.text for reply in replies] == ["x", "x"]
    assert all(reply.usage.output_tokens > 500 for reply in replies)


async def test_an_error_in_an_answer_with_status_200_is_an_error() -> None:
    body = '{"error": {"message": "No such model.", "code": 404}}'
    async with ScriptedModel([Refusal(200, body=body)]) as server, opened(server) as model:
        with pytest.raises(ModelRefused, match="No such model") as raised:
            await model.complete(ask())

    assert raised.value.status == 404


async def test_a_server_that_does_not_stream_is_heard_all_the_same() -> None:
    body = '{"choices": [{"message": {"content": [{"type": "text", "text": "whole"}]}, "finish_reason": "stop"}]}'
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async with ScriptedModel([Refusal(200, body=body)]) as server, opened(server) as model:
        reply = await model.complete(ask(), on_text=hear)

    assert heard == ["whole"] == [reply.text]


async def test_calls_whose_pieces_have_no_index_or_the_same_one_are_told_apart_by_their_ids() -> None:
    def chunk(id_: str, arguments: str, index: str = "") -> str:
        call = f'{{{index}"id": "{id_}", "function": {{"name": "f{id_}", "arguments": "{arguments}"}}}}'
        return f'data: {{"choices": [{{"delta": {{"tool_calls": [{call}]}}}}]}}\n\n'

    end = 'data: {"choices": [{"delta": {}, "finish_reason": "tool_calls"}]}\n\n'
    for index in ("", '"index": 0, '):
        stream = chunk("1", "{", index) + chunk("", "}", index) + chunk("2", "{}", index) + end
        script = [Refusal(200, body=stream, headers={"content-type": "text/event-stream"})]
        async with ScriptedModel(script) as server, opened(server) as model:
            reply = await model.complete(ask(), on_text=_nothing)

        assert [(use.id, use.name, use.problem) for use in reply.tool_uses] == [
            ("1", "f1", ""),
            ("2", "f2", ""),
        ]


async def test_an_answer_of_a_model_to_its_own_tools_comes_with_its_calls() -> None:
    use = ToolUse("t1", "f", {"ä": 1})
    asked = (Message("assistant", "", (use,)), Message("tool", "3", tool_use_id="t1"))
    async with ScriptedModel([Reply("3")]) as server, opened(server) as model:
        await model.complete(Request((Message("user", "Add."), *asked)))

    [_, said, result] = server.requests[0].body["messages"]
    assert said["content"] is None
    assert said["tool_calls"] == [
        {"id": "t1", "type": "function", "function": {"name": "f", "arguments": '{"ä": 1}'}}
    ]
    assert result == {"role": "tool", "tool_call_id": "t1", "content": "3"}


@pytest.mark.parametrize("base", ["/v1", "/v1/", "/v1/chat/completions"])
async def test_an_address_is_taken_in_every_way_in_which_it_is_written(base: str) -> None:
    async with ScriptedModel([Reply("Yes.")]) as server:
        async with OpenAIModel("m", api_base=server.url + base, prices=Prices()) as model:
            assert (await model.complete(ask())).text == "Yes."


async def _nothing(_: str) -> None:
    pass
