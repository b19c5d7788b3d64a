"""What a completion returns."""

from rlm_runtime import Outcome as RLMResult

__all__ = ["RLMResult"]
