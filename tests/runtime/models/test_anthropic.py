"""What is particular to Anthropic's messages."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_runtime.model import Message, Request, ToolSpec, ToolUse
from rlm_runtime.models.anthropic import AnthropicModel
from rlm_runtime.models.prices import Prices
from tests.fakes.models import Refusal, Reply, ScriptedModel, ToolCall, Turn
from tests.fakes.models import Request as Asked


def opened(server: ScriptedModel, **more: Any) -> AnthropicModel:
    return AnthropicModel("m", api_base=server.url, prices=Prices(), **more)


async def _asked(*messages: Message, **more: Any) -> dict[str, Any]:
    async with ScriptedModel([Reply("Yes.")]) as server, opened(server, api_key="k") as model:
        await model.complete(Request(messages, **more))
    return server.requests[0].body


async def test_what_the_system_says_stands_apart_and_limits_are_always_given() -> None:
    body = await _asked(Message("system", "One."), Message("user", "Hi"), Message("system", "Two."))

    assert (body["system"], body["max_tokens"]) == ("One.\n\nTwo.", 4096)
    assert body["messages"] == [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]


async def test_turns_alternate_and_what_came_of_tools_is_first_in_its_turn() -> None:
    use = ToolUse("t1", "f", {"a": 1})
    body = await _asked(
        Message("user", "one"),
        Message("user", "two"),
        Message("assistant", "", (use,)),
        Message("user", "by the way"),
        Message("tool", "", tool_use_id="t1", is_error=True),
    )

    first, said, last = body["messages"]
    assert [block["text"] for block in first["content"]] == ["one", "two"]
    assert said["content"] == [{"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}]
    assert [block["type"] for block in last["content"]] == ["tool_result", "text"]
    assert last["content"][0]["is_error"] is True


async def test_tools_that_were_used_are_named_also_where_none_may_be_used_now() -> None:
    use = ToolUse("t1", "f", {})
    asked = (Message("user", "go"), Message("assistant", "", (use,)), Message("tool", "1", tool_use_id="t1"))
    body = await _asked(*asked)

    assert ([tool["name"] for tool in body["tools"]], body["tool_choice"]) == (["f"], {"type": "none"})


async def test_nothing_that_the_api_refuses_as_empty_is_sent() -> None:
    body = await _asked(
        Message("assistant", "before anybody asked"),
        Message("user", ""),
        Message("assistant", " \n"),
        Message("user", "go on"),
        stop=(" ", "END"),
    )

    assert [turn["role"] for turn in body["messages"]] == ["user", "assistant", "user"]
    assert all(block["text"].strip() for turn in body["messages"] for block in turn["content"])
    assert body["stop_sequences"] == ["END"]


async def test_the_version_of_the_api_and_the_key_are_in_the_head() -> None:
    async with ScriptedModel([Reply("Yes.")]) as server, opened(server, api_key="k-1") as model:
        await model.complete(Request((Message("user", "Hi"),)))

    head = server.requests[0].headers
    assert (head["x-api-key"], head["anthropic-version"]) == ("k-1", "2023-06-01")


async def test_tokens_from_a_cache_are_input() -> None:
    said = Reply("Yes.", input_tokens=1000, cached_tokens=900)
    async with ScriptedModel([said, said]) as server, opened(server) as model:
        request = Request((Message("user", "Hi"),))
        usages = [
            (await model.complete(request)).usage,
            (await model.complete(request, on_text=_nothing)).usage,
        ]

    assert [usage.input_tokens for usage in usages] == [1000, 1000]


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("pause_turn", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("refusal", "refused"),
    ],
)
async def test_how_a_reply_ended_is_told(reason: str, finish: str) -> None:
    said = Reply("So far.", finish=reason)
    async with ScriptedModel([said, said]) as server, opened(server) as model:
        request = Request((Message("user", "Hi"),))
        finishes = [
            (await model.complete(request)).finish,
            (await model.complete(request, on_text=_nothing)).finish,
        ]

    assert finishes == [finish, finish]


async def test_arguments_that_a_limit_cut_off_are_told_as_that() -> None:
    said = Reply(calls=(ToolCall("f", '{"code": "pri'),), finish="max_tokens")
    async with ScriptedModel([said]) as server, opened(server) as model:
        [use] = (await model.complete(Request((Message("user", "Hi"),)), on_text=_nothing)).tool_uses

    assert "reached max_tokens" in use.problem


async def test_a_temperature_that_a_model_does_not_take_is_left_out() -> None:
    def picky(request: Asked) -> Turn:
        if "temperature" in request.body:
            return Refusal(400, "`temperature` is deprecated for this model.")
        return Reply("Yes.")

    async with ScriptedModel(picky) as server, opened(server) as model:
        for _ in range(2):
            await model.complete(Request((Message("user", "Hi"),), temperature=1.5))

    assert [request.body.get("temperature") for request in server.requests] == [1.0, None, None]


async def test_tools_are_offered_with_their_schemas() -> None:
    body = await _asked(Message("user", "Hi"), tools=(ToolSpec("f", "Does it.", {"type": "object"}),))

    assert body["tools"] == [{"name": "f", "description": "Does it.", "input_schema": {"type": "object"}}]


@pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/", "/v1/messages"])
async def test_an_address_is_taken_in_every_way_in_which_it_is_written(base: str) -> None:
    async with ScriptedModel([Reply("Yes.")]) as server:
        async with AnthropicModel("m", api_base=server.url + base, prices=Prices()) as model:
            assert (await model.complete(Request((Message("user", "Hi"),)))).text == "Yes."


async def _nothing(_: str) -> None:
    pass
