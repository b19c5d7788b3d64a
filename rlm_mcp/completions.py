"""Completions: what an argument of a prompt or of a resource's address could be.

They help while somebody types, so nothing here waits for a session, and what is not known completes to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
from mcp_types import CompleteRequestParams, CompleteResult, Completion, PromptReference

from . import addresses
from .app import App
from .resources import Family, Resources
from .tenants import Tenant

MOST = 100

_MOST_CHARACTERS = 1000
_MOST_LOOKED_AT = 10_000


async def complete(
    app: App, tenant: Tenant, params: CompleteRequestParams, *, resources: Resources | None = None
) -> CompleteResult:
    """Answer completion/complete."""
    found = await _found(app, tenant, params, resources or Resources(app))
    values = [addresses.printable(each) for each in found[:MOST]]
    return CompleteResult(completion=Completion(values=values, total=len(found), has_more=len(found) > MOST))


async def _found(
    app: App, tenant: Tenant, params: CompleteRequestParams, resources: Resources
) -> Sequence[str]:
    name, value = params.argument.name, params.argument.value
    if len(value) > _MOST_CHARACTERS:
        return []
    if isinstance(params.ref, PromptReference):
        if (params.ref.name, name) == ("analyse_file", "path"):
            return await _paths(app, tenant, value)
        return []
    family = _family(resources, params.ref.uri)
    return [] if family is None else await family.complete(tenant, name, value)


def _family(resources: Resources, template: str) -> Family | None:
    for family in resources.families.values():
        if any(each.uri_template == template for each in family.templates()):
            return family
    return None


async def _paths(app: App, tenant: Tenant, value: str) -> Sequence[str]:
    """Return the files and folders of the project that is meant without a name."""
    project = await app.project(tenant, None)
    if project.folder is None:
        return []
    return await anyio.to_thread.run_sync(_paths_in, project.folder, value)


def _paths_in(folder: Path, value: str) -> list[str]:
    parent, _, beginning = value.rpartition("/")
    if "\0" in value or value.startswith(("/", "~")):
        return []
    try:
        place = (folder / parent).resolve()
        if not place.is_relative_to(folder.resolve()):
            return []
        with os.scandir(place) as entries:
            names = sorted(
                entry.name + ("/" if entry.is_dir() else "")
                for entry, _ in zip(entries, range(_MOST_LOOKED_AT), strict=False)
                if entry.name.startswith(beginning) and (beginning or not entry.name.startswith("."))
            )
    except (OSError, ValueError, RuntimeError):
        return []
    return [f"{parent}/{name}" if parent else name for name in names]
