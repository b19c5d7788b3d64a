"""Code in a cell asks models, child runs and tools by functions that are there like any builtin, and ends by `final`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Asking, Session, ToolOffer, asking, open_session
from rlm_sessions.session import Policy

LIMITS = Limits(wall_seconds=20, grace_seconds=1)
POLICIES: list[Policy] = ["off", "permissive", "strict"]
SEARCH = ToolOffer(
    "search_notes",
    "Find notes that mention a word.",
    {
        "properties": {"limit": {"type": "integer", "default": 5}, "word": {"type": "string"}},
        "required": ["word"],
    },
)


class BudgetExhausted(Exception):
    """As the runtime raises it."""


class TokenBudgetExhausted(BudgetExhausted):
    """As the runtime raises it."""


class ToolNotFoundError(Exception):
    """As the runtime raises it."""


class Host:
    """Answers by what is asked, and keeps it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.askings: list[Asking | None] = []
        self.hold = anyio.Event()

    async def __call__(self, name: str, payload: Any) -> Any:
        self.asked.append((name, payload))
        self.askings.append(asking())
        if name == "tool":
            return payload["arguments"]
        if name == "final":
            return self._accept(payload)
        return await self._answer(payload["prompt"], payload)

    async def _answer(self, prompt: str, payload: Any) -> Any:
        if prompt.startswith("spent"):
            raise TokenBudgetExhausted("The tokens are used up.")
        if prompt.startswith("odd"):
            raise ToolNotFoundError("There is no such tool.")
        if prompt.startswith("hold"):
            await self.hold.wait()
        if "schema" in payload:
            return {"value": {"length": len(prompt)}}
        return {"text": f"<{prompt}>"}

    def _accept(self, payload: Any) -> None:
        if payload["value"] == "wrong":
            raise ValueError("that is not the answer")

    def prompts(self) -> list[str]:
        return [payload["prompt"] for _, payload in self.asked]

    def finals(self) -> list[Any]:
        return [payload for name, payload in self.asked if name == "final"]


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture(params=POLICIES)
async def session(
    request: pytest.FixtureRequest, sandbox: LocalSandbox, host: Host
) -> AsyncIterator[Session]:
    async with open_session(
        sandbox, limits=LIMITS, policy=request.param, answer=host, tools=[SEARCH]
    ) as opened:
        yield opened


async def value(session: Session, code: str) -> str | None:
    """Run a cell that must not fail, and return the value it shows."""
    with anyio.fail_after(30):
        result = await session.run(code)
    assert result.error is None, result.error.traceback
    return result.value


async def problem(session: Session, code: str) -> str:
    """Run a cell that must fail, and return its error."""
    with anyio.fail_after(30):
        result = await session.run(code)
    assert result.error is not None, result
    return str(result.error)


# ---- one question


async def test_a_question_is_answered_by_text_or_by_a_value_of_its_schema(
    session: Session, host: Host
) -> None:
    text = await value(session, "llm_query('why')")
    typed = await value(
        session, "llm_query('why', schema={'type': 'object'}, model='small', system='Be brief.')"
    )

    assert (text, typed) == ("'<why>'", "{'length': 3}")
    assert host.asked[0] == ("llm_query", {"prompt": "why"})
    assert host.asked[1][1] == {
        "prompt": "why",
        "schema": {"type": "object"},
        "model": "small",
        "system": "Be brief.",
    }


async def test_who_answers_can_know_which_cell_asks(session: Session, host: Host) -> None:
    first = await session.run("llm_query('a')")
    second = await session.run("llm_query('b')")

    assert [each.cell for each in host.askings if each] == [first.cell, second.cell]
    assert asking() is None


async def test_errors_have_classes_that_code_can_catch(session: Session) -> None:
    code = """
try:
    llm_query('spent')
except BudgetExhausted as error:
    found = type(error).__name__, error.kind, str(error), isinstance(error, CallFailed)
found
"""

    assert await value(session, code) == str(
        ("TokenBudgetExhausted", "TokenBudgetExhausted", "The tokens are used up.", True)
    )
    assert await problem(session, "llm_query('spent')") == "TokenBudgetExhausted: The tokens are used up."
    assert (await problem(session, "llm_query('odd')")).startswith("ToolNotFound: There is no such tool.")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("llm_query(b'why')", "bytes: decode it"),
        ("llm_query(3)", "a value of type int: convert it"),
        ("llm_query('why', schema=int)", "schema is a JSON schema as a dict"),
        ("rlm_query('why', context={1, 2})", "this cannot be sent"),
        ("rlm_query('why', tools='search_notes')", "tools is a list"),
        ("llm_map('why')", "this is one prompt"),
        ("llm_map('why', ['a'])", "write {item}"),
        ("llm_map('why {item}', 'abc')", "give a list of texts"),
        ("llm_map(['a', b'b'])", "bytes: decode it"),
        ("llm_map(['a'], max_concurrency=0)", "max_concurrency is a whole number"),
        ("rlm_map(['a', 'b'], contexts=['c'])", "2 prompts and 1 contexts"),
        ("search_notes()", "missing a required argument: 'word'"),
        ("search_notes(word='x', colour='red')", "unexpected keyword argument 'colour'"),
    ],
)
async def test_what_is_asked_wrongly_is_said_before_anything_is_asked(
    sandbox: LocalSandbox, host: Host, code: str, said: str
) -> None:
    async with open_session(sandbox, answer=host, tools=[SEARCH]) as session:
        told = await problem(session, code)

    assert said in told and host.asked == []


