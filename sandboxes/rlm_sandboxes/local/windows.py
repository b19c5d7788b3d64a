"""The local sandbox on Windows: spawned interpreters, each in a job object of its own. No walls, only limits.

The process is put into its job before it executes its first instruction, and the
job ends with its last handle, which is the host's. Not run on Windows: see
docs/other-systems.md.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from ..limits import MIB, Limits
from ..sandbox import Usage
from .spawned import KILLED, SpawnedSandbox
from .systems import View

LAYERS = frozenset(("job", "memory", "files", "network"))  # the last two are there to be reported as missing

CREATE_SUSPENDED, CREATE_NO_WINDOW = 0x4, 0x08000000

LIMIT_ACTIVE_PROCESS, LIMIT_PROCESS_MEMORY, LIMIT_JOB_MEMORY = 0x8, 0x100, 0x200
LIMIT_DIE_ON_UNHANDLED_EXCEPTION, LIMIT_KILL_ON_JOB_CLOSE = 0x400, 0x2000
ALL_UI_RESTRICTIONS = 0xFF  # clipboard, desktops, display, global atoms, handles of others, logging off

_ACCOUNTING, _PROCESS_IDS, _UI_RESTRICTIONS, _EXTENDED_LIMITS = 1, 3, 4, 9
_PROCESS_ACCESS = 0x0001 | 0x0100 | 0x0400 | 0x0800 | 0x0010  # terminate, set quota, query, suspend, read
_MOST_PROCESSES = 1024
_SNAPSHOT_OF_PROCESSES = 0x2
_INTERPRETER_BYTES = 64 * MIB


class BasicLimits(ctypes.Structure):
    """JOBOBJECT_BASIC_LIMIT_INFORMATION, for 64 bits as all that follow."""

    _fields_ = (
        ("PerProcessUserTimeLimit", ctypes.c_int64),
        ("PerJobUserTimeLimit", ctypes.c_int64),
        ("LimitFlags", ctypes.c_uint32),
        ("MinimumWorkingSetSize", ctypes.c_size_t),
        ("MaximumWorkingSetSize", ctypes.c_size_t),
        ("ActiveProcessLimit", ctypes.c_uint32),
        ("Affinity", ctypes.c_size_t),
        ("PriorityClass", ctypes.c_uint32),
        ("SchedulingClass", ctypes.c_uint32),
    )


class ExtendedLimits(ctypes.Structure):
    """JOBOBJECT_EXTENDED_LIMIT_INFORMATION."""

    _fields_ = (
        ("BasicLimitInformation", BasicLimits),
        ("IoInfo", ctypes.c_uint64 * 6),
        ("ProcessMemoryLimit", ctypes.c_size_t),
        ("JobMemoryLimit", ctypes.c_size_t),
        ("PeakProcessMemoryUsed", ctypes.c_size_t),
        ("PeakJobMemoryUsed", ctypes.c_size_t),
    )


class UIRestrictions(ctypes.Structure):
    """JOBOBJECT_BASIC_UI_RESTRICTIONS."""

    _fields_ = (("UIRestrictionsClass", ctypes.c_uint32),)


class Accounting(ctypes.Structure):
    """JOBOBJECT_BASIC_ACCOUNTING_INFORMATION. Times are in units of 100 nanoseconds."""

    _fields_ = (
        ("TotalUserTime", ctypes.c_int64),
        ("TotalKernelTime", ctypes.c_int64),
        ("ThisPeriodTotalUserTime", ctypes.c_int64),
        ("ThisPeriodTotalKernelTime", ctypes.c_int64),
        ("TotalPageFaultCount", ctypes.c_uint32),
        ("TotalProcesses", ctypes.c_uint32),
        ("ActiveProcesses", ctypes.c_uint32),
        ("TotalTerminatedProcesses", ctypes.c_uint32),
    )


class ProcessIds(ctypes.Structure):
    """JOBOBJECT_BASIC_PROCESS_ID_LIST, with room for as many as a job of ours may have."""

    _fields_ = (
        ("NumberOfAssignedProcesses", ctypes.c_uint32),
        ("NumberOfProcessIdsInList", ctypes.c_uint32),
        ("ProcessIdList", ctypes.c_size_t * _MOST_PROCESSES),
    )


class MemoryCounters(ctypes.Structure):
    """PROCESS_MEMORY_COUNTERS."""

    _fields_ = (
        ("cb", ctypes.c_uint32),
        ("PageFaultCount", ctypes.c_uint32),
        ("PeakWorkingSetSize", ctypes.c_size_t),
        ("WorkingSetSize", ctypes.c_size_t),
        ("QuotaPeakPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPagedPoolUsage", ctypes.c_size_t),
        ("QuotaPeakNonPagedPoolUsage", ctypes.c_size_t),
        ("QuotaNonPagedPoolUsage", ctypes.c_size_t),
        ("PagefileUsage", ctypes.c_size_t),
        ("PeakPagefileUsage", ctypes.c_size_t),
    )


class ProcessEntry(ctypes.Structure):
    """PROCESSENTRY32W."""

    _fields_ = (
        ("dwSize", ctypes.c_uint32),
        ("cntUsage", ctypes.c_uint32),
        ("th32ProcessID", ctypes.c_uint32),
        ("th32DefaultHeapID", ctypes.c_size_t),
        ("th32ModuleID", ctypes.c_uint32),
        ("cntThreads", ctypes.c_uint32),
        ("th32ParentProcessID", ctypes.c_uint32),
        ("pcPriClassBase", ctypes.c_int32),
        ("dwFlags", ctypes.c_uint32),
        ("szExeFile", ctypes.c_uint16 * 260),
    )


class Kernel(Protocol):
    """What of the system is called for here. All but `close` raise `OSError` with its reason."""

    def create_job(self) -> int: ...
    def set_job(self, job: int, kind: int, facts: ctypes.Structure) -> None: ...
    def query_job(self, job: int, kind: int, facts: ctypes.Structure) -> None: ...
    def assign(self, job: int, process: int) -> None: ...
    def terminate(self, job: int, code: int) -> None: ...
    def open_process(self, pid: int) -> int: ...
    def suspend(self, process: int) -> None: ...
    def resume(self, process: int) -> None: ...
    def memory_of(self, process: int) -> int: ...
    def threads(self) -> dict[int, int]: ...
    def create_event(self, name: str) -> int: ...
    def set_event(self, event: int) -> None: ...
    def close(self, handle: int) -> None: ...


def job_limits(limits: dict[str, Any], layers: frozenset[str], memory_bytes: int) -> ExtendedLimits:
    """Return the limits of a job. That it ends with the host is no layer: it is so with none as well."""
    wanted = ExtendedLimits()
    flags = LIMIT_KILL_ON_JOB_CLOSE | LIMIT_DIE_ON_UNHANDLED_EXCEPTION
    if "job" in layers:
        flags |= LIMIT_ACTIVE_PROCESS
        wanted.BasicLimitInformation.ActiveProcessLimit = min(1 + int(limits["processes"]), _MOST_PROCESSES)
    if "memory" in layers:
        flags |= LIMIT_PROCESS_MEMORY | LIMIT_JOB_MEMORY
        wanted.ProcessMemoryLimit = wanted.JobMemoryLimit = memory_bytes
    wanted.BasicLimitInformation.LimitFlags = flags
    return wanted


class Windows:
    """Windows, where a job object limits what a process uses and starts, and nothing walls it in."""

    layers = LAYERS
    walls: frozenset[str] = frozenset()
    ends_families = True

    def __init__(self, kernel: Callable[[], Kernel] | None = None) -> None:
        self._kernel = kernel or open_kernel

    @property
    def spawning(self) -> dict[str, Any]:
        return {"creationflags": CREATE_SUSPENDED | CREATE_NO_WINDOW}

    def environment(self, scratch: str) -> dict[str, str]:
        system = os.environ.get("SYSTEMROOT", r"C:\Windows")  # sockets and random numbers need it
        homes = dict.fromkeys(("HOME", "USERPROFILE", "TEMP", "TMP"), scratch)
        return {"SYSTEMROOT": system, "PATH": rf"{system}\System32", **homes}

    def request(self, view: View, limits: Limits) -> dict[str, Any]:
        name = f"Local\\rlm-interrupt-{secrets.token_hex(16)}"
        return {"interrupts": name, "job_memory_bytes": limits.memory_bytes + _INTERPRETER_BYTES}

    def hold(self, pid: int, is_alive: Callable[[], bool], folder: str, request: dict[str, Any]) -> Job:
        return Job(self._kernel(), pid, request)


class WindowsSandbox(SpawnedSandbox):
    """The local sandbox on Windows. It is weak: what code may do is left to the language policy.

    `python` names the interpreter to use, or the folder of a virtual environment. Without it, it
    is the Python that we run in, in which `preload` names modules to have ready. `layers` can be
    made smaller, to see what each layer is good for.
    """

    def __init__(
        self,
        *,
        python: Path | None = None,
        preload: tuple[str, ...] = (),
        layers: frozenset[str] = LAYERS,
    ) -> None:
        super().__init__(Windows(), python=python, preload=preload, layers=layers)


class Job:
    """A job object with a process in it and all that descends from that: none of them can leave."""

    def __init__(self, kernel: Kernel, pid: int, request: dict[str, Any]) -> None:
        self._kernel = kernel
        self._handles: list[int] = []
        try:
            self._job = self._keep(kernel.create_job())
            self._event = self._keep(kernel.create_event(request["interrupts"]))
            self._limit(request)
            process = self._keep(kernel.open_process(pid))
            kernel.assign(self._job, process)
            kernel.resume(process)
        except BaseException:
            self.close()
            raise

    def _keep(self, handle: int) -> int:
        self._handles.append(handle)
        return handle

    def _limit(self, request: dict[str, Any]) -> None:
        layers = frozenset(request["layers"])
        limits = job_limits(request["limits"], layers, int(request["job_memory_bytes"]))
        self._kernel.set_job(self._job, _EXTENDED_LIMITS, limits)
        if "job" in layers:
            self._kernel.set_job(self._job, _UI_RESTRICTIONS, UIRestrictions(ALL_UI_RESTRICTIONS))

    def interrupt(self) -> None:
        self._kernel.set_event(self._event)

    def pause(self) -> None:
        self._each(self._kernel.suspend)

    def resume(self) -> None:
        self._each(self._kernel.resume)

    def usage(self) -> Usage:
        facts = Accounting()
        self._kernel.query_job(self._job, _ACCOUNTING, facts)
        if not facts.ActiveProcesses:
            raise ProcessLookupError("no process is left in the job")
        memory: list[int] = []
        self._each(lambda process: memory.append(self._kernel.memory_of(process)))
        threads = self._kernel.threads()
        return Usage(
            cpu_seconds=(int(facts.TotalUserTime) + int(facts.TotalKernelTime)) / 1e7,
            memory_bytes=sum(memory),
            threads=sum(threads.get(pid, 0) for pid in self._members()),
        )

    def kill(self) -> None:
        self._kernel.terminate(self._job, KILLED)

    def close(self) -> None:
        """Let go of everything; with the last handle of the job whatever is in it ends."""
        while self._handles:
            self._kernel.close(self._handles.pop())

    def _members(self) -> list[int]:
        facts = ProcessIds()
        self._kernel.query_job(self._job, _PROCESS_IDS, facts)
        return [int(pid) for pid in facts.ProcessIdList[: facts.NumberOfProcessIdsInList]]

    def _each(self, act: Callable[[int], None]) -> None:
        for pid in self._members():
            try:
                process = self._kernel.open_process(pid)
            except OSError:
                continue  # it has ended
            try:
                act(process)
            finally:
                self._kernel.close(process)


def open_kernel() -> Kernel:
    """Return the system's own."""
    return _Win32()


