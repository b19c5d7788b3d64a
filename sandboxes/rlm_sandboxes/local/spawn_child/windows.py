"""What a process on Windows finds of the job object that the host put it in, and how it is interrupted.

The job limits memory and processes and ends with the host. It keeps no file and
no connection from a program, and this module says so.
"""

from __future__ import annotations

import _thread
import ctypes
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

_SYNCHRONIZE, _FOREVER, _SIGNALLED = 0x100000, 0xFFFFFFFF, 0
_COMMIT_AND_RESERVE, _RELEASE, _READ_WRITE = 0x3000, 0x8000, 4


def steps(request: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Return the layers, each with what tries it and says why it does not hold."""
    may_start, memory_bytes = request["limits"]["processes"] > 0, int(request["job_memory_bytes"])
    return {
        "job": lambda: _try_job(may_start=may_start),
        "memory": lambda: _try_memory(memory_bytes),
        "files": lambda: "nothing here keeps a program from the user's files",
        "network": lambda: "nothing here keeps a program from the network",
    }


def listen(event_name: str) -> None:
    """Let the host interrupt the main thread by setting the event called `event_name`."""
    if sys.platform != "win32":
        raise NotImplementedError
    kernel = _kernel()
    event = kernel.OpenEventW(_SYNCHRONIZE, False, event_name)
    if not event:
        raise ctypes.WinError(ctypes.get_last_error())

    def wait() -> bool:
        return bool(kernel.WaitForSingleObject(event, _FOREVER) == _SIGNALLED)

    _thread.start_new_thread(pass_on_interrupts, (wait,))  # so that the program does not count it as its own


def pass_on_interrupts(wait: Callable[[], bool]) -> None:
    """Raise SIGINT in this process each time `wait` returns true, until it returns false.

    Raised by a thread it reaches the main one, and wakes it from a sleep, which
    `_thread.interrupt_main` does not do on Windows.
    """
    while wait():
        signal.raise_signal(signal.SIGINT)


def _try_job(*, may_start: bool) -> str:
    kernel, within = _kernel(), ctypes.c_int()
    kernel.IsProcessInJob(kernel.GetCurrentProcess(), None, ctypes.byref(within))
    if not within.value:
        return "this process is in no job"
    if may_start:
        return ""
    try:
        subprocess.Popen([sys.executable, "-V"], stdout=subprocess.DEVNULL).kill()
    except OSError:
        return ""
    return "other programs can be started all the same"


def _try_memory(size: int) -> str:
    kernel = _kernel()
    address = kernel.VirtualAlloc(None, size, _COMMIT_AND_RESERVE, _READ_WRITE)
    if not address:
        return ""
    kernel.VirtualFree(address, 0, _RELEASE)
    return "more than memory_bytes can be had all the same"


def _kernel() -> ctypes.CDLL:
    if sys.platform != "win32":
        raise NotImplementedError
    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenEventW.argtypes = [ctypes.c_uint32, ctypes.c_int, ctypes.c_wchar_p]
    kernel.OpenEventW.restype = ctypes.c_void_p
    kernel.WaitForSingleObject.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    kernel.WaitForSingleObject.restype = ctypes.c_uint32
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    kernel.IsProcessInJob.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
    kernel.VirtualAlloc.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32, ctypes.c_uint32]
    kernel.VirtualAlloc.restype = ctypes.c_void_p
    kernel.VirtualFree.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_uint32]
    return kernel
