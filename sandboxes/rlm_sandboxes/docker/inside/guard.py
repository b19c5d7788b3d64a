"""The first process of the container: everything ends with it, and it ends with the host.

The kernel lets nobody inside signal or end it. It reads nothing of what the host sends; it only sees
whether somebody is there to send.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from typing import NoReturn

_PR_SET_DUMPABLE = 4


def main() -> None:
    """Go on as the second process, which is the program's; the first one stays behind as the guard."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    program = os.fork()
    if program:
        _guard(program, wake)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(wake)
    os.close(woken)
    os.setsid()
    from .child import main as be_program

    be_program()


def _wake(number: int, frame: object) -> None:
    """Do nothing: that a signal came is seen by who waits."""


def _guard(program: int, wake: int) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # so that the program cannot reach into this process

        def pass_on(number: int, frame: object) -> None:
            os.kill(program, number)

        signal.signal(signal.SIGINT, pass_on)
        for end in (1, 2):
            os.close(end)  # the host is to hear the program only, and when it is gone
        poll = select.poll()
        poll.register(0, 0)  # asks for nothing but whether the other end is gone
        poll.register(wake, select.POLLIN)
        while True:
            for fd, _ in poll.poll():
                if fd == 0:
                    os._exit(0)
                os.read(wake, 512)
                _bury(program)
    finally:
        os._exit(1)


def _bury(program: int) -> None:
    """Take note of who has ended; end as the program did."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            os._exit(0)
        if not pid:
            return
        if pid == program:
            os._exit(128 + os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
