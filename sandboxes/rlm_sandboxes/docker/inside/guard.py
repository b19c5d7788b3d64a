"""The first process of the container: everything ends with it, and it ends with the host.

The kernel lets nobody inside end it. It alone has the pipe that the host sends by, and passes on what comes: who
has one end of a pipe can get the other, and it would then never be seen that the host is gone. A program that has
something to finish, when the host is gone, gets some seconds for it.
"""

from __future__ import annotations

import array
import ctypes
import os
import select
import signal
import socket
import time
from typing import NoReturn

from .channel import FINISHING
from .gate import LEAVE, Gate, others
from .relay import Relay

_PR_SET_DUMPABLE = 4
_END_SECONDS, _LINGER_SECONDS = 1.0, 15.0
_LOOK_SECONDS = 0.005
_PASSED_ON = {
    signal.SIGINT: signal.SIGINT,
    signal.SIGTSTP: signal.SIGSTOP,  # the host's word for a pause
    signal.SIGCONT: signal.SIGCONT,
}


def main() -> None:
    """Go on as the second process, which is the program's; the first one stays behind as the guard."""
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    gate, program_end = socket.socketpair()
    requests, relayed = os.pipe()
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, _wake)
    program = os.fork()
    if program:
        program_end.close()
        os.close(requests)
        _guard(program, wake, gate, Relay(0, relayed))
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.close(wake)
    os.close(woken)
    os.close(relayed)
    os.dup2(requests, 0)
    os.close(requests)
    gate.close()
    os.setsid()
    from .child import main as be_program

    be_program(program_end)


def _wake(number: int, frame: object) -> None:
    """Do nothing: that a signal came is seen by who waits."""


def _guard(program: int, wake: int, asked: socket.socket, relay: Relay) -> NoReturn:
    try:
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0)  # so that the program cannot reach into this process
        signal.pthread_sigmask(signal.SIG_BLOCK, {LEAVE})

        def pass_on(number: int, frame: object) -> None:
            os.kill(program, _PASSED_ON[signal.Signals(number)])

        for number in _PASSED_ON:
            signal.signal(number, pass_on)
        for end in (1, 2):
            os.close(end)  # the host is to hear the program only, and when it is gone
        _watch(program, wake, asked, relay)
    finally:
        os._exit(1)


def _watch(program: int, wake: int, asked: socket.socket, relay: Relay) -> NoReturn:
    """Wait for the end of the host and that of the program; pass on and answer the kernel meanwhile."""
    gate: Gate | None = None
    poll = select.poll()
    relay.register(poll)
    poll.register(wake, select.POLLIN)
    poll.register(asked, select.POLLIN)
    while True:
        happened = dict(poll.poll(gate.bound() if gate is not None else None))
        if not relay.pass_on(happened, poll):
            _let_finish(program, gate)
        if wake in happened:
            os.read(wake, 512)
            _bury(program)
        if asked.fileno() in happened:
            poll.unregister(asked)
            gate = _take_gate(program, asked)
            if gate is not None:
                poll.register(gate.listener, select.POLLIN)
        if gate is not None and gate.listener in happened:
            if happened[gate.listener] & select.POLLIN:
                gate.answer()
            else:
                poll.unregister(gate.listener)


def _take_gate(program: int, asked: socket.socket) -> Gate | None:
    """Return where the kernel asks about copies, if the program says."""
    with asked:
        numbers = array.array("i")
        _, found, _, _ = asked.recvmsg(1, socket.CMSG_SPACE(numbers.itemsize), socket.MSG_CMSG_CLOEXEC)
        for _, _, data in found:
            numbers.frombytes(data[: numbers.itemsize])
    return Gate(program, numbers[0]) if numbers else None


def _let_finish(program: int, gate: Gate | None) -> NoReturn:
    """End, when those who have something to finish are done with it."""
    if gate is not None:
        os.close(gate.listener)  # no copy is made any more
    os.kill(-1, signal.SIGCONT)  # who is at rest sees only now that the host is gone
    _wait_for(program, time.monotonic() + _END_SECONDS)
    deadline = time.monotonic() + _LINGER_SECONDS
    while time.monotonic() < deadline and any(map(_finishes, [program, *others(program)])):
        _wait_for(program, time.monotonic() + _END_SECONDS)
    os._exit(0)


def _wait_for(program: int, deadline: float) -> None:
    while time.monotonic() < deadline:
        _bury(program)
        time.sleep(_LOOK_SECONDS)


def _finishes(pid: int) -> bool:
    """Return whether a thread of a process goes by the name of those that have something to finish."""
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/comm") as file:
                if file.read().strip() == FINISHING:
                    return True
    except OSError:
        pass
    return False


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
