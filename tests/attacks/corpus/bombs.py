"""Code that takes all there is: memory, disk, descriptors, processes, the host's attention."""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

MIB = 2**20

_MEMORY = {
    "one-huge-block": "x = bytearray(10**12)",
    "many-blocks": "much = []\nwhile True: much.append(bytes(2**20))",
    "a-text-that-doubles": "x = 'x'\nwhile True: x += x",
    "a-list-that-doubles": "x = [0]\nwhile True: x += x",
    "numbers-in-a-mapping": "x = {}\nn = 0\nwhile True:\n    n += 1\n    x[n] = str(n) * 99",
    "memory-that-is-mapped": """
import mmap
held = []
while True:
    held.append(mmap.mmap(-1, 2**24))
    held[-1].write(bytes(2**24))
""",
    "stacks-of-threads": """
import threading
threading.stack_size(2**28)
held = [threading.Thread(target=threading.Event().wait, daemon=True) for _ in range(99)]
for thread in held: thread.start()
""",
    "an-array-of-numbers": "import numpy\nx = [numpy.ones(2**20) for _ in range(10**4)]",
    "unpacked-data": "import zlib\nx = zlib.decompress(zlib.compress(bytes(2**28)))\ny = x * 9",
    "memory-is-locked": "import ctypes\nif ctypes.CDLL(None).mlockall(3) == 0:\n    x = bytearray(10**9)",
    "errors-that-hold-on": """
held = []
def f():
    try:
        held.append(bytes(2**20))
        f()
    except MemoryError:
        f()
f()
""",
}

_DISK = {
    "scratch-is-filled": "import tempfile\nopen(tempfile.gettempdir() + '/f', 'wb').write(bytes(2**25))",
    "scratch-is-filled-with-names": """
import tempfile
for n in range(10**5):
    open(f'{tempfile.gettempdir()}/{n}', 'w').close()
""",
    "scratch-is-filled-with-folders": """
import os, tempfile
os.chdir(tempfile.gettempdir())
for n in range(10**4):
    os.mkdir('d')
    os.chdir('d')
""",
    "a-file-with-a-hole": "import tempfile\nopen(tempfile.gettempdir() + '/f', 'wb').truncate(2**50)",
    "room-is-reserved": "import os, tempfile\nos.posix_fallocate(os.open(tempfile.gettempdir() + '/f', os.O_CREAT | os.O_RDWR), 0, 2**40)",
    "the-root-is-filled": "import os\nfor n in range(10**4):\n    try: open(f'/{n}', 'wb').write(bytes(10**5))\n    except OSError: pass",
    "shared-memory-is-filled": "open('/dev/shm/x', 'wb').write(bytes(2**25))",
    "files-are-opened-and-kept": "held = [open('/dev/null') for _ in range(10**5)]",
    "pipes-are-opened-and-filled": """
import os
held = []
while True:
    reader, writer = os.pipe()
    os.write(writer, bytes(65536))
    held.append((reader, writer))
""",
    "sockets-are-opened-and-filled": """
import socket
held = []
while True:
    pair = socket.socketpair()
    pair[0].setblocking(False)
    try:
        while True: pair[0].send(bytes(65536))
    except BlockingIOError: pass
    held.append(pair)
""",
}

_OUTPUT = {
    "lines-without-end": "while True: print('x' * 100)",
    "letters-without-end": "while True: print('x', end='')",
    "lines-without-end-caught": "while True:\n    try:\n        while True: print('x' * 1000)\n    except BaseException: pass",
    "errors-without-end": "import sys\nwhile True: sys.stderr.write('x' * 100)",
    "one-huge-text": "print('x' * 200_000_000)",
    "bytes-below-python": "import os\nwhile True: os.write(1, bytes(65536))",
    "bytes-below-python-from-a-thread": """
import os, threading
def work():
    while True: os.write(2, bytes(65536))
for _ in range(4): threading.Thread(target=work, daemon=True).start()
while True: pass
""",
    "a-huge-value": "'x' * 200_000_000",
    "a-value-of-very-many-parts": "list(range(5_000_000))",
    "letters-of-four-bytes": "while True: print('\\U0001f600' * 10_000)",
    "half-letters-without-end": "while True: print('\\ud800' * 10_000)",
    "warnings-without-end": "import warnings\nn = 0\nwhile True:\n    n += 1\n    warnings.warn(str(n))",
    "letters-that-steer-a-terminal": "print('\\x1b[2J\\x1b]0;owned\\x07\\r\\x00' * 1000)",
    "prints-from-very-many-threads": """
import threading
def work():
    while True: print('x' * 1000)
for _ in range(30): threading.Thread(target=work, daemon=True).start()
while True: pass
""",
}

_FORKS = {
    "forks-without-end": """
import os
while True:
    try: os.fork()
    except OSError: pass
""",
    "programs-without-end": """
import subprocess
while True:
    try: subprocess.Popen(['/bin/sh', '-c', ':(){ :|:& };:'])
    except OSError: pass
""",
}

_THREADS = {
    "threads-without-end": """
import threading
while True:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
""",
    "threads-that-start-threads": """
import threading
def work():
    while True:
        try: threading.Thread(target=work, daemon=True).start()
        except RuntimeError: pass
work()
""",
    "timers-without-end": "import threading\nwhile True: threading.Timer(60, int).start()",
    "forks-where-none-may-be": _FORKS["forks-without-end"],
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("memory", "host", _MEMORY, limits={"memory_bytes": 96 * MIB, "wall_seconds": 1}),
    *attacks(
        "disk",
        "host",
        _DISK,
        costs="cell",
        limits={"scratch_bytes": 4 * MIB, "file_bytes": 8 * MIB, "open_files": 64, "wall_seconds": 2},
    ),
    *attacks(
        "output",
        "host",
        _OUTPUT,
        limits={"wall_seconds": 0.5, "output_bytes": 200_000, "memory_bytes": 600 * MIB},
    ),
    *attacks("processes", "host", _FORKS, limits={"processes": 8, "threads": 4, "wall_seconds": 0.5}),
    *attacks("processes", "host", _THREADS, limits={"threads": 16, "wall_seconds": 0.5}),
)
