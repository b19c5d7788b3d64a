"""The process that LiteLLM runs in: when it starts, when it ends, and what happens when it ends by itself.

What runs in it here has LiteLLM's name and its manners: it prints where it should not, hangs and crashes.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from subprocess import PIPE
from typing import Any, TypeAlias

import anyio
import pytest

from rlm_runtime.errors import ModelBusy, ModelUnavailable
from rlm_runtime.model import Message, Request
from rlm_runtime.models import litellm as litellm_module
from rlm_runtime.models.litellm import LiteLLMModel
from rlm_runtime.models.prices import Prices
from tests.e2e.grounds import all_ended, descendants, running

LIBRARY = r"""
import asyncio, json, os, sys
print("Give Feedback / Get Help: https://...")
os.write(1, b'{"id": 1, "whole": {"choices": []}}\n')

class ModelResponse: ...

class Usage:
    def model_dump(self, **_):
        return {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}

class Reply:
    usage = Usage()
    def __init__(self, text):
        self.text = text
    def model_dump(self, **_):
        return {"choices": [{"message": {"content": self.text}, "finish_reason": "stop"}], "model": "m"}

async def acompletion(*, model, messages, **more):
    print("Provider List: https://...")
    asked = messages[-1]["content"]
    if asked == "wait":
        try:
            await asyncio.sleep(1000)
        finally:
            open(os.environ["GIVEN_UP"], "w").close()
    if asked == "slow":
        await asyncio.sleep(1)
    if asked == "crash":
        print("the last words", file=sys.stderr, flush=True)
        os._exit(11)
    if asked == "fail":
        raise LookupError(f"something odd about {os.environ['A_KEY']}")
    if asked == "odd":
        class Odd(Exception):
            body = property(lambda self: 1 / 0)
        raise Odd
    if asked == "cancelled":
        raise asyncio.CancelledError
    if asked == "environment":
        return Reply(json.dumps(dict(os.environ) | {"given": sorted(more.items(), key=str)}, default=str))
    return Reply(asked)

def get_llm_provider(model):
    return model, model.partition("/")[0], None, None

def completion_cost(**_):
    raise ValueError("not mapped")
