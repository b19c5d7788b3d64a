"""What is asked of the engine for one program: a pure function of its limits, its folder and the engine.

Nothing here speaks to an engine. What is asked for is tried from within later (`inside/tries.py`).
"""

from __future__ import annotations

import random
import stat
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from ..errors import SandboxUnavailable
from ..limits import MIB, Limits
from ..sandbox import Program
from .bundle import boot_text
from .facts import Facts
from .owners import OWNER, SERVER, STATE, own_label

SCRATCH = "/tmp"  # noqa: S108 -- that of the container
GUARD_TASKS, OWN_THREADS, COPIES = 1, 3, 1

_SPARE_FILES = 16  # as in inside/tries.py
_INTERPRETER_BYTES = 32 * MIB  # ours, beside what the program may use: the guard, the guest, the kernel's own
_SHARED_BYTES = 64 * MIB
_STOP_SECONDS = 2  # for which an engine that stops waits; nothing here ends by being asked
_FIRST_UID, _UIDS = 20_000, 40_000  # below 65536: a rootless engine knows no others
_NOT_TO_COVER = (
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
)
_PODMAN_WORDS = frozenset(':,"\r\n')
_HIDDEN = (
    # what engines hide by themselves, where nothing else is said
    *("/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats"),
    *("/sys/devices/virtual/powercap", "/sys/firmware"),
    # what else tells of the machine, and is of no use to a program
    *(
        "/proc/cmdline",
        "/proc/config.gz",
        "/proc/diskstats",
        "/proc/kallsyms",
        "/proc/key-users",
        "/proc/modules",
    ),
    *(
        "/proc/partitions",
        "/proc/slabinfo",
        "/proc/vmallocinfo",
        "/sys/class/dmi",
        "/sys/devices/virtual/dmi",
    ),
    *("/sys/kernel", "/sys/module"),
)
_READ_AND_ENTER = stat.S_IROTH | stat.S_IXOTH


@dataclass(frozen=True)
class Folder:
    """A folder of this machine, and whether it may be written to."""

    path: Path
    writable: bool
    owner: tuple[int, int]
    open_to_all: bool


@dataclass(frozen=True)
class Options:
    """What the user of the sandbox has asked for."""

    image: str
    python: str
    preload: tuple[str, ...]
    runtime: str | None
    cpus: float | None
    network: str
    environment: tuple[tuple[str, str], ...]
    state: str


Kind: TypeAlias = tuple[Program, Limits, Path | None, tuple[Folder, ...], bool]


@dataclass(frozen=True)
class Plan:
    """All there is to know about a container that is to be started."""

    program: Program
    limits: Limits
    project: Path | None  # where it is shown
    folders: tuple[Folder, ...]
    copied: bool
    options: Options
    user: tuple[int, int]
    why_user: str
    by_user: bool = False  # whether the number of tasks is limited by the user too

    @property
    def tasks(self) -> int:
        """How many threads there may be in the container, of whatever process."""
        return self.limits.threads + self.limits.processes + GUARD_TASKS + OWN_THREADS + COPIES

    @property
    def memory_bytes(self) -> int:
        """How much memory the container may have. What lies in its scratch folder is memory too."""
        limits = self.limits
        return limits.memory_bytes + limits.scratch_bytes + self.shared_bytes + _INTERPRETER_BYTES

    @property
    def shared_bytes(self) -> int:
        return min(_SHARED_BYTES, self.limits.scratch_bytes)

    @property
    def gets_old(self) -> bool:
        """Whether a container made now shows later what is no longer so."""
        return self.copied and bool(self.folders)

    @property
    def kind(self) -> Kind:
        """Two programs of one kind can run in the same container, though never one after the other."""
        cell = Limits()
        limits = replace(
            self.limits,
            wall_seconds=cell.wall_seconds,
            cpu_seconds=cell.cpu_seconds,
            grace_seconds=cell.grace_seconds,
            output_bytes=cell.output_bytes,
        )
        return self.program, limits, self.project, self.folders, self.copied

    def load_request(self) -> dict[str, Any]:
        """Return what to ask first: to load the program."""
        environment = {"HOME": SCRATCH, "TMPDIR": SCRATCH, "LANG": "C.UTF-8"}
        opened = {"processes": self.limits.processes, "network": self.limits.network}
        return {
            "entry": self.program.entry,
            "preload": self.options.preload,
            "environment": environment,
            "limits": opened,
        }

    def close_request(self, canary: str) -> dict[str, Any]:
        """Return what to ask then: to try the walls, and keep the limits."""
        readonly = [str(folder.path) for folder in self.folders if not folder.writable]
        return {
            "limits": asdict(self.limits) | {"readable": ()},
            "folder": str(self.project or SCRATCH),
            "canary": canary,
            "shown": [str(folder.path) for folder in self.folders],
            "readonly": readonly,
            "memory_bytes": self.memory_bytes,
            "tasks": self.tasks,
            "by_user": self.by_user,
            "why_root": self.why_user,
        }