async def test_a_prompt_that_is_too_large_says_so(session: Session, host: Host) -> None:
    told = await problem(session, "llm_query('x' * 17_000_000)")
    together = await value(session, "[type(a).__name__ for a in llm_map(['x' * 17_000_000, 'b'])]")

    assert "a call may carry 16,777,216 bytes" in told
    assert together == "['CallFailed', 'str']" and host.prompts() == ["b"]


async def test_any_text_arrives_as_it_is(session: Session, host: Host) -> None:
    assert await value(session, "text = 'é\\ud800\\0\\r\\n{item}'; llm_query(text) == f'<{text}>'") == "True"
    assert host.prompts() == ["é\ud800\0\r\n{item}"]


# ---- many questions


async def test_many_questions_are_asked_at_once_and_failures_stand_in_their_places(
    session: Session, host: Host
) -> None:
    code = """
answers = llm_map(['a', 'spent', 'c'])
[type(a).__name__ for a in answers], answers.ok, [(i, type(e).__name__) for i, e in answers.failed], answers[2]
"""

    assert await value(session, code) == str(
        (["str", "TokenBudgetExhausted", "str"], ["<a>", "<c>"], [(1, "TokenBudgetExhausted")], "<c>")
    )
    shown = await value(session, "answers")
    assert shown is not None and shown.startswith("<3 answers, 1 failed; [1]: TokenBudgetExhausted(")


async def test_answers_are_seen_and_read_from_outside_like_a_list(session: Session) -> None:
    await value(session, "good, bad = llm_map(['a', 'b']), llm_map(['a', 'spent'])")
    seen = {each.name: (each.type, each.preview) for each in await session.variables()}
    good, bad = await session.get("good"), await session.get("bad")

    assert seen["good"] == ("Answers", "['<a>', '<b>']  # 2 items")
    assert seen["bad"] == ("Answers", "['<a>', <TokenBudgetExhausted>]  # 2 items")
    assert (good.form, json.loads(good.body)) == ("json", ["<a>", "<b>"])
    assert (bad.form, bad.text()) == ("repr", "['<a>', TokenBudgetExhausted('The tokens are used up.')]")


async def test_prompts_come_from_a_template_or_a_function(session: Session, host: Host) -> None:
    await value(session, "llm_map('{index}: {item} {other} {{x}}', ['a', '{item}', {'k': 1}])")
    await value(session, "llm_map(lambda n: f'number {n}', range(2))")
    await value(session, "llm_query_batched(prompt for prompt in ['x', 'y'])")

    assert host.prompts()[:3] == [
        "0: a {other} {{x}}",
        "1: {item} {other} {{x}}",
        "2: {'k': 1} {other} {{x}}",
    ]
    assert host.prompts()[3:] == ["number 0", "number 1", "x", "y"]


async def test_no_question_is_no_call(session: Session, host: Host) -> None:
    assert await value(session, "llm_map([]), llm_map([]).failed") == "(<0 answers>, [])"
    assert await value(session, "await llm_map('{item}', [])") == "<0 answers>"
    assert host.asked == []


async def test_a_batch_says_how_many_of_it_may_be_asked_at_once(session: Session, host: Host) -> None:
    await value(session, "llm_map(['a', 'b'], max_concurrency=3)\nllm_map(['c'], max_concurrency=1);")

    groups = [payload["group"] for _, payload in host.asked]
    assert groups[0] == groups[1] and groups[0][1] == 3
    assert groups[2][0] != groups[0][0]


