"""What else there is outside: other processes, the host's environment and memory, the network."""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_PROC = {
    "the-environment-of-another-process-is-read": "print(open(f\"/proc/{at['canary']}/environ\").read())",
    "the-arguments-of-another-process-are-read": "print(open(f\"/proc/{at['canary']}/cmdline\").read())",
    "every-process-is-searched": """
import glob
for name in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):
    try:
        text = open(name).read()
    except OSError:
        continue
    if 'word-' in text:
        print(text)
""",
    "the-root-of-another-process-is-entered": "print(open(f\"/proc/{at['host']}/root{at['secret']}\").read())",
    "the-folder-of-another-process-is-entered": "print(open(f\"/proc/{at['canary']}/cwd/secret.txt\").read())",
    "its-own-root-is-entered-through-proc": "print(open(f\"/proc/self/root{at['secret']}\").read())",
}

_MEMORY = {
    "the-memory-of-the-host-is-read-as-a-file": """
memory = open(f"/proc/{at['host']}/mem", 'rb')
memory.seek(at['address'])
print(memory.read(64))
""",
    "the-memory-of-the-host-is-read-by-a-call": """
import ctypes
held = ctypes.create_string_buffer(64)
pair = ctypes.c_size_t * 2
ours, theirs = pair(ctypes.addressof(held), 64), pair(at['address'], 64)
ctypes.CDLL(None).syscall(at['calls']['process_vm_readv'], at['host'], ours, 1, theirs, 1, ctypes.c_long(0))
print(held.raw)
""",
}

_SIGNALS = {
    "the-host-is-signalled": "import os, signal\nos.kill(at['host'], signal.SIGUSR1)",
    "the-host-is-signalled-through-a-handle": """
import os, signal
signal.pidfd_send_signal(os.pidfd_open(at['host']), signal.SIGUSR1)
""",
    "the-host-is-signalled-by-the-c-library": "import ctypes\nctypes.CDLL(None).kill(at['host'], 10)",
    "the-host-is-signalled-thread-by-thread": """
import ctypes
ctypes.CDLL(None).syscall(at['calls']['tgkill'], at['host'], at['host'], 10)
""",
    "the-host-is-signalled-by-a-descriptor": """
import fcntl, os, socket
mine, other = socket.socketpair()
fcntl.fcntl(mine, fcntl.F_SETOWN, at['host'])
fcntl.fcntl(mine, 10, 10)
fcntl.fcntl(mine, fcntl.F_SETFL, fcntl.fcntl(mine, fcntl.F_GETFL) | os.O_ASYNC)
other.send(b'x')
""",
    "another-process-is-killed": "import os\nos.kill(at['canary'], 9)",
    "another-process-is-stopped": "import os, signal\nos.kill(at['canary'], signal.SIGSTOP)",
    "a-group-of-processes-is-killed": "import os\nos.killpg(at['canary'], 9)",
    "another-process-is-slowed-down": "import os\nos.setpriority(os.PRIO_PROCESS, at['canary'], 19)",
    "another-process-is-moved-to-one-processor": "import os\nos.sched_setaffinity(at['canary'], {0})",
    "another-process-loses-its-files": """
import resource
resource.prlimit(at['canary'], resource.RLIMIT_NOFILE, (5, 5))
""",
}

_NETWORK = {
    "a-tcp-connection": "import socket\nsocket.create_connection(('127.0.0.1', at['tcp']), 1)",
    "a-connection-over-ipv6": "import socket\nsocket.create_connection((at['address6'], at['tcp6']), 1)",
    "a-datagram": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'hello', ('127.0.0.1', at['udp']))",
    "a-unix-socket-by-name": "import socket\nsocket.socket(socket.AF_UNIX).connect(at['unix'])",
    "a-unix-datagram-by-name": "import socket\nsocket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'hello', at['unix_datagrams'])",
    "an-abstract-unix-socket": "import socket\nsocket.socket(socket.AF_UNIX).connect('\\0' + at['abstract'])",
    "a-pair-of-datagram-sockets-sends-elsewhere": """
import socket
socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'hello', at['unix_datagrams'])
""",
    "a-web-request": "import urllib.request\nurllib.request.urlopen(f\"http://127.0.0.1:{at['tcp']}\", timeout=0.3)",
    "an-asynchronous-connection": "import asyncio\nawait asyncio.open_connection('127.0.0.1', at['tcp'])",
    "a-connection-by-raw-system-calls": """
import ctypes, struct
c = ctypes.CDLL(None)
fd = c.syscall(at['calls']['socket'], 2, 1, 0)
c.syscall(at['calls']['connect'], fd, struct.pack('=H', 2) + struct.pack('!H', at['tcp']) + bytes([127, 0, 0, 1] + [0] * 8), 16)
""",
    "a-mail-server-is-spoken-to": "import smtplib\nsmtplib.SMTP('127.0.0.1', at['tcp'], timeout=0.3)",
    "a-log-handler-connects": """
import logging, logging.handlers
logging.handlers.SocketHandler('127.0.0.1', at['tcp']).emit(logging.makeLogRecord({}))
""",
}