def make_plan(
    program: Program,
    workdir: Path | None,
    limits: Limits,
    mounts: tuple[Path, ...],
    options: Options,
    facts: Facts,
    *,
    copied: bool,
) -> Plan:
    """Look at the folders, and say what is to be asked for. It reads the disk."""
    project = workdir.resolve() if workdir is not None and limits.files != "none" else None
    folders = [_look(path.resolve(), writable=False) for path in (*mounts, *limits.readable) if path.exists()]
    user, why = _random_user(), ""
    if project is not None:
        own = _look(project, writable=limits.files == "write")
        folders.append(own)
        if not copied:
            user, why = _user_for(own, facts)
    if facts.podman:
        refuse_words_of_podman(folders)
    by_user = user[0] >= _FIRST_UID and _counts_by_user(facts)
    return Plan(program, limits, project, tuple(dict.fromkeys(folders)), copied, options, user, why, by_user)


def _look(path: Path, *, writable: bool) -> Folder:
    if str(path) in ("/", SCRATCH) or str(path) in _NOT_TO_COVER:
        raise SandboxUnavailable(
            f"The folder {path} cannot be shown in a container, which has one of its own there. "
            "Choose a folder below it."
        )
    facts = path.stat()
    readable = facts.st_mode & _READ_AND_ENTER == _READ_AND_ENTER
    return Folder(path, writable, (facts.st_uid, facts.st_gid), readable)


def refuse_words_of_podman(folders: list[Folder]) -> None:
    """Refuse what Podman would take for another folder, or for options: it writes its folders in one line."""
    for folder in folders:
        if _PODMAN_WORDS & set(str(folder.path)):
            raise SandboxUnavailable(
                f"The folder {str(folder.path)!r} cannot be shown by Podman, which reads more into a colon, a comma, "
                "a quotation mark or a line break. Rename it, or use Docker."
            )


def _random_user() -> tuple[int, int]:
    drawn = _FIRST_UID + random.SystemRandom().randrange(_UIDS)
    return drawn, drawn


def replace_user(plan: Plan) -> Plan:
    """Return the plan for another container like it, with another user where any will do."""
    return replace(plan, user=_random_user()) if plan.user[0] >= _FIRST_UID and not plan.why_user else plan


def _user_for(project: Folder, facts: Facts) -> tuple[tuple[int, int], str]:
    """Return the user who may do with the project what is allowed, and what there is to say of it."""
    if facts.remapped:
        return _random_user(), ""
    if facts.rootless:
        if not project.writable and project.open_to_all:
            return _random_user(), ""
        return (0, 0), "it is root in its container only, and outside the user who runs the engine"
    if project.owner[0]:
        return project.owner, ""
    if not project.writable and project.open_to_all:
        return _random_user(), ""
    return (0, 0), "it is root, because the project is root's, and without any capability"


def container_config(plan: Plan, server: str, facts: Facts) -> dict[str, Any]:
    """Return the container to create, in the words of the engine's API."""
    options, limits = plan.options, plan.limits
    uid, gid = plan.user
    return {
        "Image": options.image,
        "Entrypoint": [options.python, "-I", "-S", "-B", "-X", "utf8", "-c", boot_text()],
        "Cmd": [],
        "User": f"{uid}:{gid}",
        "WorkingDir": "/",
        "Hostname": "sandbox",
        "StopTimeout": _STOP_SECONDS,
        "Env": [f"{name}={value}" for name, value in options.environment],
        "Labels": {OWNER: own_label(), STATE: options.state, SERVER: server},
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
        "NetworkDisabled": not limits.network,
        "Volumes": {str(folder.path): {} for folder in plan.folders} if plan.copied else {},
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "AutoRemove": True,
            "Init": False,
            "NetworkMode": options.network if limits.network else "none",
            "IpcMode": "private",
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "Privileged": False,
            "MaskedPaths": list(_HIDDEN),
            "Tmpfs": {SCRATCH: _scratch_options(limits.scratch_bytes, uid, gid, podman=facts.podman)},
            "ShmSize": plan.shared_bytes,
            "Mounts": [] if plan.copied else [_mount(folder) for folder in plan.folders],
            "Memory": plan.memory_bytes,
            "MemorySwap": plan.memory_bytes,
            "PidsLimit": plan.tasks,
            "Ulimits": [
                _ulimit("nofile", limits.open_files + _SPARE_FILES),
                _ulimit("fsize", limits.file_bytes),
                _ulimit("core", 0),
                *([_ulimit("nproc", plan.tasks)] if plan.by_user else []),
            ],
            "LogConfig": {"Type": "none", "Config": {}},
            **({"NanoCpus": max(1, int(options.cpus * 1e9))} if options.cpus and facts.cpu_limits else {}),
            **({"Runtime": options.runtime} if options.runtime else {}),
        },
    }


def _counts_by_user(facts: Facts) -> bool:
    """Return whether the number of processes is to be limited by the user too, who is nobody else."""
    return not facts.task_limits or facts.podman  # which asks else for as many as not every root may have


def _scratch_options(size: int, uid: int, gid: int, *, podman: bool) -> str:
    if podman:  # which knows no more than this, and would copy there what the image has
        return f"rw,nosuid,nodev,exec,notmpcopyup,size={size},mode=1777"
    inodes = max(256, min(size // 4096, 65536))
    return f"rw,nosuid,nodev,exec,size={size},nr_inodes={inodes},mode=700,uid={uid},gid={gid}"


def _mount(folder: Folder) -> dict[str, Any]:
    path = str(folder.path)
    return {
        "Type": "bind",
        "Source": path,
        "Target": path,
        "ReadOnly": not folder.writable,
        "BindOptions": {"Propagation": "rprivate"},
    }


def _ulimit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}
