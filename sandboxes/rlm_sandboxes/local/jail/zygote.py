"""The zygote: a Python with the program loaded, which forks a worker for each request.

It runs trusted code only, and nothing of the server is ever in its memory. It
leaves for namespaces of its own at the start, behind a guard: the first process
there, which does nothing but end when the host is gone, and with it the kernel
ends all workers. So they outlive a zygote that dies, and never the host.

    host -> zygote   one message that configures it, then start requests
    zygote -> host   one message that says what it is, then started and exited
"""

from __future__ import annotations

import array
import importlib
import importlib.util
import json
import os
import select
import signal
import site
import socket
import sys
import sysconfig
import time
from typing import Any, Callable, NoReturn

from . import privileges, seccomp, system, worker
from .channel import FINISHING
from .mounts import Owner, Pattern
from .worker import Asked, Surroundings

MESSAGE_BYTES = 1 << 17
_END_SECONDS, _LINGER_SECONDS = 0.3, 15.0

_KINDS = {
    "mountns": system.CLONE_NEWNS,
    "pidns": system.CLONE_NEWPID,
    "netns": system.CLONE_NEWNET,
    "ipcns": system.CLONE_NEWIPC | system.CLONE_NEWUTS,
}
_SYSTEM_FOLDERS = [
    *("/usr/lib", "/usr/lib64", "/usr/lib32", "/lib", "/lib64", "/usr/local/lib"),
    *("/usr/share/zoneinfo", "/usr/share/fonts", "/usr/local/share/fonts", "/etc/fonts"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types"),
]
_COMMAND_FOLDERS = ["/usr/bin", "/usr/local/bin", "/usr/share/git-core", "/etc/alternatives"]
_NETWORK_FILES = [
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/services", "/etc/gai.conf"),
    *("/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/run/systemd/resolve"),
]


def main(control_fd: int, lifeline_fd: int) -> NoReturn:
    """Serve the host at the other end of `control_fd` until it is gone; `lifeline_fd` is the guard's."""
    control = socket.socket(fileno=control_fd)
    lifeline = socket.socket(fileno=lifeline_fd)
    config = json.loads(control.recv(MESSAGE_BYTES))
    os.umask(0o022)  # a worker's root must be open to its user, also where a host's new files are its own
    try:
        zygote = _prepare(control, lifeline, config)
    except Exception as problem:  # whatever it is, the host is told before this process ends
        control.send(json.dumps({"failed": f"{type(problem).__name__}: {problem}"}).encode())
        os._exit(1)
    zygote.serve()


def _prepare(control: socket.socket, lifeline: socket.socket, config: dict[str, Any]) -> _Zygote:
    namespaces = _enter_namespaces(config["layers"], network=config["network"])
    if not namespaces["pidns"]:
        _continue_behind_a_guard(control, lifeline)
    lifeline.close()
    for name, folder in config["packages"]:
        load_package(name, folder)
    for folder in config["site"]:
        site.addsitedir(folder)
    for module in config["preload"]:
        importlib.import_module(module)
    package, function = config["entry"].split(":")
    importlib.import_module(package)
    readable = _readable(config)
    others = not namespaces["mountns"] or all(_open_to_all(path) for path in readable)
    becomes = os.geteuid() == 0 and "uid" in config["layers"] and others
    uid = privileges.user_near(int(config["worker_uid"])) if becomes else 0
    around = Surroundings(namespaces, readable, _pattern(namespaces, readable, uid), (package, function), uid)
    worker.settle()
    hello = {"python": list(sys.version_info[:3]), "namespaces": namespaces, "worker_uid": uid}
    control.send(json.dumps(hello).encode())
    return _Zygote(control, around)


def _pattern(namespaces: dict[str, str], readable: list[str], uid: int) -> Pattern | None:
    if namespaces["mountns"]:
        return None
    try:
        return Pattern(readable, Owner(uid or os.geteuid(), uid or os.getegid()))
    except OSError as problem:
        namespaces["mountns"] = problem.strerror or str(problem)
        return None


def load_package(name: str, folder: str) -> None:
    """Import the package that lies in `folder` under the name `name`."""
    path = os.path.join(folder, "__init__.py")
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=[folder])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def _readable(config: dict[str, Any]) -> list[str]:
    """Return what every worker may read: the interpreter, the system's libraries, its packages."""
    own = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")]
    if sys.base_prefix not in ("/", "/usr", "/usr/local"):
        own += [sys.base_prefix + "/lib", sys.base_prefix + "/lib64"]
    wanted = [*_SYSTEM_FOLDERS, *own, *config["site"]]
    if config["network"]:
        wanted += _NETWORK_FILES
    if config["processes"]:
        wanted += _COMMAND_FOLDERS
    return _outermost([os.path.realpath(path) for path in wanted if os.path.exists(path)])