async def test_a_batch_larger_than_what_may_wait_is_answered_whole(sandbox: LocalSandbox, host: Host) -> None:
    async with open_session(sandbox, answer=host, limits=Limits(wall_seconds=60)) as session:
        many = await value(session, "len(llm_map([str(n) for n in range(12_000)]).ok)")
        large = await value(session, "[len(a) for a in llm_map([str(n) * 8_000_000 for n in range(9)])]")

    assert many == "12000"
    assert large == str([8_000_002] * 9)


# ---- in async code


async def test_in_async_code_answers_are_awaited_and_asked_at_once(session: Session, host: Host) -> None:
    code = """
import asyncio
held = llm_query('hold')
first, second = await asyncio.gather(llm_query('a'), asyncio.create_task(llm_query('b')))
async def later():
    return await llm_query('c')
third = asyncio.create_task(later())
answers = await llm_map(['d', 'spent'])
first, second, await third, answers.ok, len(answers.failed), held
"""

    shown = await value(session, code)

    assert shown is not None and shown.startswith("('<a>', '<b>', '<c>', ['<d>'], 1, <an answer that is on")
    assert host.prompts()[:3] == ["hold", "a", "b"]


async def test_answers_that_nobody_awaits_neither_hold_a_cell_up_nor_say_anything(session: Session) -> None:
    code = "import asyncio\nx = llm_query('hold')\ny = llm_query('spent')\nawait asyncio.sleep(0.01)\ndel y"
    with anyio.fail_after(10):
        first = await session.run(code)
        second = await session.run("import gc; gc.collect(); await asyncio.sleep(0.01); await llm_query('a')")

    assert (first.error, first.output, second.output, second.value) == (None, "", "", "'<a>'")


async def test_an_awaited_error_is_raised_where_it_is_awaited(session: Session) -> None:
    code = "try:\n    await llm_query('spent')\nexcept BudgetExhausted as e:\n    found = str(e)\nfound"

    assert await value(session, code) == "'The tokens are used up.'"


async def test_a_batch_that_nobody_wants_any_more_asks_nothing_more(sandbox: LocalSandbox) -> None:
    asked, hold = set[str](), anyio.Event()

    async def answer(name: str, payload: Any) -> Any:
        asked.add(payload["prompt"])
        if len(asked) > 1_000:
            await hold.wait()
        return {"text": ""}

    code = """
import asyncio
try:
    await asyncio.wait_for(llm_map([str(n) for n in range(5_000)]), 0.5)
except asyncio.TimeoutError:
    await llm_query("over")
"""
    async with open_session(sandbox, answer=answer, limits=LIMITS) as session:

        async def release() -> None:
            while "over" not in asked:
                await anyio.sleep(0.01)
            hold.set()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(release)
            await value(session, code)
            await value(session, "llm_query('after')")

    assert len(asked) < 2_100


async def test_code_can_raise_the_errors_itself(session: Session) -> None:
    assert await problem(session, "raise BudgetExhausted('enough')") == "BudgetExhausted: enough"


async def test_threads_ask_without_an_event_loop(sandbox: LocalSandbox, host: Host) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(4) as pool:
    answers = list(pool.map(llm_query, map(str, range(20))))
answers == [f'<{n}>' for n in range(20)]
"""
    async with open_session(sandbox, answer=host) as session:
        assert await value(session, code) == "True"


# ---- child runs and tools


async def test_child_runs_get_contexts_of_their_own(session: Session, host: Host) -> None:
    await value(session, "rlm_query('count', context={'rows': [1, 2]}, tools=[search_notes])")
    await value(session, "rlm_map('count', contexts=['a', 'b'])")
    await value(session, "rlm_query_batched(['one', 'two'])")

    assert [payload for _, payload in host.asked] == [
        {"prompt": "count", "context": {"rows": [1, 2]}, "tools": ["search_notes"]},
        {"prompt": "count", "context": "a"},
        {"prompt": "count", "context": "b"},
        {"prompt": "one"},
        {"prompt": "two"},
    ]


async def test_a_tool_is_a_function_with_its_parameters(session: Session, host: Host) -> None:
    await value(session, "search_notes('tea', 3)")
    await value(session, "search_notes(word='tea')")
    await value(session, "await search_notes('tea')")

    assert await value(session, "search_notes.__doc__") == "'Find notes that mention a word.'"
    assert [payload["arguments"] for _, payload in host.asked] == [
        {"word": "tea", "limit": 3},
        {"word": "tea"},
        {"word": "tea"},
    ]


@pytest.mark.parametrize("name", ["web-search", "print", "llm_query", "class", ""])
def test_a_tool_that_cannot_be_a_function_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be a function"):
        ToolOffer(name)


def test_a_tool_whose_parameters_describe_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match="no JSON schema of an object"):
        ToolOffer("search", parameters={"properties": ["word"]})


# ---- final


@pytest.mark.parametrize(
    ("code", "sent"),
    [
        ("final({'n': [1, 2.5, None, True, 'é\\ud800']})", {"value": {"n": [1, 2.5, None, True, "é\ud800"]}}),
        ("final((1, 'a'))", {"value": [1, "a"]}),
        ("final({1, 2})", {"value": "{1, 2}", "repr": "set"}),
        ("final(float('nan'))", {"value": "nan", "repr": "float"}),
        ("final(None)", {"value": None}),
    ],
)
async def test_final_gives_a_value_exactly_or_says_that_it_is_a_repr(
    sandbox: LocalSandbox, host: Host, code: str, sent: Any
) -> None:
    async with open_session(sandbox, answer=host) as session:
        result = await session.run(f"print('before')\n{code}\nprint('after')")

    assert (result.error, result.exit_code, result.final, result.output) == (None, None, True, "before\n")
    assert json.dumps(host.finals()) == json.dumps([sent])


async def test_final_ends_the_cell_whatever_is_around_it(session: Session, host: Host) -> None:
    code = """
