"""What is told of a run while it goes on: to who asks how it stands, to who listens, and on stderr."""

from __future__ import annotations

import logging
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import anyio

from . import texts
from .trajectory_resources import telling, trajectory_uri

if TYPE_CHECKING:
    from rlm_runtime import Event, Log

    from .app import App
    from .settings import Settings
    from .tenants import Tenant

_USUAL, _MOST_TOLD, _MOST_KEPT, _MOST_TOLD_CHARACTERS = 15, 40, 400, 160

_log = logging.getLogger(__name__)
_log.setLevel(logging.INFO)  # whether anything is said here is the setting `verbose`


class Story:
    """What happened in a run up to now, in few words."""

    def __init__(self) -> None:
        self.began = anyio.current_time()
        self.trajectory_id = ""
        self.calls = self.tokens = self.depth = self.last = 0
        self._told: deque[tuple[int, str]] = deque(maxlen=_MOST_KEPT)

    def hear(self, event: Event) -> None:
        """Take in an event."""
        self.trajectory_id, self.last = event["trajectory_id"], event["n"]
        if event["kind"] == "call_ended":
            self.calls += 1
            self.depth = max(self.depth, event["depth"])
            usage: dict[str, int] = event.get("token_usage") or {}
            self.tokens += usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
        said = _of_event(event)
        if said:
            self._told.append((event["n"], said))

    def line(self, seconds: float) -> str:
        """Return where it stands."""
        last = f"; {self._told[-1][1]}" if self._told else ""
        return f"{seconds:.0f} s: {self.calls} calls, {self.tokens} tokens{last}"

    def so_far(self, after: int) -> str:
        """Return where it stands, and what happened after an event, or of late if that is 0."""
        return "\n".join([self._head(after), *(f"{n}: {said}" for n, said in self._shown(after))])

    def _shown(self, after: int) -> list[tuple[int, str]]:
        if not after:
            return list(self._told)[-_USUAL:]
        return list(islice((each for each in self._told if each[0] > after), _MOST_TOLD))

    def _head(self, after: int) -> str:
        seconds = anyio.current_time() - self.began
        shown = self._shown(after)
        is_all = not shown or shown[-1] == self._told[-1]
        upto = self.last if is_all else shown[-1][0]
        at = f"; {trajectory_uri(self.trajectory_id)}" if self.trajectory_id else ""
        return (
            f"[at work for {seconds:.0f} s: {self.calls} calls, {self.tokens} tokens, depth {self.depth}; "
            f"told up to event {upto}{'' if is_all else f', more with after={upto}'}{at}]"
        )


def _of_event(event: Event) -> str:
    """Return an event in one line; nothing for one that says little."""
    failure: dict[str, str] = event.get("error") or {}
    at, error = event["call_id"], failure.get("message", "")
    match event["kind"]:
        case "call_ended":
            said = f"failed: {error}" if error else f"answered {_plainly(event.get('response'))}"
        case "cell_started":
            said = f"runs {_plainly(event.get('code'))}"
        case "cell_ended":
            said = f"code failed: {error}" if error else ""
        case "note":
            said = str(event.get("note", ""))
        case _:
            said = ""
    return texts.shorten(f"{at} {said}", _MOST_TOLD_CHARACTERS) if said else ""


def _plainly(said: object) -> str:
    return repr(texts.shorten(" ".join(said.split()), 100)) if isinstance(said, str) else ""


# ---- to who listens


def join(app: App, tenant: Tenant, settings: Settings, log: Log) -> None:
    """Have the events of a log told to the clients that listen, and on stderr where the settings want that."""
    log.listeners.append(telling(app, tenant))
    if settings.rlm.verbose:
        log.listeners.append(_say)


def _say(event: Event) -> None:
    """Log an event without what was said in it: whoever reads the log need not be who asked."""
    usage: dict[str, int] = event.get("token_usage") or {}
    tokens = usage.get("total_tokens") or usage.get("input_tokens", 0) + usage.get("output_tokens", 0)
    failure: dict[str, str] = event.get("error") or {}
    facts = {
        "model": event.get("model"),
        "tokens": tokens or None,
        "ms": event.get("duration_ms"),
        "finish": event.get("finish"),
        "note": event.get("note"),
        "error": failure.get("kind"),
    }
    told = "".join(f" {name}={texts.plain(str(fact))}" for name, fact in facts.items() if fact)
    _log.info("%s %s %s%s", event["trajectory_id"], event["call_id"], event["kind"], told)