_NETWORK_ON = {
    "with-the-network-a-unix-socket-is-still-closed": _NETWORK["a-unix-socket-by-name"],
    "with-the-network-an-abstract-socket-is-still-closed": _NETWORK["an-abstract-unix-socket"],
    "with-the-network-a-connected-pair-is-turned-elsewhere": """
import socket
mine = socket.socketpair()[0]
mine.connect(at['unix'])
""",
}

_SOCKETS = {
    "a-port-is-listened-on": """
import socket
listening = socket.socket()
listening.bind(('127.0.0.1', 0))
listening.listen()
print(at['proof'])
""",
    "raw-packets-are-asked-for": "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint(at['proof'])",
    "the-host-of-a-machine-is-asked-for": "import socket\nsocket.socket(40, socket.SOCK_STREAM)\nprint(at['proof'])",
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("proc", "secret", _PROC, control="succeeds", costs="cell"),
    *attacks(
        "proc",
        "claimed",
        {
            "the-kernel-is-tuned": "open('/proc/sys/kernel/core_pattern', 'r+')\nprint(at['proof'])",
            "the-environment-of-the-host-is-read": """
if open(f"/proc/{at['host']}/environ", 'rb').read(1):
    print(at['proof'])
""",
            "the-devices-are-opened": """
import glob
for name in glob.glob('/sys/kernel/*') + glob.glob('/dev/[hmsv]*'):
    print(at['proof'])
""",
            "the-user-list-of-the-machine-is-read": """
if len(open('/etc/passwd').readlines()) > 1:
    print(at['proof'])
""",
        },
        control="as root",
        costs="cell",
    ),
    *attacks(
        "environment",
        "secret",
        {
            "the-environment-is-printed": "import os\nprint(dict(os.environ), os.environb)",
            "the-environment-is-asked-from-c": """
import ctypes
c = ctypes.CDLL(None)
c.getenv.restype = ctypes.c_char_p
print(c.getenv(b'RLM_ATTACKED_KEY'))
""",
            "the-environment-at-start-is-read": """
import ctypes
stack = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), 'environ')
for n in range(50):
    if stack[n] is None:
        break
    print(stack[n])
""",
            "its-own-environment-is-read-through-proc": "print(open('/proc/self/environ').read())",
            "an-expanded-name-tells-it": "import os\nprint(os.path.expandvars('$RLM_ATTACKED_KEY'))",
        },
        costs="cell",
    ),
    *attacks(
        "proc",
        "claimed",
        {"the-memory-of-the-machine-is-opened": "open('/proc/kcore', 'rb').read(1)\nprint(at['proof'])"},
        costs="cell",
    ),
    *attacks("parent", "secret", _MEMORY, control="as root", costs="cell"),
    *attacks("parent", "signalled", _SIGNALS, control="succeeds", costs="cell"),
    *attacks(
        "parent",
        "signalled",
        {
            "everybody-is-killed": "import os\nos.kill(-1, 9)",
            "its-own-group-is-killed": "import os\nos.killpg(0, 9)",
            "low-numbers-are-killed": "import os\nfor pid in range(2, 300):\n    try: os.kill(pid, 9)\n    except OSError: pass",
        },
        costs="session",
    ),
    *attacks(
        "parent",
        "claimed",
        {
            "the-parent-can-be-signalled": """
import os
if os.getppid() > 0:
    os.kill(os.getppid(), 0)
    print(at['proof'])
""",
            "another-process-is-traced": """
import ctypes
c = ctypes.CDLL(None)
if c.ptrace(16, at['canary'], None, None) == 0:
    print(at['proof'])
    c.waitpid(at['canary'], None, 0x40000000)
    c.ptrace(17, at['canary'], None, None)
""",
        },
        control="as root",
        costs="cell",
    ),
    *attacks("network", "reached", _NETWORK, control="succeeds", costs="cell", limits={"wall_seconds": 2}),
    *attacks("network", "reached", _NETWORK_ON, costs="cell", limits={"network": True}),
    *attacks("network", "claimed", _SOCKETS, control="as root", costs="cell"),
)
