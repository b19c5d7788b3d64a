"""Code that does not stop: what swallows interrupts, what never looks for them, and what goes on afterwards."""

from __future__ import annotations

from tests.attacks.attack import Attack, attacks

_SHORT = {"wall_seconds": 0.1, "grace_seconds": 0.2}

_SWALLOWERS = {
    "everything-is-caught": "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "interrupts-are-ignored": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\nwhile True: pass",
    "interrupts-are-handled-by-a-loop": """
import signal
def again(*rest):
    while True: pass
signal.signal(signal.SIGINT, again)
while True: pass
""",
    "interrupts-are-blocked": "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
    "interrupts-are-waited-for": "import signal\nwhile True:\n    signal.sigwait([signal.SIGINT])",
    "a-last-will-that-loops": "try:\n    while True: pass\nfinally:\n    while True: pass",
    "an-exit-that-loops": """
class Manager:
    def __enter__(self): pass
    def __exit__(self, *rest):
        while True: pass
with Manager():
    while True: pass
""",
    "a-destructor-that-loops": """
class Holder:
    def __del__(self):
        while True:
            try:
                while True: pass
            except BaseException: pass
holder = Holder()
del holder
""",
    "a-task-that-cannot-be-cancelled": """
import asyncio
async def stay():
    while True:
        try:
            await asyncio.sleep(60)
        except BaseException: pass
await stay()
""",
    "a-generator-that-cannot-be-closed": """
def stay():
    while True:
        try:
            while True: yield
        except BaseException: pass
for _ in stay(): pass
""",
    "an-exception-that-loops-when-told": """
class E(BaseException):
    def __str__(self):
        while True:
            try:
                while True: pass
            except BaseException: pass
raise E
""",
    "a-comparison-that-loops": "class V:\n    def __eq__(self, other):\n        while True: pass\n[V()].index(1)",
    "a-trace-that-loops": """
import sys
def watch(*rest):
    while True: pass
sys.settrace(watch)
(lambda: 0)()
""",
    "a-thread-is-waited-for": """
import threading
thread = threading.Thread(target=threading.Event().wait)
thread.start()
while True:
    try:
        thread.join()
    except BaseException: pass
""",
    "a-lock-is-taken-twice": "import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()",
}

_IN_C = {
    "a-sum-without-end": "sum(range(10**13))",
    "a-queue-that-drains-for-ever": "import collections, itertools\ncollections.deque(itertools.count(), maxlen=0)",
    "a-maximum-without-end": "import itertools\nmax(itertools.repeat(1))",
    "a-membership-without-end": "import itertools\n1 in itertools.repeat(2)",
    "a-search-of-many-letters": "('a' * 10**7).count('a' * 5 * 10**6 + 'b' + 'a' * 5)\nwhile True: ('ab' * 10**6).find('ba' * 10**5 + 'a')",
    "a-join-of-many-letters": "import itertools\n'x'.join(itertools.repeat('', 10**12))",
    "all-combinations": "import collections, itertools\ncollections.deque(itertools.product(range(99), repeat=9), maxlen=0)",
    "a-thread-that-keeps-the-interpreter": """
import threading, time
threading.Thread(target=lambda: sum(range(10**13)), daemon=True).start()
time.sleep(0.1)
""",
}

_NUMBERS = {
    "a-power-of-powers": "9 ** 9 ** 9",
    "a-text-of-a-huge-number": "import sys\nsys.set_int_max_str_digits(0)\nstr(7 ** (10**7))",
    "a-number-of-a-huge-text": "import sys\nsys.set_int_max_str_digits(0)\nint('7' * 10**7)",
    "a-huge-factorial": "import math\nmath.factorial(10**8)",
    "a-huge-shift": "1 << (10**12)",
    "a-huge-number-as-value": "1 << (10**7)",
    "a-huge-modular-power": "pow(3, 1 << 10**7, (1 << 10**7) - 1)",
    "a-huge-decimal": "import decimal\ndecimal.getcontext().prec = 10**8\ndecimal.Decimal(2).sqrt()",
    "a-huge-fraction": "import fractions\nx = fractions.Fraction(1, 3)\nfor _ in range(60): x = x * x + 1",
}

_PATTERNS = {
    "nested-repeats": "import re\nre.match('(a+)+$', 'a' * 64 + 'b')",
    "overlapping-alternatives": "import re\nre.match('(a|aa)+$', 'a' * 99 + 'b')",
    "back-references": "import re\nre.match(r'(.*)(.*)(.*)(.*)(.*)\\1\\2x', 'ab' * 3000)",
    "a-pattern-of-many-groups": "import re\nre.compile('(' * 5000 + ')' * 5000)",
    "a-pattern-of-many-repeats": "import re\nre.compile('(?:' * 90 + 'a' + '{1,99})' * 90)",
    "a-replacement-that-grows": "import re\nx = 'a'\nfor _ in range(40): x = re.sub('a', 'a' * 1000, x)",
    "a-split-without-end": "import re\nre.split('(x+x+)+y', 'x' * 5000)",
}

