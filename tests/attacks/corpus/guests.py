"""Against the guest and, through it, the host: descriptors, the protocol, calls, hostile objects, crashes."""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_INSIDE = """
import json, os, sys, threading, time
frame = sys._getframe()
while type(frame.f_locals.get('self')).__name__ != '_Guest':
    frame = frame.f_back
guest = frame.f_locals['self']
outlet, wire, variables = guest._outlet, sys.modules['rlm_guest.wire'], sys.modules['rlm_guest.variables']
def made(kind, body=b'', **facts):
    return wire.encode(outlet._token, wire.Frame(kind, facts, body))
def flood(data, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            outlet._send(data)
        except KeyboardInterrupt:
            pass
cell = guest._calls.cell
"""

_DESCRIPTORS = {
    "garbage-is-written-to-every-descriptor": """
import os
for fd in range(300):
    try:
        os.write(fd, b'garbage' * 10)
    except OSError:
        pass
""",
    "the-channel-is-closed": "import os\nos.close(3)",
    "the-channel-is-replaced": "import os\nos.dup2(os.open('/dev/null', os.O_RDWR), 3)",
    "the-channel-is-shut-down": "import socket\nsocket.socket(fileno=3).shutdown(2)",
    "the-channel-is-read-empty": """
import ctypes, threading
def read():
    held = ctypes.create_string_buffer(999)
    for _ in range(100):
        ctypes.CDLL(None).recv(3, held, 999, 0x40)
threading.Thread(target=read, daemon=True).start()
import time
time.sleep(0.1)
""",
    "the-channel-is-copied": """
import os
os.write(os.dup(3), b'garbage')
""",
    "the-channel-is-copied-by-fcntl": "import fcntl, os\nos.write(fcntl.fcntl(3, fcntl.F_DUPFD, 50), b'garbage')",
    "the-channel-is-sent-to-itself": """
import array, os, socket
mine, other = socket.socketpair()
mine.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [3]))])
_, extra, _, _ = other.recvmsg(1, 100)
os.write(array.array('i', extra[0][2][:4])[0], b'garbage')
""",
    "the-channel-is-copied-by-a-handle": """
import ctypes, os
c = ctypes.CDLL(None)
os.write(c.syscall(438, c.syscall(434, os.getpid(), 0), 3, 0), b'garbage')
""",
    "the-channel-no-longer-waits": "import os\nos.set_blocking(3, False)",
    "the-channel-no-longer-waits-by-ioctl": "import array, fcntl\nfcntl.ioctl(3, 0x5421, array.array('i', [1]))",
    "the-channel-is-spoken-to-without-the-secret": """
import ctypes
c = ctypes.CDLL(None)
c.sendto(3, b'garbage', 7, 0, None, 0)
c.send(3, b'garbage', 7, 0)
c.syscall(at['calls']['write'], 3, b'garbage', 7)
c.syscall(at['calls']['sendmsg'], 3, ctypes.create_string_buffer(64), 0)
""",
    "garbage-is-spliced-into-the-channel": """
import os
reader, writer = os.pipe()
os.write(writer, b'garbage')
os.splice(reader, 3, 7) if hasattr(os, 'splice') else os.sendfile(3, reader, None, 7)
""",
    "the-standard-descriptors-are-closed": "import os\nfor fd in (0, 1, 2):\n    os.close(fd)",
    "the-crash-report-is-filled": """
import os
os.set_blocking(4, False)
for _ in range(100):
    os.write(4, b'x' * 4096)
""",
}

