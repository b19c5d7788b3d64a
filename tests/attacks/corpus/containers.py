"""What has led out of containers before: their engine, their cgroups, their first process, what the kernel is told to run."""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_OUT = {
    "the-engine-is-there-to-be-spoken-to": """
import os
for folder in ('/run', '/var/run', '/run/containerd', '/run/podman'):
    for name in ('docker.sock', 'containerd.sock', 'podman.sock', 'crio.sock', 'dockershim.sock'):
        if os.path.exists(f'{folder}/{name}'):
            print(at['proof'])
""",
    "a-disk-of-the-machine-is-opened": """
import os, stat
for name in os.listdir('/dev'):
    if stat.S_ISBLK(os.stat('/dev/' + name).st_mode):
        print(at['proof'])
""",
    "the-kernel-is-told-what-to-run": """
import glob
for pattern in ('/proc/sys/kernel/core_pattern', '/proc/sys/kernel/modprobe', '/proc/sys/fs/binfmt_misc/register',
                '/proc/sysrq-trigger', '/sys/kernel/uevent_helper', '/sys/power/state', '/sys/fs/cgroup/**/release_agent'):
    for name in glob.glob(pattern):
        try:
            open(name, 'r+')
            print(at['proof'])
        except OSError: pass
""",
    "its-own-limits-are-raised": """
import glob
for name in ('pids.max', 'memory.max', 'memory.limit_in_bytes', 'cpu.max', 'cpu.cfs_quota_us', 'cgroup.procs', 'tasks'):
    for path in glob.glob('/sys/fs/cgroup/**/' + name, recursive=True):
        try:
            open(path, 'r+')
            print(at['proof'])
        except OSError: pass
""",
    "a-group-of-its-own-is-made": """
import glob, os
for folder in glob.glob('/sys/fs/cgroup/*/'):
    try:
        os.mkdir(folder + 'mine')
        print(at['proof'])
    except OSError: pass
""",
    "the-first-process-is-looked-into": """
import os
for name in ('mem', 'environ', 'maps', 'fd/0', 'root/etc', 'cwd/etc', 'stack'):
    try:
        if os.getpid() > 1 and (os.path.exists(f'/proc/1/{name}') and open(f'/proc/1/{name}', 'rb').read(1)):
            print(at['proof'])
    except OSError: pass
""",
    "the-first-process-is-traced": """
import ctypes
if ctypes.CDLL(None).ptrace(0x4206, 1, None, None) == 0:
    print(at['proof'])
""",
    "a-descriptor-of-the-first-process-is-taken": """
import ctypes
c = ctypes.CDLL(None)
if c.syscall(438, c.syscall(434, 1, 0), 0, 0) >= 0:
    print(at['proof'])
""",
    "a-file-is-opened-by-its-number": """
import ctypes, os, struct
handle = ctypes.create_string_buffer(struct.pack('=IiII', 8, 1, 2, 0))
if ctypes.CDLL(None).syscall(at['calls']['open_by_handle_at'], os.open('/', os.O_RDONLY), handle, 0) >= 0:
    print(at['proof'])
""",
    "ciphers-of-the-kernel-are-asked-for": "import socket\nsocket.socket(38, socket.SOCK_SEQPACKET)\nprint(at['proof'])",
    "the-kernel-is-spoken-to-by-messages": "import socket\nsocket.socket(16, socket.SOCK_RAW)\nprint(at['proof'])",
    "what-the-engine-hides-is-uncovered": """
import ctypes
c = ctypes.CDLL(None)
for path in (b'/proc/kcore', b'/proc/keys', b'/sys/firmware'):
    if c.umount2(path, 2) == 0:
        print(at['proof'])
""",
    "its-root-becomes-writable-again": """
import ctypes
if ctypes.CDLL(None).mount(None, b'/', None, ctypes.c_ulong(32), None) == 0:
    print(at['proof'])
""",
    "a-program-of-the-image-makes-it-root": """
import os, subprocess
for folder in ('/usr/bin', '/bin', '/usr/sbin'):
    for entry in os.scandir(folder) if os.path.isdir(folder) else ():
        if entry.is_file() and entry.stat().st_mode & 0o4000:
            subprocess.run([entry.path], stdin=subprocess.DEVNULL, capture_output=True)
if int(next(line for line in open('/proc/self/status') if line.startswith('CapEff')).split()[1], 16):
    print(at['proof'])
""",
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("containers", "claimed", _OUT, project="write", costs="cell"),
    *attacks(
        "containers",
        "claimed",
        {f"with-programs-{name}": code for name, code in list(_OUT.items())[-3:]},
        costs="cell",
        limits={"processes": 4},
    ),
)
