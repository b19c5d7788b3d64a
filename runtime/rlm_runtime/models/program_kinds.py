"""What a model behind a program has to know of it: how to ask it, and what its output means."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from rlm_runtime.errors import ModelBusy, ModelError, ModelRefused
from rlm_runtime.model import Bound, Finish, OnText, Reply, Request, Usage
from rlm_runtime.models.bounds import most_tokens
from rlm_runtime.models.direct import before_stop
from rlm_runtime.models.failures import Secrets

_MOST_SHOWN = 500
# A wrong use or wrong data, no permission, a wrong configuration, not executable, not found: see sysexits.h.
_FOR_GOOD = frozenset({2, 64, 65, 66, 67, 68, 72, 76, 77, 78, 126, 127})


@dataclass(frozen=True)
class Ended:
    """How a program ended. `is_cut` says that it was ended here, because it had said enough."""

    code: int
    errors: str
    is_cut: bool = False


class Hearing(Protocol):
    """What one run of a program says, while it says it."""

    async def hear(self, chunk: bytes) -> bool:
        """Take in some of its output, and return whether that is enough."""
        ...

    def reply(self, ended: Ended) -> Reply:
        """Return the reply. Raise `ModelError`."""
        ...

    def without_reply(self, problem: ModelError) -> ModelError:
        """Return the error of a run that brought none, with what it used or may have used."""
        ...


class ProgramKind(Protocol):
    """A program, as one has to ask it."""

    @property
    def command(self) -> Sequence[str]:
        """Its name and its arguments, as they were given."""
        ...

    def command_for(self, request: Request) -> Sequence[str]:
        """Return its name and its arguments, with places for what is asked."""
        ...

    def environment(self, most_out: int) -> Mapping[str, str]:
        """Return what it has to find in its environment, so that it says no more than that."""
        ...

    def window_tokens(self, model: str) -> int | None:
        """How many tokens fit into one request and its reply; None where that is not known."""
        ...

    def bound(self, request: Request, most_out: int) -> Bound:
        """Return the most that a request can cost."""
        ...

    def hearing(
        self, name: str, request: Request, most_out: int, on_text: OnText | None, secrets: Secrets
    ) -> Hearing:
        """Return what hears one run of it."""
        ...


class AnyProgram:
    """A program of which nothing is known: its output is the answer."""

    def __init__(self, command: Sequence[str]) -> None:
        self.command = tuple(command)

    def command_for(self, request: Request) -> Sequence[str]:
        return self.command

    def environment(self, most_out: int) -> Mapping[str, str]:
        return {}

    def window_tokens(self, model: str) -> int | None:
        return None

    def bound(self, request: Request, most_out: int) -> Bound:
        return Bound(most_tokens(request), most_out, None)

    def hearing(
        self, name: str, request: Request, most_out: int, on_text: OnText | None, secrets: Secrets
    ) -> Hearing:
        takes_model = bool(request.model) and any("{model}" in part for part in self.command)
        model = request.model if takes_model else name
        return _Answer(name, self.command[0], request, model, most_out, on_text, secrets)


class _Answer:
    """An answer as plain text, of at most as many bytes as the reply may have tokens."""

    def __init__(
        self,
        name: str,
        program: str,
        request: Request,
        model: str,
        most_out: int,
        on_text: OnText | None,
        secrets: Secrets,
    ) -> None:
        self._name = name
        self._program = program
        self._request = request
        self._model = model
        self._most_out = most_out
        self._on_text = on_text
        self._secrets = secrets
        self._output = bytearray()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    async def hear(self, chunk: bytes) -> bool:
        chunk = chunk[: max(0, self._most_out - len(self._output)) + 1]
        self._output += chunk
        text = self._decoder.decode(chunk)
        if self._on_text and text:
            await self._on_text(text)
        return len(self._output) > self._most_out

    def reply(self, ended: Ended) -> Reply:
        if ended.code and not ended.is_cut:
            output = self._output.decode("utf-8", "replace")
            problem = failure(self._name, self._program, ended, output, self._secrets)
            raise problem if ended.code in _FOR_GOOD else self.without_reply(problem)
        whole = bytes(self._output[: self._most_out])
        text = whole.decode("utf-8", "ignore" if ended.is_cut else "replace").strip()
        usage = Usage(most_tokens(self._request), len(whole), estimated=True)
        finish: Finish = "length" if ended.is_cut else "stop"
        return Reply(before_stop(text, self._request.stop), usage=usage, model=self._model, finish=finish)

    def without_reply(self, problem: ModelError) -> ModelError:
        problem.usage = Usage(most_tokens(self._request), len(self._output), estimated=True)
        return problem


def failure(name: str, program: str, ended: Ended, output: str, secrets: Secrets) -> ModelError:
    """Return the error for a program that failed. What it said last tells why."""
    how = f"was killed by signal {-ended.code}" if ended.code < 0 else f"ended with code {ended.code}"
    why = secrets.hide(ended.errors or output.strip())[-_MOST_SHOWN:] or "it did not say why"
    reason = f"`{program}` {how}: {why}"
    return ModelRefused(name, reason) if ended.code in _FOR_GOOD else ModelBusy(name, reason)
