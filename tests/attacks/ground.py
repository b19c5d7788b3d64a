"""What lies outside a sandbox, for attacks to aim at: files, a process, listeners, and the host's own memory.

Everything here is harmless to lose, holds words that are told nowhere else, and says afterwards what became of it.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

KEY = "RLM_ATTACKED_KEY"
_FOLDER = tempfile.gettempdir()  # as it is before the first ground becomes that

CALLS: dict[str, str] = {
    "x86_64": """
        read=0 write=1 socket=41 connect=42 sendmsg=46 clone=56 shmget=29 msgget=68 syslog=103 setuid=105
        personality=135 chroot=161 mount=165 umount2=166 sethostname=170 clock_settime=227 tgkill=234
        add_key=248 keyctl=250 openat=257 unshare=272 perf_event_open=298 fanotify_init=300 setns=308
        open_by_handle_at=304 process_vm_readv=310 finit_module=313 seccomp=317 memfd_create=319 bpf=321 userfaultfd=323
    """,
    "aarch64": """
        read=63 write=64 socket=198 connect=203 sendmsg=211 clone=220 shmget=194 msgget=186 syslog=116
        setuid=146 personality=92 chroot=51 mount=40 umount2=39 sethostname=161 clock_settime=112
        tgkill=131 add_key=217 keyctl=219 openat=56 unshare=97 perf_event_open=241 fanotify_init=262
        open_by_handle_at=265 setns=268 process_vm_readv=270 finit_module=273 seccomp=277 memfd_create=279 bpf=280
        userfaultfd=282
    """,
}


def _calls() -> dict[str, int]:
    """Return the numbers of system calls on this machine."""
    pairs = (entry.split("=") for entry in CALLS[platform.machine()].split())
    return {name: int(value) for name, value in pairs}


def _word() -> str:
    return f"word-{secrets.token_hex(8)}"


@dataclass(frozen=True)
class Words:
    """Words that nobody inside is told. The one in the project is a secret only where the project is hidden."""

    secret: str
    private: str
    named: str
    environment: str
    process: str
    memory: str
    project: str

    @classmethod
    def draw(cls) -> Words:
        return cls(*(_word() for _ in range(7)))


@contextlib.contextmanager
def open_ground(words: Words | None = None) -> Generator[Ground, None, None]:
    """Lay everything out, and clear it away. Grounds that are open at once have the same words."""
    words = words or Words.draw()
    base = Path(tempfile.mkdtemp(prefix="attacked-", dir=_FOLDER))
    base.chmod(0o755)
    os.environ[KEY] = words.environment
    temporary, tempfile.tempdir = tempfile.tempdir, str(base / "temporary")
    (base / "temporary").mkdir()
    (base / "temporary").chmod(0o1777)
    ground = Ground(base, words)
    before = signal.signal(signal.SIGUSR1, ground.note_signal)
    try:
        with contextlib.ExitStack() as stack:
            ground.open(stack)
            yield ground
    finally:
        signal.signal(signal.SIGUSR1, before)
        os.environ.pop(KEY, None)
        tempfile.tempdir = temporary
        shutil.rmtree(base)


class Ground:
    """Everything that lies outside. `open_ground` makes one."""

    def __init__(self, base: Path, words: Words) -> None:
        self.words = words
        self.home = base / "home"
        self.project = base / "project"
        self._base = base
        self._memory = ctypes.create_string_buffer(words.memory.encode())
        self._signals = 0
        self._canary: subprocess.Popen[bytes] | None = None
        self._listeners: dict[str, socket.socket] = {}
        self._address6 = "::1"

    def open(self, stack: contextlib.ExitStack) -> None:
        """Begin to listen and start the process that is to stay alive."""
        self._lay_out()
        for name, listener in self._listen().items():
            self._listeners[name] = stack.enter_context(listener)
        stack.callback(self._end_canary)
        self._start_canary()

    @property
    def folder(self) -> Path:
        """Where all its files lie."""
        return self._base

    def targets(self) -> dict[str, Any]:
        """Return what a cell is told of where things lie. No word of ours is in it."""
        assert self._canary is not None
        return {
            "secret": str(self.home / "secret.txt"),
            "private": str(self.home / "private.txt"),
            "profile": str(self.home / "profile"),
            "home": str(self.home),
            "project": str(self.project),
            "host": os.getpid(),
            "canary": self._canary.pid,
            "address": ctypes.addressof(self._memory),
            "calls": _calls(),
            "address6": self._address6,
            **{name: _place(listener) for name, listener in self._listeners.items()},
        }

    def note_signal(self, *_: object) -> None:
        self._signals += 1

    # ---- files

    def _lay_out(self) -> None:
        for folder in (self.home, self.project):
            _empty(folder)
        (self.home / "kept").mkdir()
        (self.home / "kept").chmod(0o777)
        files = {
            self.home / "secret.txt": self.words.secret,
            self.home / "private.txt": self.words.private,
            self.home / f"{self.words.named}.txt": "",
            self.home / "secretmodule.py": f"WORD = {self.words.secret!r}",
            self.home / "profile": "as it was",
            self.home / "kept" / "file": "as it was",
            self.project / "data.txt": self.words.project,
            self.project / f"{self.words.project}.txt": "",
        }
        for path, content in files.items():
            path.write_text(content + "\n")
            path.chmod(0o666)
        (self.home / "secret.txt").chmod(0o644)
        (self.home / "private.txt").chmod(0o600)
        for name, target in {"outward": "secret.txt", "outprofile": "profile", "folder": "."}.items():
            (self.project / name).symlink_to(f"../home/{target}")
        self._files = _facts(self.home)
        self._project_files = _facts(self.project)

    def written(self, *, project_may_change: bool) -> str:
        """Return what was changed in files, or "", and lay them out anew if anything was."""
        home, project = _facts(self.home), _facts(self.project)
        odd = [path for path, fact in project.items() if fact.is_odd]
        changed = _difference(self._files, home)
        if not project_may_change:
            changed += _difference(self._project_files, project)
        if home != self._files or project != self._project_files:
            self._lay_out()
        return ", ".join(changed + odd)

    def beat(self) -> int:
        """Return how often something wrote into the project that it goes on."""
        try:
            return (self.project / "beat").stat().st_size
        except FileNotFoundError:
            return 0

    # ---- processes

    def _start_canary(self) -> None:
        word = self.words.process
        command = ["/bin/sh", "-c", "sleep 1000; :", word]
        environment = {"PATH": "/usr/bin:/bin", "KEY": word}
        self._canary = subprocess.Popen(command, cwd=self.home, env=environment, start_new_session=True)
        self._canary_facts = _process_facts(self._canary.pid)

    def _end_canary(self) -> None:
        if self._canary is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._canary.pid, signal.SIGKILL)
            self._canary.wait()

    def signalled(self) -> str:
        """Return what happened to processes outside, or ""."""
        assert self._canary is not None
        signals, self._signals = self._signals, 0
        if self._canary.poll() is not None:
            found = "the process is gone"
        else:
            facts = _process_facts(self._canary.pid)
            found = "" if facts == self._canary_facts else f"the process was changed: {facts}"
        if found:
            self._end_canary()
            self._start_canary()
        return found or (f"the host was signalled {signals} times" if signals else "")

    # ---- listeners

    def _listen(self) -> dict[str, socket.socket]:
        listeners = {
            "tcp": _bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            "udp": _bound(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            "unix": _bound(socket.AF_UNIX, socket.SOCK_STREAM, str(self._base / "listening")),
            "unix_datagrams": _bound(socket.AF_UNIX, socket.SOCK_DGRAM, str(self._base / "datagrams")),
            "abstract": _bound(socket.AF_UNIX, socket.SOCK_STREAM, f"\0attacked-{secrets.token_hex(8)}"),
        }
        for name in ("listening", "datagrams"):
            (self._base / name).chmod(0o777)
        try:
            listeners["tcp6"] = _bound(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 0))
        except OSError:  # a machine without IPv6: the same is tried on what it has
            self._address6 = "127.0.0.1"
            listeners["tcp6"] = _bound(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0))
        return listeners

    def reached(self) -> str:
        """Return which listeners were spoken to, or ""."""
        return ", ".join(name for name, listener in self._listeners.items() if _was_reached(listener))


def _empty(folder: Path) -> None:
    """Make the folder as it was in the beginning. It stays the same folder: a process works in it."""
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


@dataclass(frozen=True)
class _Fact:
    mode: int
    owner: tuple[int, int]
    changed_ns: int
    content: str

    @property
    def is_odd(self) -> bool:
        """Return whether it is what no cell may make: a device, a pipe, a socket, a program with rights."""
        usual = stat.S_ISREG(self.mode) or stat.S_ISDIR(self.mode) or stat.S_ISLNK(self.mode)
        return not usual or bool(stat.S_IMODE(self.mode) & 0o6000)


def _facts(folder: Path) -> dict[str, _Fact]:
    return {str(path): _fact(path) for path in [folder, *folder.rglob("*")]}


def _fact(path: Path) -> _Fact:
    found = path.lstat()
    content = ""
    if stat.S_ISLNK(found.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(found.st_mode):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return _Fact(found.st_mode, (found.st_uid, found.st_gid), found.st_mtime_ns, content)


def _difference(before: dict[str, _Fact], after: dict[str, _Fact]) -> list[str]:
    return [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]


def _process_facts(pid: int) -> tuple[object, ...]:
    state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    limits = Path(f"/proc/{pid}/limits").read_text()
    return (
        "stopped" if state in "TtZX" else "alive",
        os.getpriority(os.PRIO_PROCESS, pid),
        os.sched_getaffinity(pid),
        limits,
    )


def _bound(family: int, kind: int, address: Any) -> socket.socket:
    made = socket.socket(family, kind)
    try:
        made.bind(address)
        if kind == socket.SOCK_STREAM:
            made.listen(16)
    except OSError:
        made.close()
        raise
    made.setblocking(False)
    return made


def _place(listener: socket.socket) -> Any:
    name: Any = listener.getsockname()
    if isinstance(name, tuple):
        return int(cast("tuple[str, int]", name)[1])
    return name.decode().removeprefix("\0") if isinstance(name, bytes) else str(name)


def _was_reached(listener: socket.socket) -> bool:
    reached = False
    while True:
        try:
            if listener.type == socket.SOCK_STREAM:
                listener.accept()[0].close()
            else:
                listener.recv(4096)
        except BlockingIOError:
            return reached
        reached = True
