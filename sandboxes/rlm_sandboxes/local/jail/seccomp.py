"""Seccomp: which system calls the kernel still answers, and with which arguments.

A list of what is allowed; all else answers "not implemented", so that libraries
which try a newer call fall back to an older one.

The channels to the host are descriptors that no ordinary call can read, write, copy or close. The bytes
of the protocol go by `sendto` and `recvfrom` with a secret number in an argument which the kernel
ignores, so code that writes to any descriptor can neither forge nor spoil them.

The gate is a filter of its own, in front of the other: the kernel asks the host about every copy that
this process would make of itself, and waits for its word.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from . import system
from .system import number

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_RET_KILL, _RET_ERRNO, _RET_ASK, _RET_ALLOW = 0x80000000, 0x00050000, 0x7FC00000, 0x7FFF0000
_LD, _AND, _JMP, _JEQ, _JGT, _JSET, _RET = 0x20, 0x54, 0x05, 0x15, 0x25, 0x45, 0x06

_EVERYWHERE = """
    lseek stat fstat lstat newfstatat statx access faccessat faccessat2 readlink readlinkat
    getdents getdents64 rmdir unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat
    truncate ftruncate fallocate fsync fdatasync flock fadvise64 utime utimes utimensat futimesat
    statfs fstatfs getcwd chdir fchdir umask
    mmap munmap mprotect mremap madvise brk msync membarrier rseq set_robust_list get_robust_list
    set_tid_address futex futex_waitv arch_prctl
    nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time getrandom
    getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp getpgid getsid
    uname sysinfo getrusage times getcpu getrlimit
    sched_yield sched_getparam sched_getscheduler sched_get_priority_max sched_get_priority_min getpriority
    rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause
    alarm setitimer getitimer restart_syscall exit exit_group wait4 waitid
    pipe pipe2 eventfd eventfd2 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2
    poll ppoll select pselect6 timerfd_create timerfd_settime timerfd_gettime signalfd signalfd4
    getsockname getpeername
""".split()

#: Calls that take a descriptor in these arguments, and are answered for every one but the channel.
_ON_OTHER_DESCRIPTORS = {
    **dict.fromkeys("read write readv writev pread64 pwrite64 preadv pwritev preadv2 pwritev2".split(), (0,)),
    **dict.fromkeys("close shutdown getsockopt dup".split(), (0,)),
    **dict.fromkeys("dup2 dup3 sendfile".split(), (0, 1)),
    "copy_file_range": (0, 2),
}

_REFUSED = """
    socket connect bind listen accept accept4 sendmsg recvmsg sendmmsg recvmmsg setsockopt
    fork vfork execve execveat tkill setsid setpgid mknod mknodat chown fchown lchown fchownat mount umount2
    unshare setns ptrace personality chroot setuid setgid setresuid setresgid memfd_create
""".split()

_NO_XATTR = [
    f"{prefix}{verb}xattr"
    for verb, prefixes in {"set": " l f", "get": " l f", "list": " l f", "remove": " l f"}.items()
    for prefix in prefixes.replace("  ", " ").split(" ")
]
#: No recvmsg: who receives descriptors could copy the channel by sending it to itself.
_NETWORK = "connect bind listen accept accept4 sendmsg sendmmsg setsockopt".split()

_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_SUID_BITS = 0o6000
_CLONE_THREAD, _CLONE_NEW_ANY = 0x00010000, 0x7E020080
_CLONE_SHARED = 0x0001FF00 | 0x00800000  # memory, files, handlers, the parent, being traced
_FIONREAD, _FIONBIO, _FIOCLEX, _FIONCLEX, _TCGETS, _TIOCGWINSZ = (
    0x541B,
    0x5421,
    0x5451,
    0x5450,
    0x5401,
    0x5413,
)
_F_DUPFD, _F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_DUPFD_CLOEXEC = 0, 8, 10, 15, 1030
_F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ = 1024, 1026, 1031


#: Stands for the secret in a filter that is made beforehand.
_SECRET = 0x5EC12E7A_5EC12E7B


@dataclass(frozen=True)
class Rules:
    """What the filter must know: the channels, and what the limits open.

    Without a channel there is none to keep from anybody. `more` names calls to let through beside the usual ones.
    """

    channel: int | None = None
    side: int = -1
    gate: bool = False
    processes: bool = False
    execute: bool = False
    network: bool = False
    own_pid: int = 0
    signals: bool = False
    own_root: bool = True
    more: tuple[str, ...] = ()


def install(rules: Rules, secret: int = 0) -> None:
    """Let the kernel answer only what `rules` allow, for good."""
    if not system.machine():
        raise OSError("no table of system calls for this machine")
    code = assemble(rules)
    for placeholder, word in zip(_words(_SECRET), _words(secret)):
        code = code.replace(placeholder, word)
    with _as_program(code) as program:
        system.prctl(system.PR_SET_SECCOMP, 2, program)


def install_gate() -> int:
    """Have every copy that this process would make of itself asked for; return where the questions arrive."""
    call = number("seccomp") if system.machine() else None
    if call is None:
        raise OSError("no table of system calls for this machine")
    out = _Assembler()
    out.emit(_LD, 0)
    out.emit(_JEQ, number("clone") or 0, 0, 3)
    out.emit(_LD, _low(0))
    out.emit(_JSET, _CLONE_THREAD, 1, 0)
    out.emit(_RET, _RET_ASK)
    out.emit(_RET, _RET_ALLOW)
    with _as_program(bytes(out.code)) as program:
        return system.syscall(call, _SET_MODE_FILTER, _NEW_LISTENER, program)


@contextmanager
def _as_program(code: bytes) -> Generator[int, None, None]:
    """Lend the address of a filter in the form in which the kernel takes it."""
    program = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
    fprog = ctypes.create_string_buffer(head, len(head))
    yield ctypes.addressof(fprog)


def _words(secret: int) -> tuple[bytes, bytes]:
    return struct.pack("I", secret & 0xFFFFFFFF), struct.pack("I", secret >> 32)


@lru_cache(maxsize=16)
def assemble(rules: Rules) -> bytes:
    """Return the filter as the kernel's own kind of program, with a placeholder for the secret."""
    out = _Assembler()
    out.emit(_LD, 4)
    out.emit(_JEQ, _AUDIT_ARCH[system.machine()], 1, 0)
    out.emit(_RET, _RET_KILL)
    out.emit(_LD, 0)
    if system.machine() == "x86_64":
        out.emit(_JSET, 0x40000000, 0, 1)
        out.emit(_RET, _RET_KILL)
    _add_channel(out, rules)
    if not rules.own_root:
        _add_pretence(out)
    for name in (*_EVERYWHERE, *rules.more):
        out.rule(name, [])
    _add_arguments(out, rules)
    _add_processes(out, rules)
    if rules.network:
        _add_network(out, rules)
    for name in _REFUSED:
        out.refuse(name, errno.EPERM)
    for name in _NO_XATTR:
        out.refuse(name, errno.ENOTSUP)
    out.emit(_RET, _RET_ERRNO | errno.ENOSYS)
    return bytes(out.code)


