"""Machine code and raw system calls: whatever Python itself would never ask of the kernel.

Each of these asks for something that the kernel must refuse, so an answer other than a refusal is the effect.
"""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_ASK = """
import ctypes
c = ctypes.CDLL(None, use_errno=True)
if c.syscall({call}) >= 0:
    print(at['proof'])
"""

_CALLS = {
    "a-new-user-namespace-is-asked-for": "at['calls']['unshare'], 0x10000000",
    "another-namespace-is-entered": "at['calls']['setns'], 0, 0",
    "a-child-in-new-namespaces-is-asked-for": "at['calls']['clone'], 0x10000011, None, None, None, None",
    "another-root-is-asked-for": "at['calls']['chroot'], b'/scratch'",
    "a-file-system-is-mounted": "at['calls']['mount'], b'none', b'/scratch', b'tmpfs', 0, None",
    "mounts-are-taken-apart": "at['calls']['umount2'], b'/scratch', 2",
    "a-tree-of-mounts-is-copied": "428, -100, b'/', 1",
    "another-identity-is-taken": "at['calls']['setuid'], 12345",
    "a-file-in-memory-is-made": "at['calls']['memfd_create'], b'x', 0",
    "a-ring-of-requests-is-set-up": "425, 8, ctypes.create_string_buffer(512)",
    "a-handle-of-the-host-is-taken": "434, at['host'], 0",
    "page-faults-are-watched": "at['calls']['userfaultfd'], 1",
    "the-processor-is-watched": "at['calls']['perf_event_open'], ctypes.create_string_buffer(128), 0, -1, -1, 0",
    "a-program-for-the-kernel-is-loaded": "at['calls']['bpf'], 5, ctypes.create_string_buffer(128), 128",
    "the-keys-of-the-kernel-are-listed": "at['calls']['keyctl'], 0, -3, 1",
    "a-key-is-left-in-the-kernel": "at['calls']['add_key'], b'user', b'left', b'x', 1, -4",
    "the-kernel-log-is-read": "at['calls']['syslog'], 10, None, 0",
    "a-queue-between-processes-is-made": "at['calls']['msgget'], 0x5ec, 0o1666",
    "memory-between-processes-is-made": "at['calls']['shmget'], 0x5ec, 4096, 0o1666",
    "another-personality-is-taken": "at['calls']['personality'], 0x0040000",
    "the-host-name-is-changed": "at['calls']['sethostname'], b'owned', 5",
    "the-watcher-of-files-is-started": "at['calls']['fanotify_init'], 0, 0",
    "a-module-is-loaded-into-the-kernel": "at['calls']['finit_module'], 0, b'', 0",
    "a-second-filter-is-installed": "at['calls']['seccomp'], 1, 8, ctypes.create_string_buffer(16)",
    "the-clock-is-set": "at['calls']['clock_settime'], 99, ctypes.create_string_buffer(16)",
}

_PROGRAMS = {
    "a-shell-is-started": "import os\nif os.system('true') == 0:\n    print(at['proof'])",
    "a-program-is-started": "import subprocess\nsubprocess.run(['/bin/true'])\nprint(at['proof'])",
    "a-program-is-spawned": "import os\nos.posix_spawn('/bin/true', ['true'], {})\nprint(at['proof'])",
    "a-program-is-started-from-c": """
import ctypes
if ctypes.CDLL(None).system(b'true') == 0:
    print(at['proof'])
""",
    "a-pipe-to-a-program-is-opened": "import os\nif os.popen('echo hello').read():\n    print(at['proof'])",
    "a-pool-of-processes-is-opened": """
import multiprocessing
multiprocessing.get_context('fork').Process(target=int).start()
print(at['proof'])
""",
    "a-terminal-of-its-own-is-opened": "import os\nos.openpty()\nprint(at['proof'])",
    "a-copy-of-itself-is-made": """
import os
if os.fork() == 0:
    os._exit(0)
print(at['proof'])
""",
    "a-copy-is-made-by-a-raw-call": """
import ctypes, os
pid = ctypes.CDLL(None).syscall(at['calls']['clone'], 17, None, None, None, None)
if pid == 0:
    os._exit(0)
if pid > 0:
    print(at['proof'])
    os.kill(pid, 9)  # it may wait for ever for what another thread held when it was made
""",
    "a-copy-that-shares-memory-is-made": """
import ctypes, os
pid = ctypes.CDLL(None).syscall(435, ctypes.create_string_buffer(bytes(32) + b'\\x11' + bytes(55)), 88)
if pid > 0:
    print(at['proof'])
    os.kill(pid, 9)
""",
}

_OTHER_WAYS_IN = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write({code})
run = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
if run() >= 0:
    print(at['proof'])
"""

ATTACKS: tuple[Attack, ...] = (
    *attacks(
        "machine code",
        "claimed",
        {name: _ASK.format(call=call) for name, call in _CALLS.items()},
        costs="cell",
    ),
    *attacks("processes", "claimed", _PROGRAMS, control="succeeds", costs="cell"),
    *attacks(
        "machine code",
        "claimed",
        {
            # mov eax, 359 (socket, by its old number); int 0x80
            "the-old-way-into-the-kernel-is-taken": _OTHER_WAYS_IN.format(
                code=r"b'\x53\xb8\x67\x01\x00\x00\xbb\x02\x00\x00\x00\xb9\x01\x00\x00\x00\x31\xd2\xcd\x80\x48\x98\x5b\xc3'"
            ),
            "the-numbers-of-another-machine-are-used": _ASK.format(call="0x40000000 + 41, 2, 1, 0"),
        },
        costs="session",
    ),
)
