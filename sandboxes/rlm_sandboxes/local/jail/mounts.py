"""A root folder of its own for each worker: what it may see is put there, nothing else exists.

Everything is mounted into a small memory file system which then becomes the
root. All of it goes with the last process that uses it; nothing is left on disk.
"""

from __future__ import annotations

import os
from typing import NamedTuple

from . import system

SCRATCH = "/scratch"
CANARY = "/.outside"

_DEVICES = ("null", "zero", "full", "random", "urandom")
_SYSTEM_LINKS = ("/lib", "/lib32", "/lib64", "/bin")
_BASES = ("/sys", "/mnt", "/media", "/srv", "/opt")


class Shown(NamedTuple):
    """A path to show inside under its own name, and what may be done there."""

    path: str
    writable: bool = False


class Owner(NamedTuple):
    """A user and group that files appear to belong to."""

    uid: int
    gid: int


def enter_private_root(
    shown: list[Shown], project: Shown | None, *, scratch_bytes: int, owner: Owner, owner_map: int
) -> None:
    """Leave the machine's files for a root that holds `shown`, `project` and an empty scratch folder.

    `owner_map` is a user namespace that makes the project's owner appear as `owner`, or 0.
    """
    system.unshare(system.CLONE_NEWNS)
    system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    base = next(path for path in _BASES if os.path.isdir(path))
    flags = system.MS_NOSUID | system.MS_NODEV
    system.mount("rlm", base, "tmpfs", flags, "size=256k,nr_inodes=4k,mode=755")
    _furnish(base, owner)
    for item in shown:
        _show(base, item, 0)
    _mount_scratch(base, scratch_bytes, owner)
    if project is not None:
        _show(base, project, owner_map)
    _link_tmp(base)
    system.mount("none", base, None, flags | system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY)
    system.swap_root(base)


def _furnish(base: str, owner: Owner) -> None:
    for link in _SYSTEM_LINKS:
        if os.path.islink(link):
            os.symlink(os.readlink(link), base + link)
    for name in ("dev", "etc"):
        os.mkdir(f"{base}/{name}", 0o755)
    for device in _DEVICES:
        _bind(f"/dev/{device}", f"{base}/dev/{device}", attributes=system.MOUNT_ATTR_NOSUID)
    os.symlink("/dev/null", f"{base}/dev/tty")
    with open(f"{base}/etc/passwd", "w") as users:
        users.write(f"rlm:x:{owner.uid}:{owner.gid}::{SCRATCH}:/bin/false\n")
    with open(f"{base}/etc/group", "w") as groups:
        groups.write(f"rlm:x:{owner.gid}:\n")
    with open(base + CANARY, "w"):
        pass


def _mount_scratch(base: str, size: int, owner: Owner) -> None:
    os.mkdir(base + SCRATCH)
    inodes = max(256, min(size // 4096, 65536))
    options = f"size={size},nr_inodes={inodes},mode=700,uid={owner.uid},gid={owner.gid}"
    system.mount("scratch", base + SCRATCH, "tmpfs", system.MS_NOSUID | system.MS_NODEV, options)


def _link_tmp(base: str) -> None:
    for name in ("/tmp", "/var/tmp"):
        if not os.path.lexists(base + name):
            os.makedirs(os.path.dirname(base + name), exist_ok=True)
            os.symlink(SCRATCH, base + name)


def _show(base: str, item: Shown, owner_map: int) -> None:
    if not os.path.exists(item.path):
        return
    attributes = system.MOUNT_ATTR_NOSUID | system.MOUNT_ATTR_NODEV
    if not item.writable:
        attributes |= system.MOUNT_ATTR_RDONLY
    if owner_map:
        attributes |= system.MOUNT_ATTR_IDMAP
    _bind(item.path, base + item.path, attributes=attributes, owner_map=owner_map)


def _bind(source: str, target: str, *, attributes: int, owner_map: int = 0) -> None:
    _make_mount_point(target, folder=os.path.isdir(source))
    tree = system.clone_mounts(source)
    try:
        system.restrict_mounts(tree, attributes, owner_map)
        system.attach_mounts(tree, target)
    finally:
        os.close(tree)


def _make_mount_point(target: str, *, folder: bool) -> None:
    if os.path.exists(target):
        return
    os.makedirs(target if folder else os.path.dirname(target), mode=0o755, exist_ok=True)
    if not folder:
        with open(target, "x"):
            pass
