"""What a check says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..settings import Settings
from ..sources import Sources

State: TypeAlias = Literal["ok", "info", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """What was found of one thing, and what to do about it.

    "info" is a thing that is not needed; "warn" one that limits what can be done, or how safely; with a
    "fail" nothing works.
    """

    name: str
    state: State
    found: str
    fix: str = ""
    more: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def facts(self) -> dict[str, Any]:
        """Return it for scripts."""
        return asdict(self)


@dataclass(frozen=True)
class Case:
    """What the checks look at: the settings that hold here, and the folder of the project if it has one."""

    settings: Settings
    sources: Sources
    folder: Path | None
