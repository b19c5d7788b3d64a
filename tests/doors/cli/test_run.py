"""`run`: the real command, with a scripted model over HTTP and the real jail."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import anyio
import anyio.to_thread
import pytest

from tests.fakes.models import (
    Refusal,
    Reply,
    Request,
    Script,
    ScriptedModel,
    Silence,
    Turn,
    by_model,
    conversation,
)
from tests.runtime.runs import code, descendants

from . import runs
from .programs import PATIENCE, PROGRAM, Shell

_SHOUT = "print(*llm_map('shout {item}', context.split()))"


def _loud(request: Request) -> Turn:
    return Reply(request.prompt.split()[-1].upper())


def _root(*steps: str) -> Any:
    """A root that runs code, and answers with what it saw last."""
    cells = [code(step, wire="openai") for step in steps]
    return conversation(*cells, lambda request: Reply(request.results[-1].text.splitlines()[1]))


class Ask(Protocol):
    """Runs `rlm-mcp run ...` with a model that follows a script."""

    async def __call__(
        self, script: Script, *words: str, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def ask(shell: Shell) -> Ask:
    async def asked(script: Script, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        async with ScriptedModel(script) as server:
            return await _asked(shell, server, *words, stdin=stdin)

    shell.environment["OPENAI_API_KEY"] = "sk-secret-of-mine"
    return asked


async def _asked(
    shell: Shell, server: ScriptedModel, *words: str, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    with anyio.fail_after(PATIENCE):
        return await anyio.to_thread.run_sync(
            lambda: shell("run", *words, *_flags(server), stdin=stdin), abandon_on_cancel=True
        )


def _flags(server: ScriptedModel) -> list[str]:
    models = ("--model", "root", "--sub-model", "leaf")
    return ["--backend", "openai", "--api-base", f"{server.url}/v1", *models]


def _configure(shell: Shell, text: str) -> None:
    folder = Path(shell.environment["RLM_CONFIG_DIR"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "rlm.toml").write_text(text, "utf-8")


def _id(done: subprocess.CompletedProcess[str]) -> str:
    first = done.stderr.splitlines()[0]
    assert first.startswith("[trajectory ")
    return first.removeprefix("[trajectory ").removesuffix("]")


async def test_the_answer_is_on_stdout_and_first_on_stderr_the_trajectory(ask: Ask, shell: Shell) -> None:
    (shell.project / "words.txt").write_text("one two", "utf-8")
    script = by_model({"root": _root(_SHOUT), "leaf": _loud})
    done = await ask(script, "Shout.", "--context", "words.txt", "--recursive")
    shown = await anyio.to_thread.run_sync(lambda: shell("logs", _id(done)))

    assert (done.returncode, done.stdout) == (0, "ONE TWO\n"), done.stderr
    assert "[answered: 4 requests, 60 tokens, cost unknown, depth 1" in done.stderr
    assert "llm_query" in shown.stdout and shown.returncode == 0


async def test_a_small_task_is_simply_asked(ask: Ask) -> None:
    done = await ask([Reply("Four.")], "Two and two?", "--system", "Be short.", "--json")
    told = json.loads(done.stdout)

    assert done.returncode == 0 and told["ok"]
    assert (told["data"]["response"], told["data"]["finish"], told["data"]["total_calls"]) == (
        "Four.",
        "direct",
        1,
    )
    assert told["data"]["trajectory_id"] == _id(done)


async def test_the_task_and_the_context_may_come_from_stdin(ask: Ask) -> None:
    task = await ask(lambda request: Reply(request.prompt.upper()), "-", stdin="two and two?")
    show = by_model({"root": _root("print(context)")})
    context = await ask(show, "Show.", "--context", "-", "--recursive", stdin="from a pipe")

    assert task.stdout == "TWO AND TWO?\n"
    assert context.stdout == "from a pipe\n"


async def test_several_files_are_a_dictionary_by_their_names(ask: Ask, shell: Shell) -> None:
    for name in ("a.txt", "b.txt", "c.md"):
        (shell.project / name).write_text(f"text of {name}", "utf-8")
    script = by_model({"root": _root("print(sorted(context), context['b.txt'])")})

    done = await ask(script, "Show.", "--context", "c.md", "?.txt", "--recursive")

    assert done.stdout == "['a.txt', 'b.txt', 'c.md'] text of b.txt\n"


async def test_an_answer_by_a_schema_is_json(ask: Ask, shell: Shell) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    (shell.project / "schema.json").write_text(json.dumps(schema), "utf-8")

    done = await ask([Reply('{"n": 4}')], "Two and two?", "--schema", "schema.json", "--json")

    assert json.loads(done.stdout)["data"]["value"] == {"n": 4}


async def test_v_tells_one_event_a_line_where_there_is_no_terminal(ask: Ask) -> None:
    done = await ask([Reply("Four.")], "Two and two?", "-v")
    lines = done.stderr.splitlines()

    assert [line.split()[0] for line in lines[1:-1]] == sorted(
        [line.split()[0] for line in lines[1:-1]], key=int
    )
    assert "Two and two?" in lines[1] and "\x1b" not in done.stderr and "\r" not in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="there are no pseudo-terminals")
async def test_at_a_terminal_a_line_says_where_the_run_stands_and_goes_away(shell: Shell) -> None:
    async def answer(_: Request) -> Turn:
        asked.set()
        await go_on.wait()
        return Reply("Four.")

    asked, go_on = anyio.Event(), anyio.Event()
    ours, theirs = pty.openpty()
    environment = {**shell.environment, "TERM": "xterm", "NO_COLOR": "1"}
    async with ScriptedModel(answer) as server:
        words = [*PROGRAM, "run", "Two and two?", *_flags(server)]
        with anyio.fail_after(PATIENCE):
            async with await anyio.open_process(
                words, stderr=theirs, env=environment, cwd=shell.project
            ) as process:
                os.close(theirs)
                seen = b""
                while b"1 at work" not in seen:
                    seen += await anyio.to_thread.run_sync(os.read, ours, 65536, abandon_on_cancel=True)
                go_on.set()
                await process.wait()
    seen += await anyio.to_thread.run_sync(_rest, ours)

    assert asked.is_set() and process.returncode == 0
    assert b"code runs" not in seen  # there is none
    assert b"\r\x1b[K" in seen and seen.rstrip().endswith(b"]") and b"[direct: 1 request," in seen


def _rest(file: int) -> bytes:
    try:
        return os.read(file, 65536)
    except OSError:
        return b""
    finally:
        os.close(file)


# ---- how it ends


async def test_without_a_model_it_says_how_to_get_one(shell: Shell) -> None:
    done = await anyio.to_thread.run_sync(lambda: shell("run", "Hello"))

    assert (done.returncode, done.stdout) == (3, "")
    assert "No model is configured" in done.stderr and "--model" in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no task"),
        (("--", "-5 and 5?", "--recursive"), "After -- nothing is a flag"),
        (("  ",), "empty"),
        (("-", "--context", "-"), "both"),
        (("Hello", "--context", "nothing*.txt"), "nothing*.txt"),
        (("Hello", "--context", "."), "folder"),
        (("Hello", "--schema", "words.txt"), "JSON"),
        (("Hello", "--resume", "20251121T09"), "--resume"),
        (("Hello", "--backend", "openia"), "Did you mean 'openai'"),
    ],
)
async def test_what_cannot_be_meant_is_told_before_anything_is_asked(
    ask: Ask, shell: Shell, words: tuple[str, ...], said: str
) -> None:
    (shell.project / "words.txt").write_text("one two", "utf-8")
    done = await anyio.to_thread.run_sync(lambda: shell("run", *words))

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr


async def test_a_budget_that_ends_first_leaves_what_there_is(ask: Ask) -> None:
    def root(request: Request) -> Turn:
        cell = code(f"answer = 'half {request.turn}'; print(answer)", wire="openai")
        return replace(cell, input_tokens=3000)

    script = by_model({"root": root})
    done = await ask(script, "Do it.", "--recursive", "--token-budget", "12000")

    assert (done.returncode, done.stdout[:4]) == (4, "half"), done
    assert "not a whole answer" in done.stderr and "--token-budget" in done.stderr


async def test_no_time_left_has_an_exit_code_of_its_own(ask: Ask) -> None:
    done = await ask([Silence()], "Hello", "--timeout", "0.5", "--json")
    told = json.loads(done.stdout)

    assert done.returncode == 124
    assert (told["ok"], told["error"]["code"], told["data"]["finish"]) == (False, "budget", "exhausted")


async def test_a_model_that_refuses_or_says_nothing_is_a_failure(ask: Ask) -> None:
    refused = await ask([Refusal(401)], "Hello")
    nothing = await ask(lambda _: Reply(""), "Hello", "--recursive")

    assert (refused.returncode, nothing.returncode) == (1, 1)
    assert "root" in refused.stderr and "sk-secret" not in refused.stderr
    assert "nothing" in nothing.stderr and "Traceback" not in refused.stderr + nothing.stderr


async def test_a_place_that_takes_no_log_is_told(ask: Ask, shell: Shell) -> None:
    (shell.project / "file").touch()

    done = await ask([Reply("Four.")], "Two and two?", "--set", "rlm.log_dir=file/logs")

    assert done.returncode == 1 and "No log can be written" in done.stderr and "defect" not in done.stderr


async def test_a_cost_budget_needs_a_price(ask: Ask, shell: Shell) -> None:
    done = await ask([Reply("Four.")], "Two and two?", "--cost-budget", "1")
    _configure(shell, "[rlm.prices]\nroot = [1.0, 1.0]\n")
    priced = await ask([Reply("Four.")], "Two and two?", "--cost-budget", "1")

    assert done.returncode == 3 and "price" in done.stderr
    assert priced.returncode == 0 and "$" in priced.stderr


async def test_docker_that_is_not_there_is_told(ask: Ask, shell: Shell, tmp_path: Path) -> None:
    shell.environment["DOCKER_HOST"] = f"unix://{tmp_path}/nothing.sock"

    done = await ask([Reply("Four.")], "Two and two?", "--env", "docker")

    assert done.returncode == 5 and "docker" in done.stderr.lower()


async def test_an_interrupted_run_keeps_its_trajectory_and_is_gone_on_with(shell: Shell) -> None:
    shell.environment["OPENAI_API_KEY"] = "key"
    (shell.project / "words.txt").write_text("one two", "utf-8")
    stuck: dict[str, Turn] = {"shout two": Silence()}

    def leaf(request: Request) -> Turn:
        return stuck.get(request.prompt, _loud(request))

    async with ScriptedModel(by_model({"root": _root(_SHOUT), "leaf": leaf})) as server:
        words = ("run", "Shout.", "--context", "words.txt", "--recursive", *_flags(server))
        process = await anyio.to_thread.run_sync(lambda: shell.start(*words))
        with process, anyio.fail_after(PATIENCE):
            await server.until(lambda model: model.asked["shout two"] == 1)
            process.send_signal(signal.SIGINT)
            _, stderr = await anyio.to_thread.run_sync(process.communicate)
        id_ = stderr.splitlines()[0].removeprefix("[trajectory ").removesuffix("]")
        before = dict(server.asked)
        stuck.clear()
        done = await _asked(shell, server, "--resume", id_)

    assert process.returncode == 130 and f"--resume {id_}" in stderr and "Traceback" not in stderr
    assert (done.returncode, done.stdout) == (0, "ONE TWO\n"), done.stderr
    assert server.asked["shout one"] == before["shout one"] == 1 and server.asked["shout two"] == 2


async def test_an_interrupted_run_says_what_there_is_of_an_answer(shell: Shell) -> None:
    shell.environment["OPENAI_API_KEY"] = "key"
    root = conversation(code("print(1)", wire="openai"), Reply("So far: two", finish="length"), Silence())
    async with ScriptedModel(root) as server:
        process = await anyio.to_thread.run_sync(
            lambda: shell.start("run", "Count.", "--recursive", *_flags(server))
        )
        with process, anyio.fail_after(PATIENCE):
            await server.until(lambda model: len(model.requests) == 3)
            process.send_signal(signal.SIGINT)
            stdout, stderr = await anyio.to_thread.run_sync(process.communicate)

    assert (process.returncode, stdout) == (130, "So far: two\n")
    assert "interrupted" in stderr and "Traceback" not in stderr


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="the system tells nobody when such processes end")
async def test_a_second_interrupt_quits_at_once_and_leaves_no_process(shell: Shell) -> None:
    shell.environment["OPENAI_API_KEY"] = "key"
    forever = by_model({"root": _root("llm_map('never {item}', [1, 2])"), "leaf": Silence()})
    async with ScriptedModel(forever) as server:
        process = await anyio.to_thread.run_sync(
            lambda: shell.start("run", "Wait.", "--recursive", *_flags(server))
        )
        with process, anyio.fail_after(PATIENCE):
            await server.until(lambda model: model.at_once == 2)
            children = await anyio.to_thread.run_sync(_handles_of, process.pid)
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            _, stderr = await anyio.to_thread.run_sync(process.communicate)
            await server.until(lambda model: model.at_once == 0)

    assert process.returncode == 130 and "Traceback" not in stderr and children
    for child in children:
        with anyio.fail_after(PATIENCE):
            await anyio.wait_readable(child)
        os.close(child)


def _handles_of(pid: int) -> list[int]:
    """Return what tells of the processes that one has started when they end."""
    return [os.pidfd_open(each) for each in descendants(pid)]


async def test_what_a_model_took_beyond_its_bound_is_told(ask: Ask) -> None:
    done = await ask([Reply("Four.", output_tokens=90_000)], "Two and two?", "--token-budget", "20000")

    assert done.stdout == "Four.\n"
    assert "more than the model was allowed" in done.stderr


async def test_the_variables_of_a_provider_say_where_it_is(shell: Shell) -> None:
    async with ScriptedModel([Reply("Four.")]) as server:
        shell.environment |= {"OPENAI_API_KEY": "sk-mine", "OPENAI_BASE_URL": f"{server.url}/v1"}
        with anyio.fail_after(PATIENCE):
            done = await anyio.to_thread.run_sync(
                lambda: shell("run", "Two and two?", "--backend", "openai", "--model", "root")
            )

    assert (done.returncode, done.stdout) == (0, "Four.\n"), done.stderr
    assert server.requests[0].headers["authorization"] == "Bearer sk-mine"


async def test_without_a_key_nothing_is_sent_and_the_variable_is_named(shell: Shell) -> None:
    with anyio.fail_after(PATIENCE):
        done = await anyio.to_thread.run_sync(
            lambda: shell("run", "Two and two?", "--backend", "anthropic", "--model", "claude-sonnet-4-5")
        )

    assert (done.returncode, done.stdout) == (3, "")
    assert (
        "there is no key for https://api.anthropic.com" in done.stderr and "ANTHROPIC_API_KEY" in done.stderr
    )


async def test_settings_of_the_user_hold_and_flags_win(shell: Shell) -> None:
    async with ScriptedModel(lambda request: Reply(request.model)) as server:
        where = f'api_base = "{server.url}/v1"\napi_key = "key"\n'
        _configure(shell, f'[rlm]\nbackend = "openai"\nmodel = "of-the-file"\n{where}')
        plain = await anyio.to_thread.run_sync(lambda: shell("run", "Who?"))
        flag = await anyio.to_thread.run_sync(lambda: shell("run", "Who?", "--model", "of-the-flag"))

    assert (plain.stdout, flag.stdout) == ("of-the-file\n", "of-the-flag\n"), plain.stderr + flag.stderr


async def test_a_run_leaves_behind_no_more_than_is_kept(ask: Ask, shell: Shell) -> None:
    folder = shell.project / "kept"
    shell.environment |= {"RLM_LOG_DIR": str(folder), "RLM_TRAJECTORY_DAYS": "30"}
    old = [await runs.written(folder) for _ in range(22)]
    for id_ in old:
        os.utime(folder / f"{id_}.jsonl", (0, 0))

    done = await ask([Reply("Four.")], "Two and two?")

    left = {
        each["id"] for each in await anyio.to_thread.run_sync(lambda: shell.data("logs", "--limit", "99"))
    }
    assert left == {_id(done), *old[3:]}