def _add_channel(out: _Assembler, rules: Rules) -> None:
    if rules.channel is None:
        for name in ("recvfrom", "sendto", "close_range", *_ON_OTHER_DESCRIPTORS):
            out.rule(name, [])
        return
    elsewhere = _is_elsewhere(0, rules)
    secret_low, secret_high = _SECRET & 0xFFFFFFFF, _SECRET >> 32
    hear = [_is(0, rules.channel), _is(4, 0), _is_high(4, 0), _is(5, secret_low), _is_high(5, secret_high)]
    speak = [_is(4, secret_low), _is_high(4, secret_high), _is(5, 0)]
    out.rule("recvfrom", hear, elsewhere, refuse=errno.EBADF)
    either = [[_is(0, rules.channel), *speak], [_is(0, rules.side), *speak]]
    out.rule("sendto", *either, elsewhere, refuse=errno.EBADF)
    for name, arguments in _ON_OTHER_DESCRIPTORS.items():
        tests = [test for argument in arguments for test in _is_elsewhere(argument, rules)]
        out.rule(name, tests, refuse=errno.EBADF)
    low, high = sorted((rules.channel, rules.side))
    between = [_above(0, low), _not_above(1, high - 1)]
    out.rule("close_range", [_above(0, high)], [_not_above(1, low - 1)], between, refuse=errno.EBADF)


def _is_elsewhere(argument: int, rules: Rules) -> list[_Test]:
    if rules.channel is None:
        return []
    return [_is_not(argument, rules.channel), _is_not(argument, rules.side)]


def _add_pretence(out: _Assembler) -> None:
    """Without a root of its own a program could change the modes and times of all its user's files.

    Landlock has no say there, so these calls answer that all went well and do nothing.
    """
    for name in ("chmod", "fchmod", "fchmodat", "utime", "utimes", "utimensat", "futimesat"):
        out.refuse(name, 0)


def _add_arguments(out: _Assembler, rules: Rules) -> None:
    """Calls that are harmless with some of their arguments only."""
    for name, mode in {
        "open": 2,
        "openat": 3,
        "creat": 1,
        "mkdir": 1,
        "mkdirat": 2,
        "chmod": 1,
        "fchmod": 1,
        "fchmodat": 2,
    }.items():
        out.rule(name, [_has_not(mode, _SUID_BITS)])
    descriptor_calls = [
        _F_DUPFD,
        _F_DUPFD_CLOEXEC,
        _F_SETOWN,
        _F_SETSIG,
        _F_SETOWN_EX,
        _F_SETLEASE,
        _F_NOTIFY,
        _F_SETPIPE_SZ,
    ]
    harmless = [_is_not(1, command) for command in descriptor_calls]
    elsewhere = _is_elsewhere(0, rules)
    copies = [[*elsewhere, _is(1, command)] for command in (_F_DUPFD, _F_DUPFD_CLOEXEC)]
    out.rule("fcntl", [*elsewhere, *harmless], *copies, [_is(1, 1)], [_is(1, 3)])
    terminal = (_FIONREAD, _FIONBIO, _FIOCLEX, _FIONCLEX, _TCGETS, _TIOCGWINSZ)
    out.rule("ioctl", *[[*elsewhere, _is(1, code)] for code in terminal])
    out.rule("prctl", *[[_is(0, option)] for option in (2, 3, 15, 16, 21, 39)])
    own = (0, rules.own_pid)
    out.rule("prlimit64", *[[_is(0, pid), _is(2, 0), _is_high(2, 0)] for pid in own])
    out.rule("sched_getaffinity", [])
    out.rule("sched_setaffinity", *[[_is(0, pid)] for pid in own])
    out.rule("socketpair", [_is(0, 1), _masked(1, 0xF, 1)])


