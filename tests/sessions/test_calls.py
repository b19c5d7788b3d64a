"""Code in a cell asks the host: one by one, many at once, waiting or awaiting."""

from __future__ import annotations

from typing import Any

import anyio

from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, open_session


async def test_a_call_is_answered(session: Session) -> None:
    assert (await session.run("call('double', {'a': 1} and [1])")).value == "[1, 1]"


async def test_a_call_can_be_awaited_while_other_tasks_go_on(session: Session) -> None:
    code = "import asyncio\nawait asyncio.gather(*[call_async('double', n) for n in range(5)])"

    assert (await session.run(code)).value == "[0, 2, 4, 6, 8]"


async def test_a_failed_call_is_an_error_that_code_can_catch(session: Session) -> None:
    caught = await session.run(
        "try:\n    call('nonsense')\nexcept Exception as e:\n    found = (type(e).__name__, e.kind, str(e))\nfound"
    )
    uncaught = await session.run("call('nonsense')")

    assert caught.value == "('CallFailed', 'ValueError', 'nobody knows nonsense')"
    assert uncaught.error is not None and uncaught.error.name == "CallFailed"


async def test_many_calls_run_at_once_and_their_answers_keep_order(sandbox: LocalSandbox) -> None:
    asked: set[int] = set()
    all_asked = anyio.Event()

    async def answer(name: str, payload: Any) -> Any:
        asked.add(payload)
        if len(asked) == 100:
            all_asked.set()
        await all_asked.wait()  # nobody is answered before everybody has asked
        await anyio.sleep((100 - payload) / 1000)
        if payload == 50:
            raise ValueError("not this one")
        return payload

    with anyio.fail_after(30):
        async with open_session(sandbox, answer=answer) as session:
            result = await session.run(
                "answers = call_many([('q', n) for n in range(100)])\n[str(a) for a in answers[48:53]]"
            )

    assert result.value == "['48', '49', 'not this one', '51', '52']"


async def test_calls_work_from_threads(session: Session) -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    answers = list(pool.map(lambda n: call('double', n), range(40)))
answers == [2 * n for n in range(40)]
"""

    assert (await session.run(code)).value == "True"


async def test_without_an_answerer_a_call_says_so(sandbox: LocalSandbox) -> None:
    async with open_session(sandbox) as session:
        result = await session.run("call('anything')")

    assert result.error is not None and "nobody answers" in result.error.message


async def test_calls_of_a_cell_end_with_it(sandbox: LocalSandbox) -> None:
    begun, ended = anyio.Event(), anyio.Event()

    async def answer(name: str, payload: Any) -> None:
        try:
            begun.set()
            await anyio.sleep_forever()
        finally:
            ended.set()

    code = "import threading\nthreading.Thread(target=call, args=('q',), daemon=True).start()\nimport time\ntime.sleep(0.3)"
    with anyio.fail_after(20):
        async with open_session(sandbox, answer=answer) as session:
            await session.run(code)
            await begun.wait()
            await ended.wait()


async def test_a_payload_that_is_no_json_fails_at_the_call(session: Session) -> None:
    result = await session.run("call('double', {1, 2})")

    assert result.error is not None and result.error.name == "TypeError"


async def test_answers_of_any_size_and_shape_arrive(session: Session) -> None:
    result = await session.run("a = call('double', 'é\\ud800\\n' * 500_000)\nlen(a)")

    assert result.value == "3000000"
