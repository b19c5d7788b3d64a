"""The local sandbox on macOS: spawned interpreters, each of which puts Seatbelt around itself.

Not run on macOS: see docs/other-systems.md.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import Any

from ..limits import Limits
from ..sandbox import Usage
from .posix import Posix
from .spawned import SpawnedSandbox
from .systems import View

LAYERS = frozenset(("seatbelt", "rlimits", "memory"))
_PROC_PIDTASKINFO, _RUSAGE_INFO_V0 = 4, 0


class MacOS(Posix):
    """macOS, where Seatbelt is the wall. What it keeps a process from, its children are kept from too."""

    layers = LAYERS
    walls = frozenset(("seatbelt", "rlimits"))

    def environment(self, scratch: str) -> dict[str, str]:
        return {**super().environment(scratch), "LANG": "en_US.UTF-8"}

    def request(self, view: View, limits: Limits) -> dict[str, Any]:
        paths = {"readable": view.readable, "writable": view.writable, "executable": view.executable}
        return {"seatbelt": {**paths, "network": limits.network}}

    def measure(self, pid: int) -> Usage:
        """Return what a process uses. It has no children to be counted: Seatbelt lets it have none."""
        return usage(_task(pid), _resources(pid), _timebase())


class MacSandbox(SpawnedSandbox):
    """The local sandbox on macOS.

    `python` names the interpreter to use, or the folder of a virtual environment. Without it, a
    project with a `.venv` gets that, and all else the Python that we run in, in which `preload`
    names modules to have ready. `layers` can be made smaller, to see what each layer is good for.
    """

    def __init__(
        self,
        *,
        python: Path | None = None,
        preload: tuple[str, ...] = (),
        layers: frozenset[str] = LAYERS,
    ) -> None:
        super().__init__(MacOS(), python=python, preload=preload, layers=layers)


class Task(ctypes.Structure):
    """`struct proc_taskinfo` of <sys/proc_info.h>. Times are in ticks of the machine's clock."""

    _fields_ = (
        ("virtual_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("total_user", ctypes.c_uint64),
        ("total_system", ctypes.c_uint64),
        ("threads_user", ctypes.c_uint64),
        ("threads_system", ctypes.c_uint64),
        ("policy", ctypes.c_int32),
        ("faults", ctypes.c_int32),
        ("pageins", ctypes.c_int32),
        ("cow_faults", ctypes.c_int32),
        ("messages_sent", ctypes.c_int32),
        ("messages_received", ctypes.c_int32),
        ("syscalls_mach", ctypes.c_int32),
        ("syscalls_unix", ctypes.c_int32),
        ("csw", ctypes.c_int32),
        ("threadnum", ctypes.c_int32),
        ("numrunning", ctypes.c_int32),
        ("priority", ctypes.c_int32),
    )


class Resources(ctypes.Structure):
    """`struct rusage_info_v0` of <sys/resource.h>."""

    _fields_ = (
        ("uuid", ctypes.c_uint8 * 16),
        ("user_time", ctypes.c_uint64),
        ("system_time", ctypes.c_uint64),
        ("pkg_idle_wkups", ctypes.c_uint64),
        ("interrupt_wkups", ctypes.c_uint64),
        ("pageins", ctypes.c_uint64),
        ("wired_size", ctypes.c_uint64),
        ("resident_size", ctypes.c_uint64),
        ("phys_footprint", ctypes.c_uint64),
        ("start_abstime", ctypes.c_uint64),
        ("exit_abstime", ctypes.c_uint64),
    )


class Timebase(ctypes.Structure):
    """`struct mach_timebase_info`: a tick is `numer / denom` nanoseconds."""

    _fields_ = (("numer", ctypes.c_uint32), ("denom", ctypes.c_uint32))


def usage(task: Task, resources: Resources, timebase: Timebase) -> Usage:
    """Return what the system's numbers mean. The footprint counts compressed memory too."""
    ticks = int(task.total_user) + int(task.total_system)
    return Usage(
        cpu_seconds=ticks * int(timebase.numer) / int(timebase.denom) / 1e9,
        memory_bytes=int(resources.phys_footprint),
        threads=int(task.threadnum),
    )


def _task(pid: int) -> Task:
    task = Task()
    size = ctypes.sizeof(task)
    pointer = ctypes.byref(task)
    if _library().proc_pidinfo(pid, _PROC_PIDTASKINFO, ctypes.c_uint64(0), pointer, size) != size:
        raise ProcessLookupError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return task


def _resources(pid: int) -> Resources:
    resources = Resources()
    if _library().proc_pid_rusage(pid, _RUSAGE_INFO_V0, ctypes.byref(resources)):
        raise ProcessLookupError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return resources


def _timebase() -> Timebase:
    timebase = Timebase()
    _library().mach_timebase_info(ctypes.byref(timebase))
    return timebase


def _library() -> ctypes.CDLL:
    """Return the C library, which has libproc in it."""
    if sys.platform != "darwin":
        raise NotImplementedError
    return ctypes.CDLL(None, use_errno=True)