def _add_processes(out: _Assembler, rules: Rules) -> None:
    ways = [[_has(0, _CLONE_THREAD), _has_not(0, _CLONE_NEW_ANY)]]
    if rules.processes:
        ways.append([_has_not(0, _CLONE_NEW_ANY)])
        for name in ("fork", "vfork", "execve", "setsid", "setpgid"):
            out.rule(name, [])
    elif rules.execute:
        out.rule("execve", [])
    if rules.gate and not rules.processes:
        ways.append([_has_not(0, _CLONE_SHARED | _CLONE_NEW_ANY)])
    if rules.execute:
        out.rule("seccomp", [])
        out.rule("prctl", [_is(0, system.PR_SET_SECCOMP)])
    out.rule("clone", *ways, refuse=errno.EPERM)
    for name in ("kill", "tgkill"):
        out.rule(name, *([[]] if rules.signals else [[_is(0, rules.own_pid)]]), refuse=errno.EPERM)


def _add_network(out: _Assembler, rules: Rules) -> None:
    out.rule("socket", *[[_is(0, family)] for family in (2, 10, 16)])
    for name in _NETWORK:
        out.rule(name, _is_elsewhere(0, rules))


@dataclass(frozen=True)
class _Test:
    """One comparison of an argument; `wanted` says which outcome the call needs."""

    offset: int
    jump: int
    value: int
    wanted: bool
    mask: int | None = None


def _low(argument: int) -> int:
    return 16 + 8 * argument


def _is(argument: int, value: int) -> _Test:
    return _Test(_low(argument), _JEQ, value & 0xFFFFFFFF, True)


def _is_not(argument: int, value: int) -> _Test:
    return _Test(_low(argument), _JEQ, value & 0xFFFFFFFF, False)


def _is_high(argument: int, value: int) -> _Test:
    return _Test(_low(argument) + 4, _JEQ, value & 0xFFFFFFFF, True)


def _has(argument: int, bits: int) -> _Test:
    return _Test(_low(argument), _JSET, bits, True)


def _has_not(argument: int, bits: int) -> _Test:
    return _Test(_low(argument), _JSET, bits, False)


def _above(argument: int, value: int) -> _Test:
    return _Test(_low(argument), _JGT, value, True)


def _not_above(argument: int, value: int) -> _Test:
    return _Test(_low(argument), _JGT, value, False)


def _masked(argument: int, mask: int, value: int) -> _Test:
    return _Test(_low(argument), _JEQ, value, True, mask)


class _Assembler:
    """Writes the filter, one system call after the other; the call's number stays loaded between."""

    def __init__(self) -> None:
        self.code = bytearray()

    def emit(self, operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self.code += struct.pack("HBBI", operation, if_true, if_false, value & 0xFFFFFFFF)

    def rule(self, name: str, *ways: list[_Test], refuse: int = 0) -> None:
        """Allow the call if every test of any one way holds; with `refuse`, answer that error otherwise.

        Several rules for one call add up as long as none but the last refuses.
        """
        call = number(name)
        if call is None:
            return
        body = _Assembler()
        for way in ways:
            body.way(way)
        if refuse:
            body.emit(_RET, _RET_ERRNO | refuse)
        elif any(ways):
            body.emit(_LD, 0)
        self._skip_unless(call, len(body.code) // 8)
        self.code += body.code

    def refuse(self, name: str, code: int) -> None:
        call = number(name)
        if call is not None:
            self._skip_unless(call, 1)
            self.emit(_RET, _RET_ERRNO | code)

    def way(self, tests: list[_Test]) -> None:
        lengths = [2 if test.mask is None else 3 for test in tests]
        for index, test in enumerate(tests):
            to_next_way = sum(lengths[index + 1 :]) + 1
            self.emit(_LD, test.offset)
            if test.mask is not None:
                self.emit(_AND, test.mask)
            jumps = (0, to_next_way) if test.wanted else (to_next_way, 0)
            self.emit(test.jump, test.value, *jumps)
        self.emit(_RET, _RET_ALLOW)

    def _skip_unless(self, call: int, length: int) -> None:
        if length <= 255:
            self.emit(_JEQ, call, 0, length)
        else:
            self.emit(_JEQ, call, 1, 0)
            self.emit(_JMP, length)