try:
    try:
        final('answer')
    except Exception:
        print('never')
finally:
    kept = 'kept'
print('never')
"""
    result = await session.run(code)
    after = await session.run("kept")

    assert (result.value, result.output, result.final) == ("'answer'", "", True)
    assert (after.value, after.final) == ("'kept'", False)


async def test_the_first_final_counts_even_where_code_swallows_it(session: Session, host: Host) -> None:
    result = await session.run("try:\n    final(1)\nexcept BaseException:\n    pass\nfinal(2)\n3")

    assert (result.value, result.final) == ("1", True)
    assert host.finals() == [{"value": 1}]


async def test_a_final_that_is_not_accepted_is_an_error_and_the_cell_goes_on(
    session: Session, host: Host
) -> None:
    code = "try:\n    final('wrong')\nexcept CallFailed as e:\n    print(e)\nfinal('right')"
    result = await session.run(code)

    assert (result.value, result.output) == ("'right'", "that is not the answer\n")


@pytest.mark.parametrize(
    "code", ["final(1)", "await asyncio.gather(end(), asyncio.sleep(60))", "await end()"]
)
async def test_final_ends_async_cells_too(session: Session, code: str) -> None:
    with anyio.fail_after(20):
        result = await session.run(
            f"import asyncio\nasync def end():\n    final(1)\nawait asyncio.sleep(0)\n{code}\nprint('never')"
        )
        after = await session.run("import gc; gc.collect(); await asyncio.sleep(0.01)")

    assert (result.error, result.value, result.output, result.final) == (None, "1", "", True)
    assert (after.error, after.output) == (None, "")


async def test_final_in_a_thread_is_refused(sandbox: LocalSandbox, host: Host) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    problem = pool.submit(final, 1).exception()
print(problem)
"""
    async with open_session(sandbox, answer=host) as session:
        result = await session.run(code)

    assert "which a thread cannot do" in result.output and not result.final and host.asked == []


async def test_a_megabyte_is_an_answer_like_any_other(session: Session, host: Host) -> None:
    await session.run("final('é' * 1_000_000)")

    assert host.finals() == [{"value": "é" * 1_000_000}]


# ---- where nobody answers, and who answers one cell


async def test_where_nobody_answers_a_question_says_so_and_final_still_ends_the_cell(
    sandbox: LocalSandbox,
) -> None:
    async with open_session(sandbox) as session:
        told = await problem(session, "llm_query('a')")
        ended = await session.run("final({1})\nprint('never')")

    assert told.startswith("ModelUnavailable: there is no model to ask") and "Configure a model" in told
    assert (ended.value, ended.final, ended.output) == ("{1}", True, "")


async def test_one_cell_can_have_an_answerer_of_its_own(sandbox: LocalSandbox, host: Host) -> None:
    async def other(name: str, payload: Any) -> Any:
        return {"text": "other"}

    async with open_session(sandbox, answer=host) as session:
        own = await session.run("llm_query('a')", answer=other)
        usual = await session.run("llm_query('a')")

    assert (own.value, usual.value) == ("'other'", "'<a>'")


# ---- names


async def test_a_variable_of_the_same_name_hides_a_function_until_it_is_deleted(session: Session) -> None:
    assert await value(session, "final = 'mine'; final") == "'mine'"
    assert await value(session, "del final; callable(final)") == "True"
    assert "final" not in [each.name for each in await session.variables()]


