"""A root folder of its own for each worker: what it may see is put there, nothing else exists.

The zygote makes a *pattern* once: a small memory file system with everything that
all workers see, read-only. A worker puts copies of the pattern's branches into a
root of its own, adds what is only its own, and makes that its root. All of it goes
with the last process that uses it; nothing is left on disk.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from . import system

SCRATCH = "/scratch"
CANARY = "/.outside"

_DEVICES = ("null", "zero", "full", "random", "urandom")
_SYSTEM_LINKS = ("/lib", "/lib32", "/lib64", "/bin")
_BASES = ("/sys", "/mnt", "/media", "/srv", "/opt")
_FLAGS = system.MS_NOSUID | system.MS_NODEV
_ATTRIBUTES = system.MOUNT_ATTR_NOSUID | system.MOUNT_ATTR_NODEV


class Owner(NamedTuple):
    """A user and group that files appear to belong to."""

    uid: int
    gid: int


class Project(NamedTuple):
    """The folder a worker is for; `owner_map` is a user namespace that maps its owner, or 0."""

    path: str
    writable: bool
    owner_map: int


class Pattern:
    """What every worker's root begins with. Made by the zygote, in its own mount namespace."""

    def __init__(self, readable: list[str], owner: Owner) -> None:
        self.readable = readable
        self._owner = owner
        self._base = next(path for path in _BASES if os.path.isdir(path))
        self._links = {link: os.readlink(link) for link in _SYSTEM_LINKS if os.path.islink(link)}
        system.mount("rlm", self._base, "tmpfs", _FLAGS, "size=256k,nr_inodes=4k,mode=755")
        self._make_devices()
        for path in readable:
            _show(self._base, path)
        self._describe_user(self._base)
        self._branches = sorted(os.listdir(self._base))
        os.mkdir(self._base + "/.root")

    def _make_devices(self) -> None:
        os.mkdir(self._base + "/dev")
        for device in _DEVICES:
            _bind(f"/dev/{device}", f"{self._base}/dev/{device}", system.MOUNT_ATTR_NOSUID)
        os.symlink("/dev/null", self._base + "/dev/tty")

    def _describe_user(self, base: str) -> None:
        os.makedirs(base + "/etc", exist_ok=True)
        uid, gid = self._owner
        _write(base + "/etc/passwd", f"rlm:x:{uid}:{gid}::{SCRATCH}:/bin/false\n")
        _write(base + "/etc/group", f"rlm:x:{gid}:\n")

    def enter(self, shown: list[str], project: Project | None, *, scratch_bytes: int) -> None:
        """Leave the machine's files for a root with `shown`, `project` and an empty scratch folder."""
        system.unshare(system.CLONE_NEWNS)
        system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
        base = self._base + "/.root"
        system.mount("rlm", base, "tmpfs", _FLAGS, "size=256k,nr_inodes=4k,mode=755")
        self._copy_branches(base, [*shown, project.path] if project else shown)
        for path in shown:
            _show(base, path)
        _mount_scratch(base, scratch_bytes, self._owner)
        if project is not None:
            _show(base, project.path, writable=project.writable, owner_map=project.owner_map)
        _link_tmp(base)
        system.mount("none", base, None, _FLAGS | system.MS_REMOUNT | system.MS_BIND | system.MS_RDONLY)
        system.swap_root(base)

    def _copy_branches(self, base: str, additions: list[str]) -> None:
        """Copy the pattern; a branch in which something is still to be added is copied piece by piece."""
        touched = {path.split("/")[1] for path in additions}
        for branch in self._branches:
            if branch in touched:
                for path in self.readable:
                    if path.split("/")[1] == branch:
                        _copy(self._base + path, base + path)
            else:
                _copy(f"{self._base}/{branch}", f"{base}/{branch}")
        if "etc" in touched:
            self._describe_user(base)
        for link, target in self._links.items():
            os.symlink(target, base + link)
        _write(base + CANARY, "")


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _mount_scratch(base: str, size: int, owner: Owner) -> None:
    os.mkdir(base + SCRATCH)
    inodes = max(256, min(size // 4096, 65536))
    options = f"size={size},nr_inodes={inodes},mode=700,uid={owner.uid},gid={owner.gid}"
    system.mount("scratch", base + SCRATCH, "tmpfs", _FLAGS, options)


def _link_tmp(base: str) -> None:
    for name in ("/tmp", "/var/tmp"):
        if not os.path.lexists(base + name):
            os.makedirs(os.path.dirname(base + name), exist_ok=True)
            os.symlink(SCRATCH, base + name)


def _show(base: str, path: str, *, writable: bool = False, owner_map: int = 0) -> None:
    if not os.path.exists(path):
        return
    attributes = _ATTRIBUTES if writable else _ATTRIBUTES | system.MOUNT_ATTR_RDONLY
    _bind(path, base + path, attributes, owner_map)


def _bind(source: str, target: str, attributes: int, owner_map: int = 0) -> None:
    _make_mount_point(target, folder=os.path.isdir(source))
    tree = system.clone_mounts(source)
    try:
        if owner_map:
            attributes |= system.MOUNT_ATTR_IDMAP
        system.restrict_mounts(tree, attributes, owner_map)
        system.attach_mounts(tree, target)
    except OSError as problem:
        if owner_map and problem.errno == errno.EINVAL:
            _bind(source, target, attributes & ~system.MOUNT_ATTR_IDMAP)  # this file system cannot map owners
        else:
            raise
    finally:
        os.close(tree)


def _copy(source: str, target: str) -> None:
    """Put a copy of a part of the pattern at `target`; it is as restricted as the pattern is."""
    _make_mount_point(target, folder=os.path.isdir(source))
    tree = system.clone_mounts(source)
    try:
        system.attach_mounts(tree, target)
    finally:
        os.close(tree)


def _make_mount_point(target: str, *, folder: bool) -> None:
    if os.path.exists(target):
        return
    os.makedirs(target if folder else os.path.dirname(target), mode=0o755, exist_ok=True)
    if not folder:
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
