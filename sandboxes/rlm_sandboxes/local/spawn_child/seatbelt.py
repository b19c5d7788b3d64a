"""Seatbelt, the sandbox in the kernel of macOS: a profile, and putting it around this process for good.

The profile is closed by default. `profile` is a pure function of what is to be
open; `steps` applies it and then does what must fail.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import sys
import sysconfig
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

from . import posix

_BASE = """\
(version 1)
(deny default)
; these three are open even so
(deny iokit-get-properties process-info* nvram*)
(allow process-info* signal (target self))
; named one by one: kern.procargs2 would show the environment of every other process of this user
(allow sysctl-read
  (sysctl-name-prefix "hw.")
  (sysctl-name "kern.argmax") (sysctl-name "kern.hostname") (sysctl-name "kern.maxfilesperproc")
  (sysctl-name "kern.osproductversion") (sysctl-name "kern.osrelease") (sysctl-name "kern.ostype")
  (sysctl-name "kern.osvariant_status") (sysctl-name "kern.osversion") (sysctl-name "kern.secure_kernel")
  (sysctl-name "kern.usrstack64") (sysctl-name "kern.version") (sysctl-name "machdep.cpu.brand_string")
  (sysctl-name "sysctl.proc_cputype"))
; who this user is
(allow mach-lookup (global-name "com.apple.system.opendirectoryd.libinfo"))
(allow file-read-data (literal "/private/etc/passwd"))
; OpenMP ends the process if it cannot note that it was loaded
(allow ipc-posix-shm-read-data ipc-posix-shm-write-create ipc-posix-shm-write-data ipc-posix-shm-write-unlink
  (ipc-posix-name-regex #"^/__KMP_REGISTERED_LIB_"))
(allow file-read* (literal "/") (literal "/dev/random") (literal "/dev/urandom") (literal "/dev/zero"))
(allow file-read* file-write-data file-ioctl (literal "/dev/null"))
; links, by which people know other folders
(allow file-read-metadata (literal "/etc") (literal "/tmp") (literal "/var"))
"""

# Addresses, and the name service. Not the sockets of local services, such as those of Docker or an SSH agent.
_NETWORK = """\
(allow system-socket)
(allow network-outbound (remote ip "*:*") (literal "/private/var/run/mDNSResponder"))
(allow network-inbound network-bind (local ip "*:*"))
(allow mach-lookup
  (global-name "com.apple.dnssd.service")
  (global-name "com.apple.SystemConfiguration.DNSConfiguration"))
(allow file-read*
  (subpath "/private/etc/ssl") (literal "/private/etc/hosts") (literal "/private/etc/services")
  (literal "/private/etc/resolv.conf") (literal "/private/var/run/resolv.conf"))
"""

SYSTEM_FOLDERS = (
    *("/usr/lib", "/usr/share", "/System/Library", "/System/Cryptexes", "/System/Volumes/Preboot/Cryptexes"),
    *("/Library/Apple", "/Library/Fonts", "/private/var/db/timezone", "/private/var/db/dyld"),
    *("/opt/homebrew/lib", "/opt/homebrew/opt", "/opt/homebrew/Cellar"),
    *("/usr/local/lib", "/usr/local/opt", "/usr/local/Cellar", "/opt/local/lib"),
)
_SHARED_PREFIXES = ("/", "/usr", "/usr/local", "/opt/homebrew", "/opt/local")
_CTL_KERN, _KERN_PROCARGS2 = 1, 49


def profile(
    readable: Sequence[str], writable: Sequence[str], *, executable: Sequence[str] = (), network: bool = False
) -> str:
    """Return the profile that opens these paths with all that is below them, and nothing else but the least.

    The paths must be the real ones: links in them are not followed.
    """
    parts = [_BASE]
    if readable:
        parts.append(_allow("file-read* file-map-executable", "subpath", readable))
    if writable:
        parts.append(_allow("file-read* file-write*", "subpath", writable))
    if executable:
        parts.append(_allow("process-exec", "subpath", executable))
    above = _folders_above([*readable, *writable, *executable])
    if above:
        parts.append(_allow("file-read-metadata", "literal", above))
    if network:
        parts.append(_NETWORK)
    return "".join(parts)


def _allow(operations: str, kind: str, paths: Iterable[str]) -> str:
    return "\n".join([f"(allow {operations}", *(f"  ({kind} {_quoted(path)})" for path in paths)]) + ")\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _folders_above(paths: Iterable[str]) -> list[str]:
    """Return every folder on the way to `paths`: whoever finds the real name of a path looks at each."""
    return sorted({str(folder) for path in paths for folder in PurePosixPath(path).parents})


def steps(request: dict[str, Any]) -> dict[str, Callable[[], str]]:
    """Return the layers, each with what puts it in place and says why it does not hold."""
    wanted = request["seatbelt"]

    def close() -> str:
        readable = real_paths([*SYSTEM_FOLDERS, *_own_folders(), *wanted["readable"]])
        writable, executable = real_paths(wanted["writable"]), real_paths(wanted["executable"])
        text = profile(readable, writable, executable=executable, network=wanted["network"])
        apply(text)
        open_still = what_is_open(request["canary"], network=wanted["network"])
        return f"still open: {', '.join(open_still)}" if open_still else ""

    return {**posix.steps(request), "seatbelt": close}


def _own_folders() -> list[str]:
    """Return where this interpreter keeps its library."""
    own = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sys.executable]
    if sys.base_prefix not in _SHARED_PREFIXES:
        own += [os.path.join(sys.base_prefix, name) for name in ("lib", "Python", "Resources")]
    return own


def real_paths(paths: Iterable[str]) -> list[str]:
    """Return the paths that exist, as the kernel spells them, without those that lie in another."""
    kept: list[str] = []
    for path in sorted({_spelled(os.path.realpath(path)) for path in paths if os.path.exists(path)}):
        if not any(path.startswith(outer.rstrip("/") + "/") for outer in kept):
            kept.append(path)
    return kept


def _spelled(path: str) -> str:
    """Return the path with the letters on disk: it is found by others too, such as of another case."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            return path  # of no use to anybody here
        try:
            return os.fsdecode(fcntl.fcntl(fd, fcntl.F_GETPATH, bytes(1024)).split(b"\0")[0])
        finally:
            os.close(fd)
    return path


def apply(text: str) -> None:
    """Put a profile around this process, for good."""
    library = ctypes.CDLL("/usr/lib/libsandbox.1.dylib", use_errno=True)
    library.sandbox_init.argtypes = [ctypes.c_char_p, ctypes.c_uint64, ctypes.POINTER(ctypes.c_char_p)]
    problem = ctypes.c_char_p()
    if library.sandbox_init(os.fsencode(text), 0, ctypes.byref(problem)):
        reason = problem.value or os.strerror(ctypes.get_errno()).encode()
        raise OSError("the profile was refused: " + reason.decode("utf-8", "replace").strip())


def what_is_open(canary: str, *, network: bool) -> list[str]:
    """Try what must fail, and return what did not. `canary` is a file that lies beside the scratch folder."""
    attempts: dict[str, Callable[[], object]] = {
        "reading files": lambda: os.close(os.open(canary, os.O_RDONLY)),
        "writing files": lambda: os.close(os.open(canary + "-written", os.O_WRONLY | os.O_CREAT)),
        "listing folders": lambda: os.listdir(os.path.dirname(canary)),
        "starting processes": _fork,
        "signalling processes": lambda: os.kill(os.getppid(), 0),
        "the environment of processes": _read_environment_of_parent,
    }
    if not network:
        attempts["the network"] = _connect
    return [name for name, attempt in attempts.items() if not is_refused(attempt)]


def is_refused(attempt: Callable[[], object]) -> bool:
    """Return whether the system forbids something. That it fails for another reason shows no wall."""
    try:
        attempt()
    except OSError as problem:
        return problem.errno in (errno.EPERM, errno.EACCES)
    return False


def _fork() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _connect() -> None:
    """Speak to this machine's own network, which answers at once, be it to say that nobody listens."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        probe.connect(("127.0.0.1", 9))


def _read_environment_of_parent() -> None:
    library = ctypes.CDLL(None, use_errno=True)
    names = (ctypes.c_int * 3)(_CTL_KERN, _KERN_PROCARGS2, os.getppid())
    content, size = ctypes.create_string_buffer(1 << 16), ctypes.c_size_t(1 << 16)
    if library.sysctl(names, 3, content, ctypes.byref(size), None, ctypes.c_size_t(0)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