_ODD_FRAMES = {
    "a-frame-of-an-unknown-kind": "outlet._send(made('sesame'))",
    "a-frame-named-like-a-method": "outlet._send(made('_end') + made('run') + made('__init__'))",
    "a-frame-for-the-guest": "outlet._send(made('setup', policy='off', environment={}))",
    "a-second-greeting": "outlet._send(made('ready', python='x', policy=5))",
    "a-header-that-is-no-json": "outlet._send(outlet._token + b'\\0\\0\\0\\5' + bytes(4) + b'{[(\\0<')",
    "a-header-that-is-no-pair": "outlet._send(outlet._token + b'\\0\\0\\0\\4' + bytes(4) + b'null')",
    "a-header-nested-without-end": "outlet._send(outlet._token + b'\\0\\3\\0\\0' + bytes(4) + b'[' * 0x30000)",
    "a-number-of-many-digits": "outlet._send(outlet._token + b'\\0\\3\\0\\0' + bytes(4) + b'9' * 0x30000)",
    "a-length-beyond-all-bounds": "outlet._send(outlet._token + b'\\xff' * 8 + b'x' * 100000)",
    "a-body-that-never-comes": "outlet._send(outlet._token + b'\\0\\0\\0\\2' + b'\\1\\xff\\xff\\xff' + b'[]' + b'x' * 9999)",
    "another-token": "outlet._send(os.urandom(16) + made('ran')[16:])",
    "half-a-frame": "outlet._send(made('output', b'x' * 100, cell=cell, stream='out')[:50])",
    "an-output-of-no-cell": "outlet._send(made('output', b'x', cell=-5, stream='out'))",
    "an-output-without-facts": "outlet._send(made('output', b'x'))",
    "an-output-on-an-odd-stream": "outlet._send(made('output', b'x', cell=cell, stream=[1, 2]))",
    "a-picture-of-no-kind": "outlet._send(made('display', b'x', mime={'a': 1}))",
    "a-call-without-a-name": "outlet._send(made('call', b'1', cell=cell, call=1, name=None))",
    "a-call-with-a-huge-number": "outlet._send(made('call', b'1', cell=cell, call=10**30, name='echo'))",
    "a-call-with-a-broken-payload": "outlet._send(made('call', b'\\xff{', cell=cell, call=1, name='echo'))",
    "a-reply-that-nobody-asked-for": "outlet._send(made('reply', b'x', id=12345, form='text'))",
    "a-cell-that-ended-twice": "outlet._send(made('ran', b'{}', cell=cell) * 2)",
    "another-cell-that-ended": "outlet._send(made('ran', b'{}', cell=cell + 1))",
    "an-outcome-that-is-no-mapping": "outlet._send(made('ran', b'[1, 2]', cell=cell))",
    "an-outcome-of-odd-facts": """
told = {'error': {'name': 5, 'message': [], 'traceback': None, 'limit': {}}, 'value': 7, 'exit_code': [], 'changed': 'abc'}
outlet._send(made('ran', json.dumps(told).encode(), cell=cell))
""",
    "an-outcome-with-a-limit-that-is-none": """
told = {'error': {'name': 'x', 'message': 'm', 'traceback': '', 'limit': '__class__'}, 'value': None,
        'exit_code': None, 'changed': [], 'removed': []}
outlet._send(made('ran', json.dumps(told).encode(), cell=cell))
time.sleep(0.1)
""",
    "an-outcome-of-a-million-parts": "outlet._send(made('ran', b'[' + b'[],' * 2_000_000 + b'0]', cell=cell))",
    "variables-that-are-no-list": "variables.describe_all = lambda namespace: (5, 1)",
    "variables-of-odd-kinds": "variables.describe_all = lambda namespace: ([[{}, None, -1, []], 3], 'x')",
    "variables-without-end": "variables.describe_all = lambda namespace: ([['x', 'y', 1, 'z']] * 200_000, 1)",
    "a-value-of-an-odd-form": """
variables.export = lambda value, most: variables.Exported('__class__', b'\\xff\\xfe')
loot = 1
""",
    "a-value-larger-than-asked-for": """
variables.export = lambda value, most: variables.Exported('bytes', bytes(40_000_000))
loot = 1
""",
    "a-problem-of-an-odd-shape": "sys.modules['rlm_guest.errors'].class_name = lambda problem: {'a': 1}\nloot = 1",
}

_FLOODS = {
    "a-flood-of-empty-outputs": "flood(made('output', b'', cell=cell, stream='out') * 1000, 1.5)",
    "a-flood-of-outputs-of-other-cells": "flood(made('output', b'x' * 999, cell=0, stream='out') * 100, 1.5)",
    "a-flood-of-replies": "flood(made('reply', b'', id=10**9) * 1000, 1.5)",
    "a-flood-of-pictures": "flood(made('display', b'x' * 1000, mime='image/png') * 100, 1.5)",
    "a-flood-of-calls-whose-answers-are-not-read": """
guest._take_in = lambda: time.sleep(0.1)
flood(b''.join(made('call', b'1', cell=cell, call=n, name='never') for n in range(1000)), 1.5)
""",
    "a-flood-of-calls-to-be-refused": """
guest._take_in = lambda: time.sleep(0.1)
flood(made('call', b'x' * 17_000_000, cell=cell, call=1, name='never'), 1.5)
""",
}

