"""A real session: which layers of isolation hold around it, and whether a cell runs in it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..environments import Docker, environment_of
from .results import Case, Check

if TYPE_CHECKING:
    from rlm_sandboxes import Isolation, Layer

_NAMESPACES = (
    "Let this account make user namespaces: on Debian `sysctl kernel.unprivileged_userns_clone=1`, on Ubuntu "
    "`sysctl kernel.apparmor_restrict_unprivileged_userns=0`; in a container, have it started with a seccomp profile "
    "that allows them."
)
_FIXES = {
    **dict.fromkeys(("mountns", "pidns", "netns", "ipcns", "uid", "userns"), _NAMESPACES),
    "landlock": "It needs Linux 5.13 or newer with landlock among the modules in /sys/kernel/security/lsm.",
    "seccomp": "It needs a kernel with seccomp filters, and a container that does not forbid setting them.",
    "capabilities": "A container or service manager keeps them from being given up; start without that.",
}
_IN_CONTAINERS = {
    "cgroup": "Delegate cgroup controllers to the engine (for a rootless one: cgroup v2, and Delegate=yes in systemd).",
    "uid": "Give the project's folder to an ordinary user, or let all read it.",
    "seccomp": "Start the engine with its own seccomp profile.",
    "cpus": "The engine's kernel needs CFS bandwidth control; the other limits hold.",
}
_OTHER_SYSTEMS = "This system offers no more; for code that nobody trusts, use Linux or a virtual machine."


async def isolation(case: Case) -> list[Check]:
    """Open a session as a server would, and say what it is held by and whether a cell runs."""
    from rlm_sandboxes import EngineUnavailable, ImageUnavailable, LibraryMissing, SandboxError
    from rlm_sessions import SessionError

    try:
        return await _tried(case)
    except ImageUnavailable as problem:
        return [_of_image(case, problem)]
    except (EngineUnavailable, LibraryMissing):
        return [Check("Isolation", "fail", "no session could be opened, because no engine can be used")]
    except (SandboxError, SessionError) as problem:
        fix = "No code can run until that is mended."
        return [Check("Isolation", "fail", str(problem), fix)]


async def _tried(case: Case) -> list[Check]:
    from rlm_sessions import open_session

    from ..app import care_of
    from ..opened import sandbox_of

    care, environment = care_of(case.settings), environment_of(case.settings)
    if isinstance(environment, Docker):
        environment = replace(environment, warm=0, pull="never")
    async with (
        sandbox_of(environment) as sandbox,
        open_session(sandbox, project=case.folder, limits=care.limits, policy=care.policy) as session,
    ):
        result = await session.run("1 + 1")
        version = ".".join(map(str, session.python))
        held = _held(session.isolation, policy=care.policy)
    if result.value != "2":
        found = f"1 + 1 did not give 2 but {result.value!r} {result.error or ''}".rstrip()
        return [held, Check("Cell", "fail", found, "Raise the limits in [sandbox], if those are named here.")]
    return [held, Check("Cell", "ok", f"1 + 1 gave 2, in Python {version}")]


def _of_image(case: Case, problem: Exception) -> Check:
    rlm = case.settings.rlm
    if rlm.docker_pull == "never":
        return Check("Isolation", "fail", str(problem), "No code can run until that is mended.")
    found = f"not tried: the image {rlm.docker_image} is not on the engine; the first session fetches it"
    return Check("Isolation", "warn", found, f"To have it there before: docker pull {rlm.docker_image}")


def _held(isolation: Isolation, *, policy: str) -> Check:
    missing = [layer for layer in isolation.layers if not layer.holds]
    if isolation.strong and isolation.contained and policy == "auto":
        missing = [layer for layer in missing if not layer.name.startswith("policy")]  # none is wanted there
    more = {
        "strong": isolation.strong,
        "layers": {layer.name: layer.detail if not layer.holds else True for layer in isolation.layers},
    }
    strength = "strong" if isolation.strong else "weak, so the language policy is strict"
    found = f"{strength}: {isolation}"
    fixes = _IN_CONTAINERS if isolation.contained else _FIXES
    fix = " ".join(dict.fromkeys(_fix(layer, fixes) for layer in missing)).strip()
    return Check("Isolation", "ok" if isolation.strong and not missing else "warn", found, fix, more)


def _fix(layer: Layer, fixes: Mapping[str, str]) -> str:
    if sys.platform != "linux" and fixes is _FIXES:
        return _OTHER_SYSTEMS
    if layer.name.startswith("policy"):
        return "Set policy in [sandbox] to auto."
    return fixes.get(layer.name, "")