class _Win32:
    """The functions of the system, by ctypes."""

    _dll: ctypes.CDLL
    _nt: ctypes.CDLL

    def __init__(self) -> None:
        if sys.platform != "win32":
            raise NotImplementedError
        handle, word, number, pointer = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_void_p
        self._dll = ctypes.WinDLL("kernel32", use_last_error=True)
        self._nt = ctypes.WinDLL("ntdll")
        self._declare("CreateJobObjectW", handle, pointer, ctypes.c_wchar_p)
        self._declare("SetInformationJobObject", number, handle, number, pointer, word)
        self._declare("QueryInformationJobObject", number, handle, number, pointer, word, pointer)
        self._declare("AssignProcessToJobObject", number, handle, handle)
        self._declare("TerminateJobObject", number, handle, word)
        self._declare("OpenProcess", handle, word, number, word)
        self._declare("CreateEventW", handle, pointer, number, number, ctypes.c_wchar_p)
        self._declare("SetEvent", number, handle)
        self._declare("CloseHandle", number, handle)
        self._declare("K32GetProcessMemoryInfo", number, handle, pointer, word)
        self._declare("CreateToolhelp32Snapshot", handle, word, word)
        self._declare("Process32FirstW", number, handle, pointer)
        self._declare("Process32NextW", number, handle, pointer)
        for name in ("NtSuspendProcess", "NtResumeProcess"):
            getattr(self._nt, name).argtypes = [handle]

    def _declare(self, name: str, result: type, *arguments: type) -> None:
        function = getattr(self._dll, name)
        function.restype, function.argtypes = result, list(arguments)

    def _call(self, name: str, *arguments: object) -> int:
        """Call a function that returns nothing or zero when it fails."""
        if sys.platform != "win32":
            raise NotImplementedError
        result = getattr(self._dll, name)(*arguments)
        if not result:
            raise ctypes.WinError(ctypes.get_last_error())
        return int(result)

    def create_job(self) -> int:
        return self._call("CreateJobObjectW", None, None)

    def set_job(self, job: int, kind: int, facts: ctypes.Structure) -> None:
        self._call("SetInformationJobObject", job, kind, ctypes.byref(facts), ctypes.sizeof(facts))

    def query_job(self, job: int, kind: int, facts: ctypes.Structure) -> None:
        self._call("QueryInformationJobObject", job, kind, ctypes.byref(facts), ctypes.sizeof(facts), None)

    def assign(self, job: int, process: int) -> None:
        self._call("AssignProcessToJobObject", job, process)

    def terminate(self, job: int, code: int) -> None:
        self._call("TerminateJobObject", job, code)

    def open_process(self, pid: int) -> int:
        return self._call("OpenProcess", _PROCESS_ACCESS, False, pid)

    def suspend(self, process: int) -> None:
        self._nt.NtSuspendProcess(process)

    def resume(self, process: int) -> None:
        self._nt.NtResumeProcess(process)

    def memory_of(self, process: int) -> int:
        counters = MemoryCounters()
        size = counters.cb = ctypes.sizeof(counters)
        self._call("K32GetProcessMemoryInfo", process, ctypes.byref(counters), size)
        return int(counters.PagefileUsage)

    def threads(self) -> dict[int, int]:
        """Return how many threads each process has."""
        snapshot = self._call("CreateToolhelp32Snapshot", _SNAPSHOT_OF_PROCESSES, 0)
        entry = ProcessEntry()
        entry.dwSize = ctypes.sizeof(entry)
        found: dict[int, int] = {}
        try:
            more = self._dll.Process32FirstW(snapshot, ctypes.byref(entry))
            while more:
                found[int(entry.th32ProcessID)] = int(entry.cntThreads)
                more = self._dll.Process32NextW(snapshot, ctypes.byref(entry))
        finally:
            self.close(snapshot)
        return found

    def create_event(self, name: str) -> int:
        return self._call("CreateEventW", None, False, False, name)

    def set_event(self, event: int) -> None:
        self._call("SetEvent", event)

    def close(self, handle: int) -> None:
        self._dll.CloseHandle(handle)
