"""What a server does not take, learned from its refusals, so that it is not told so again.

Servers that keep to one form of API still differ in what they take of it: newer models of OpenAI want
`max_completion_tokens` in place of `max_tokens` and no temperature, some servers know no `response_format`.
A refusal that names something which can be left out is answered by leaving it out, for that model, for
as long as the connection lasts. A refused request costs nothing, so nothing is paid twice.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping

from rlm_runtime.errors import ModelRefused
from rlm_runtime.models.json_values import Json

MOST_LESSONS = 6

_INSTEAD: Mapping[str, str] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_NAMED_AS: Mapping[str, tuple[str, ...]] = {
    "response_format": ("response_format", "response format", "json_schema", "structured output"),
    "max_tokens": ("max_tokens",),
    "max_completion_tokens": ("max_completion_tokens",),
    "temperature": ("temperature",),
    "stop": ("'stop'", "`stop`", '"stop"', "stop sequence"),
    "stop_sequences": ("stop_sequences",),
    "stream_options": ("stream_options",),
}
_NOT_TAKEN = (
    *("unsupported", "not support", "unrecognized", "unknown", "unexpected", "unavailable", "deprecated"),
    *("not permitted", "not allowed", "not available", "extra input", "extra field", "instead"),
)


class Dialect:
    """What each model of one server takes."""

    def __init__(self) -> None:
        self._left_out: defaultdict[str, set[str]] = defaultdict(set)

    def spelled(self, model: str, body: Json) -> Json:
        """Return a request as this model takes it."""
        left_out = self._left_out.get(model)
        if not left_out:
            return body
        return {
            self._name(name, left_out): value
            for name, value in body.items()
            if name in _INSTEAD or not left_out & {name, _this_one(name, value)}
        }

    def learn(self, model: str, body: Json, refusal: ModelRefused) -> bool:
        """Return whether this refusal of `body` says what to leave out; it is left out from now on."""
        if refusal.status not in {400, 422}:
            return False
        said = refusal.reason.lower()
        culprit = next((name for name in _NAMED_AS if name in body and _is_refused(name, said)), "")
        if not culprit or _INSTEAD.get(culprit, "") in self._left_out[model]:
            return False
        self._left_out[model].add(_this_one(culprit, body[culprit]) if "invalid schema" in said else culprit)
        return True

    def _name(self, name: str, left_out: set[str]) -> str:
        return _INSTEAD[name] if name in left_out else name


def _is_refused(name: str, said: str) -> bool:
    named = any(word in said for word in _NAMED_AS[name])
    return named and (name == "response_format" or any(word in said for word in _NOT_TAKEN))


def _this_one(name: str, value: object) -> str:
    return f"{name}={json.dumps(value, sort_keys=True)}"
