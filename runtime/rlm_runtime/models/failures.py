"""What an answer that is no reply means: which error it is, by its status first, and what to do about it.

    ModelRefused   400, 401, 402, 403, 404, 413, 422, other 3xx and 4xx: asking again changes nothing
    ModelBusy      408, 409, 425, 429, 5xx (529 is Anthropic's "overloaded"), time-outs, lost connections

A status tells that no answer was made, and so nothing is billed, unless it says that somebody between could not wait
for it (408, 502, 504). Whatever else comes after a request was sent, its answer may have been made and be billed.

No key is ever in a text from here: `Secrets` takes out ours, and whatever looks like one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

from rlm_runtime.errors import ModelBusy, ModelError, ModelRefused, ModelUnavailable
from rlm_runtime.models.json_values import Json, is_list, is_object

E = TypeVar("E", bound=ModelError)

MOST_CHARACTERS = 500
_MOST_NESTING = 10
_BUSY = frozenset({408, 409, 425, 429})
_MAYBE_BILLED = frozenset({408, 502, 504})
_OUT_OF_MONEY = frozenset({"insufficient_quota", "billing_not_active", "billing_hard_limit_reached"})
_KEY_LIKE = re.compile(r"\b(?:sk|pk|rk|gsk|xai|AIza|key)[-_][\w*.-]{6,}|(?<=Bearer )\S+", re.IGNORECASE)
# What does not end is taken to the end of the text, so that this is linear whatever comes.
_PAGE = re.compile(r"<(style|script|title)\b.*?(?:</\1>|\Z)|<[^<>]*+>?", re.DOTALL | re.IGNORECASE)
_SAID_UNDER = ("error", "message", "msg", "detail", "errors")
_STATUS_OF_KIND: Mapping[str, int] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "api_error": 500,
    "server_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

MALFORMED = (LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError)
"""What reading an answer raises that does not have the form it should have."""


class Secrets:
    """What must never be shown."""

    def __init__(self, *secrets: str) -> None:
        self._secrets = sorted({each for each in secrets if len(each) > 3}, key=len, reverse=True)

    def hide(self, text: str) -> str:
        """Return a text without secrets."""
        for secret in self._secrets:
            text = text.replace(secret, "[key]")
        return _KEY_LIKE.sub("[key]", text)


@dataclass(frozen=True)
class Server:
    """Who is asked, as far as errors tell of it. `key_setting` is where its key comes from."""

    address: str
    key_setting: str
    has_key: bool
    secrets: Secrets

    def failure(self, model: str, status: int, headers: Mapping[str, str], body: object) -> ModelError:
        """Return the error that an answer means. `body` is its JSON, or its text."""
        said = _shortened(self.secrets.hide(_message(body)))
        if status in _BUSY or status >= 500:
            if _code(body) in _OUT_OF_MONEY:
                return ModelRefused(model, f"{said} (HTTP {status}). {_PAY}", status=status)
            late = retry_after_seconds(headers)
            busy = ModelBusy(model, f"{said} (HTTP {status})", status=status, retry_after_seconds=late)
            busy.may_be_billed = status in _MAYBE_BILLED
            return busy
        return ModelRefused(model, f"{said} (HTTP {status}). {self._advice(status)}".strip(), status=status)

    def failure_within(self, model: str, body: Json) -> ModelError | None:
        """Return the error that an answer with status 200, or an event of a stream, is in truth."""
        error = body.get("error")
        if not error:
            return None
        return self.failure(model, _status_within(error), {}, body)

    def busy(self, model: str, reason: str) -> ModelBusy:
        """Return the error for a request that could not be made."""
        return ModelBusy(model, self.secrets.hide(reason))

    def lost(self, model: str, reason: str) -> ModelBusy:
        """Return the error for an answer that did not come as a whole, although it may have been made."""
        return billed(self.busy(model, reason))

    def no_key(self, model: str) -> ModelUnavailable:
        """Return the error for a request that was not sent, because without a key it would be refused."""
        return ModelUnavailable(
            model, f"there is no key for {self.address}", f"Set {self.key_setting}, or api_key."
        )

    def refused(self, model: str, reason: str) -> ModelRefused:
        """Return the error for an answer that cannot be used, now or later."""
        return ModelRefused(model, self.secrets.hide(reason))

    def _advice(self, status: int) -> str:
        if status in {401, 403} and not self.has_key:
            return f"No key was sent to {self.address}: set {self.key_setting}, or api_key."
        if status == 401:
            return f"{self.address} does not take the key: correct {self.key_setting}, or api_key."
        if status == 403:
            return f"The key may not do this at {self.address}: use another model, or another key ({self.key_setting})."
        if status == 404 or 300 <= status < 400:
            return f"Is the name of the model right, and is api_base? The address was {self.address}."
        return {402: _PAY, 413: _SHORTEN}.get(status, "")


def billed(problem: E) -> E:
    """Return an error as one of a request that may be billed."""
    problem.may_be_billed = True
    return problem


_PAY = "The account has no credit left: top it up, or use another key."
_SHORTEN = "The request is too long: give the model less at once."


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """Return how long a server asks us to wait; None if it does not say."""
    milliseconds = _number(headers.get("retry-after-ms", ""))
    if milliseconds is not None:
        return milliseconds / 1000
    said = headers.get("retry-after", "")
    seconds = _number(said)
    return seconds if seconds is not None else _seconds_until(said)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return max(0.0, number) if math.isfinite(number) else None


def _seconds_until(date: str) -> float | None:
    from email.utils import parsedate_to_datetime  # loaded by now: httpx2 needs it

    try:
        then = parsedate_to_datetime(date)
    except (ValueError, TypeError, OverflowError):
        return None
    then = then if then.tzinfo else then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())


def _message(body: object) -> str:
    text = _find_message(body, _MOST_NESTING) or "The server did not say why"
    return " ".join(text.split())


def _shortened(text: str) -> str:
    """Return a text that is not too long to be read. What is secret is taken out before, while it is whole."""
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}..."


def _find_message(body: object, deep: int) -> str:
    """Return what a body says; servers put it under `error`, `message` or `detail`, as text or as an object."""
    if isinstance(body, str):
        return _PAGE.sub(" ", body) if body[:1] == "<" else body
    if is_list(body) and deep:
        return "; ".join(filter(None, (_find_message(each, deep - 1) for each in body[:3])))
    if not is_object(body) or not deep:
        return ""
    loc = body.get("loc")  # as pydantic says which part of a request is wrong
    where = [str(part) for part in loc[:_MOST_NESTING] if isinstance(part, str | int)] if is_list(loc) else []
    said = next(filter(None, (_find_message(body.get(name), deep - 1) for name in _SAID_UNDER)), "")
    return f"{'.'.join(where)}: {said}" if where else said


def _code(body: object) -> str:
    match body:
        case {"error": {"code": str() as code}}:
            return code
        case _:
            return ""


def _status_within(error: object) -> int:
    match error:
        case {"type": str() as kind} if kind in _STATUS_OF_KIND:
            return _STATUS_OF_KIND[kind]
        case {"code": int() as status} if 400 <= status < 600:
            return status
        case {"code": str() as kind} if kind in _STATUS_OF_KIND:
            return _STATUS_OF_KIND[kind]
        case _:
            return 500
