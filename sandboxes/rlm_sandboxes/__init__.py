"""Places that isolate programs. The promise is in `sandbox.py`; backends have packages of their own."""

from .errors import (
    EngineUnavailable,
    ImageUnavailable,
    ImageUnusable,
    InterpreterUnusable,
    LibraryMissing,
    LimitsInvalid,
    ProcessEnded,
    SandboxError,
    SandboxUnavailable,
    StartFailed,
    describe_status,
)
from .limits import Files, Limits
from .sandbox import Isolation, Layer, Package, Process, Program, Sandbox, Usage

__all__ = [
    "EngineUnavailable",
    "Files",
    "ImageUnavailable",
    "ImageUnusable",
    "InterpreterUnusable",
    "Isolation",
    "Layer",
    "LibraryMissing",
    "Limits",
    "LimitsInvalid",
    "Package",
    "Process",
    "ProcessEnded",
    "Program",
    "Sandbox",
    "SandboxError",
    "SandboxUnavailable",
    "StartFailed",
    "Usage",
    "describe_status",
]
