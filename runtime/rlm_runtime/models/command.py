"""Models behind a program: it reads a prompt, and prints an answer.

The prompt is on its input, or in place of `{prompt}` in its arguments. What the model is told about its role goes
in place of `{system}`, or before the prompt; the model that a request names, in place of `{model}`. The program
`claude` is known (`claude_code.py`): it is asked for an answer and nothing else, and tells what that cost.

Of any other program nobody knows what it spends. Its tokens are counted as the bytes of what goes in and comes out,
and it is ended as soon as its answer is longer than the request allows. Its cost is not known.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self

import anyio
import anyio.abc
import anyio.to_thread

from rlm_runtime.errors import ModelBusy, ModelRefused, ModelUnavailable
from rlm_runtime.model import Bound, Kind, Message, OnText, Reply, Request
from rlm_runtime.models.claude_code import ClaudeCode, is_claude_code
from rlm_runtime.models.failures import Secrets
from rlm_runtime.models.prices import Prices
from rlm_runtime.models.program_kinds import AnyProgram, Ended, Hearing, ProgramKind
from rlm_runtime.models.programs import MARK, LastWords, end_strays, kill, read, secrets_in, start

_LINGER_SECONDS = 1.0
_MOST_ARGUMENT_BYTES = 100_000  # Linux takes 128 KiB
_CONVERSATION = (
    "This is a conversation, its oldest message first. "
    "Write the next message of the assistant, and nothing else."
)
_TOO_LONG = (
    "The prompt is too long for an argument. Leave {prompt} out of the command: it then comes on the input."
)


class CommandModel:
    """A model that is asked by running a program, `at_once` of them at most. `model` is the one it is to ask.

    The program sees the `environment` that is given and no other, works in an empty folder unless another one is
    given, and is ended with all that it started when its time is over or its caller is cancelled.
    """

    kind: Kind = "command"
    native_tools = False

    def __init__(
        self,
        command: Sequence[str],
        *,
        at_once: int = 2,
        timeout_seconds: float = 600,
        model: str = "",
        name: str = "command",
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
        max_tokens: int = 16_384,
        window_tokens: int | None = None,
        prices: Prices | None = None,
    ) -> None:
        self.name = model or name
        self._model = model
        self._environment = {"PATH": os.defpath} if environment is None else dict(environment)
        self._program: ProgramKind = (
            ClaudeCode(command, prices or Prices()) if is_claude_code(command) else AnyProgram(command)
        )
        self._secrets = Secrets(*secrets_in(self._environment))
        self._timeout_seconds = timeout_seconds
        self._folder = folder
        self._max_tokens = max_tokens
        self._window_tokens = window_tokens
        self._places = anyio.Semaphore(at_once)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        if self._folder is None:
            folder = await anyio.to_thread.run_sync(TemporaryDirectory)
            self._stack.push_async_callback(anyio.to_thread.run_sync, folder.cleanup)
            self._folder = Path(folder.name)
        return self

    async def __aexit__(self, *problem: object) -> None:
        with anyio.CancelScope(shield=True):
            await self._stack.aclose()

    def window_tokens(self, model: str = "") -> int | None:
        """How many tokens fit into one request and its reply; None where that is not known."""
        return self._window_tokens or self._program.window_tokens(model or self._model)

    def bound(self, request: Request) -> Bound:
        """Return the most that a request can cost, output included."""
        return self._program.bound(self._named(request), self._most_out(request))

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        """Return the reply. `on_text` hears it as it comes. Raise `ModelError`."""
        if not self._program.command:
            raise ModelUnavailable(
                self.name, "no command is named", "Name one, as a list: its program first."
            )
        request, most_out = self._named(request), self._most_out(request)
        hearing = self._program.hearing(self.name, request, most_out, on_text, self._secrets)
        async with self._places:
            with anyio.move_on_after(self._timeout_seconds):
                return await self._ask(request, hearing, most_out)
        program = self._program.command[0]
        reason = f"`{program}` did not end within {self._timeout_seconds:g} seconds"
        raise hearing.without_reply(ModelBusy(self.name, reason))

    async def _ask(self, request: Request, hearing: Hearing, most_out: int) -> Reply:
        arguments, prompt = filled(self._program.command_for(request), request)
        mark = secrets.token_hex(8)
        process = await self._start(arguments, {**self._program.environment(most_out), MARK: mark})
        try:
            return hearing.reply(await _converse(process, prompt, hearing))
        except BaseException:
            kill(process)
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(end_strays, mark)
            raise
        finally:
            kill(process)
            with anyio.CancelScope(shield=True):
                await process.aclose()

    async def _start(self, arguments: Sequence[str], more: Mapping[str, str]) -> anyio.abc.Process:
        environment = {**self._environment, **more}
        program = await anyio.to_thread.run_sync(_found, arguments[0], environment.get("PATH"))
        try:
            return await start([program, *arguments[1:]], environment=environment, folder=self._folder)
        except OSError as problem:
            if problem.errno == errno.E2BIG:
                raise ModelRefused(self.name, _TOO_LONG) from None
            reason = f"`{arguments[0]}` cannot be started ({problem.strerror or problem})"
            advice = "Install it, or name it in `command` with its whole path."
            raise ModelUnavailable(self.name, reason, advice) from None

    def _named(self, request: Request) -> Request:
        """Return a request that says which model is meant, if any is."""
        return request if request.model or not self._model else replace(request, model=self._model)

    def _most_out(self, request: Request) -> int:
        return request.max_tokens or self._max_tokens


def filled(command: Sequence[str], request: Request) -> tuple[list[str], bytes]:
    """Return a command with its places filled, and what goes to its input."""
    whole = "\n".join(command)
    system = "\n\n".join(each.content for each in request.messages if each.role == "system" and each.content)
    prompt = _prompt([each for each in request.messages if each.role != "system"])
    if system and ("{system}" not in whole or len(system.encode("utf-8", "replace")) > _MOST_ARGUMENT_BYTES):
        prompt, system = f"{system}\n\n{prompt}", ""
    places = {"{system}": system, "{prompt}": prompt, "{model}": request.model}
    arguments = [_with(places, argument) for argument in command]
    return arguments, b"" if "{prompt}" in whole else prompt.encode("utf-8", "replace")


def _with(places: Mapping[str, str], argument: str) -> str:
    """Return an argument with its places filled, of which none is looked for in what fills another."""
    for place, text in places.items():
        before, found, after = argument.partition(place)
        if found:
            filling = text.replace("\0", "").encode("utf-8", "replace").decode()
            return _with(places, before) + filling + _with(places, after)
    return argument


def _prompt(messages: Sequence[Message]) -> str:
    """Return a conversation as one text. Most are one question."""
    if len(messages) == 1:
        return messages[0].content
    return "\n\n".join(
        [_CONVERSATION, *(f"[{each.role}]\n{each.content}" for each in messages), "[assistant]"]
    )


async def _converse(process: anyio.abc.Process, prompt: bytes, hearing: Hearing) -> Ended:
    """Tell a program the prompt, and hear it until it ends, or has said enough. Raise what the hearing raises."""
    words, is_cut, failure = LastWords(), False, None
    async with anyio.create_task_group() as outer:
        outer.start_soon(_linger, process, outer.cancel_scope)
        async with anyio.create_task_group() as inner:
            inner.start_soon(_tell, process, prompt)
            inner.start_soon(read, process.stderr, words)
            try:
                is_cut = await _hear(process, hearing)
            except Exception as problem:  # noqa: BLE001 - raised below, where no group is around it
                failure = problem
            if is_cut or failure:
                kill(process)
        await process.wait()
        outer.cancel_scope.cancel()
    if failure:
        raise failure
    return Ended(process.returncode or 0, str(words), is_cut)


async def _linger(process: anyio.abc.Process, hearing: anyio.CancelScope) -> None:
    """Hear for a moment more what a program has left behind, and then no longer."""
    await process.wait()
    await anyio.sleep(_LINGER_SECONDS)
    hearing.cancel()


async def _hear(process: anyio.abc.Process, hearing: Hearing) -> bool:
    assert process.stdout is not None
    async for chunk in process.stdout:
        if await hearing.hear(chunk):
            return True
    return False


async def _tell(process: anyio.abc.Process, prompt: bytes) -> None:
    assert process.stdin is not None
    try:
        await process.stdin.send(prompt)
        await process.stdin.aclose()
    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
        pass  # it does not read, or not to the end


def _found(program: str, path: str | None) -> str:
    return shutil.which(program, path=path or os.defpath) or program
