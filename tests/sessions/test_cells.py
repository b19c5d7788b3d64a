"""A cell behaves as in a real REPL."""

from __future__ import annotations

import anyio
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session


async def value_of(session: Session, code: str) -> str | None:
    """Return the shown value of a cell that must succeed."""
    with anyio.fail_after(30):
        result = await session.run(code)
    assert result.error is None, result.error.traceback
    return result.value


async def test_the_last_expression_is_shown(session: Session) -> None:
    assert await value_of(session, "x = 20\nx * 2 + 2") == "42"


@pytest.mark.parametrize(
    "code", ["x = 1", "None", "x = 1; x;", "1 + 1;  # quiet", "", "# nothing", "if True:\n    5"]
)
async def test_statements_none_and_silenced_expressions_show_nothing(session: Session, code: str) -> None:
    assert await value_of(session, code) is None


async def test_a_semicolon_in_a_text_silences_nothing(session: Session) -> None:
    assert await value_of(session, "'a;'  # ;") == "'a;'"


async def test_the_underscore_is_the_last_value(session: Session) -> None:
    await session.run("6 * 7")
    await session.run("None")

    assert await value_of(session, "_ + 1") == "43"


async def test_await_works_at_top_level_and_tasks_live_on_between_cells(session: Session) -> None:
    await session.run("import asyncio\nasync def slowly(x):\n    await asyncio.sleep(0.01)\n    return x")
    await session.run(
        "async def main():\n    return asyncio.create_task(slowly('kept'))\ntask = await main()"
    )

    assert await value_of(session, "(await slowly(1), await task)") == "(1, 'kept')"


async def test_asyncio_run_works_in_a_cell(session: Session) -> None:
    assert await value_of(session, "import asyncio\nasync def f():\n    return 5\nasyncio.run(f())") == "5"


async def test_async_for_with_and_comprehensions_work_at_top_level(session: Session) -> None:
    code = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def box():
    yield 3
async def numbers(n):
    for i in range(n):
        yield i
async with box() as size:
    found = [i async for i in numbers(size)]
async for last in numbers(size):
    pass
found, last
"""

    assert await value_of(session, code) == "([0, 1, 2], 2)"


async def test_functions_see_names_that_later_cells_define(session: Session) -> None:
    await session.run("def f():\n    return later")
    await session.run("later = 'seen'")

    assert await value_of(session, "f()") == "'seen'"


async def test_variables_survive_a_cell_that_raises(session: Session) -> None:
    await session.run("kept = 1\nraise ValueError('later lines never ran')")

    assert await value_of(session, "kept") == "1"


async def test_what_was_printed_before_an_error_is_returned(session: Session) -> None:
    result = await session.run("print('before')\n1 / 0\nprint('after')")

    assert result.output == "before\n"
    assert result.error is not None and result.error.name == "ZeroDivisionError"


async def test_a_traceback_shows_the_users_lines_and_none_of_ours(session: Session) -> None:
    await session.run("def inner(x):\n    return 1 / x\n")

    result = await session.run("y = 0\ninner(y)")

    assert result.error is not None
    told = result.error.traceback
    assert told.startswith('Traceback (most recent call last):\n  File "<cell 2>", line 2')
    assert "    inner(y)" in told and "    return 1 / x" in told
    assert "rlm_guest" not in told and "guest/" not in told
    assert told.endswith("ZeroDivisionError: division by zero\n")


async def test_a_traceback_of_a_library_ends_where_the_library_raised(session: Session) -> None:
    result = await session.run("import json\njson.loads('{')")

    assert result.error is not None
    frames = [line for line in result.error.traceback.splitlines() if line.startswith("  File")]
    assert len(frames) == 2
    assert "<cell 1>" in frames[0] and "decoder.py" in frames[1]


async def test_causes_and_groups_of_errors_are_told(session: Session) -> None:
    code = """
try:
    {}['key']
except KeyError as problem:
    raise RuntimeError('outer') from problem