def _open_to_all(path: str) -> bool:
    """Return whether every user may enter this folder, as things are."""
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            return not os.path.isdir(path)
        path = os.path.dirname(path)
    return True


def _outermost(paths: list[str]) -> list[str]:
    """Return `paths` without those that lie in another of them."""
    kept: list[str] = []
    for path in sorted(set(paths)):
        if not any((path + "/").startswith(other + "/") for other in kept):
            kept.append(path)
    return kept


def _enter_namespaces(layers: list[str], *, network: bool) -> dict[str, str]:
    """Leave for new namespaces, as far as the kernel lets us; return the reason for each it does not."""
    own_users = not _may_mount()
    reasons = dict.fromkeys((*_KINDS, "userns"), "switched off")
    if "userns" in layers:
        reasons["userns"] = _rehearse(system.CLONE_NEWUSER, users=True)
    flags = system.CLONE_NEWUSER if own_users else 0
    usable = not own_users or not reasons["userns"]
    for name in [name for name in _KINDS if name in layers]:
        if name == "netns" and network:
            reasons[name] = "the network is switched on"
        elif not usable:
            reasons[name] = "needs a user namespace"
        else:
            reasons[name] = _rehearse(_KINDS[name] | flags, users=own_users)
        if not reasons[name]:
            flags |= _KINDS[name]
    if flags not in (0, system.CLONE_NEWUSER):
        _leave(flags, users=own_users)
    return reasons


def _may_mount() -> bool:
    """Return whether we are root with the right to make namespaces as we are."""
    return os.geteuid() == 0 and bool(system.capabilities() & 1 << 21)


def _leave(flags: int, *, users: bool) -> None:
    uid, gid = os.geteuid(), os.getegid()
    system.unshare(flags)
    if users:
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        privileges.write_id_map(proc, "self", Owner(uid, gid), Owner(uid, gid))
        os.close(proc)
    if flags & system.CLONE_NEWNS:
        system.mount("none", "/", None, system.MS_REC | system.MS_PRIVATE)
    if flags & system.CLONE_NEWUTS:
        socket.sethostname("sandbox")


def _rehearse(flags: int, *, users: bool) -> str:
    """Return why a process cannot leave with these flags, or "" if it can. It is tried in a child.

    Some systems let it begin and refuse the next step, which would leave us in pieces.
    """

    def attempt() -> None:
        _leave(flags, users=users)
        if flags & system.CLONE_NEWNS:
            system.mount("rlm", "/", "tmpfs", 0, "size=4k")

    return _in_child(attempt)


def _in_child(attempt: Callable[[], None]) -> str:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            attempt()
        except OSError as problem:
            os.write(writer, (problem.strerror or "failed").encode())
        finally:
            os._exit(0)
    os.close(writer)
    reason = os.read(reader, 1000).decode()
    os.close(reader)
    os.waitpid(pid, 0)
    return reason


def _continue_behind_a_guard(control: socket.socket, lifeline: socket.socket) -> None:
    """Go on in the second process of the new process namespace; the first is its guard, and we wait for that."""
    if guard := os.fork():
        control.close()
        lifeline.close()
        os.waitpid(guard, 0)
        os._exit(0)
    if os.fork():
        control.close()
        _guard(lifeline)


def _guard(lifeline: socket.socket) -> NoReturn:
    """Wait until the host is gone, and then a while for workers that say that they have something to finish."""
    lifeline.recv(1)
    own = int(os.readlink("/proc/self"))  # as the world outside knows us
    try:
        os.kill(-1, signal.SIGCONT)  # who is at rest sees only now that the host is gone
        _wait_for_workers(time.monotonic() + _END_SECONDS)
        deadline = time.monotonic() + _LINGER_SECONDS
        while time.monotonic() < deadline and _some_finish(own):
            _wait_for_workers(time.monotonic() + _END_SECONDS)
    finally:
        os._exit(0)


def _wait_for_workers(deadline: float) -> None:
    try:
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.005)
    except ChildProcessError:
        return  # none is left


