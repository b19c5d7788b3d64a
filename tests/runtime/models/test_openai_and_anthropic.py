"""What the direct models promise, whichever API they speak, against a server that speaks it over real HTTP."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, TypeAlias

import anyio
import anyio.abc
import pytest

from rlm_runtime.errors import ModelBusy, ModelError, ModelRefused
from rlm_runtime.model import Message, Request, ToolSpec, ToolUse
from rlm_runtime.models import wire_http
from rlm_runtime.models.anthropic import AnthropicModel
from rlm_runtime.models.openai import OpenAIModel
from rlm_runtime.models.prices import Price, Prices
from tests.fakes.models import (
    Breakdown,
    Hangup,
    Refusal,
    Reply,
    ScriptedModel,
    Silence,
    ToolCall,
    Turn,
    backwards,
    late,
)
from tests.fakes.models import Request as Asked

KEY = "sk-proj-0123456789abcdefSECRET"
ADD = ToolSpec("add", "Add two numbers.", {"type": "object", "properties": {"a": {}, "b": {}}})
Opened: TypeAlias = "Callable[..., OpenAIModel | AnthropicModel]"


@pytest.fixture(params=["openai", "anthropic"])
def opened(request: pytest.FixtureRequest) -> Opened:
    """Return how to make a model of each kind for a server."""

    def make(server: ScriptedModel | str, **more: Any) -> OpenAIModel | AnthropicModel:
        url = server if isinstance(server, str) else server.url
        given: dict[str, Any] = {"api_key": KEY, "prices": Prices({"m": Price(1.0, 10.0)}), **more}
        if request.param == "openai":
            return OpenAIModel("m", api_base=f"{url}/v1", **given)
        return AnthropicModel("m", api_base=url, **given)

    return make


def ask(text: str = "Hi", **more: Any) -> Request:
    return Request((Message("user", text),), **more)


# ---- what may be billed


@pytest.mark.parametrize(
    ("turn", "streamed", "is_billed"),
    [
        (Refusal(401), False, False),
        (Refusal(429), False, False),
        (Refusal(500), False, False),
        (Refusal(529), True, False),
        (Refusal(504), False, True),
        (Refusal(200, body='{"nothing": "known"}'), False, True),
        (Refusal(200, body="cut o"), False, True),
        (Hangup(), False, True),
        (Hangup(after_events=2), True, True),
        (Hangup(after_events=2, quiet=True), True, True),
        (Breakdown(), True, True),
        (Silence(), False, True),
        (Silence(after_events=2), True, True),
    ],
)
async def test_a_request_whose_answer_was_lost_may_be_billed_and_one_that_was_turned_away_is_not(
    opened: Opened, turn: Turn, streamed: bool, is_billed: bool
) -> None:
    async def hear(text: str) -> None:
        pass

    async with ScriptedModel([turn]) as server, opened(server, timeout_seconds=0.5) as model:
        with pytest.raises(ModelError) as caught:
            await model.complete(ask(), on_text=hear if streamed else None)

    assert caught.value.may_be_billed is is_billed


async def test_a_server_that_is_not_there_bills_nothing(opened: Opened) -> None:
    async with ScriptedModel([]) as server:
        url = server.url
    async with opened(url) as model:
        with pytest.raises(ModelBusy) as caught:
            await model.complete(ask())

    assert not caught.value.may_be_billed


# ---- replies


async def test_a_reply_has_its_text_its_usage_and_its_cost(opened: Opened) -> None:
    async with ScriptedModel([Reply("Hello.", input_tokens=100, output_tokens=20)]) as server:
        async with opened(server) as model:
            reply = await model.complete(ask())

    assert (reply.text, reply.finish, reply.model) == ("Hello.", "stop", "m")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == (100, 20, False)
    assert reply.usage.cost_usd == pytest.approx(0.0003)


async def test_a_stream_is_heard_as_it_comes_and_adds_up_to_the_same_reply(opened: Opened) -> None:
    said = Reply("Let me see: äöü 🙂.", (ToolCall("add", {"a": 1}), ToolCall("add", {"b": "äöü"})), pieces=5)
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async with ScriptedModel([said, said]) as server, opened(server) as model:
        whole = await model.complete(ask(tools=(ADD,)))
        streamed = await model.complete(ask(tools=(ADD,)), on_text=hear)

    assert len(heard) == 5 and "".join(heard) == streamed.text == whole.text == said.text
    assert [(use.name, use.arguments) for use in streamed.tool_uses] == [
        ("add", {"a": 1}),
        ("add", {"b": "äöü"}),
    ]
    assert [use.arguments for use in whole.tool_uses] == [use.arguments for use in streamed.tool_uses]
    assert len({use.id for use in streamed.tool_uses}) == 2
    assert (streamed.finish, streamed.usage) == (whole.finish, whole.usage) == ("tools", whole.usage)


async def test_what_came_of_tools_is_told_in_the_form_of_the_api(opened: Opened) -> None:
    asked = (
        Message("system", "Be short."),
        Message("user", "Add."),
        Message("assistant", "", (ToolUse("t1", "add", {"a": 1}), ToolUse("t2", "add", {"a": 2}))),
        Message("tool", "3", tool_use_id="t1"),
        Message("tool", "no", tool_use_id="t2", is_error=True),
    )
    async with ScriptedModel([Reply("3")]) as server, opened(server) as model:
        await model.complete(Request(asked, tools=(ADD,)))

    [request] = server.requests
    assert [result.text for result in request.results] == ["3", "no"]
    assert (request.system, request.prompt, request.turn) == ("Be short.", "Add.", 1)
    assert request.tools == {"add": ADD.parameters}


@pytest.mark.parametrize("streamed", [False, True])
async def test_arguments_that_are_no_json_are_a_problem_of_the_call_and_not_of_the_reply(
    opened: Opened, streamed: bool
) -> None:
    wrong = ToolCall("add", '{"a": 1, "b": ')
    async with ScriptedModel([Reply("So:", (wrong, ToolCall("add", {"a": 2})))]) as server:
        async with opened(server) as model:
            if streamed:
                reply = await model.complete(ask(), on_text=_nothing)
            else:
                reply = await model.complete(ask())

    first, second = reply.tool_uses
    assert first.arguments == {} and "not valid JSON" in first.problem and '{"a": 1, "b": ' in first.problem
    assert (second.arguments, second.problem) == ({"a": 2}, "")


async def test_arguments_that_are_not_an_object_are_a_problem_too(opened: Opened) -> None:
    async with ScriptedModel([Reply(calls=(ToolCall("add", "[1, 2]"),))]) as server, opened(server) as model:
        [use] = (await model.complete(ask(), on_text=_nothing)).tool_uses

    assert use.problem == "The arguments should be a JSON object: [1, 2]"


async def test_code_with_real_line_breaks_in_its_arguments_is_read(opened: Opened) -> None:
    loose = ToolCall("run", '{"code": "a = 1\nb = 2"}')
    async with ScriptedModel([Reply(calls=(loose,))]) as server, opened(server) as model:
        [use] = (await model.complete(ask(), on_text=_nothing)).tool_uses

    assert (use.arguments, use.problem) == ({"code": "a = 1\nb = 2"}, "")


async def test_usage_that_is_not_reported_is_estimated_and_never_too_low(opened: Opened) -> None:
    said = "Grüße, 世界! " * 10
    async with ScriptedModel([Reply(said, reports_usage=False)] * 2) as server, opened(server) as model:
        request = ask("Wie geht's?")
        replies = [await model.complete(request), await model.complete(request, on_text=_nothing)]

    for reply in replies:
        assert reply.usage.estimated
        assert reply.usage.output_tokens >= len(said.encode())
        assert reply.usage.input_tokens == model.bound(request).input_tokens


async def test_an_unknown_price_is_unknown_and_not_nothing(opened: Opened) -> None:
    async with ScriptedModel([Reply("Hello.")]) as server, opened(server) as model:
        reply = await model.complete(ask(model="nobody-knows"))

    assert reply.usage.tokens == 15
    assert reply.usage.cost_usd is None and model.bound(ask(model="nobody-knows")).cost_usd is None
    assert server.requests[0].model == "nobody-knows"


async def test_text_that_no_utf8_can_hold_is_sent_nevertheless(opened: Opened) -> None:
    async with ScriptedModel([Reply("Yes.")]) as server, opened(server) as model:
        await model.complete(ask("a\ud800b\0c"))

    assert server.requests[0].prompt == "a?b\0c"


async def test_a_reply_ends_where_it_should_stop_also_if_the_server_goes_on(opened: Opened) -> None:
    async with ScriptedModel([Reply("one STOP two")]) as server, opened(server) as model:
        reply = await model.complete(ask(stop=("STOP",)))

    assert reply.text == "one "


# ---- what goes wrong


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (400, "no."),
        (401, "_API_KEY"),
        (402, "credit"),
        (403, "another key"),
        (404, "api_base"),
        (413, "give the model less"),
        (422, "no."),
    ],
)
async def test_a_refusal_for_good_says_what_to_change(opened: Opened, status: int, told: str) -> None:
    async with ScriptedModel([Refusal(status, "The script says no.")]) as server, opened(server) as model:
        with pytest.raises(ModelRefused, match=rf"The script says no\. \(HTTP {status}\)") as raised:
            await model.complete(ask())

    assert raised.value.status == status
    assert told in str(raised.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
async def test_a_failure_for_now_is_told_as_one_and_not_tried_again(opened: Opened, status: int) -> None:
    refusal = Refusal(status, "invalid_request_error authentication_error")
    async with ScriptedModel([refusal, Reply("one")]) as server, opened(server) as model:
        with pytest.raises(ModelBusy) as raised:
            await model.complete(ask())

    assert (raised.value.status, raised.value.retry_after_seconds) == (status, None)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "7", "retry-after-ms": "1500"}, 1.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
async def test_when_to_come_again_is_read_in_all_its_forms(
    opened: Opened, headers: dict[str, str], seconds: float | None
) -> None:
    async with ScriptedModel([Refusal(429, headers=headers)]) as server, opened(server) as model:
        with pytest.raises(ModelBusy) as raised:
            await model.complete(ask())

    assert raised.value.retry_after_seconds == seconds


async def test_a_date_to_come_again_is_so_many_seconds_away(opened: Opened) -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    async with (
        ScriptedModel([Refusal(503, headers={"retry-after": then})]) as server,
        opened(server) as model,
    ):
        with pytest.raises(ModelBusy) as raised:
            await model.complete(ask())

    assert 3000 < (raised.value.retry_after_seconds or 0) <= 3600


@pytest.mark.parametrize(
    "script",
    [Hangup(), Hangup(after_events=2), Hangup(after_events=2, quiet=True), Hangup(quiet=True), Breakdown()],
    ids=["at once", "within", "quietly within", "quietly at once", "error event"],
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_an_answer_that_does_not_come_to_its_end_is_no_answer(
    opened: Opened, script: Turn, streamed: bool
) -> None:
    if isinstance(script, Hangup) and script.quiet and not streamed:
        script = Refusal(200, body='{"id": "x", "choi')  # cut off, though HTTP has it whole
    async with ScriptedModel([script, Reply("one")]) as server, opened(server) as model:
        with pytest.raises(ModelBusy), anyio.fail_after(5):
            await model.complete(ask(), **({"on_text": _nothing} if streamed else {}))
        after = await model.complete(ask())

    assert after.text == "one"  # what is broken is not used again


async def test_an_error_within_a_stream_has_the_status_of_its_kind(opened: Opened) -> None:
    script = [Breakdown(kind="overloaded_error"), Breakdown(kind="authentication_error")]
    async with ScriptedModel(script) as server, opened(server) as model:
        with pytest.raises(ModelBusy) as busy:
            await model.complete(ask(), on_text=_nothing)
        with pytest.raises(ModelRefused) as refused:
            await model.complete(ask(), on_text=_nothing)

    assert (busy.value.status, refused.value.status) == (529, 401)


@pytest.mark.parametrize(
    "body", ["{}", "[]", "7", '{"choices": []}', '{"content": 1}', '{"content": [{"type": "text"}]}']
)
async def test_an_answer_in_another_form_is_a_failure_of_the_server(opened: Opened, body: str) -> None:
    async with ScriptedModel([Refusal(200, body=body)]) as server, opened(server) as model:
        with pytest.raises(ModelBusy):
            await model.complete(ask())


async def test_a_page_in_place_of_an_answer_says_that_the_address_is_wrong(opened: Opened) -> None:
    page = "<html><head><title>Hi</title></head><body>Welcome</body></html>"
    async with ScriptedModel([Refusal(200, body=page), Refusal(502, body=page)]) as server:
        async with opened(server) as model:
            with pytest.raises(ModelRefused, match="Is api_base right"):
                await model.complete(ask())
            with pytest.raises(ModelBusy, match=r"Welcome \(HTTP 502\)"):
                await model.complete(ask())


async def test_a_server_that_is_not_there_is_named(opened: Opened) -> None:
    async with ScriptedModel([]) as server:
        gone = server.url
    async with opened(gone) as model:
        with pytest.raises(ModelBusy, match=f"{gone}.* cannot be reached"):
            await model.complete(ask())


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://host", "http://", "http://[", "https://a:b"])
async def test_an_address_that_is_none_is_refused_before_anything_is_sent(
    opened: Opened, address: str
) -> None:
    async with opened(address) as model:
        with pytest.raises(ModelRefused, match="api_base is no address"):
            await model.complete(ask())


async def test_a_model_that_never_answers_is_given_up_after_its_time(opened: Opened) -> None:
    async with ScriptedModel([Silence(), Silence(after_events=3)]) as server:
        async with opened(server, timeout_seconds=1) as model:
            with anyio.fail_after(5):
                for hears in ({}, {"on_text": _nothing}):
                    with pytest.raises(ModelBusy, match="no answer in 1 seconds"):
                        await model.complete(ask(), **hears)
                await server.until(lambda model: len(model.left) == 2)


async def test_an_answer_without_end_is_not_read_to_its_end(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wire_http, "MOST_BYTES", 100_000)
    async with ScriptedModel([Reply("x" * 200_000)] * 2) as server, opened(server) as model:
        with pytest.raises(ModelRefused, match="larger than"):
            await model.complete(ask())
        with pytest.raises(ModelRefused, match="larger than"):
            await model.complete(ask(), on_text=_nothing)


async def test_an_error_of_the_listener_is_its_own(opened: Opened) -> None:
    async def fail(_: str) -> None:
        raise TimeoutError("mine")

    async with ScriptedModel([Reply("Hello."), Reply("one")]) as server, opened(server) as model:
        with pytest.raises(TimeoutError, match="mine"):
            await model.complete(ask(), on_text=fail)
        assert (await model.complete(ask())).text == "one"


async def test_a_proxy_of_the_environment_is_used_where_it_is_meant_for(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ScriptedModel([Reply("through")]) as proxy, ScriptedModel([Reply("past")]) as server:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        async with opened("http://models.invalid") as far, opened(server) as near:
            answers = [(await model.complete(ask())).text for model in (far, near)]

    assert answers == ["through", "past"]
    assert proxy.requests[0].headers["host"] == "models.invalid"


# ---- the key


@pytest.mark.parametrize("status", [200, 400, 401, 500])
async def test_the_key_is_never_shown(opened: Opened, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told = f"Incorrect API key provided: {KEY} (Bearer {KEY})."
    async with ScriptedModel(
        [Refusal(status, told, body="" if status != 200 else f"no json: {KEY}")]
    ) as server:
        async with opened(server) as model:
            with pytest.raises((ModelRefused, ModelBusy)) as raised:
                await model.complete(ask())

    sent = server.requests[0].headers
    assert KEY in (sent.get("authorization", "") + sent.get("x-api-key", ""))
    shown = f"{raised.value} {raised.value!r} {vars(raised.value)} {raised.getrepr(chain=True)} {model!r} {caplog.text}"
    assert KEY not in shown


async def test_the_key_is_in_no_variable_of_a_traceback_as_it_is_shown(opened: Opened) -> None:
    async with ScriptedModel([Refusal(500)]) as server, opened(server) as model:
        with pytest.raises(ModelBusy) as failed:
            await model.complete(ask())
    async with opened(server.url) as model:
        with pytest.raises(ModelBusy, match="cannot be reached") as lost:
            await model.complete(ask())

    for raised in (failed, lost):
        assert KEY not in str(raised.getrepr(showlocals=True, funcargs=True, chain=True))


@pytest.mark.parametrize("key", [f"{KEY}\nsecond", f"{KEY}ä", f"{KEY}\x00"])
async def test_a_key_that_cannot_be_one_is_refused_without_being_shown(opened: Opened, key: str) -> None:
    async with ScriptedModel([]) as server, opened(server, api_key=key) as model:
        with pytest.raises(ModelRefused, match="_API_KEY") as raised:
            await model.complete(ask())

    assert "SECRET" not in str(raised.getrepr(chain=True))


async def test_a_line_break_after_a_key_is_no_part_of_it(opened: Opened) -> None:
    async with ScriptedModel([Reply("Yes.")]) as server, opened(server, api_key=f"{KEY}\n") as model:
        assert (await model.complete(ask())).text == "Yes."


async def test_keys_in_an_address_are_not_shown(opened: Opened) -> None:
    async with ScriptedModel([Refusal(404)]) as server:
        address = server.url.replace("http://", f"http://me:{KEY}@")
        async with opened(address) as model:
            with pytest.raises(ModelRefused, match="The address was") as raised:
                await model.complete(ask())

    assert KEY not in str(raised.value)


async def test_no_key_is_sent_where_there_is_none(opened: Opened) -> None:
    async with ScriptedModel([Reply("Yes."), Refusal(401)]) as server, opened(server, api_key="") as model:
        await model.complete(ask())
        with pytest.raises(ModelRefused, match="No key was sent"):
            await model.complete(ask())

    assert not {"authorization", "x-api-key"} & set(server.requests[0].headers)


# ---- many at once


async def test_a_hundred_calls_are_a_hundred_requests_at_once_and_keep_their_answers(opened: Opened) -> None:
    def echo(request: Asked) -> Turn:
        return Reply(request.prompt)

    answers: dict[int, str] = {}
    async with ScriptedModel(backwards(100, echo)) as server, opened(server) as model:

        async def call(number: int) -> None:
            answers[number] = (await model.complete(ask(f"number {number}"))).text

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(100):
                    tasks.start_soon(call, number)

    assert server.most_at_once == 100
    assert answers == {number: f"number {number}" for number in range(100)}


async def test_connections_are_used_again(opened: Opened) -> None:
    async with ScriptedModel(late(0, Reply("Yes."))) as server, opened(server) as model:
        for _ in range(5):
            await model.complete(ask())
            await model.complete(ask(), on_text=_nothing)

    assert server.connections == 1


async def test_a_connection_that_the_server_closed_meanwhile_is_not_used(opened: Opened) -> None:
    async with ScriptedModel(late(0, Reply("Yes."))) as server, opened(server) as model:
        await model.complete(ask())
        await server.hang_up()
        assert (await model.complete(ask())).text == "Yes."

    assert server.connections == 2


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_caller_that_is_cancelled_ends_its_request_and_no_other(
    opened: Opened, streamed: bool
) -> None:
    stay = anyio.Event()

    async def answer(request: Asked) -> Turn:
        if request.prompt == "stay":
            await stay.wait()
            return Reply("stayed")
        return Silence(after_events=3)

    stayed: list[str] = []
    async with ScriptedModel(answer) as server, opened(server) as model, anyio.create_task_group() as tasks:
        hears = {"on_text": _nothing} if streamed else {}

        async def remain() -> None:
            stayed.append((await model.complete(ask("stay"), **hears)).text)

        async def leave(*, task_status: anyio.abc.TaskStatus[anyio.CancelScope]) -> None:
            with anyio.CancelScope() as scope:
                task_status.started(scope)
                await model.complete(ask("leave"), **hears)

        with anyio.fail_after(5):
            tasks.start_soon(remain)
            scope = await tasks.start(leave)
            await server.until(lambda model: model.at_once == 2)
            scope.cancel()
            await server.until(lambda model: len(model.left) == 1)
            stay.set()

    assert (stayed, server.left[0].prompt) == (["stayed"], "leave")


# ---- what it may cost


async def test_a_bound_is_never_below_what_was_used(opened: Opened) -> None:
    texts = ["", "word " * 100, "äöü 世界 🙂 ﷽" * 20, "\ud800", "\0" * 50]
    async with ScriptedModel([]) as server, opened(server) as model:
        for text in texts:
            bound = model.bound(ask(text, tools=(ADD,), max_tokens=7))
            assert bound.input_tokens >= len(json.dumps([ADD.parameters, text]).encode()) // 6 + len(text)
            assert bound.output_tokens == 7
            assert bound.cost_usd == pytest.approx((bound.input_tokens + 70) / 1e6)


async def test_a_conversation_that_goes_on_is_bounded_by_what_was_counted(opened: Opened) -> None:
    first = Request((Message("system", "long " * 1000), Message("user", "Hi")), tools=(ADD,))
    more = (Message("assistant", "Hello."), Message("user", "And?"))
    next_one = Request((*first.messages, *more), tools=(ADD,))
    async with ScriptedModel([Reply("Hello.", input_tokens=1200)]) as server, opened(server) as model:
        before = model.bound(next_one).input_tokens
        await model.complete(first)
        after = model.bound(next_one).input_tokens

    assert before > 5000
    assert 1200 + len("Hello.And?") <= after < 1300
    assert (
        model.bound(Request((*first.messages, *more))).input_tokens > 5000
    )  # without the tools it is another one


async def _nothing(_: str) -> None:
    pass
