"""What a project's own file may ask for.

Whoever wrote the repository wrote the file. It may narrow what the user allows, and widen nothing unless the
user has trusted it. Whether that is so is not known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from .keys import KEYS, Key

_FILES = ("none", "read", "write")
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)?")

_Rule: TypeAlias = Callable[[Any, Any], bool]
"""Whether the first value allows nothing that the second does not."""


def refused(key: Key) -> str | None:
    """Return why no project's file may hold this key, trusted or not; None if one may."""
    if key.section in ("", "http") or key.dotted == "sessions.state_dir":
        return (
            f"{key.spoken} is not for a project's file to say. Take it out there; "
            "it belongs in the user's own rlm.toml (`rlm-mcp config path` says where that is)."
        )
    if key.secret:
        return (
            f"{key.spoken} is a secret, and others see a project's file. Take it out there, "
            f"and set {key.variable} in the environment or put it into the user's own rlm.toml."
        )
    return None


def concerns_all(key: Key) -> bool:
    """Return whether a value holds for the whole server, so that no project can have its own."""
    return key.dotted in _OF_THE_SERVER


def narrows(key: Key, value: Any, without: Mapping[str, Any], folder: Path) -> bool:
    """Return whether `value` allows nothing in the project at `folder` that the values `without` it do not."""
    if value == without[key.dotted]:
        return True
    if key.dotted == "sandbox.folders":
        own = () if without["sandbox.files"] == "none" else (folder,)
        return all(inside(each, (*own, *without[key.dotted])) for each in value)
    if key.dotted == "rlm.environment":
        return _contained(value, without, folder)
    if key.dotted in ("rlm.model", "rlm.sub_model"):
        return (key.dotted == "rlm.model" and not value) or _same_provider(value, without)
    rule = _RULES.get(key.dotted, _less if key.kind in ("number", "fraction", "size") else _never)
    return rule(value, without[key.dotted])


def inside(path: Path, folders: Iterable[Path]) -> bool:
    """Return whether a path lies in one of the folders, with all links followed."""
    try:
        real = Path(os.path.realpath(path))
    except (OSError, ValueError):  # a link in /proc to what belongs to somebody else, or no path at all
        return False
    return any(real.is_relative_to(os.path.realpath(each)) for each in folders)


def _always(value: Any, below: Any) -> bool:
    return True


def _never(value: Any, below: Any) -> bool:
    return False


def _less(value: Any, below: Any) -> bool:
    return below is None or (value is not None and bool(value < below))


def _off(value: Any, below: Any) -> bool:
    return value is False


def _on(value: Any, below: Any) -> bool:
    return value is True


def _no_pull(value: Any, below: Any) -> bool:
    return bool(value == "never")


def _contained(value: Any, without: Mapping[str, Any], folder: Path) -> bool:
    """A container is the stronger wall, unless the user lets containers have more than other sessions."""
    own = () if without["sandbox.files"] == "none" else (folder,)
    seen = (*own, *without["sandbox.folders"])
    return (
        value == "docker"
        and (without["rlm.docker_network_disabled"] or without["sandbox.network"])
        and without["rlm.docker_memory"] <= without["sandbox.memory_bytes"]
        and all(inside(mount, seen) for mount in without["rlm.docker_mounts"])
    )


def _fewer_files(value: Any, below: Any) -> bool:
    return _FILES.index(value) < _FILES.index(below)


def _stricter(value: Any, below: Any) -> bool:
    """Say whether a policy is stricter. What "auto" stands for depends on the walls; in a container it is "off"."""
    return bool(value == "strict" or below == "off")


def _same_provider(value: Any, without: Mapping[str, Any]) -> bool:
    """Say whether a model is asked where the user's own is: another provider would get what the user pays for."""
    own, value = str(without["rlm.model"]), str(value)
    if not own or "//" in value or "http" in value.lower() or value.startswith("-"):
        return False
    if without["rlm.backend"] != "litellm":
        return bool(value)
    return "/" in own and value.startswith(own.partition("/")[0] + "/")


def _plain_slug(value: Any, below: Any) -> bool:
    return value == "" or _SLUG.fullmatch(value) is not None


_OF_THE_SERVER = frozenset(
    (
        "sessions.awake",
        "sessions.idle_seconds",
        "sessions.memory_bytes",
        "sessions.kept_bytes",
        "rlm.trajectory_days",
        "rlm.trajectory_bytes",
    )
)

_RULES: Mapping[str, _Rule] = {
    "rlm.verbose": _always,
    "rlm.docker_network_disabled": _on,
    "rlm.docker_pull": _no_pull,
    "rlm.snipara_project_slug": _plain_slug,
    "sandbox.files": _fewer_files,
    "sandbox.network": _off,
    "sandbox.policy": _stricter,
    "sessions.durable": _always,
}

assert {*_RULES, *_OF_THE_SERVER} <= set(KEYS)
