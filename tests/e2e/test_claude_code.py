"""Claude Code itself, with a scripted model behind it, uses the server as it would on a person's machine."""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Sequence

import anyio

from tests.e2e.claude_code import PYTHON, claude
from tests.e2e.grounds import Grounds, all_ended, descendants
from tests.e2e.ways import HEADERS, serving
from tests.fakes.models import Reply, Request, ScriptedModel, ToolCall, ToolResult, Turn

FIGURE = """
import matplotlib.pyplot as plt
plt.plot([1, 2, 4])
plt.show()
"""


async def test_the_model_is_offered_the_tool_that_runs_python_without_looking_for_it(
    grounds: Grounds,
) -> None:
    async with ScriptedModel([Reply("Hello.")]) as model:
        await claude(grounds, model)

    [request] = model.requests
    assert request.tools[PYTHON]["required"] == ["code"]
    assert "mcp__rlm__get_repl_context" in request.text  # the others are found by their names
    assert "A Python REPL for this project" in request.text  # and the server's instructions say when


async def test_a_model_reads_what_its_code_printed_as_it_was_printed(grounds: Grounds) -> None:
    [result] = await _run(grounds, "print('first\\nsecond')\n6 * 7")

    assert result == ToolResult("first\nsecond\n42")


async def test_code_runs_in_the_project_that_claude_code_was_started_in(grounds: Grounds) -> None:
    (grounds.project / "notes.txt").write_text("The answer is 42.")

    [result] = await _run(grounds, "print(open('notes.txt').read())")

    assert result == ToolResult("The answer is 42.")


async def test_a_model_sees_the_figure_that_its_code_drew(grounds: Grounds) -> None:
    [result] = await _run(grounds, FIGURE)

    [image] = result.images
    assert b64decode(image).startswith(b"\x89PNG")


async def test_a_model_reads_its_error_and_goes_on_from_there(grounds: Grounds) -> None:
    failed, mistaken, right = await _calls(
        grounds,
        ToolCall(PYTHON, {"code": "kept = 1\n1 / 0"}),
        ToolCall(PYTHON, {"cod": "kept"}),
        ToolCall(PYTHON, {"code": "kept + 1"}),
    )

    assert failed.is_error and "ZeroDivisionError: division by zero" in failed.text
    assert mistaken.is_error and "did you mean 'code'?" in mistaken.text
    assert right == ToolResult("2")


async def test_variables_are_there_when_claude_code_starts_the_server_anew(grounds: Grounds) -> None:
    [before] = await _run(grounds, "import os\nkept = {'answer': 42}\nos.getpid()")
    [after] = await _run(grounds, "kept['answer']")

    assert not before.is_error
    assert after.text.startswith("42\n[note: The session is back from disk")


async def test_a_model_runs_code_in_a_server_that_claude_code_reaches_over_http(grounds: Grounds) -> None:
    async with (
        serving(grounds, "http") as url,
        ScriptedModel([_call("6 * 7"), Reply("That is all.")]) as model,
    ):
        await claude(grounds, model, server={"type": "http", "url": url, "headers": HEADERS})

    assert model.requests[-1].results == (ToolResult("42"),)


async def test_nothing_runs_any_more_when_claude_code_has_ended(grounds: Grounds) -> None:
    running = set[tuple[int, str]]()

    def look(_: Request) -> Turn:
        running.update(descendants(os.getpid()))
        return Reply("That is all.")

    before = descendants(os.getpid())
    async with ScriptedModel([_call("1"), look]) as model:
        await claude(grounds, model)

    ours = running - before
    assert len(ours) > 3  # Claude Code, the server, and what it started for the session
    with anyio.fail_after(10):
        await all_ended(ours)


def _call(code: str) -> Reply:
    return Reply(calls=(ToolCall(PYTHON, {"code": code}),))


async def _run(grounds: Grounds, *cells: str) -> Sequence[ToolResult]:
    """Have the model run cells, one after another, in one run of Claude Code; return what it read of each."""
    return await _calls(grounds, *(ToolCall(PYTHON, {"code": code}) for code in cells))


async def _calls(grounds: Grounds, *calls: ToolCall) -> Sequence[ToolResult]:
    turns = [Reply(calls=(call,)) for call in calls]
    async with ScriptedModel([*turns, Reply("That is all.")]) as model:
        said = await claude(grounds, model)

    assert said == "That is all."
    return model.requests[-1].results
