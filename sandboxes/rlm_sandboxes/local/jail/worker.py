"""One worker: closes the jail around itself, layer by layer, then runs the program.

Each layer is tried on its own, so that the others hold where a kernel lacks
one. At the end the worker does, for each layer, something that must fail, and
what it found is what the host is told.
"""

from __future__ import annotations

import errno
import faulthandler
import fcntl
import gc
import importlib
import json
import os
import resource
import secrets
import signal
import site
import socket
from typing import Any, Callable, NamedTuple, NoReturn

from . import landlock, mounts, privileges, seccomp, system
from .channel import GuardedChannel, PlainChannel
from .mounts import Owner, Pattern, Project

CHANNEL, CRASHES, SIDE, OWNER_MAP = 3, 4, 5, 6
EXIT_JAIL_FAILED, EXIT_PROGRAM_FAILED = 71, 70

Found = tuple[str, bool, str]


class Surroundings(NamedTuple):
    """What a worker inherits from its zygote."""

    namespaces: dict[str, str]  # name: "" where it holds, else the reason why not
    readable: list[str]
    pattern: Pattern | None
    entry: tuple[str, str]
    worker_uid: int  # 0 where the zygote is not root


class Asked(NamedTuple):
    """What the host asked for."""

    limits: dict[str, Any]
    layers: list[str]
    workdir: str | None
    owner_map: int
    scratch: str
    site: list[str]
    environment: dict[str, str]
    execute: dict[str, Any] | None = None


def run(asked: Asked, around: Surroundings, channel: int, crashes: int, side: int) -> NoReturn:
    """Close the jail, tell the host what holds, run the program, and end."""
    status = EXIT_JAIL_FAILED
    try:
        given = {CHANNEL: channel, CRASHES: crashes, SIDE: side}
        _keep_descriptors(given, asked.owner_map, executes=bool(asked.execute))
        jail = _Jail(asked, around)
        opened = jail.close()
        status = EXIT_PROGRAM_FAILED
        report = {"layers": jail.found, "process": jail.process, "copies": jail.copies}
        opened.send(json.dumps(report).encode() + b"\n")
        if asked.execute:
            _execute(asked, jail)
        for folder in asked.site:
            site.addsitedir(folder)
        module, function = around.entry
        getattr(importlib.import_module(module), function)(opened)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as problem:
        tell(problem)
    finally:
        os._exit(status)


def _execute(asked: Asked, jail: _Jail) -> NoReturn:
    """Become the interpreter that was asked for, now that the jail is closed around whatever it is."""
    assert asked.execute is not None
    reader, writer = os.pipe()
    config = {"secret": jail.secret, "copies": jail.copies, "site": asked.site, **asked.execute}
    os.write(writer, json.dumps(config).encode())
    os.close(writer)
    os.dup2(reader, 0)
    python = asked.execute["python"]
    os.execve(python, [python, "-I", "-S", "-B", "-c", asked.execute["bootstrap"]], dict(os.environ))


def tell(problem: BaseException) -> None:
    """Write down why this process ends where the host looks for it."""
    import traceback

    text = "".join(traceback.format_exception(type(problem), problem, problem.__traceback__))
    os.write(CRASHES, text[-4000:].encode("utf-8", "backslashreplace"))