def _some_finish(pid: int) -> bool:
    """Return whether a process below `pid` goes by the name of those that have something to finish."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            children = [int(word) for word in file.read().split()]
        for child in children:
            with open(f"/proc/{child}/comm") as file:
                if file.read().strip() == FINISHING:
                    return True
    except OSError:
        return False
    return any(map(_some_finish, children))


def _wake(number: int, frame: object) -> None:
    """Do nothing: that a signal came is heard by the wakeup descriptor."""


class _Zygote:
    """Answers the host's requests, one after the other."""

    def __init__(self, control: socket.socket, around: Surroundings) -> None:
        self._control = control
        self._around = around
        self._alive: dict[int, bool] = {}
        self._owner_maps: dict[Owner, int] = {}
        self._own_processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def serve(self) -> NoReturn:
        wakeup_reader, wakeup_writer = socket.socketpair()
        for end in (wakeup_reader, wakeup_writer):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, _wake)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(wakeup_writer.fileno(), warn_on_full_buffer=False)
        poll = select.poll()
        poll.register(self._control, select.POLLIN)
        poll.register(wakeup_reader, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wakeup_reader.fileno() in ready:
                wakeup_reader.recv(4096)
                self._reap()
            if self._control.fileno() in ready:
                self._answer()

    def _answer(self) -> None:
        data, descriptors = _receive(self._control)
        if not data:
            os._exit(0)
        request = json.loads(data)
        try:
            answer: dict[str, Any] = {"pid": self._fork(request["start"], descriptors)}
        except OSError as problem:
            answer = {"failed": str(problem)}
        finally:
            for fd in descriptors:
                os.close(fd)
        self._tell({"id": request["id"], **answer})

    def _reap(self) -> None:
        while self._alive:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            if self._alive.pop(pid, None):
                message = {"exited": pid, "status": os.waitstatus_to_exitcode(status)}
                self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        """Send the host a message; one about a new worker brings a descriptor that stands for it."""
        handles = [system.pidfd_open(message["pid"])] if "pid" in message else []
        socket.send_fds(self._control, [json.dumps(message).encode()], handles)
        for handle in handles:
            os.close(handle)

    def _fork(self, request: dict[str, Any], descriptors: list[int]) -> int:
        fields = {name: request[name] for name in Asked._fields if name != "owner_map"}
        asked = Asked(owner_map=self._map_owner(request), **fields)
        own_processes = not self._around.namespaces["pidns"]
        if own_processes:
            own_root = not self._around.namespaces["mountns"]
            seccomp.assemble(worker.rules_for(asked, pidns=True, own_root=own_root))  # once for all like it
            system.unshare(system.CLONE_NEWPID)
        try:
            pid = os.fork()
            if pid == 0:
                self._become_worker(asked, descriptors)
        finally:
            if own_processes:
                system.enter_namespace(self._own_processes, system.CLONE_NEWPID)
        self._alive[pid] = True
        return pid

    def _become_worker(self, asked: Asked, descriptors: list[int]) -> NoReturn:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        worker.run(asked, self._around, *descriptors)

    def _map_owner(self, request: dict[str, Any]) -> int:
        """Return a user namespace in which the project's owner is the worker's user, or 0 for none."""
        uid = self._around.worker_uid
        if not uid or not request["workdir"] or self._around.namespaces["mountns"]:
            return 0
        facts = os.stat(request["workdir"])
        owner = Owner(facts.st_uid, facts.st_gid)
        if owner not in self._owner_maps:
            self._owner_maps[owner] = _owner_namespace(owner, Owner(uid, uid))
        return self._owner_maps[owner]


def _owner_namespace(on_disk: Owner, seen_as: Owner) -> int:
    to_child, to_parent = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(to_parent[1], os.readlink("/proc/self").encode())
        system.unshare(system.CLONE_NEWUSER)
        os.write(to_parent[1], b".")
        os.read(to_child[0], 1)
        os._exit(0)
    try:
        seen_pid = _read_until_dot(to_parent[0])
        proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        privileges.write_id_map(proc, seen_pid, on_disk, seen_as)
        namespace = os.open(f"{seen_pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)
        os.close(proc)
        return namespace
    finally:
        for fd in (*to_child, *to_parent):
            os.close(fd)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _read_until_dot(fd: int) -> str:
    text = ""
    while not text.endswith("."):
        text += os.read(fd, 100).decode()
    return text[:-1]


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    fds = array.array("i")
    space = socket.CMSG_SPACE(4 * fds.itemsize)
    data, extra, _, _ = control.recvmsg(MESSAGE_BYTES, space, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in extra:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, list(fds)