"""
    chained = await session.run(code)
    group = await session.run("raise ExceptionGroup('several', [ValueError('one'), TypeError('two')])")

    assert chained.error is not None and group.error is not None
    assert "KeyError: 'key'" in chained.error.traceback and "direct cause" in chained.error.traceback
    assert "ValueError: one" in group.error.traceback and "TypeError: two" in group.error.traceback


async def test_a_syntax_error_points_at_its_line(session: Session) -> None:
    result = await session.run("x = 1\ny = (")

    assert result.error is not None and result.error.name == "SyntaxError"
    assert 'File "<cell 1>", line 2' in result.error.traceback
    assert await value_of(session, "'x' in globals()") == "False"


async def test_an_error_that_cannot_tell_about_itself_is_told_all_the_same(session: Session) -> None:
    code = "class Bad(Exception):\n    def __str__(self):\n        raise SystemExit\nraise Bad"

    result = await session.run(code)

    assert result.error is not None and result.error.name == "Bad"
    assert await value_of(session, "1") == "1"


async def test_endless_recursion_is_an_ordinary_error(session: Session) -> None:
    result = await session.run("def f(n):\n    return f(n + 1)\nf(0)")

    assert result.error is not None and result.error.name == "RecursionError"
    assert len(result.error.traceback) < 20_000


@pytest.mark.parametrize(
    ("code", "exit_code"), [("exit()", "0"), ("quit(3)", "3"), ("import sys; sys.exit('bye')", "bye")]
)
async def test_exit_ends_the_cell_and_not_the_session(session: Session, code: str, exit_code: str) -> None:
    result = await session.run(f"before = 1\n{code}\nbefore = 2")

    assert (result.exit_code, result.error, result.lost) == (exit_code, None, False)
    assert await value_of(session, "before") == "1"


async def test_standard_input_is_answered_with_a_clear_error(session: Session) -> None:
    result = await session.run("name = input('Your name? ')")

    assert result.output == "Your name? "
    assert result.error is not None and result.error.name == "EOFError"
    assert "nobody can type" in result.error.message


async def test_a_warning_is_shown_once(session: Session) -> None:
    result = await session.run("import warnings\nfor _ in range(5):\n    warnings.warn('careful')")

    assert result.output.count("UserWarning: careful") == 1


async def test_printing_is_streamed_while_the_cell_runs(session: Session) -> None:
    heard: list[str] = []
    first = anyio.Event()

    async def on_output(stream: str, text: str) -> None:
        heard.append(f"{stream}:{text}")
        first.set()

    async def interrupt_after_first() -> None:
        await first.wait()
        await session.interrupt()

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(interrupt_after_first)
            result = await session.run("print('first')\nwhile True:\n    pass", on_output=on_output)

            assert heard == ["out:first\n"]
            assert result.error is not None and result.error.name == "KeyboardInterrupt"


async def test_both_streams_arrive_in_the_order_they_were_written(session: Session) -> None:
    code = "import sys\nprint('a')\nprint('b', file=sys.stderr)\nprint('c')\nsys.stdout.buffer.write(b'd\\n')"

    result = await session.run(code)

    assert result.output == "a\nb\nc\nd\n"


async def test_what_is_printed_past_python_is_caught(session: Session) -> None:
    result = await session.run("import os\n_ = os.write(1, b'raw\\n')")
    policy_says_no = result.error is not None

    assert policy_says_no or result.output == "raw\n"


async def test_output_is_cut_in_the_middle_and_says_how_much(sandbox: LocalSandbox) -> None:
    async with open_session(sandbox, shown_characters=1000) as session:
        result = await session.run("print('begin' + 'x' * 100_000 + 'end')")

    assert result.output.startswith("begin") and result.output.endswith("end\n")
    assert len(result.output) < 1100
    assert result.output_characters == 100_009
    assert f"[... {result.left_out} characters left out ...]" in result.output


async def test_text_that_is_no_unicode_is_printed_readably(session: Session) -> None:
    result = await session.run("print('\\ud800 \\x00 é')")

    assert result.output == "\\ud800 \x00 é\n"


async def test_a_cell_of_any_text_leaves_the_session_well(session: Session) -> None:
    for code in (
        "\ud800",
        "x = '\x00'",
        "(" * 5000,
        "-" * 100_000 + "1",
        "\x00",
        "\r\n1\r\n",
        "\ufeff1",
        "é = 1",
    ):
        with anyio.fail_after(20):
            await session.run(code)

    assert await value_of(session, "'well'") == "'well'"


async def test_names_of_the_module_are_those_of_a_script(session: Session) -> None:
    assert await value_of(session, "__name__") == "'__main__'"
    assert await value_of(session, "class C: pass\nC.__module__") == "'__main__'"


async def test_dataclasses_pickle_and_type_hints_find_their_module(session: Session) -> None:
    code = """
import pickle, typing
from dataclasses import dataclass
@dataclass
class Point:
    x: int
    y: 'int' = 2
pickle.loads(pickle.dumps(Point(1))) == Point(1), typing.get_type_hints(Point)
"""

    assert await value_of(session, code) == "(True, {'x': <class 'int'>, 'y': <class 'int'>})"


async def test_the_source_of_a_cell_can_be_inspected(session: Session) -> None:
    await session.run("def f():\n    return 1\n")

    assert await value_of(session, "import inspect\ninspect.getsource(f)") == "'def f():\\n    return 1\\n'"


async def test_what_changed_among_the_variables_is_told(session: Session) -> None:
    await session.run("a = 1\nb = 2")

    result = await session.run("a = 1\nb = 3\nc = 4\ndel a")

    assert set(result.changed) == {"b", "c"}
    assert result.removed == ("a",)


async def test_cells_wait_in_line(session: Session) -> None:
    results: list[str | None] = []

    async def run(code: str) -> None:
        results.append((await session.run(code)).value)

    with anyio.fail_after(20):
        async with anyio.create_task_group() as tasks:
            for n in range(5):
                tasks.start_soon(run, f"order = globals().get('order', []) + [{n}]\nlen(order)")

    assert results == ["1", "2", "3", "4", "5"]


async def test_without_a_project_the_folder_is_the_scratch_folder(sandbox: LocalSandbox) -> None:
    async with open_session(sandbox, limits=Limits()) as session:
        same = await session.run("import os, tempfile\nos.path.samefile(os.getcwd(), tempfile.gettempdir())")

    assert same.value == "True"


async def test_random_numbers_differ_between_sessions(sandbox: LocalSandbox) -> None:
    seen: set[str | None] = set()
    for _ in range(3):
        async with open_session(sandbox) as session:
            seen.add((await session.run("import random, uuid\nrandom.random(), uuid.uuid4()")).value)

    assert len(seen) == 3