async def test_help_says_how_each_is_used(sandbox: LocalSandbox) -> None:
    async with open_session(sandbox, tools=[SEARCH]) as session:
        for name in ("llm_query", "llm_map", "rlm_query", "rlm_map", "final"):
            result = await session.run(f"help({name})")
            assert f"{name}(" in result.output and len(result.output) < 1600, result.output
        tool = await session.run("help(search_notes)")
        all_of_it = await session.run("help()")

    assert "search_notes(word, limit=5)" in tool.output and "Find notes" in tool.output
    assert "llm_map" in all_of_it.output and "search_notes" in all_of_it.output


async def test_in_strict_mode_nothing_leads_from_the_functions_into_the_guest(
    sandbox: LocalSandbox, host: Host
) -> None:
    roads = [
        *("llm_query.__self__", "llm_query.__func__.__globals__", "llm_query.__func__.__closure__"),
        *("search_notes.__self__", "search_notes.__func__.__code__", "CallFailed.__init__.__globals__"),
        *("CallFailed.__subclasses__()", "vars(CallFailed)", "Answers.__repr__.__globals__"),
        *("Answers._short", "setattr(CallFailed, 'kind', 1)", "setattr(Answers, 'ok', 1)"),
        *("getattr(llm_map, '__self__')", "final.__func__.__builtins__", "await on_its_way().get_loop()"),
        *("await on_its_way()._callbacks", "await on_its_way()._take_over(1)", "await on_its_way()._steps"),
    ]
    async with open_session(sandbox, policy="strict", answer=host, tools=[SEARCH]) as session:
        await session.run("def on_its_way():\n    return llm_query('a')")
        told = {road: await session.run(road) for road in roads}

    open_roads = {road: result.value for road, result in told.items() if result.error is None}
    assert open_roads == {}


# ---- the clock


async def test_the_clock_of_a_cell_stands_still_while_it_waits_for_an_answer(
    sandbox: LocalSandbox, host: Host
) -> None:
    async def slow(name: str, payload: Any) -> Any:
        await anyio.sleep(0.5)
        return {"text": "late"}

    limits = Limits(wall_seconds=0.3, grace_seconds=3)
    with anyio.fail_after(30):
        async with open_session(sandbox, limits=limits, answer=slow) as session:
            waited = await session.run("llm_query('a'), llm_query('b')")
            own = await session.run("llm_map(['a', 'b']).ok", wall_seconds=0.2)
            over = await session.run("llm_query('a')\nimport time\ntime.sleep(60)")

    assert (waited.value, own.value) == ("('late', 'late')", "['late', 'late']")
    assert waited.waited_seconds >= 1 and own.waited_seconds >= 0.5
    assert over.error is not None and over.error.limit == "wall_seconds"
    assert "Not counted are 0." in over.error.message and "waited for answers" in over.error.message


async def test_a_cell_that_waits_for_an_answer_uses_no_time_but_is_held_to_its_processor_time(
    sandbox: LocalSandbox, host: Host
) -> None:
    code = "import threading\nthreading.Thread(target=llm_query, args=('hold',), daemon=True).start()\nwhile True: pass"
    limits = Limits(wall_seconds=0.2, cpu_seconds=0.6, grace_seconds=3)
    with anyio.fail_after(30):
        async with open_session(sandbox, limits=limits, answer=host) as session:
            result = await session.run(code)

    assert result.error is not None and result.error.limit == "cpu_seconds"


@pytest.mark.parametrize(
    "code", ["llm_query('hold')", "llm_map(['hold', 'hold'])", "await llm_query('hold')"]
)
async def test_a_cell_that_waits_for_an_answer_can_be_interrupted(
    sandbox: LocalSandbox, host: Host, code: str
) -> None:
    results: list[Any] = []
    async with open_session(sandbox, limits=LIMITS, answer=host) as session:

        async def run() -> None:
            results.append(await session.run(f"kept = 1\n{code}"))

        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(run)
                while not host.asked:
                    await anyio.sleep(0.01)
                assert await session.interrupt()
            kept = await session.run("kept")

    assert results[0].error.name == "KeyboardInterrupt" and kept.value == "1"


async def test_a_caller_that_is_cancelled_ends_the_calls_of_its_cell(sandbox: LocalSandbox) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def answer(name: str, payload: Any) -> None:
        begun.set()
        try:
            await anyio.sleep_forever()
        finally:
            ended.set()

    async with open_session(sandbox, limits=LIMITS, answer=answer) as session:
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(session.run, "kept = 1\nllm_query('a')")
                await begun.wait()
                tasks.cancel_scope.cancel()
            await ended.wait()
            kept = await session.run("kept")

    assert kept.value == "1"
