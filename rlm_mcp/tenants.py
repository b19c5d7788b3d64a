"""Whose projects they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Tenant:
    """Whose projects they are. No tenant can see or guess what another has.

    The one without a name is the account that the server runs under. Others come over HTTP, and may use
    only `folders` of this machine as projects.
    """

    name: str = ""
    folders: tuple[Path, ...] = ()


OWNER = Tenant()