"""
Opened: TypeAlias = "Callable[..., LiteLLMModel]"


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """Return how to make a model whose LiteLLM is the one above."""

    def make(library: str = LIBRARY, **options: Any) -> LiteLLMModel:
        (tmp_path / "litellm.py").write_text(library)
        return LiteLLMModel("openai/m", environment=_environment(tmp_path), prices=Prices(), **options)

    return make


def ask(text: str) -> Request:
    return Request((Message("user", text),))


async def test_what_it_prints_is_no_part_of_what_it_answers(opened: Opened) -> None:
    async with opened() as model:
        with anyio.fail_after(20):
            replies = [await model.complete(ask(text)) for text in ("one", "two")]

    assert [reply.text for reply in replies] == ["one", "two"]


async def test_nothing_runs_before_it_is_asked_and_nothing_after_it_is_closed(opened: Opened) -> None:
    before = descendants(os.getpid())
    async with opened() as model:
        assert descendants(os.getpid()) == before and model.worker_pid is None
        with anyio.fail_after(20):
            await model.warm_up()
            warm = model.worker_pid
            await model.complete(ask("one"))
        assert warm is not None and model.worker_pid == warm

    assert descendants(os.getpid()) == before


async def test_it_sees_the_environment_that_it_is_given_and_no_other(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANOTHER_KEY", "ours")
    async with opened(api_key="the key", api_base="http://there") as model:
        with anyio.fail_after(20):
            seen = json.loads((await model.complete(ask("environment"))).text)

    given = dict(seen.pop("given"))
    assert {name for name in seen if not name.startswith(("LITELLM_", "LC_"))} == {
        "A_KEY",
        "GIVEN_UP",
        "PYTHONPATH",
    }
    assert (given["api_key"], given["api_base"], given["num_retries"]) == ("the key", "http://there", 0)
    assert "the key" not in str(seen) and seen["LITELLM_LOCAL_MODEL_COST_MAP"] == "True"


async def test_calls_in_flight_fail_when_it_crashes_and_the_next_one_has_a_new_one(opened: Opened) -> None:
    failures: list[str] = []

    async def fail(text: str) -> None:
        with pytest.raises(ModelBusy) as raised:
            await model.complete(ask(text))
        failures.append(str(raised.value))

    async with opened() as model:
        with anyio.fail_after(30):
            await model.warm_up()
            async with anyio.create_task_group() as tasks:
                for text in ("wait", "wait", "crash"):
                    tasks.start_soon(fail, text)
            assert (await model.complete(ask("one"))).text == "one"

    assert len(failures) == 3
    assert all("LiteLLM's process ended" in failure and "the last words" in failure for failure in failures)


async def test_one_that_is_killed_is_started_anew(opened: Opened) -> None:
    async with opened() as model:
        with anyio.fail_after(30):
            await model.warm_up()
            killed = model.worker_pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            while model.worker_pid is not None:
                await anyio.sleep(0.01)
            assert (await model.complete(ask("one"))).text == "one"


async def test_a_call_that_is_taken_back_is_ended_in_the_process_too(opened: Opened, tmp_path: Path) -> None:
    given_up = tmp_path / "given-up"
    async with opened() as model:
        with anyio.fail_after(20):
            await model.warm_up()
            with anyio.move_on_after(0.3):
                await model.complete(ask("wait"))
            while not given_up.exists():
                await anyio.sleep(0.01)
            assert (await model.complete(ask("one"))).text == "one"


async def test_it_ends_when_nobody_needs_it_and_starts_when_somebody_does(opened: Opened) -> None:
    async with opened(idle_seconds=0.2) as model:
        with anyio.fail_after(20):
            await model.complete(ask("one"))
            first = model.worker_pid
            while model.worker_pid is not None:
                await anyio.sleep(0.01)
            assert (await model.complete(ask("two"))).text == "two"
            assert model.worker_pid != first


async def test_it_does_not_end_while_a_call_runs(opened: Opened) -> None:
    async with opened(idle_seconds=0.1) as model:
        with anyio.fail_after(20):
            assert (await model.complete(ask("slow"))).text == "slow"


async def test_it_ends_when_its_host_is_killed(opened: Opened, tmp_path: Path) -> None:
    opened()  # writes the library
    host = await anyio.open_process(
        [sys.executable, "-c", _HOST, str(tmp_path)], stdout=PIPE, env=_host_environment()
    )
    async with host:
        assert host.stdout is not None
        with anyio.fail_after(30):
            pid = int(await host.stdout.receive())
            [worker] = [each for each in running() if each[0] == pid]
            host.kill()
            await all_ended({worker})


async def test_a_failure_that_nobody_foresaw_is_told_without_the_key(opened: Opened) -> None:
    async with opened() as model:
        with anyio.fail_after(20), pytest.raises(ModelBusy, match=r"something odd about \[key\]"):
            await model.complete(ask("fail"))


@pytest.mark.parametrize("how", ["odd", "cancelled"])
async def test_a_failure_that_cannot_be_shown_is_told_nevertheless(opened: Opened, how: str) -> None:
    async with opened() as model:
        with anyio.fail_after(20), pytest.raises(ModelBusy, match=r"Odd, which|CancelledError"):
            await model.complete(ask(how))


async def test_that_litellm_is_not_installed_is_told_with_what_to_do(tmp_path: Path) -> None:
    nothing = {"PYTHONPATH": str(tmp_path)}
    async with LiteLLMModel("m", environment=nothing, prices=Prices()) as model:
        for _ in range(2):
            with (
                anyio.fail_after(20),
                pytest.raises(ModelUnavailable, match=r"not installed\. .*rlm-mcp\[llm\]"),
            ):
                await model.complete(ask("one"))


async def test_a_litellm_that_does_not_load_is_told_with_its_reason(opened: Opened) -> None:
    for library, reason in (("import no_such_part", "no_such_part"), ("raise ValueError('odd')", "odd")):
        async with opened(library) as model:
            with anyio.fail_after(20), pytest.raises(ModelUnavailable, match=f"cannot be started.*{reason}"):
                await model.warm_up()


async def test_a_python_that_is_not_there_is_named(opened: Opened) -> None:
    async with opened(python="/no/such/python") as model:
        with anyio.fail_after(20), pytest.raises(ModelUnavailable, match="/no/such/python: No such file"):
            await model.complete(ask("one"))


async def test_a_process_that_stands_still_is_given_up_after_its_time(opened: Opened) -> None:
    async with opened(timeout_seconds=1) as model:
        with anyio.fail_after(20):
            await model.warm_up()
            os.kill(model.worker_pid or 0, signal.SIGSTOP)
            with pytest.raises(ModelBusy, match="no answer in 1 seconds"):
                await model.complete(ask("one"))


def test_nothing_of_litellm_is_loaded_here() -> None:
    assert litellm_module.__name__ == "rlm_runtime.models.litellm"
    assert "litellm" not in sys.modules


def _environment(folder: Path) -> Mapping[str, str]:
    return {"PYTHONPATH": str(folder), "A_KEY": "secret-value", "GIVEN_UP": str(folder / "given-up")}


def _host_environment() -> Mapping[str, str]:
    return {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


_HOST = """
import anyio, sys
from rlm_runtime.models.litellm import LiteLLMModel
from rlm_runtime.models.prices import Prices

async def main():
    async with LiteLLMModel("openai/m", environment={"PYTHONPATH": sys.argv[1]}, prices=Prices()) as model:
        await model.warm_up()
        print(model.worker_pid, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""