_CALLS = {
    "very-many-calls-at-once": "call_many([('never', n) for n in range(50_000)])",
    "very-many-calls-that-are-answered": "len(call_many([('echo', n) for n in range(10_000)]))",
    "a-payload-of-very-many-parts": "call_many([('never', [[]] * 1_900_000)] * 12)",
    "a-payload-of-very-many-bytes": "call_many([('never', 'x' * 15_000_000)] * 12)",
    "a-payload-nested-without-end": """
deep = []
for _ in range(900):
    deep = [deep]
call('echo', deep)
""",
    "a-payload-that-is-no-number": "call('echo', [float('nan'), float('inf'), 10 ** 4000])",
    "a-payload-of-half-letters": "call('echo', '\\ud800' * 1000)",
    "a-name-that-is-no-name": "call({'a': 1}, 1)",
    "a-name-of-a-method": "call('__class__', 1)",
    "a-name-of-very-many-letters": "call('x' * 1_000_000, 1)",
    "calls-from-very-many-threads": """
import threading
threads = [threading.Thread(target=call, args=('echo', n)) for n in range(40)]
for thread in threads: thread.start()
for thread in threads: thread.join()
""",
    "calls-that-outlive-their-cell": """
import threading
for n in range(20):
    threading.Thread(target=call, args=('never', n), daemon=True).start()
""",
    "a-large-answer-for-a-cell-that-is-over": """
import threading, time
threading.Thread(target=call, args=('large', 1), daemon=True).start()
time.sleep(0.08)
""",
}

_OBJECTS = {
    "a-message-of-many-bytes": "raise ValueError('x' * 50_000_000)",
    "a-message-that-loops": "class E(Exception):\n    def __str__(self):\n        while True: pass\nraise E",
    "an-exception-without-a-name": """
class M(type):
    __name__ = property(lambda cls: 1 / 0)
class E(Exception, metaclass=M): pass
raise E
""",
    "an-exception-of-a-long-name": "raise type('X' * 300_000, (Exception,), {})",
    "an-exception-with-lying-facts": """
class E(OSError):
    errno = property(lambda self: 1 / 0)
    filename = property(lambda self: 1 / 0)
    __traceback__ = property(lambda self: 1 / 0)
    __cause__ = property(lambda self: self)
raise E
""",
    "an-exception-of-very-many-causes": """
problem = None
for n in range(3000):
    following = ValueError(n)
    following.__cause__ = problem
    problem = following
raise problem
""",
    "an-exception-that-causes-itself": "problem = ValueError()\nproblem.__context__ = problem\nproblem.__cause__ = problem\nraise problem",
    "a-group-of-very-many-exceptions": "raise ExceptionGroup('x', [ValueError(n) for n in range(100_000)])",
    "a-text-that-lies-about-itself": """
class S(str):
    def __len__(self): return 1
    def encode(self, *rest): return 5
    def __getitem__(self, at): return self
class R:
    def __repr__(self): return S('x' * 400_000)
R()
""",
    "an-object-that-is-of-every-class": """
class V:
    __class__ = property(lambda self: str)
    def __getattr__(self, name): return self
    def __call__(self, *rest, **named): return self
loot = V()
loot
""",
    "a-listing-that-loops": "class V:\n    @property\n    def __class__(self):\n        while True: pass\nloot = V()",
    "a-class-that-loops-when-compared": """
class M(type):
    __hash__ = type.__hash__
    def __eq__(self, other):
        while True: pass
class V(metaclass=M): pass
kind = V()
""",
    "a-value-whose-text-loops": "class V:\n    def __repr__(self):\n        while True: pass\nloot = V()",
    "a-value-whose-text-ends-the-process": "import os\nclass V:\n    def __repr__(self):\n        os._exit(3)\nloot = V()",
    "a-value-that-pickles-into-a-call": """
class V:
    def __reduce__(self): return eval, ("open('/proc/self/environ').read()",)
loot = V()
""",
    "a-picture-that-is-none": """
class P:
    def _repr_png_(self): return 'x' * 1000
    def _repr_markdown_(self): return 5
P()
""",
    "a-picture-of-many-bytes": "class P:\n    def _repr_png_(self): return bytes(40_000_000)\nP()",
    "very-many-pictures": "class P:\n    def _repr_png_(self): return b'x' * 100_000\nfor _ in range(5000):\n    display(P())",
    "markdown-of-half-letters": "class P:\n    def _repr_markdown_(self): return '\\ud800'\nP()",
    "names-that-are-no-names": "globals().update({'\\ud800': 1, 'x' * 10_000: 2, '': 3, 'a\\nb': 4})",
    "very-many-names": "globals().update({f'name_{n}': n for n in range(200_000)})",
    "a-name-that-is-not-quite-text": """
class N(str):
    def __hash__(self): return hash('x')
    def __eq__(self, other): return 1 / 0
globals()[N('x')] = 1
""",
    "the-encoder-of-the-guest-is-replaced": "import json\njson.dumps = lambda *rest, **named: 5",
    "the-builtins-are-replaced": "import builtins\nbuiltins.len = builtins.isinstance = builtins.str = lambda *rest: 1 / 0",
    "the-streams-are-replaced": "import sys\nsys.stdout = sys.stderr = sys.stdin = None",
    "the-modules-are-forgotten": "import sys\nsys.modules.clear()",
    "the-main-module-is-replaced": "import sys\nsys.modules['__main__'] = 5",
    "the-names-are-all-forgotten": "globals().clear()",
}

