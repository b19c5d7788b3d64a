"""Claude Code begins runs: long answers, long runs, and what is left when it is stopped in the middle of one."""

from __future__ import annotations

import os
import re
import signal

import anyio

from tests.e2e.claude_code import COMPLETE, READ, STATUS, claude, running_claude
from tests.e2e.grounds import Grounds, all_ended, descendants
from tests.fakes.models import Reply, Request, ScriptedModel, Silence, ToolCall, Turn, conversation

LONG = "final('<' + 'word ' * 200_000 + '>')"
CHARACTERS = 1_000_002
LIMIT = 40_000


def asked_at(model: ScriptedModel) -> dict[str, str]:
    """Return the settings of a server whose runs ask a model."""
    return {
        "RLM_BACKEND": "anthropic",
        "RLM_MODEL": "claude-haiku-4-5",
        "RLM_API_BASE": model.url,
        "ANTHROPIC_API_KEY": "none",
    }


def _call(tool: str, **arguments: object) -> Reply:
    return Reply(calls=(ToolCall(tool, arguments),))


def _long_answer(request: Request) -> Turn:
    code = "print(len(data))" if request.turn == 0 else LONG
    return _call("run_python", code=code)


def _give(grounds: Grounds) -> Reply:
    (grounds.project / "data.txt").write_text("needle\n" * 50_000)
    return _call(COMPLETE, prompt="Make it long.", files={"data": "data.txt"})


async def test_an_answer_of_a_megabyte_is_told_with_both_ends_and_read_in_parts(grounds: Grounds) -> None:
    def read(request: Request) -> Turn:
        found = re.search(r"All of it: (rlm://\S+)\. ", request.results[0].text)
        assert found is not None, request.results[0].text[:500]
        offset = CHARACTERS - LIMIT
        return _call(READ, server="rlm", uri=f"{found[1]}?offset={offset}&limit={LIMIT}")

    script = conversation(_give(grounds), read, Reply("That is all."))
    async with ScriptedModel(_long_answer) as asked, ScriptedModel(script) as model:
        await claude(grounds, model, settings=asked_at(asked))

    told, part = (result.text for result in model.requests[-1].results)
    assert f"The answer is text of {CHARACTERS} characters" in told and len(told) < 50_000
    assert "<word word" in told and "word >" in told and "persisted" not in told
    assert part.count("word") == (LIMIT - 2) // 5 and "persisted" not in part


async def test_what_a_person_lets_results_be_long_is_kept_to(grounds: Grounds) -> None:
    script = conversation(_give(grounds), Reply("That is all."))
    async with ScriptedModel(_long_answer) as asked, ScriptedModel(script) as model:
        settings = asked_at(asked)
        await claude(grounds, model, settings=settings, environment={"MAX_MCP_OUTPUT_TOKENS": "1000"})

    [told] = model.requests[-1].results
    assert len(told.text) < 8_000, told.text


async def test_a_run_that_outlasts_the_patience_of_claude_code_is_ended_and_one_in_the_background_is_not(
    grounds: Grounds,
) -> None:
    async def slow(request: Request) -> Turn:
        if "forever" in request.text:
            return Silence()
        await patience_over.wait()
        return Reply("forty-two")

    def look(request: Request) -> Turn:
        found = re.search(r'rlm_status\(handle="(w-[0-9a-f]{16})"\)', request.results[-1].text)
        handle.append(found[1] if found else handle[-1])
        return _call(STATUS, handle=handle[-1], wait_s=0.5)

    async def again(request: Request) -> Turn:
        if request.results[-1].text.startswith("[at work"):
            patience_over.set()
            return look(request)
        return Reply("That is all.")

    handle, patience_over = list[str](), anyio.Event()
    script = conversation(
        _call(COMPLETE, prompt="Think forever."),
        _call(COMPLETE, prompt="Think.", background=True),
        look,
        *[again] * 20,
    )
    async with ScriptedModel(slow) as asked, ScriptedModel(script) as model:
        await claude(grounds, model, settings=asked_at(asked), environment={"MCP_TOOL_TIMEOUT": "6000"})
        with anyio.fail_after(10):
            await asked.until(lambda asked: len(asked.left) == 1)

    first, begun, *_, last = model.requests[-1].results
    assert first.is_error and "timed out" in first.text
    assert begun.text.startswith("[runs in the background; rlm_status(")
    assert last.text.startswith("forty-two")


async def test_a_person_who_stops_claude_code_stops_the_run_with_all_that_belongs_to_it(
    grounds: Grounds,
) -> None:
    def root(request: Request) -> Turn:
        return _call("run_python", code="print(llm_map(['one?', 'two?', 'three?']))")

    def asked_model(request: Request) -> Turn:
        return root(request) if "REPL" in request.text else Silence()

    before = descendants(os.getpid())
    async with (
        ScriptedModel(asked_model) as asked,
        ScriptedModel(conversation(_give(grounds))) as model,
        running_claude(grounds, model, settings=asked_at(asked)) as process,
    ):
        with anyio.fail_after(40):
            await asked.until(lambda asked: asked.at_once == 3)
        ours = descendants(os.getpid()) - before
        process.send_signal(signal.SIGINT)
        with anyio.fail_after(10):
            await asked.until(lambda asked: len(asked.left) == 3)
            await all_ended(ours)

    assert len(ours) > 3  # Claude Code, our server, and what it started for the run
