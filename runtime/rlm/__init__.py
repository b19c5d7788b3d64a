"""The names that people know from the world of recursive language models; nothing of ours imports this."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlm_runtime import RLM, RLMError, Tool

if TYPE_CHECKING:
    from .core.types import RLMResult

__all__ = ["RLM", "RLMError", "RLMResult", "Tool"]


def __getattr__(name: str) -> Any:
    if name != "RLMResult":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .core.types import RLMResult  # which brings what a run needs

    return RLMResult
