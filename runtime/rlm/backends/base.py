"""Where `Tool` is looked for as well."""

from rlm_runtime import Tool

__all__ = ["Tool"]
