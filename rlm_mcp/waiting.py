"""Calls that lie for the client to answer by itself.

A `Desk` is a `Model` whose answers somebody brings. A call has the same number each time its job runs: it is known
by its content and by how many of the same content came before it.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

if TYPE_CHECKING:
    from rlm_runtime import Bound, ModelKind, OnText, Reply, Request

CELL = "execute_python"

_HANDLE = re.compile(r"w-[0-9a-f]{16}")
_LONG = 100_000
_WORTH_JOINING = 2

same_before: ContextVar[int] = ContextVar("same_before", default=0)
"""How many calls of the same content the code of this job made before the one that is being answered."""


@dataclass(frozen=True)
class Spec:
    """What is to be run, and run again after a restart: a tool and its arguments, in a project."""

    tool: str
    arguments: Mapping[str, Any]
    project: str
    expires_at: float = 0.0


@dataclass
class Call:
    """A call that lies for the client. It is open until `text` is there."""

    id: str
    key: str
    messages: tuple[tuple[str, str], ...]
    schema: Mapping[str, Any] | None = None
    text: str | None = None
    answered: anyio.Event = field(default_factory=anyio.Event)
    wanted: bool = False

    @property
    def prompt(self) -> str:
        """What is to be answered, as one text."""
        if len(self.messages) == 1:
            return self.messages[0][1]
        return "\n\n".join(f"[{role}]\n{content}" for role, content in self.messages)


class Desk:
    """Where the calls of one job lie until the client answers them."""

    name = "client"
    kind: ModelKind = "client"
    native_tools = False

    def __init__(self, known: Iterable[Call] = ()) -> None:
        self.calls = {call.id: call for call in known}
        self.news = anyio.Event()
        self.on_change: Callable[[], None] | None = None
        self._by_key = {call.key: call for call in self.calls.values()}
        self._came: Counter[str] = Counter()

    def open(self) -> list[Call]:
        """Return the calls that code waits for, in the order in which it made them."""
        return [call for call in self.calls.values() if call.wanted and call.text is None]

    def stir(self) -> None:
        """Have those look who wait for a change."""
        if self.on_change is not None:
            self.on_change()
        self.news.set()
        self.news = anyio.Event()

    def window_tokens(self, model: str = "") -> int | None:
        """Return that nobody knows it."""
        return None

    def bound(self, request: Request) -> Bound:
        """Return that it costs nothing here."""
        from rlm_runtime import Bound

        return Bound(0, 0, 0.0)

    async def complete(self, request: Request, *, on_text: OnText | None = None) -> Reply:
        """Return what the client answers, however long that takes."""
        from rlm_runtime import Reply, Usage

        call = await self._lay_down(request)
        call.wanted = True
        self.stir()
        try:
            await call.answered.wait()
        finally:
            call.wanted = False
            self.stir()
        assert call.text is not None
        return Reply(call.text, usage=Usage(cost_usd=0.0), model=self.name)

    async def _lay_down(self, request: Request) -> Call:
        """Return the call for a request: the one of an earlier run of the job, if there is one."""
        content = await _key_of(request)
        numbered = f"{content}.{same_before.get()}"
        key = f"{numbered}.{self._came[numbered]}"
        self._came[numbered] += 1
        call = self._by_key.get(key)
        messages = tuple((each.role, each.content) for each in request.messages)
        if call is not None:
            call.messages = messages
        else:
            call = Call(str(len(self.calls) + 1), key, messages, request.schema)
            self.calls[call.id] = self._by_key[key] = call
        return call

    async def refusal(self, id_: str, value: Any) -> str:
        """Take the answer to a call; return why it is not taken, or nothing."""
        call = self.calls.get(id_)
        if call is None:
            still = numbers_of(call.id for call in self.open())
            return f"there is no call {id_[:40]!r} here; open: {still or 'none'}"
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        if call.text is not None:
            return "" if call.text == text else f"call {id_} was answered before; the first answer stands"
        wrong = await _problems(call, text)
        if wrong:
            return f"the answer to call {id_} does not fit its schema ({'; '.join(wrong)}); answer it again"
        if call.text is None:
            call.text = text
        return ""

    def hand_over(self) -> None:
        """Have the code go on with the answers that were taken."""
        for call in self.calls.values():
            if call.text is not None:
                call.answered.set()
        self.stir()


async def _problems(call: Call, text: str) -> tuple[str, ...]:
    if call.schema is None:
        return ()
    from rlm_runtime import shape_of

    return (await (await shape_of(call.schema)).fit(text)).problems


async def _key_of(request: Request) -> str:
    from rlm_runtime import key_of

    if sum(len(each.content) for each in request.messages) < _LONG:
        return key_of(request, Desk.name, steady=True)
    return await anyio.to_thread.run_sync(partial(key_of, request, Desk.name, steady=True))


def numbers_of(ids: Iterable[str]) -> str:
    """Return the numbers of calls in few words: "1-3, 7, 8"."""
    runs = list[tuple[int, int]]()
    for number in sorted(map(int, ids)):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return ", ".join(_written(first, last) for first, last in runs)


def _written(first: int, last: int) -> str:
    if last - first >= _WORTH_JOINING:
        return f"{first}-{last}"
    return ", ".join(map(str, range(first, last + 1)))


def named_in(numbers: str, calls: Iterable[Call]) -> list[Call]:
    """Return those calls whose numbers are named, as `numbers_of` writes them."""
    runs = [each.partition("-") for each in numbers.replace(" ", "").split(",") if each]
    bounds = [(int(first), int(last or first)) for first, _, last in runs]
    return [call for call in calls if any(first <= int(call.id) <= last for first, last in bounds)]


def new_handle() -> str:
    """Return a name for a job that waits, which nobody can guess."""
    return f"w-{secrets.token_hex(8)}"


def is_handle(text: str) -> bool:
    """Return whether it has the form of a handle, and so is safe in a path."""
    return _HANDLE.fullmatch(text) is not None
