"""Where the trajectories of a tenant lie: with each project, or where `log_dir` in [rlm] says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from .known import places_of
from .settings import Settings
from .tenants import OWNER, Tenant

if TYPE_CHECKING:
    from rlm_runtime import KeptBound

FOLDER = "trajectories"


def folder_for(settings: Settings, tenant: Tenant, place: Path) -> Path:
    """Return where runs of a project are logged; `place` is where its things are kept.

    What tenants do stays with their projects: `log_dir` is the owner's.
    """
    if settings.rlm.log_dir is not None and tenant == OWNER:
        return settings.rlm.log_dir
    return place / FOLDER


def bound_of(settings: Settings) -> KeptBound:
    """Return how much is kept in one such place."""
    from rlm_runtime import KeptBound

    return KeptBound(settings.rlm.trajectory_days, settings.rlm.trajectory_bytes)


def folders_of(settings: Settings, tenant: Tenant, root: Path) -> list[Path]:
    """Return all folders in which there may be trajectories of a tenant. Blocks."""
    own = [settings.rlm.log_dir] if settings.rlm.log_dir is not None and tenant == OWNER else []
    return [*own, *(place / FOLDER for place in places_of(root))]
