"""The Python that we run in, the packages beside us, and the place for what is kept."""

from __future__ import annotations

import platform
import re
import shutil
import sys
import tempfile
from importlib import metadata

from ..app import root_of
from ..tenants import OWNER
from .results import Case, Check

_PACKAGE = "rlm-mcp"
_SHOWN = ("mcp", "pydantic", "RestrictedPython", "anyio")
_REQUIREMENT = re.compile(r"\s*([A-Za-z0-9._-]+)\s*([^;\s]*)")
_BOUND = re.compile(r"(>=|<=|<|>|==)(\d+(?:\.\d+)*)")
_LITTLE_SPACE = 1024**3
_GIB = 1024**3


def python(case: Case) -> list[Check]:
    """Say which Python runs us."""
    found = f"{platform.python_version()} at {sys.executable}, on {platform.platform(terse=True)}"
    return [Check("Python", "ok", found, more={"executable": sys.executable})]


def packages(case: Case) -> list[Check]:
    """Say which versions are here, and whether each is within what was tested."""
    try:
        requirements = [each for each in metadata.requires(_PACKAGE) or () if "extra ==" not in each]
        ours = metadata.version(_PACKAGE)
    except metadata.PackageNotFoundError:
        fix = "It runs from its sources. Install it (`pip install .`), and the versions of its packages are checked."
        return [Check("Packages", "warn", f"{_PACKAGE} is not installed; {_versions()}", fix)]
    wrong = [problem for each in requirements if (problem := _wrong(each))]
    if wrong:
        fix = f'Install it anew, best in an environment of its own: uv tool install {_PACKAGE}, or "pipx install".'
        return [Check("Packages", "fail", "; ".join(wrong), fix)]
    return [Check("Packages", "ok", f"{_PACKAGE} {ours}; {_versions()}")]


def _versions() -> str:
    return ", ".join(f"{name} {_version(name) or 'is missing'}" for name in _SHOWN)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _wrong(requirement: str) -> str | None:
    """Return in what way a requirement of ours is not met; None if it is."""
    match = _REQUIREMENT.match(requirement)
    if match is None:
        return None
    name, bounds = match.groups()
    there = _version(name)
    if there is None:
        return f"{name} is missing"
    kept = all(_within(there, sign, bound) for sign, bound in _BOUND.findall(bounds))
    return None if kept else f"{name} is {there}, and {bounds} is needed"


def _within(version: str, sign: str, bound: str) -> bool:
    ours, theirs = _numbers(version), _numbers(bound)
    size = max(len(ours), len(theirs))
    left, right = ours + [0] * (size - len(ours)), theirs + [0] * (size - len(theirs))
    return {
        ">=": left >= right,
        "<=": left <= right,
        "<": left < right,
        ">": left > right,
        "==": left == right,
    }[sign]


def _numbers(version: str) -> list[int]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return [int(each) for each in match[0].split(".")] if match else []


def state(case: Case) -> list[Check]:
    """Say whether sessions can be kept, how much is, and how much room there is."""
    from rlm_sessions import Places

    root = root_of(case.settings, OWNER)
    fix = "Make it writable for this account, or set state_dir in [sessions] to a folder that is."
    try:
        there = next(folder for folder in (root, *root.parents) if folder.exists())
        with tempfile.TemporaryFile(dir=there):
            free = shutil.disk_usage(there).free
    except OSError as problem:
        return [Check("State", "fail", f"{root} cannot be written: {problem.strerror or problem}", fix)]
    kept, most = Places(root).kept(), case.settings.sessions.kept_bytes
    used = sum(each.bytes for each in kept)
    more = {"folder": str(root), "free_bytes": free, "kept_bytes": used, "projects": len(kept)}
    projects = f"{len(kept)} project{'' if len(kept) == 1 else 's'}"
    found = f"{root}: {_size(used)} kept of {projects} (at most {_size(most)}), {_size(free)} free"
    if free < _LITTLE_SPACE:
        fix = "Free some space, or remove what is not needed: `rlm-mcp sessions` lists what is kept."
        return [Check("State", "warn", found, fix, more)]
    return [Check("State", "ok", found, "", more)]


def _size(count: int) -> str:
    return f"{count / _GIB:.1f} GiB" if count >= _GIB / 10 else f"{count / 1024**2:.1f} MiB"
