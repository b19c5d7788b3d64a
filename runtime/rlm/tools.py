"""Tools: what a host does for a run."""

from rlm_runtime import Tool, file_read

__all__ = ["Tool", "file_read"]
