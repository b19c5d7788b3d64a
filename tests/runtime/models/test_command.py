"""A program as a model: what it is told, what it says, what it costs, and that nothing is left of it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.errors import ModelBusy, ModelRefused, ModelUnavailable
from rlm_runtime.model import Message, Request, ToolUse
from rlm_runtime.models.command import CommandModel
from rlm_runtime.models.prices import Price, Prices
from tests.e2e.grounds import all_ended, descendants, node_program, with_node
from tests.fakes.models import Refusal, Reply, ScriptedModel, Silence

ECHO = "import sys; sys.stdout.write(sys.stdin.read())"


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


def ask(text: str = "Hi", *, system: str = "", **more: Any) -> Request:
    role = (Message("system", system),) if system else ()
    return Request((*role, Message("user", text)), **more)


async def answer(command: Sequence[str], request: Request, **options: Any) -> str:
    async with CommandModel(command, **options) as model:
        with anyio.fail_after(20):
            return (await model.complete(request)).text


# ---- what it is told


async def test_the_prompt_is_on_the_input_and_the_role_before_it() -> None:
    assert await answer(python(ECHO), ask("Grüße?\n")) == "Grüße?"
    assert await answer(python(ECHO), ask("Hi", system="Be short.")) == "Be short.\n\nHi"


async def test_places_in_the_arguments_are_filled_and_what_fills_them_is_not() -> None:
    shows = python(
        "import sys; print(sys.argv[1:], sys.stdin.read())", "-s", "{system}", "p={prompt}.", "{model}"
    )

    said = await answer(shows, ask("{system} {model}\0", system="{prompt}", model="large"))

    assert said == "['-s', '{prompt}', 'p={system} {model}.', 'large']"


async def test_a_conversation_is_told_with_who_said_what() -> None:
    messages = (
        Message("user", "One?"),
        Message("assistant", "Two.", (ToolUse("1", "x"),)),
        Message("user", "Three?"),
    )
    said = await answer(python(ECHO), Request(messages))

    assert said.endswith("[user]\nOne?\n\n[assistant]\nTwo.\n\n[user]\nThree?\n\n[assistant]")


async def test_a_prompt_that_no_argument_can_hold_is_refused_and_one_on_the_input_is_not() -> None:
    long = "x" * 3_000_000

    with pytest.raises(ModelRefused, match="comes on the input"):
        await answer(python("", "{prompt}"), ask(long))
    counts = python("import sys; print(len(sys.stdin.read()))")
    assert await answer(counts, ask(long)) == "3000000"
    assert await answer([*counts, "{system}"], ask("ab", system=long)) == "3000004"


async def test_a_program_sees_the_environment_that_it_is_given_and_an_empty_folder(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET", "ours")
    shows = python(
        "import os; print(sorted(set(os.environ) - {'LC_CTYPE', 'WITHIN_RLM_REQUEST'}), os.listdir())"
    )

    assert await answer(shows, ask()) == "['PATH'] []"
    assert await answer(shows, ask(), environment={"A_KEY": "1"}) == "['A_KEY'] []"


# ---- what it says


async def test_an_answer_is_heard_as_it_comes() -> None:
    speaks = python("import time\nfor word in 'äb', 'cd': print(word, flush=True); time.sleep(0.3)")
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async with CommandModel(speaks) as model:
        reply = await model.complete(ask(), on_text=hear)

    assert heard == ["äb\n", "cd\n"]
    assert (reply.text, reply.finish) == ("äb\ncd", "stop")


async def test_tokens_are_counted_as_bytes_and_never_pass_the_bound() -> None:
    request = ask("Wie geht's? 🙂", max_tokens=100)
    async with CommandModel(python(ECHO)) as model:
        reply = await model.complete(request)
        bound = model.bound(request)

    assert reply.usage.estimated and reply.usage.cost_usd is None and bound.cost_usd is None
    assert reply.usage.output_tokens == len(reply.text.encode()) <= bound.output_tokens == 100
    assert reply.usage.input_tokens == bound.input_tokens >= len(request.messages[0].content.encode())


async def test_an_answer_without_end_is_ended() -> None:
    async with CommandModel(["yes", "äö"]) as model:
        with anyio.fail_after(5):
            reply = await model.complete(ask(max_tokens=1000))

    assert (reply.finish, reply.usage.output_tokens) == ("length", 1000)
    assert set(reply.text) == set("äö\n")


async def test_a_reply_ends_where_it_should_stop() -> None:
    assert await answer(python("print('one STOP two')"), ask(stop=("STOP",))) == "one "


async def test_a_program_that_does_not_read_is_heard_nevertheless() -> None:
    assert await answer(["echo", "Yes."], ask("x" * 3_000_000)) == "Yes."


async def test_an_input_that_breaks_is_no_error_that_nobody_took() -> None:
    reported = list[dict[str, Any]]()
    loop = asyncio.get_running_loop()
    usual = loop.get_exception_handler()
    loop.set_exception_handler(lambda _, context: reported.append(context))
    try:
        closes = ["sh", "-c", "exec <&-; sleep 0.3; echo yes"]
        assert await answer(closes, ask("x" * 3_000_000)) == "yes"
        gc.collect()
        await anyio.wait_all_tasks_blocked()
    finally:
        loop.set_exception_handler(usual)

    assert not reported


async def test_what_a_program_leaves_behind_keeps_nobody_waiting_and_does_not_stay() -> None:
    before = descendants(os.getpid())
    async with CommandModel(["sh", "-c", "sleep 1000 & echo done"]) as model:
        with anyio.fail_after(10):
            assert (await model.complete(ask())).text == "done"
            await all_ended(descendants(os.getpid()) - before)


# ---- what goes wrong


@pytest.mark.parametrize(
    ("code", "error"),
    [(1, ModelBusy), (75, ModelBusy), (2, ModelRefused), (64, ModelRefused), (77, ModelRefused)],
)
async def test_a_code_says_whether_to_ask_again(code: int, error: type[Exception]) -> None:
    fails = ["sh", "-c", f"echo half an answer; echo no luck with $A_KEY >&2; exit {code}"]

    with pytest.raises(error, match=rf"`sh` ended with code {code}: no luck with \[key\]$"):
        await answer(fails, ask(), environment={"A_KEY": "secret", "PATH": os.defpath})


async def test_a_program_that_was_killed_may_be_asked_again() -> None:
    with pytest.raises(ModelBusy, match="was killed by signal 9: it did not say why"):
        await answer(["sh", "-c", "kill -9 $$"], ask())


@pytest.mark.parametrize("end", ["exit 1", "sleep 20"])
async def test_what_a_program_was_told_and_said_before_it_failed_is_counted(end: str) -> None:
    with pytest.raises(ModelBusy) as raised:
        await answer(
            ["sh", "-c", f"cat > /dev/null; echo 123456789; {end}"], ask("a" * 100), timeout_seconds=1
        )

    usage = raised.value.usage
    assert usage is not None and usage.input_tokens > 100
    assert (usage.output_tokens, usage.cost_usd, usage.estimated) == (10, None, True)


async def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(ModelUnavailable, match=r"`no-such-program` cannot be started.*whole path"):
        await answer(["no-such-program"], ask())
    with pytest.raises(ModelUnavailable, match="no command is named"):
        await answer([], ask())


async def test_a_program_that_does_not_end_is_ended_with_all_that_it_started() -> None:
    before = descendants(os.getpid())
    with pytest.raises(ModelBusy, match=r"`sh` did not end within 0\.5 seconds"):
        await answer(["sh", "-c", "sleep 1000 & sleep 1000"], ask(), timeout_seconds=0.5)

    with anyio.fail_after(5):
        await all_ended(descendants(os.getpid()) - before)


async def test_a_caller_that_is_cancelled_ends_its_program_at_once(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    before = descendants(os.getpid())
    async with CommandModel(["sh", "-c", f"trap '' TERM; touch {begun}; sleep 1000"]) as model:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(model.complete, ask())
                while not begun.exists():
                    await anyio.sleep(0.01)
                tasks.cancel_scope.cancel()
            await all_ended(descendants(os.getpid()) - before)


@pytest.mark.skipif(sys.platform != "linux", reason="only there a process is known by its environment")
async def test_what_a_program_started_in_a_session_of_its_own_ends_with_it(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    before = started = descendants(os.getpid())
    async with CommandModel(["sh", "-c", f"setsid sh -c 'touch {begun}; sleep 1000' & sleep 1000"]) as model:
        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(model.complete, ask())
                while not begun.exists():
                    await anyio.sleep(0.01)
                started = descendants(os.getpid()) - before
                tasks.cancel_scope.cancel()
            assert len(started) > 2
            await all_ended(started)


async def test_an_error_of_the_listener_is_its_own() -> None:
    async def fail(_: str) -> None:
        raise LookupError("mine")

    async with CommandModel(["sh", "-c", "echo a; sleep 1000"]) as model:
        with pytest.raises(LookupError, match="mine"), anyio.fail_after(5):
            await model.complete(ask(), on_text=fail)


async def test_so_many_run_at_once_and_never_more(tmp_path: Path) -> None:
    code = """