_CRASHES = {
    "a-null-pointer-is-read": "import ctypes\nctypes.string_at(0)",
    "memory-is-overwritten": "import ctypes\nctypes.memset(id(int), 255, 4096)\nint()",
    "the-process-leaves": "import os\nos._exit(0)",
    "the-process-aborts": "import os\nos.abort()",
    "the-process-signals-itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\nos.kill(os.getpid(), signal.SIGKILL)",
    "the-process-stops-itself": "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)\nsignal.raise_signal(signal.SIGSTOP)",
    "an-alarm-goes-off": "import signal, time\nsignal.setitimer(signal.ITIMER_REAL, 0.05)\ntime.sleep(0.2)",
    "code-of-no-sense-is-run": """
exec((lambda: 0).__code__.replace(co_code=bytes(range(256)), co_stacksize=1))
""",
    "data-of-no-sense-is-read-as-code": "import marshal\nexec(marshal.loads(b'c' + bytes(200)))",
    "the-stack-overflows-in-c": """
import sys
sys.setrecursionlimit(10**9)
def f(): f()
f()
""",
    "the-reader-of-the-guest-is-ended": """
import ctypes, threading, time
for thread in threading.enumerate():
    if thread.name == 'reader':
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit))
time.sleep(0.1)
""",
    "every-handler-of-crashes-is-misused": "import faulthandler\nfaulthandler._sigsegv()",
    "crash-reports-are-made-up": "import os\nos.write(4, '\\x1b]0;\\u202e'.encode() * 500)\nos._exit(70)",
}

_INPUT = {
    "an-answer-is-waited-for": "input('password: ')",
    "input-is-read-to-its-end": "import sys\nsys.stdin.read()",
    "the-input-descriptor-is-read": "import os\nprint(os.read(0, 100))",
    "the-input-descriptor-is-opened": "print(open(0).read())",
    "a-password-is-asked-for": "import getpass\ngetpass.getpass()",
    "the-terminal-is-opened": "print(open('/dev/tty').read())",
    "a-debugger-waits": "breakpoint()",
    "help-waits": "help()",
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("descriptors", "session", _DESCRIPTORS, costs="cell"),
    *attacks(
        "descriptors",
        "host",
        {"every-descriptor-is-closed": "import os\nos.closerange(3, 300)"},
        costs="session",
    ),
    *attacks(
        "descriptors",
        "secret",
        {
            "every-descriptor-is-read": """
import os
for fd in [0, 1, 2, *range(4, 300)]:
    try:
        os.set_blocking(fd, False)
        print(os.pread(fd, 9999, 0))
    except OSError:
        pass
""",
            "every-descriptor-is-entered": """
import os
for fd in range(300):
    try:
        print(os.listdir(fd), os.open('secret.txt', os.O_RDONLY, dir_fd=fd))
    except OSError:
        pass
""",
        },
        costs="cell",
    ),
    *attacks("wire", "host", {name: _INSIDE + code for name, code in _ODD_FRAMES.items()}, costs="session"),
    *attacks("wire", "host", {name: _INSIDE + code for name, code in _FLOODS.items()}, costs="session"),
    *attacks(
        "wire",
        "session",
        {
            "a-frame-is-printed": "import os\nprint('\\0' * 16 + '\\0\\0\\0\\2' * 2 + '[]{}')\nos.write(1, b'\\0' * 64)",
            "the-token-is-guessed-on-the-descriptor": """
import os
for _ in range(1000):
    try:
        os.write(3, os.urandom(16) + bytes(8))
    except OSError:
        pass
""",
        },
        costs="nothing",
    ),
    *attacks("calls", "host", _CALLS, costs="cell", limits={"wall_seconds": 1}),
    *attacks("hostile objects", "host", _OBJECTS, costs="session", limits={"memory_bytes": 400 * 2**20}),
    *attacks("crashes", "host", _CRASHES, costs="session"),
    *attacks("standard input", "host", _INPUT, costs="cell"),
)