_DEEP = {
    "a-function-without-end": "def f(): f()\nf()",
    "a-function-with-a-high-limit": "import sys\nsys.setrecursionlimit(10**6)\ndef f(n): f(n + 1)\nf(0)",
    "a-list-in-a-list-in-a-list": "deep = []\nfor _ in range(10**5): deep = [deep]\nrepr(deep)",
    "a-list-that-is-let-go": "deep = []\nfor _ in range(10**6): deep = [deep]\ndel deep",
    "json-in-json": "import json\njson.loads('[' * 10**6)",
    "an-expression-in-brackets": "eval('(' * 10**5 + ')' * 10**5)",
    "a-tree-too-deep-to-compile": "import ast\neval('-' * 10**5 + '1')",
    "a-pickle-in-a-pickle": "import pickle\npickle.loads(b'(' * 10**6)",
    "a-type-that-is-its-own-element": "deep = []\ndeep.append(deep)\nhash(tuple(deep)) if False else repr(deep) == deep",
    "a-chain-of-iterators": "chain = iter([1])\nfor _ in range(10**6): chain = map(int, chain)\nnext(chain)",
    "a-text-that-formats-itself": "class F:\n    def __format__(self, spec): return format(self)\nf'{F()}'",
    "a-parameter-list-in-itself": "kind = int\nfor _ in range(10**5): kind = list[kind]\nrepr(kind)",
    "an-attribute-that-asks-itself": "class A:\n    def __getattr__(self, name): return getattr(self, name + 'x')\nA().x",
}

_SOURCES = {
    "source-with-a-null": "x = 1\0\nprint(x)",
    "source-of-half-letters": "x = '\ud800'\nx",
    "source-of-many-brackets": "(" * 5000,
    "source-of-many-signs": "x = " + "-" * 50_000 + "1",
    "source-of-many-lines": "x = 1\n" * 100_000,
    "source-of-one-long-line": "x = [" + "1, " * 200_000 + "]",
    "source-of-many-blocks": "".join(" " * n + "if 1:\n" for n in range(150)) + " " * 150 + "x = 1",
    "source-of-many-decorators": "@str\n" * 20_000 + "def f(): pass",
    "source-of-many-attributes": "x" + ".real" * 50_000,
    "source-of-many-strings": "x = " + "f'{" * 80 + "1" + "}'" * 80,
    "source-in-another-coding": "# coding: utf-7\nx = +AF8AXw-",
    "source-that-folds-into-much": "x = 'a' * 4000 * 4000 * 4000",
    "source-that-folds-into-a-number": "x = 2 ** 100 ** 100 ** 100",
    "source-that-turns-the-reading-direction": "x = '\u202e\u2066# }\u2069'\nx",
    "source-that-ends-in-a-slash": "x = 1 \\",
    "source-that-opens-a-text": "x = '''" + "a" * 1_000_000,
    "source-that-exits-while-it-is-compiled": "\f\v\x1a\x04\x00",
    "source-of-a-million-names": "\n".join(f"name_{n} = {n}" for n in range(30_000)),
    "source-that-yields-at-the-top": "yield 1",
    "source-that-closes-the-cell": "'''\nfinally:\n    pass\n'''\nreturn 5",
}

_BEAT = """
    with open(at['project'] + '/beat', 'a') as file:
        file.write('x')
    time.sleep(0.02)
"""
_ON_A_THREAD = f"""
import threading, time
def beat():
  for _ in range(100):{_BEAT}
threading.Thread(target=beat).start()
time.sleep(0.1)
"""
_IN_A_PROCESS = f"""
import os, time
if os.fork() == 0:
  os.setsid()
  if os.fork() == 0:
    for _ in range(100):{_BEAT.replace(chr(10), chr(10) + "  ")}
    os._exit(0)
  os._exit(0)
time.sleep(0.1)
"""
_ALLOWED = {"processes": 4, "threads": 8, "wall_seconds": 5}

_LEFT = {
    "a-thread-that-outlives-the-session": _ON_A_THREAD,
    "a-thread-with-many-brothers": _ON_A_THREAD.replace(
        "threading.Thread(target=beat).start()", "for _ in range(5): threading.Thread(target=beat).start()"
    ),
    "a-last-deed-at-the-end": f"import atexit, time\n@atexit.register\ndef beat():\n  for _ in range(100):{_BEAT}",
}
_CHILDREN = {
    "a-child-that-outlives-the-session": _IN_A_PROCESS,
    "a-program-that-outlives-the-session": """
import subprocess, time
loop = 'n=0; while [ $n -lt 100 ]; do echo x >> beat; sleep 0.02; n=$((n+1)); done'
subprocess.Popen(['/bin/sh', '-c', loop], cwd=at['project'], start_new_session=True)
time.sleep(0.1)
""",
}

ATTACKS: tuple[Attack, ...] = (
    *attacks("interrupts", "host", _SWALLOWERS, limits=_SHORT),
    *attacks("loops in C", "host", _IN_C, limits=_SHORT),
    *attacks("huge numbers", "host", _NUMBERS, limits=_SHORT),
    *attacks("regular expressions", "host", _PATTERNS, limits=_SHORT),
    *attacks("recursion", "host", _DEEP, limits=_SHORT),
    *attacks("source text", "host", _SOURCES, limits={"wall_seconds": 1}),
    *attacks("outliving", "left", _LEFT, project="write", control="none"),
    *attacks("outliving", "left", _CHILDREN, project="write", limits=_ALLOWED),
    *attacks(
        "outliving",
        "left",
        {"a-child-that-outlives-a-session-which-may-have-none": _IN_A_PROCESS},
        project="write",
        control="succeeds",
    ),
    *attacks(
        "outliving",
        "left",
        {"a-thread-that-works-on-while-nobody-asks": _ON_A_THREAD.replace("range(100)", "range(300)")},
        project="write",
        rest_seconds=0.8,
    ),
    *attacks(
        "outliving",
        "left",
        {"a-child-that-works-on-while-nobody-asks": _IN_A_PROCESS.replace("range(100)", "range(300)")},
        project="write",
        limits=_ALLOWED,
        rest_seconds=0.8,
    ),
)
