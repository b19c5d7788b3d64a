"""What a log knows: the answers of models, tools and the store, each by what was asked and by which call.

Of calls that ask the same, each gets the answer of the call of its own name, which is that of its place in the order
of asking. Where calls have other names now, they get their answers in the order in which they were asked then.

This module does no I/O but reading the trajectory it is made from, when it is made.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from . import errors
from .errors import ModelError, RLMError, TrajectoryError
from .event_lines import plain, within
from .events import Event
from .model import Reply, ToolUse, Usage
from .trajectory import Trajectory

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,16}")
_PASSED_ON = "ModelUnavailable"
_NOTHING = Usage(cost_usd=0.0)


@dataclass(frozen=True)
class Recorded:
    """How a call ended: with a reply, with the output of a tool, or with an error. `n` is where it began.

    What the error, or else the tries before the reply, used is `usage`; of `unsure_tokens` nobody knows.
    """

    n: int
    call_id: str
    reply: Reply | None = None
    output: Any = None
    error: Mapping[str, Any] | None = None
    usage: Usage = _NOTHING
    unsure_tokens: int = 0

    @property
    def was_cut(self) -> bool:
        """Whether nobody knows the answer, because nobody waited for it any more."""
        return self.error is not None and self.error.get("kind") == "Cancelled"

    @property
    def problem(self) -> RLMError:
        """The error it ended in."""
        error = self.error or {}
        return _error(str(error.get("kind", "ModelError")), str(error.get("message", "")), self.usage)


def _error(kind: str, message: str, usage: Usage) -> RLMError:
    """Return an error that reads, and is caught, like one of then.

    What is tried again, or passed on to another model, was so then, and the log has all of it: so here such an
    error is one of a model and no more.
    """
    base: Any = getattr(errors, kind, None)
    if not (isinstance(base, type) and issubclass(base, RLMError)) or issubclass(
        base, (errors.ModelBusy, errors.ModelUnavailable)
    ):
        base = type(kind, (ModelError if kind.startswith("Model") else RLMError,), {})
    problem: RLMError = base.__new__(base)
    Exception.__init__(problem, message)
    for name, value in _facts(message, usage).items():
        setattr(problem, name, value)
    return problem


def _facts(message: str, usage: Usage) -> dict[str, Any]:
    """Return what an error of then is asked for, as far as it is known."""
    numbers = {"used": 0.0, "most": 0.0, "depth": 0, "tokens_used": 0, "budget": 0}
    words = {"reason": message, "model": "", "status": None, "problems": (message,), "text": ""}
    return {**numbers, **words, "usage": usage}


def key_of_prompt(messages: Sequence[Mapping[str, Any]], model: str) -> str:
    """Return a name for what a model is asked. Addresses of objects, which are never twice the same, do not count."""
    return _key([list(messages), model])


def key_of_tool(name: str, arguments: Mapping[str, Any]) -> str:
    """Return a name for a call of a tool."""
    return _key([name, dict(arguments)])


def _key(value: Any) -> str:
    text = json.dumps(plain(value), sort_keys=True)
    return sha256(same_addresses(text).encode()).hexdigest()


def same_addresses(text: str) -> str:
    """Return a text with the same address for all objects."""
    return _ADDRESS.sub("0x0", text)


@dataclass
class Record:
    """All answers of a trajectory that are not used yet."""

    models: dict[str, list[Recorded]] = field(default_factory=lambda: defaultdict[str, list[Recorded]](list))
    tools: dict[str, list[Recorded]] = field(default_factory=lambda: defaultdict[str, list[Recorded]](list))
    stored: dict[tuple[str, int], Mapping[str, Any]] = field(
        default_factory=dict[tuple[str, int], Mapping[str, Any]]
    )
    first_asked: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    events: list[Event] = field(default_factory=list[Event])

    def next_of(self, key: str, call_id: str) -> Recorded | None:
        """Return the answer of a model to a prompt, and have it be used; None if there is none left."""
        return _next(self.models, key, call_id)

    def has(self, key: str) -> bool:
        """Whether there is an answer of a model left to a prompt."""
        return bool(self.models.get(key))

    def forget_failures(self) -> None:
        """Have all be asked again that got no answer then."""
        for answers in (self.models, self.tools):
            for key, waiting in answers.items():
                answers[key] = [each for each in waiting if each.error is None]

    def next_of_tool(self, key: str, call_id: str) -> Recorded | None:
        """Return the answer of a tool, and have it be used."""
        return _next(self.tools, key, call_id)


def _next(answers: Mapping[str, list[Recorded]], key: str, call_id: str) -> Recorded | None:
    """Take the answer of that call, or else the first of those that are left."""
    waiting = answers.get(key)
    if not waiting:
        return None
    found = min(waiting, key=lambda each: (each.call_id != call_id, each.n))
    waiting.remove(found)
    return found


def record_of(trajectory: Trajectory, *, before: int | None = None) -> Record:
    """Return what a trajectory knows, of what had ended before event `before`. It reads, and blocks."""
    record = Record()
    begun: dict[str, Event] = {}
    tries: dict[str, _Tries] = defaultdict(_Tries)
    asked: set[tuple[str, str]] = set()
    for event in trajectory.events:
        if before is not None and event["n"] >= before:
            break
        try:
            whole = trajectory.whole(event)
        except TrajectoryError:  # its texts are lost: as if it had not happened
            continue
        record.events.append(whole)
        if event["kind"] == "call_started":
            begun[event["call_id"]] = whole
        elif event["kind"] == "note" and whole.get("note") == "no_answer":
            tries[event["call_id"]].add(whole)
        elif event["kind"] == "call_ended" and event["call_id"] in begun:
            _note_down(record, begun.pop(event["call_id"]), whole, tries, asked)
    return record


def _note_down(
    record: Record, started: Event, ended: Event, tries: Mapping[str, _Tries], asked: set[tuple[str, str]]
) -> None:
    name = str(started.get("name", ""))
    prompt: Any = started.get("prompt")
    about = (name, str(within(prompt, -1, "content")))
    if ended.get("cached"):
        if "key" in ended:
            key = (str(ended["key"]), int(ended.get("nth", 0)))
            record.stored.setdefault(key, ended)
            if about in asked:
                record.first_asked.add(key)
        return
    asked.add(about)
    used: Any = started.get("tool_calls")
    if prompt is None and used:
        key_ = key_of_tool(str(used[0]["name"]), used[0].get("arguments", {}))
        record.tools[key_].append(_recorded_tool(started, ended))
    elif "model" in started and within(ended, "error", "kind") != _PASSED_ON:
        record.models[key_of_prompt(prompt or (), str(started["model"]))].append(
            _recorded(started, ended, tries.get(started["call_id"], _Tries()))
        )


@dataclass
class _Tries:
    """What the tries of one call used that came to nothing, and what nobody knows of them."""

    usage: Usage = _NOTHING
    unsure_tokens: int = 0

    def add(self, event: Event) -> None:
        self.usage = _sum(self.usage, event)
        self.unsure_tokens += int(event.get("unsure_tokens", 0))


def _recorded(started: Event, ended: Event, tries: _Tries) -> Recorded:
    if ended.get("error"):
        tries.add(ended)
        return Recorded(*_at(started), None, None, ended["error"], tries.usage, tries.unsure_tokens)
    uses = tuple(
        ToolUse(str(each["id"]), str(each["name"]), each.get("arguments", {}), str(each.get("problem", "")))
        for each in ended.get("tool_calls") or ()
    )
    own = _usage(ended)
    reply = Reply(
        text=str(ended.get("response", "")),
        tool_uses=uses,
        usage=Usage(own.input_tokens, own.output_tokens, own.cost_usd, own.estimated),
        model=str(ended.get("model", "")),
        finish=ended.get("finish", "stop"),
    )
    return Recorded(*_at(started), reply, None, None, tries.usage, tries.unsure_tokens)


def _recorded_tool(started: Event, ended: Event) -> Recorded:
    if ended.get("error"):
        return Recorded(*_at(started), error=ended["error"])
    results: Any = ended.get("tool_results") or [{}]
    return Recorded(*_at(started), output=results[0].get("output"))


def _at(started: Event) -> tuple[int, str]:
    return started["n"], started["call_id"]


def _usage(event: Event) -> Usage:
    told: Any = event.get("token_usage") or {}
    return Usage(
        int(told.get("input_tokens", 0)),
        int(told.get("output_tokens", 0)),
        event.get("cost_usd") if told else 0.0,
        bool(told.get("estimated")),
    )


def _sum(before: Usage, event: Event) -> Usage:
    own = _usage(event)
    known = before.cost_usd is not None and own.cost_usd is not None
    return Usage(
        before.input_tokens + own.input_tokens,
        before.output_tokens + own.output_tokens,
        (before.cost_usd or 0.0) + (own.cost_usd or 0.0) if known else None,
        before.estimated or own.estimated,
    )