import os, sys, time
open(f'{sys.argv[1]}/{os.getpid()}', 'w').close(); time.sleep(0.3)
print(len(os.listdir(sys.argv[1]))); os.unlink(f'{sys.argv[1]}/{os.getpid()}')
"""
    said: list[int] = []

    async with CommandModel(python(code, str(tmp_path)), at_once=3) as model:

        async def one() -> None:
            said.append(int((await model.complete(ask())).text))

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                for _ in range(9):
                    tasks.start_soon(one)

    assert max(said) == 3


# ---- Claude Code


def claude(server: ScriptedModel, home: Path, *arguments: str, **options: Any) -> CommandModel:
    environment = with_node({"HOME": str(home)}) | {
        "ANTHROPIC_BASE_URL": server.url,
        "ANTHROPIC_API_KEY": "the-key-of-the-test",
    }
    return CommandModel([node_program("claude"), *arguments], environment=environment, **options)


async def test_claude_code_is_asked_without_tools_and_tells_what_it_cost(tmp_path: Path) -> None:
    said = Reply("Grüße, 42.", input_tokens=100, output_tokens=20)
    heard: list[str] = []

    async def hear(text: str) -> None:
        heard.append(text)

    async with ScriptedModel([said]) as server, claude(server, tmp_path, "-p", "--model", "haiku") as model:
        request = ask("What is it?", system="Be short.", max_tokens=700)
        with anyio.fail_after(30):
            reply = await model.complete(request, on_text=hear)
        bound = model.bound(request)

    [asked] = server.requests
    assert (reply.text, reply.finish, "".join(heard)) == ("Grüße, 42.", "stop", "Grüße, 42.")
    assert (reply.usage.input_tokens, reply.usage.output_tokens, reply.usage.estimated) == (100, 20, False)
    assert reply.usage.cost_usd is not None and reply.usage.cost_usd > 0
    assert (asked.tools, asked.prompt, asked.body["max_tokens"]) == ({}, "What is it?", 700)
    assert "Be short." in asked.system and "haiku" in asked.model
    assert len(str(asked.body).encode()) <= bound.input_tokens and bound.output_tokens == 700
    assert not list((tmp_path / ".claude").glob("projects/**/*.jsonl"))  # no session is kept


@pytest.mark.parametrize(
    ("said", "finish"),
    [
        (Reply("The first half", finish="max_tokens"), "length"),
        (Reply("", refusal="No."), "refused"),
        (Reply(""), "stop"),
    ],
)
async def test_an_answer_of_claude_code_is_the_first_one_and_not_one_of_several(
    said: Reply, finish: str, tmp_path: Path
) -> None:
    async with (
        ScriptedModel([said, Reply("second"), Reply("third")]) as server,
        claude(server, tmp_path) as model,
    ):
        with anyio.fail_after(30):
            reply = await model.complete(ask())

    assert (reply.text, reply.finish) == (said.text, finish)
    assert (reply.usage.input_tokens, reply.usage.output_tokens) == (10, 5)


@pytest.mark.parametrize(("status", "error"), [(401, ModelRefused), (429, ModelBusy), (529, ModelBusy)])
async def test_what_claude_code_is_refused_is_told_by_its_status(
    status: int, error: type[ModelBusy | ModelRefused], tmp_path: Path
) -> None:
    async with ScriptedModel([Refusal(status)] * 9) as server, claude(server, tmp_path) as model:
        with anyio.fail_after(30), pytest.raises(error, match="The script says no") as raised:
            await model.complete(ask())

    assert raised.value.status == status
    assert len(server.requests) == 1  # to ask again is not its decision


async def test_a_cancelled_claude_code_leaves_its_service_at_once(tmp_path: Path) -> None:
    before = descendants(os.getpid())
    async with ScriptedModel([Silence(after_events=3)]) as server, claude(server, tmp_path) as model:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(model.complete, ask())
                await server.until(lambda server: len(server.requests) == 1)
                tasks.cancel_scope.cancel()
            await server.until(lambda server: len(server.left) == 1)
            await all_ended(descendants(os.getpid()) - before)


async def test_a_cost_of_claude_code_is_bounded_where_its_model_has_a_price(tmp_path: Path) -> None:
    prices = Prices({"haiku": Price(1, 10)})
    async with ScriptedModel([]) as server:
        named = claude(server, tmp_path, "--model", "haiku", prices=prices)
        unnamed = claude(server, tmp_path, prices=prices)

    assert unnamed.bound(ask()).cost_usd is None
    assert (named.bound(ask(max_tokens=1000)).cost_usd or 0) > 0.01
