"""How many tokens fit into one request and its reply, by the family of a model.

Only models of a service have a window that their name tells. That of open weights is what their server was
started with, which no name tells: None, unless somebody says so. A window that grew within a family stands here
at its smallest, because a history that is compacted early costs little, and one that does not fit ends a run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

_FAMILIES: tuple[tuple[str, int], ...] = (
    (r"gpt-6", 922_000),
    (r"gpt-5.*-chat", 128_000),
    (r"gpt-5", 400_000),
    (r"gpt-4\.1", 1_047_576),
    (r"gpt-4\.5|gpt-4o|chatgpt-4o|gpt-4-turbo|gpt-4-\d{4}-preview|gpt-4-(vision|turbo)-preview", 128_000),
    (r"gpt-4-32k", 32_768),
    (r"gpt-4(-\d{4})?$", 8_192),
    (r"gpt-3\.5-turbo-instruct", 4_096),
    (r"gpt-3\.5", 16_385),
    (r"o1-(preview|mini)", 128_000),
    (r"(o1|o3|o4)(-|$)", 200_000),
    (r"codex-mini", 200_000),
    (r"claude-(instant|2\.0|2$)", 100_000),
    (r"claude-", 200_000),
    (r"gemini-1\.0", 32_760),
    (r"gemini-", 1_048_576),
    (r"deepseek-(chat|reasoner)$", 128_000),
    (r"grok-(2|beta)", 131_072),
    (r"grok-3", 131_072),
    (r"grok-", 256_000),
    (r"mistral-(large|medium|small)-latest", 128_000),
    (r"command-r|command-a", 128_000),
)


def window_of(model: str, own: Mapping[str, int] | None = None) -> int | None:
    """Return the window of a model, with or without its provider in front; `own` goes before what is known."""
    own = own or {}
    name = model.rpartition("/")[2].removeprefix("anthropic.").lower()
    if model in own or name in own:
        return own.get(model, own.get(name))
    return _window_of_family(name)


@lru_cache(maxsize=256)  # every call asks for it
def _window_of_family(name: str) -> int | None:
    return next((tokens for family, tokens in _FAMILIES if re.match(family, name)), None)