def _keep_descriptors(given: dict[int, int], owner_map: int, *, executes: bool) -> None:
    """Close every descriptor but those given, which get fixed numbers."""
    wanted = {**given, OWNER_MAP: owner_map or given[CHANNEL]}
    beyond = max(wanted) + 1
    copies = {number: fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, beyond) for number, fd in wanted.items()}
    for number, copy in copies.items():
        os.dup2(copy, number, inheritable=executes)  # the filter lets nobody change it later
    os.closerange(beyond, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    if not owner_map:
        os.close(OWNER_MAP)
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


class _Jail:
    def __init__(self, asked: Asked, around: Surroundings) -> None:
        self.found: list[Found] = []
        self.process: tuple[int, str] = (0, "")
        self.scratch = asked.scratch or mounts.SCRATCH
        self.secret = 0
        self.copies = False
        self._asked = asked
        self._around = around
        self._uid = around.worker_uid or os.geteuid()
        self._gid = around.worker_uid or os.getegid()

    def close(self) -> Any:
        """Put every layer in place and return the channel of the program."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        faulthandler.enable(file=CRASHES)
        os.umask(0o022)
        os.setsid()
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        start = privileges.baseline(proc)
        self.process = _identity(proc)
        self._try("mountns", self._enter_root)
        for name in ("pidns", "netns", "ipcns"):
            self._inherit(name)
        self._try("uid", self._become)
        self._try("userns", lambda: self._enter_users(proc))
        os.close(proc)
        self._try("rlimits", lambda: self._limit(start))
        self._prepare_python()
        self._try("capabilities", self._drop)
        if "pidns" not in self._held():  # else the first process of the namespace ends us in time
            system.prctl(system.PR_SET_PDEATHSIG, signal.SIGKILL)
        self._try("landlock", self._restrict)
        return self._filter()

    def _try(self, name: str, step: Callable[[], str]) -> None:
        """Put one layer in place; what `step` returns says why it does not hold after all."""
        if name not in self._asked.layers:
            self.found.append((name, False, "switched off"))
            return
        try:
            reason = step()
        except OSError as problem:
            reason = problem.strerror or str(problem)
        self.found.append((name, not reason, reason))

    def _inherit(self, name: str) -> None:
        reason = self._around.namespaces.get(name, "not tried")
        if name == "netns" and self._asked.limits["network"]:
            reason = "the network is switched on"
        elif name == "netns" and not reason and _loopback_answers():
            reason = "the network can be reached all the same"
        elif name == "pidns" and not reason and os.getpid() != 1:
            reason = "other processes can be seen all the same"
        self.found.append((name, not reason, reason))

    def _enter_root(self) -> str:
        if self._around.pattern is None:
            return self._around.namespaces.get("mountns", "not tried")
        limits, path, owner_map = self._asked.limits, self._asked.workdir, self._asked.owner_map
        project = Project(path, limits["files"] == "write", OWNER_MAP if owner_map else 0) if path else None
        self._around.pattern.enter(limits["readable"], project, scratch_bytes=int(limits["scratch_bytes"]))
        if owner_map:
            os.close(OWNER_MAP)
        self.scratch = mounts.SCRATCH
        return "the machine's files can be seen all the same" if os.path.exists("/proc/self") else ""

    def _become(self) -> str:
        if not self._around.worker_uid:
            return "" if os.geteuid() else "there is no other user here who could reach the interpreter"
        privileges.become(Owner(self._uid, self._gid))
        return ""

    def _enter_users(self, proc: int) -> str:
        if self._around.namespaces.get("userns", "not tried"):
            return self._around.namespaces["userns"]
        privileges.enter_user_namespace(proc)
        return ""

    def _limit(self, start: tuple[int, int]) -> str:
        alone = "userns" in self._held() or bool(self._around.worker_uid)
        kept = privileges.limit_resources(self._asked.limits, start, count_processes=alone)
        broken = [kind for kind, value in kept.items() if resource.getrlimit(kind) != (value, value)]
        return f"limits {broken} were not kept" if broken else ""

    def _prepare_python(self) -> None:
        os.umask(0o077)
        os.environ.clear()
        os.environ.update(self._asked.environment)
        os.environ.update(HOME=self.scratch, TMPDIR=self.scratch)
        visible = self._asked.workdir if self._asked.limits["files"] != "none" else None
        os.chdir(visible if visible and os.path.isdir(visible) else self.scratch)

    def _drop(self) -> str:
        system.drop_all_capabilities()
        system.prctl(system.PR_SET_DUMPABLE, 0)
        system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
        kept = system.capabilities()
        return f"capabilities {kept:#x} are still there" if kept else ""

    def _restrict(self) -> str:
        system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
        limits = self._asked.limits
        readable = [*self._around.readable, *limits["readable"], *_DEVICES, "/etc/passwd", "/etc/group"]
        writable = [self.scratch, "/dev/null"]
        if self._asked.workdir:
            (writable if limits["files"] == "write" else readable).append(self._asked.workdir)
        landlock.restrict(readable, writable, network=bool(limits["network"]))
        return "files outside can be read all the same" if _readable(mounts.CANARY, "/") else ""

    def _filter(self) -> Any:
        """Install the filter, last of all, and return the channel that it guards."""
        secret = secrets.randbits(62) | 1 << 62
        rules = rules_for(self._asked, pidns="pidns" in self._held(), own_root="mountns" in self._held())

        def install() -> str:
            system.prctl(system.PR_SET_NO_NEW_PRIVS, 1)
            self.copies = not rules.gate or _hand_over_gate()
            seccomp.install(rules, secret)
            return "" if _refused() else "forbidden system calls are answered all the same"

        self._try("seccomp", install)
        if "seccomp" in self._held():
            self.secret = secret
        else:
            self.copies = True  # nothing refuses them
        return channel_for(self.secret, copies=self.copies)

    def _held(self) -> list[str]:
        return [name for name, holds, _ in self.found if holds]


def channel_for(secret: int, *, copies: bool) -> Any:
    """Return the channel of a program; with a secret, the filter guards it."""
    if secret:
        return GuardedChannel(CHANNEL, secret, SIDE, copies=copies)
    return PlainChannel(CHANNEL, CHANNEL, SIDE, copies=copies)


def _hand_over_gate() -> bool:
    """Have the host asked about each copy of this process; return False if this kernel cannot ask."""
    try:
        listener = seccomp.install_gate()
    except OSError:
        return False
    with socket.socket(fileno=os.dup(CHANNEL)) as channel:
        socket.send_fds(channel, [b"\n"], [listener])
    os.close(listener)
    return True


def rules_for(asked: Asked, *, pidns: bool, own_root: bool) -> seccomp.Rules:
    """Return the rules of the filter. With a process namespace they are the same for all like workers."""
    return seccomp.Rules(
        channel=CHANNEL,
        side=SIDE,
        gate=not asked.limits["processes"],
        processes=asked.limits["processes"] > 0,
        execute=asked.execute is not None,
        network=bool(asked.limits["network"]),
        own_pid=1 if pidns else os.getpid(),
        signals=pidns,
        own_root=own_root,
    )


_DEVICES = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"]


def _identity(proc: int) -> tuple[int, str]:
    """Return this process's number as the host sees it, and its start time, which makes it unique."""
    number = os.readlink("self", dir_fd=proc)
    fd = os.open("self/stat", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
    try:
        started = os.read(fd, 4096).rpartition(b")")[2].split()[19]
    finally:
        os.close(fd)
    return int(number), started.decode()


def _loopback_answers() -> bool:
    """Return whether this machine's loopback network can be reached, be it only to be refused."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(0.05)
        return probe.connect_ex(("127.0.0.1", 9)) not in (errno.ENETUNREACH, errno.EADDRNOTAVAIL)


def _readable(*paths: str) -> bool:
    for path in paths:
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError:
            continue
        return True
    return False


def _refused() -> bool:
    """Return whether the filter refuses what it should, by trying."""
    try:
        os.close(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).detach())
    except OSError as problem:
        refused = problem.errno == errno.EPERM
    else:
        refused = False
    try:
        os.write(CHANNEL, b"")
    except OSError as problem:
        return refused and problem.errno == errno.EBADF
    return False


def settle() -> None:
    """Keep what is loaded now out of the collector's way, so that workers share its memory."""
    system.warm_up()
    landlock.version()
    gc.collect()
    gc.freeze()
