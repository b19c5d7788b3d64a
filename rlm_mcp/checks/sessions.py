"""A real session: which layers of isolation hold around it, and whether a cell runs in it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

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
_OTHER_SYSTEMS = "This system offers no more; for code that nobody trusts, use Linux or a virtual machine."


async def isolation(case: Case) -> list[Check]:
    """Open a session as a server would, and say what it is held by and whether a cell runs."""
    from rlm_sandboxes import SandboxError
    from rlm_sandboxes.local import LocalSandbox
    from rlm_sessions import SessionError, open_session

    from ..app import care_of

    care = care_of(case.settings)
    try:
        async with (
            LocalSandbox(python=case.settings.sandbox.python) as sandbox,
            open_session(sandbox, project=case.folder, limits=care.limits, policy=care.policy) as session,
        ):
            result = await session.run("1 + 1")
            version = ".".join(map(str, session.python))
            held = _held(session.isolation)
    except (SandboxError, SessionError) as problem:
        fix = "No code can run until that is mended."
        return [Check("Isolation", "fail", str(problem), fix)]
    if result.value != "2":
        found = f"1 + 1 did not give 2 but {result.value!r} {result.error or ''}".rstrip()
        return [held, Check("Cell", "fail", found, "Raise the limits in [sandbox], if those are named here.")]
    return [held, Check("Cell", "ok", f"1 + 1 gave 2, in Python {version}")]


def _held(isolation: Isolation) -> Check:
    missing = [layer for layer in isolation.layers if not layer.holds]
    more = {
        "strong": isolation.strong,
        "layers": {layer.name: layer.detail if not layer.holds else True for layer in isolation.layers},
    }
    strength = "strong" if isolation.strong else "weak, so the language policy is strict"
    found = f"{strength}: {isolation}"
    fix = " ".join(dict.fromkeys(_fix(layer) for layer in missing)).strip()
    return Check("Isolation", "ok" if isolation.strong and not missing else "warn", found, fix, more)


def _fix(layer: Layer) -> str:
    if sys.platform != "linux":
        return _OTHER_SYSTEMS
    if layer.name.startswith("policy"):
        return "Set policy in [sandbox] to auto."
    return _FIXES.get(layer.name, "")
