"""What the sandbox asks of Windows, which is not here: structures as in its headers, calls in their order."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sandboxes import InterpreterUnusable, Limits, ProcessEnded, Usage
from rlm_sandboxes.local import windows
from rlm_sandboxes.local.spawned import KILLED, SpawnedSandbox, command, meaning
from rlm_sandboxes.local.systems import View
from rlm_sandboxes.local.windows import LAYERS, Job, Windows, job_limits
from tests.contracts.asking import ask
from tests.contracts.conftest import PROBE

MIB = 1024 * 1024
NONE: frozenset[str] = frozenset()


# ---- structures, on a 64-bit system


@pytest.mark.parametrize(
    ("structure", "size", "offsets"),
    [
        (windows.BasicLimits, 64, {"LimitFlags": 16, "MinimumWorkingSetSize": 24, "ActiveProcessLimit": 40}),
        (windows.BasicLimits, 64, {"MaximumWorkingSetSize": 32, "Affinity": 48, "SchedulingClass": 60}),
        (windows.ExtendedLimits, 144, {"BasicLimitInformation": 0, "IoInfo": 64, "ProcessMemoryLimit": 112}),
        (windows.ExtendedLimits, 144, {"JobMemoryLimit": 120, "PeakProcessMemoryUsed": 128}),
        (windows.UIRestrictions, 4, {"UIRestrictionsClass": 0}),
        (windows.Accounting, 48, {"TotalUserTime": 0, "TotalKernelTime": 8, "ActiveProcesses": 40}),
        (windows.ProcessIds, 8 + 8 * 1024, {"NumberOfProcessIdsInList": 4, "ProcessIdList": 8}),
        (windows.MemoryCounters, 72, {"WorkingSetSize": 16, "PagefileUsage": 56}),
        (windows.ProcessEntry, 568, {"th32ProcessID": 8, "th32DefaultHeapID": 16, "cntThreads": 28}),
        (windows.ProcessEntry, 568, {"th32ParentProcessID": 32, "szExeFile": 44}),
    ],
)
def test_a_structure_is_as_the_system_has_it(
    structure: type[ctypes.Structure], size: int, offsets: dict[str, int]
) -> None:
    assert ctypes.sizeof(structure) == size
    assert {name: getattr(structure, name).offset for name in offsets} == offsets


# ---- limits


def limits_of(limits: Limits, layers: frozenset[str] = LAYERS) -> tuple[int, windows.ExtendedLimits]:
    facts = job_limits({"processes": limits.processes}, layers, limits.memory_bytes)
    return facts.BasicLimitInformation.LimitFlags, facts


def test_a_job_limits_memory_and_processes_and_ends_with_its_last_handle() -> None:
    flags, facts = limits_of(Limits(memory_bytes=300 * MIB))

    assert flags == 0x2000 | 0x400 | 0x200 | 0x100 | 0x8
    assert facts.ProcessMemoryLimit == facts.JobMemoryLimit == 300 * MIB
    assert facts.BasicLimitInformation.ActiveProcessLimit == 1


def test_no_process_of_a_job_may_leave_it() -> None:
    flags, _ = limits_of(Limits(processes=5))

    assert not flags & (0x800 | 0x1000)  # breakaway, asked for or silent


def test_a_program_may_start_as_many_others_as_processes_says() -> None:
    _, facts = limits_of(Limits(processes=5))

    assert facts.BasicLimitInformation.ActiveProcessLimit == 6


def test_more_processes_than_can_be_listed_are_not_allowed() -> None:
    _, facts = limits_of(Limits(processes=100_000))

    assert facts.BasicLimitInformation.ActiveProcessLimit == 1024


def test_a_layer_that_is_left_out_sets_no_limit() -> None:
    flags, facts = limits_of(Limits(), layers=NONE)

    assert flags == 0x2000 | 0x400
    assert (facts.ProcessMemoryLimit, facts.BasicLimitInformation.ActiveProcessLimit) == (0, 0)


@given(st.integers(32 * MIB, 2**53), st.integers(0, 2**53))
def test_no_limit_overflows_its_field(memory_bytes: int, processes: int) -> None:
    _, facts = limits_of(Limits(memory_bytes=memory_bytes, processes=processes))

    assert facts.JobMemoryLimit == memory_bytes
    assert 1 <= facts.BasicLimitInformation.ActiveProcessLimit <= 1024


# ---- a job


class FakeKernel:
    """Keeps jobs, processes and events as the system would, and a record of what was asked of it."""

    def __init__(self, *, refuses: str = "") -> None:
        self.asked: list[str] = []
        self.open: dict[int, str] = {}
        self.members = [500, 501]
        self.limits: windows.ExtendedLimits | None = None
        self._refuses = refuses
        self._handles = 0

    def _note(self, what: str) -> None:
        self.asked.append(what)
        if what.split()[0] == self._refuses:
            raise OSError("access is denied")

    def _handle(self, what: str) -> int:
        self._note(what)
        self._handles += 1
        self.open[self._handles] = what
        return self._handles

    def _pid(self, process: int) -> int:
        return int(self.open[process].removeprefix("open_process "))

    def create_job(self) -> int:
        return self._handle("create_job")

    def set_job(self, job: int, kind: int, facts: ctypes.Structure) -> None:
        self._note(f"set_job {type(facts).__name__}")
        assert (kind, type(facts)) in ((9, windows.ExtendedLimits), (4, windows.UIRestrictions))
        if isinstance(facts, windows.ExtendedLimits):
            self.limits = facts

    def query_job(self, job: int, kind: int, facts: ctypes.Structure) -> None:
        if isinstance(facts, windows.Accounting):
            assert kind == 1
            facts.TotalUserTime, facts.TotalKernelTime = 15_000_000, 5_000_000
            facts.ActiveProcesses = len(self.members)
        if isinstance(facts, windows.ProcessIds):
            assert kind == 3
            facts.NumberOfProcessIdsInList = len(self.members)
            facts.ProcessIdList[: len(self.members)] = self.members

    def assign(self, job: int, process: int) -> None:
        self._note(f"assign {self._pid(process)}")

    def terminate(self, job: int, code: int) -> None:
        self._note(f"terminate {code}")
        self.members.clear()

    def open_process(self, pid: int) -> int:
        return self._handle(f"open_process {pid}")

    def suspend(self, process: int) -> None:
        self._note(f"suspend {self._pid(process)}")

    def resume(self, process: int) -> None:
        self._note(f"resume {self._pid(process)}")

    def memory_of(self, process: int) -> int:
        return self._pid(process) * MIB

    def threads(self) -> dict[int, int]:
        return {500: 2, 501: 3, 4: 200}

    def create_event(self, name: str) -> int:
        return self._handle(f"create_event {name}")

    def set_event(self, event: int) -> None:
        self._note(f"set: {self.open[event]}")

    def close(self, handle: int) -> None:
        del self.open[handle]


REQUEST: dict[str, Any] = {
    "interrupts": "Local\\name",
    "layers": ["job", "memory"],
    "limits": {"processes": 0},
    "job_memory_bytes": 100 * MIB,
}


def test_a_process_is_in_its_limited_job_before_it_runs() -> None:
    kernel = FakeKernel()

    Job(kernel, 500, REQUEST)

    assert kernel.asked == [
        "create_job",
        "create_event Local\\name",
        "set_job ExtendedLimits",
        "set_job UIRestrictions",
        "open_process 500",
        "assign 500",
        "resume 500",
    ]


@pytest.mark.parametrize("step", ["create_event", "set_job", "open_process", "assign", "resume"])
def test_a_job_that_cannot_be_had_leaves_no_handle(step: str) -> None:
    kernel = FakeKernel(refuses=step)

    with pytest.raises(OSError, match="access is denied"):
        Job(kernel, 500, REQUEST)

    assert kernel.open == {}


def test_a_process_that_is_in_no_job_does_not_run() -> None:
    kernel = FakeKernel(refuses="assign")

    with pytest.raises(OSError, match="access is denied"):
        Job(kernel, 500, REQUEST)

    assert "resume 500" not in kernel.asked


def test_a_pause_is_for_every_process_of_the_job() -> None:
    kernel = FakeKernel()
    job = Job(kernel, 500, REQUEST)
    kernel.asked.clear()

    job.pause()
    job.resume()

    acts = [act for act in kernel.asked if not act.startswith("open_process")]
    assert acts == ["suspend 500", "suspend 501", "resume 500", "resume 501"]
    assert [*kernel.open.values()] == ["create_job", "create_event Local\\name", "open_process 500"]


def test_usage_is_that_of_the_whole_job() -> None:
    job = Job(FakeKernel(), 500, REQUEST)

    assert job.usage() == Usage(cpu_seconds=2.0, memory_bytes=1001 * MIB, threads=5)


def test_usage_of_an_empty_job_is_an_error() -> None:
    job = Job(FakeKernel(), 500, REQUEST)
    job.kill()

    with pytest.raises(ProcessLookupError):
        job.usage()


def test_closing_a_job_lets_go_of_every_handle() -> None:
    kernel = FakeKernel()
    job = Job(kernel, 500, REQUEST)

    job.close()
    job.close()

    assert kernel.open == {}


def test_an_interrupt_sets_the_event_that_the_process_was_told() -> None:
    kernel = FakeKernel()

    Job(kernel, 500, REQUEST).interrupt()

    assert kernel.asked[-1] == "set: create_event Local\\name"


@pytest.mark.parametrize(("status", "meant"), [(KILLED, -9), (0, 0), (3, 3), (0xC0000005, 0xC0000005)])
def test_a_kill_is_told_from_every_other_end(status: int, meant: int) -> None:
    assert meaning(status) == meant


# ---- how a process is spawned


def test_a_process_begins_suspended_and_without_a_window() -> None:
    assert Windows().spawning == {"creationflags": 0x4 | 0x08000000}


def test_the_environment_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RLM_SECRET_KEY", "canary")
    monkeypatch.setenv("SYSTEMROOT", r"D:\Windows")

    assert Windows().environment(r"C:\scratch") == {
        "SYSTEMROOT": r"D:\Windows",
        "PATH": r"D:\Windows\System32",
        "HOME": r"C:\scratch",
        "USERPROFILE": r"C:\scratch",
        "TEMP": r"C:\scratch",
        "TMP": r"C:\scratch",
    }


def test_each_process_has_an_event_of_its_own_that_nobody_can_guess() -> None:
    first, second = (Windows().request(View((), (), ()), Limits())["interrupts"] for _ in range(2))

    assert first != second
    assert len(first.rpartition("-")[2]) == 32


def split(line: str) -> list[str]:
    """Return the arguments in a command line, by the rules of Microsoft's C library."""
    arguments: list[str] = []
    argument, quoted, begun, backslashes = "", False, False, 0
    for character in line + " ":
        if character == "\\":
            backslashes += 1
            continue
        if character == '"':
            argument += "\\" * (backslashes // 2)
            if backslashes % 2:
                argument += '"'
            else:
                quoted, begun = not quoted, True
        else:
            argument += "\\" * backslashes
            if character in " \t" and not quoted:
                if argument or begun:
                    arguments.append(argument)
                argument, begun = "", False
            else:
                argument += character
        backslashes = 0
    return arguments


@pytest.mark.parametrize(
    "python",
    [
        r"C:\Python312\python.exe",
        r"C:\Program Files\Python 3.12\python.exe",
        r"C:\Users\Größe 日本\python.exe",
        r'C:\odd "name"\python.exe',
        "C:\\ends in a backslash\\",
    ],
)
def test_the_command_line_is_understood_as_it_was_meant(python: str) -> None:
    wanted = command(Path(python))

    assert split(subprocess.list2cmdline(wanted)) == wanted


# ---- a whole program, with the system's part played by a fake


class WindowsHere(Windows):
    """Windows without what a spawned process here does not understand."""

    @property
    def spawning(self) -> dict[str, Any]:
        return {}


class KillingKernel(FakeKernel):
    """Ends the process in its job for real."""

    def assign(self, job: int, process: int) -> None:
        super().assign(job, process)
        self.members = [self._pid(process)]

    def terminate(self, job: int, code: int) -> None:
        for pid in self.members:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        super().terminate(job, code)


async def test_a_program_in_a_job_answers_and_ends_with_it() -> None:
    kernel = KillingKernel()
    sandbox = SpawnedSandbox(WindowsHere(lambda: kernel), python=None, preload=(), layers=LAYERS)

    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits(processes=3)) as process:
            answer = await ask(process, "echo", text="from within")
            await process.kill()
            with pytest.raises(ProcessEnded):
                await process.receive()

    assert answer == "from within"
    assert f"terminate {KILLED}" in kernel.asked
    assert kernel.limits is not None
    assert kernel.limits.BasicLimitInformation.ActiveProcessLimit == 4
    assert kernel.open == {}


async def test_what_is_held_on_windows_is_never_called_strong() -> None:
    sandbox = SpawnedSandbox(WindowsHere(KillingKernel), python=None, preload=(), layers=LAYERS)

    async with sandbox.start(PROBE, None, Limits()) as process:
        isolation = process.isolation

    assert not isolation.strong


async def test_an_untrusted_interpreter_is_refused_on_windows(tmp_path: Path) -> None:
    python = tmp_path / "python.exe"
    python.touch(mode=0o755)
    sandbox = SpawnedSandbox(WindowsHere(KillingKernel), python=python, preload=(), layers=LAYERS)

    with pytest.raises(InterpreterUnusable, match="nothing here could hold it"):
        async with sandbox.start(PROBE, tmp_path, Limits()):
            pass
