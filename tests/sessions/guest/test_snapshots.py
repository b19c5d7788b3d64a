"""Snapshots: what comes back in a new session, what does not, and what is said of it."""

from __future__ import annotations

import ast
import base64
import builtins
import collections
import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_sessions.guest import policy, snapshots, states
from rlm_sessions.guest.restoring import Account, restore
from rlm_sessions.guest.snapshots import Snapshots

GUEST = Path(snapshots.__file__).parent
LONG = 1000.0  # seconds that a dump in place is given where its time is not the point


def exit_cell(code: Any = None) -> None:
    """Stand for the session's own `exit`."""


class Snapshot(NamedTuple):
    """What a host has after a dump."""

    manifest: dict[str, Any]
    pickled: bytes
    blobs: dict[str, bytearray]
    records: list[states.Record]

    @property
    def lost(self) -> dict[str, str]:
        """The names of what was left out, and why."""
        return {name: reason for name, _, reason in self.manifest["lost"]}


class Place:
    """A session as `Repl` makes it: the module `__main__`, with the builtins of a mode."""

    def __init__(self, mode: policy.Mode = "off") -> None:
        self.mode: policy.Mode = mode
        self.main = types.ModuleType("__main__")
        sys.modules["__main__"] = self.main
        self.names = vars(self.main)
        offered = {**vars(builtins), "display": exit_cell, "exit": exit_cell}
        self.builtins = policy.builtins_for(mode, offered)
        self.names["__builtins__"] = self.builtins
        self.snapshots = Snapshots(self.names, self.builtins, mode)

    def run(self, code: str) -> None:
        """Run a cell."""
        sys.modules["__main__"] = self.main
        tree = policy.check(ast.parse(code), code, "<cell>", self.mode)
        exec(compile(tree, "<cell>", "exec", dont_inherit=True), self.names)

    def dump(self) -> Snapshot:
        """Make a snapshot as a copy would."""
        sent: list[bytes] = []
        assert self.snapshots.dump(1, sent.append)
        return received(sent)

    def dump_in_place(self, number: int = 1, seconds: float = LONG) -> list[bytes] | None:
        """Make a snapshot in place; None where it needs a copy."""
        sent: list[bytes] = []
        made = self.snapshots.dump(number, sent.append, deadline=time.monotonic() + seconds)
        assert made or not sent
        return sent if made else None

    def take(self, snapshot: Snapshot) -> Account:
        """Restore a snapshot here."""
        blobs = {name: bytearray(data) for name, data in snapshot.blobs.items()}
        manifest = json.loads(json.dumps(snapshot.manifest))
        return restore(self.names, self.builtins, self.mode, manifest, snapshot.pickled, blobs)


def received(sent: list[bytes]) -> Snapshot:
    """Return what a host makes of a stream, as strictly as it would."""
    decoder = states.StateDecoder()
    records = [record for data in sent for record in decoder.feed(data)]
    assert decoder.between
    blobs: dict[str, bytearray] = {}
    current = bytearray()
    digest = hashlib.sha256()
    pickled, manifest = bytearray(), {}
    for record in records:
        if isinstance(record, states.BlobStart):
            current = blobs[record.hash] = bytearray()
        elif isinstance(record, states.Data):
            current += record.data
        elif isinstance(record, states.Pickle):
            pickled += record.data
            digest.update(record.data)
        elif isinstance(record, states.Manifest):
            manifest = record.facts
            digest.update(record.data)
        elif isinstance(record, states.End):
            assert record.digest == digest.digest()
    assert all(hashlib.sha256(data).hexdigest() == name for name, data in blobs.items())
    return Snapshot(manifest, bytes(pickled), blobs, records)


@pytest.fixture(autouse=True)
def no_blocking_calls() -> None:
    """Leave locks and files as they are, which the watch for blocking calls replaces; nothing is async here."""


@pytest.fixture(autouse=True)
def keep_main() -> Iterator[None]:
    """Put the real `__main__` back."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


def moved(code: str, mode: policy.Mode = "off") -> Place:
    """Return a new session that has what a cell made in another one, and lost nothing."""
    old = Place(mode)
    old.run(code)
    snapshot = old.dump()
    new = Place(mode)
    account = new.take(snapshot)
    assert account.lost == [] and account.notes == []
    return new


READER = """
import ast, base64, builtins, json, sys, types
from rlm_guest import policy
from rlm_guest.restoring import restore
job = json.load(sys.stdin)
main = sys.modules["__main__"] = types.ModuleType("__main__")
names = vars(main)
def exit_cell(code=None): pass
own = policy.builtins_for(job["mode"], {**vars(builtins), "display": exit_cell, "exit": exit_cell})
blobs = {name: bytearray(base64.b64decode(data)) for name, data in job["blobs"].items()}
account = restore(names, own, job["mode"], job["manifest"], base64.b64decode(job["pickled"]), blobs)
assert not account.lost and not account.notes, account
tree = policy.check(ast.parse(job["code"]), job["code"], "<check>", job["mode"])
exec(compile(tree, "<check>", "exec", dont_inherit=True), names)
"""


def check_elsewhere(snapshot: Snapshot, code: str, mode: policy.Mode) -> None:
    """Restore a snapshot in a new process and run code there that checks it."""
    job = {
        "mode": mode,
        "manifest": snapshot.manifest,
        "pickled": base64.b64encode(snapshot.pickled).decode(),
        "blobs": {name: base64.b64encode(data).decode() for name, data in snapshot.blobs.items()},
        "code": code,
    }
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "rlm_guest").symlink_to(GUEST)  # as in a sandbox: our package has another name there
        done = read_elsewhere(job, {**os.environ, "PYTHONPATH": folder, "MPLBACKEND": "agg"})
    assert done.returncode == 0, done.stderr


def read_elsewhere(job: dict[str, Any], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the reader in a new process."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", READER],
        input=json.dumps(job),
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


class Case(NamedTuple):
    """Something that a cell makes, and what must hold of it in a new process."""

    made: str
    holds: str


CASES: dict[str, Case] = {
    "two names of one list stay two names of one list": Case("a = b = []", "a.append(1); assert b == [1]"),
    "a list that holds itself comes back so": Case("a = []; a.append(a)", "assert a[0] is a"),
    "a function sees a global that is changed later": Case(
        "K = 10\ndef f(): return K", "assert f() == 10; K = 99; assert f() == 99"
    ),
    "a counter in a global goes on": Case(
        "n = 0\ndef up():\n    global n\n    n += 1\nup()", "up(); assert n == 2"
    ),
    "a method sees a global that is changed later": Case(
        "K = 10\nclass A:\n    def m(self): return K\na = A()", "K = 99; assert a.m() == 99"
    ),
    "functions that share a variable go on sharing it": Case(
        "def make():\n    k = 0\n    def up():\n        nonlocal k\n        k += 1\n    def get(): return k\n"
        "    return up, get\nup, get = make()\nup()",
        "up(); assert get() == 2",
    ),
    "a closure that calls itself comes back": Case(
        "def make():\n    def fac(n): return 1 if n < 2 else n * fac(n - 1)\n    return fac\nfac = make()",
        "assert fac(5) == 120",
    ),
    "a function keeps its defaults, annotations, text and attributes": Case(
        "def f(a: int, b=2, *, c=3) -> str:\n    'text'\n    return a, b, c\nf.mark = [1]",
        "assert f(1) == (1, 2, 3) and f.__doc__ == 'text' and f.mark == [1]\n"
        "assert f.__annotations__ == {'a': int, 'return': str} and f.__module__ == '__main__'",
    ),
    "a lambda in a dict comes back": Case("d = {'f': lambda x: x + 1}", "assert d['f'](1) == 2"),
    "an async function comes back": Case(
        "async def f(): return 3", "import asyncio; assert asyncio.run(f()) == 3"
    ),
    "a generator function that is not under way comes back": Case(
        "def g():\n    yield 1", "assert list(g()) == [1]"
    ),
    "an instance is one of its class": Case(
        "class A:\n    pass\na = A(); a.x = 1", "assert type(a) is A and isinstance(a, A) and a.x == 1"
    ),
    "super() works": Case(
        "class A:\n    def m(self): return [1]\nclass B(A):\n    def m(self): return [*super().m(), 2]\nb = B()",
        "assert b.m() == [1, 2] and B.__mro__[1] is A",
    ),
    "an old instance keeps its old class when the class is defined again": Case(
        "class A:\n    def m(self): return 'old'\na = A()\nclass A:\n    def m(self): return 'new'",
        "assert a.m() == 'old' and A().m() == 'new' and type(a) is not A",
    ),
    "slots come back as slots": Case(
        "class A:\n    __slots__ = ('x', '__y')\n    def __init__(self): self.x = 1; self.__y = 2\n"
        "    def y(self): return self.__y\na = A()",
        "assert a.x == 1 and a.y() == 2 and not hasattr(a, '__dict__')",
    ),
    "properties, class methods and static methods come back": Case(
        "class A:\n    @property\n    def p(self): 'text'; return 1\n    @classmethod\n    def c(cls): return cls\n"
        "    @staticmethod\n    def s(): return 3\n    q = property(lambda self: 4)\na = A()",
        "assert (a.p, a.c(), a.s(), a.q) == (1, A, 3, 4)",
    ),
    "a class within a class comes back": Case(
        "class A:\n    class B:\n        x = 1\nb = A.B()", "assert type(b) is A.B and b.x == 1"
    ),
    "a subclass is not announced to its base a second time": Case(
        "seen = []\nclass A:\n    def __init_subclass__(cls, *, tag): seen.append(tag)\nclass B(A, tag=1): pass",
        "assert seen == [1]\nclass C(A, tag=2): pass\nassert seen == [1, 2]",
    ),
    "a metaclass comes back": Case(
        "class M(type):\n    def __call__(cls, *args): return [super().__call__(*args)]\nclass A(metaclass=M): pass",
        "assert type(A) is M and isinstance(A()[0], A)",
    ),
    "a dataclass is still one": Case(
        "import dataclasses\n@dataclasses.dataclass(order=True)\nclass D:\n    x: int\n"
        "    y: list = dataclasses.field(default_factory=list)\nd = D(1)",
        "assert [f.name for f in dataclasses.fields(d)] == ['x', 'y'] and d == D(1) and d < D(2)\n"
        "assert dataclasses.replace(d, x=3).x == 3 and dataclasses.asdict(d) == {'x': 1, 'y': []}\n"
        "assert dataclasses.fields(D)[0].default is dataclasses.MISSING",
    ),
    "a frozen dataclass with slots is still one": Case(
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\nclass D:\n    x: int = 4\nd = {D(): 1}",
        "assert d[D(4)] == 1\ntry: next(iter(d)).x = 1\nexcept dataclasses.FrozenInstanceError: pass\n"
        "else: raise AssertionError",
    ),
    "members of an enumeration are the same objects": Case(
        "import enum\nclass C(enum.Enum):\n    A = 1\n    B = 'b'\n    ALSO_A = 1\n    def twice(self): return self.value * 2\n"
        "c = C.A; kept = {C.B: [C.A]}",
        "assert c is C.A is C.ALSO_A is C(1) and kept == {C.B: [C.A]} and c.twice() == 2\n"
        "assert list(C) == [C.A, C.B] and C['B'].value == 'b' and repr(c) == '<C.A: 1>'",
    ),
    "an enumeration whose members have attributes comes back": Case(
        "import enum\nclass P(enum.Enum):\n    E = (1, 2)\n    def __init__(self, m, r): self.m = m; self.r = r\np = P.E",
        "assert p is P.E and (p.m, p.r, p.value) == (1, 2, (1, 2))",
    ),
    "flags and numbers that are enumerations come back": Case(
        "import enum\nclass F(enum.Flag):\n    R = enum.auto()\n    W = enum.auto()\nclass I(enum.IntEnum):\n    X = 7\n"
        "f = F.R | F.W; i = I.X",
        "assert f == F.R | F.W and F.R in f and i is I.X and i + 1 == 8",
    ),
    "named tuples come back": Case(
        "import collections, typing\nA = collections.namedtuple('A', 'x y')\nclass B(typing.NamedTuple):\n"
        "    x: int\n    y: int = 2\na = A(1, 2); b = B(1)",
        "assert a == A(1, 2) and a._replace(x=5).x == 5 and b.y == 2 and b._fields == ('x', 'y') and type(b) is B",
    ),
    "an abstract class stays abstract": Case(
        "import abc\nclass A(abc.ABC):\n    @abc.abstractmethod\n    def m(self): ...\nclass B(A):\n    def m(self): return 1\n"
        "class C: pass\nA.register(C)\nb = B()",
        "assert isinstance(b, A) and issubclass(C, A)\ntry: A()\nexcept TypeError: pass\nelse: raise AssertionError",
    ),
    "generic classes, protocols and typed dicts come back": Case(
        "import typing\nT = typing.TypeVar('T', bound=int)\nclass G(typing.Generic[T]):\n    def __init__(self, x): self.x = x\n"
        "class P(typing.Protocol):\n    def m(self): ...\nclass TD(typing.TypedDict):\n    a: int\n"
        "g = G[int](3); N = typing.NewType('N', int); alias = dict[str, typing.Optional[T]]",
        "assert g.x == 3 and isinstance(g, G) and G[T].__args__ == (T,) and T.__bound__ is int\n"
        "assert TD(a=1) == {'a': 1} and N(3) == 3 and alias.__args__[0] is str",
    ),
    "locks that nobody holds come back, also within objects": Case(
        "import threading, queue\nlock = threading.Lock(); r = threading.RLock(); e = threading.Event(); e.set()\n"
        "c = threading.Condition(); s = threading.Semaphore(2); q = queue.Queue(); q.put(1); o = {'lock': lock}\n"
        "l = threading.local(); l.x = 5",
        "assert o['lock'] is lock and lock.acquire(False) and e.is_set() and s.acquire(False) and q.get() == 1\n"
        "with c: pass\nwith r: pass\nassert l.x == 5",
    ),
    "values of the standard library come back": Case(
        "import collections, datetime, decimal, fractions, functools, itertools, operator, pathlib, random, re, uuid, array\n"
        "rng = random.Random(5); rng.random(); pattern = re.compile('a+', re.I); day = datetime.datetime(2020, 1, 2, tzinfo=datetime.timezone.utc)\n"
        "number = decimal.Decimal('1.10'); third = fractions.Fraction(1, 3); path = pathlib.Path('/a/b')\n"
        "queue = collections.deque([1, 2], 3); counter = collections.Counter('aab'); default = collections.defaultdict(lambda: [7])\n"
        "part = functools.partial(int, base=2); ident = uuid.UUID(int=5); ordered = collections.OrderedDict(b=1, a=2)\n"
        "numbers = array.array('d', [1.5]); item = operator.itemgetter(1); expected = random.Random(5); expected.random()\n"
        "whole = range(3); none = ...; chained = collections.ChainMap({'a': 1}); cut = slice(1, 2)",
        "assert rng.random() == expected.random() and pattern.match('AA') and day.year == 2020 and str(number) == '1.10'\n"
        "assert third * 3 == 1 and path.name == 'b' and queue.maxlen == 3 and counter['a'] == 2 and default['x'] == [7]\n"
        "assert part('101') == 5 and ident.int == 5 and list(ordered) == ['b', 'a'] and numbers[0] == 1.5 and item((1, 2)) == 2\n"
        "assert list(whole) == [0, 1, 2] and none is ... and chained['a'] == 1 and cut.stop == 2",
    ),
    "a cached function comes back with an empty cache": Case(
        "import functools\n@functools.lru_cache(maxsize=9)\ndef fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(9)",
        "assert fib.cache_info().currsize == 0 and fib(10) == 55 and fib.cache_info().maxsize == 9 and fib.__name__ == 'fib'",
    ),
    "a decorated function comes back": Case(
        "import functools\ndef twice(f):\n    @functools.wraps(f)\n    def inner(*a): return f(*a) * 2\n    return inner\n"
        "@twice\ndef three(): return 3",
        "assert three() == 6 and three.__name__ == 'three' and three.__wrapped__() == 3",
    ),
    "a single-dispatch function and a cached property come back": Case(
        "import functools\n@functools.singledispatch\ndef f(x): return 'any'\n@f.register(int)\ndef _(x): return 'int'\n"
        "class A:\n    @functools.cached_property\n    def p(self): return [1]\na = A(); a.p",
        "assert f(1) == 'int' and f('') == 'any' and a.p is a.p and A().p == [1]\n"
        "@f.register(str)\ndef g(x): return 'str'\nassert f('') == 'str'",
    ),
    "exceptions of a class with other arguments come back": Case(
        "class E(Exception):\n    def __init__(self, a, b): super().__init__(f'{a}-{b}'); self.a = a\n"
        "try: raise E(1, 2)\nexcept E as problem: kept = problem\ntry: 1 / 0\nexcept Exception as problem: zero = problem\n"
        "missing = FileNotFoundError(2, 'no', 'name')",
        "assert kept.a == 1 and str(kept) == '1-2' and kept.__traceback__ is None and 'zero' in str(zero)\n"
        "assert missing.filename == 'name'",
    ),
    "a weak reference points to what it pointed to": Case(
        "import weakref\nclass A: pass\na = A(); r = weakref.ref(a); s = weakref.WeakSet([a]); v = weakref.WeakValueDictionary(x=a)\n"
        "gone = weakref.ref(A())",
        "assert r() is a and a in s and v['x'] is a and gone() is None",
    ),
    "modules come back by name, also those within packages": Case(
        "import math, xml.etree.ElementTree as ET, os.path as p, importlib, concurrent.futures\nimport xml.dom.minidom",
        "assert math.sqrt(4) == 2 and ET.fromstring('<a/>').tag == 'a' and p.join('a', 'b') and xml.dom.minidom.parseString\n"
        "assert concurrent.futures.ThreadPoolExecutor",
    ),
    "functions and classes of modules come back as those": Case(
        "from math import sqrt\nfrom os.path import join\nfrom collections import OrderedDict as O\nfrom random import choice, random\n"
        "import functools, types\nkinds = [types.FunctionType, type(None), type(...), int, types.ModuleType]",
        "import math, random as r, types\nassert sqrt is math.sqrt and O.__name__ == 'OrderedDict' and choice == r.choice\n"
        "assert random == r.random and kinds == [types.FunctionType, type(None), type(...), int, types.ModuleType]",
    ),
    "what the session offers comes back as the new session's own": Case(
        "g = getattr; d = display; e = [exit]; t = type; w = print; i = __import__",
        "assert g is getattr and d is display and e[0] is exit and t is type and w is print",
    ),
    "views of dicts and of their entries go on showing them": Case(
        "import types\nd = {'a': 1}; k = d.keys(); i = d.items(); v = d.values(); p = types.MappingProxyType(d)",
        "d['b'] = 2; assert list(k) == ['a', 'b'] and list(v) == [1, 2] and ('b', 2) in i and p['b'] == 2",
    ),
    "methods come back bound to the same object": Case(
        "a = []; add = a.append\nclass B:\n    def m(self): return self\nb = B(); m = b.m", "add(1); assert a == [1] and m() is b"
    ),
    "the standard streams come back as the new session's own": Case(
        "import sys, logging\nout = sys.stdout; log = logging.StreamHandler()", "assert out is sys.stdout and log.stream is sys.stderr"
    ),
    "iterators come back where they were": Case("i = iter([1, 2, 3]); next(i)", "assert list(i) == [2, 3]"),
    "a class that says how it is pickled is asked": Case(
        "class A:\n    def __init__(self): self.x = 1; self.f = (i for i in ())\n    def __getstate__(self): return {'x': self.x}\n"
        "    def __setstate__(self, state): self.x = state['x']; self.f = 'restored'\n"
        "class B:\n    def __init__(self, x): self.x = x\n    def __reduce__(self): return B, (self.x,)\na = A(); b = B(4)",
        "assert a.x == 1 and a.f == 'restored' and b.x == 4",
    ),
    "the value shown last comes back": Case("_ = [1]", "assert _ == [1]"),
    "texts that are no UTF-8 come back": Case(
        "s = '\\ud800' * 70000 + '\\ude00\\U0001f600'; t = '\\udcff'",
        "assert s == '\\ud800' * 70000 + '\\ude00\\U0001f600' and t == '\\udcff'",
    ),
    "large bytes that can change can still change": Case(
        "a = bytearray(100_000); b = a; c = bytearray(100_000); d = bytes(100_000)",
        "a[0] = 1; assert b is a and b[0] == 1 and c[0] == 0 and len(c) == 100_000 and d == bytes(100_000); a += b'x'",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["off", "permissive"])
def test_comes_back_in_a_new_process(name: str, mode: policy.Mode) -> None:
    place = Place(mode)
    place.run(CASES[name].made)

    snapshot = place.dump()

    assert snapshot.lost == {}
    check_elsewhere(snapshot, CASES[name].holds, mode)


@pytest.mark.parametrize("name", CASES)
def test_comes_back_from_a_snapshot_of_a_restored_session(name: str) -> None:
    made = Place("permissive")
    made.run(CASES[name].made)
    second = Place("permissive")
    second.take(made.dump())

    third = Place("permissive")
    account = third.take(second.dump())

    assert account.lost == []
    third.run(CASES[name].holds)


NUMPY_CASES: dict[str, Case] = {
    "arrays come back writable, however large": Case(
        "import numpy as np\na = np.arange(100_000.0); b = np.arange(3); c = np.array(['x', None], object); d = np.float32(2)\n"
        "f = np.asfortranarray(np.ones((300, 300))); r = np.zeros(50_000); r.flags.writeable = False",
        "a[0] = b[0] = f[0, 0] = 5; assert a[0] == 5 and a[9] == 9 and c[0] == 'x' and type(d) is np.float32\n"
        "assert f.flags.f_contiguous and not r.flags.writeable",
    ),
    "a view of an array goes on sharing its memory": Case(
        "import numpy as np\na = np.arange(100_000.0); b = a[10:20]; t = a.reshape(100, 1000).T; s = a[::-2]",
        "a[10] = 77; assert b[0] == 77 and t[10, 0] == 77; b[1] = 78; assert a[11] == 78; s[0] = 5; assert a[-1] == 5",
    ),
    "two views of one hidden array go on sharing its memory": Case(
        "import numpy as np\na = np.arange(12).reshape(3, 4); b = a.T; d = np.array(['2020-01-01'], 'M8[D]').reshape(1, 1)",
        "a[0, 1] = 50; assert b[1, 0] == 50 and str(d[0, 0]) == '2020-01-01'",
    ),
    "a small part of a hidden large array comes back as a copy": Case(
        "import numpy as np\nb = np.arange(1_000_000)[5:8]", "assert list(b) == [5, 6, 7] and b.base is None or b.base.nbytes < 1000"
    ),
    "submodules of a package are there again": Case(
        "import numpy\nimport numpy.linalg as la\nfrom numpy.random import default_rng\nrng = default_rng(3)",
        "assert la is numpy.linalg and la.norm([3, 4]) == 5 and 0 <= rng.random() < 1",
    ),
    "pandas frames come back": Case(
        "import pandas as pd\nframe = pd.DataFrame({'a': range(20_000), 'b': ['x', 'y'] * 10_000}); row = frame['a']\n"
        "f = lambda d: d.assign(c=1)",
        "assert frame['a'].sum() == 199990000 and frame['b'][1] == 'y' and row.name == 'a' and 'c' in f(frame)",
    ),
    "polars frames come back": Case(
        "import polars\nframe = polars.DataFrame({'a': list(range(20_000))})", "assert frame['a'].sum() == 199990000"
    ),
    "figures come back": Case(
        "import matplotlib\nmatplotlib.use('agg')\nfrom matplotlib.figure import Figure\nfigure = Figure(); axes = figure.subplots(); axes.plot([1, 2])",
        "assert list(figure.axes[0].lines[0].get_ydata()) == [1, 2] and axes is figure.axes[0]",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", NUMPY_CASES)
def test_what_libraries_make_comes_back_in_a_new_process(name: str) -> None:
    place = Place("permissive")
    place.run(NUMPY_CASES[name].made)

    snapshot = place.dump()

    assert snapshot.lost == {}
    check_elsewhere(snapshot, NUMPY_CASES[name].holds, "permissive")


STRICT = [
    "two names of one list stay two names of one list",
    "a counter in a global goes on",
    "functions that share a variable go on sharing it",
    "super() works",
    "a dataclass is still one",
    "members of an enumeration are the same objects",
    "flags and numbers that are enumerations come back",
    "named tuples come back",
    "an abstract class stays abstract",
    "generic classes, protocols and typed dicts come back",
    "a decorated function comes back",
    "exceptions of a class with other arguments come back",
    "methods come back bound to the same object",
    "texts that are no UTF-8 come back",
    "large bytes that can change can still change",
]


@pytest.mark.parametrize("name", STRICT)
def test_comes_back_in_strict_mode_too(name: str) -> None:
    place = Place("strict")
    place.run(CASES[name].made)

    snapshot = place.dump()

    assert snapshot.lost == {}
    check_elsewhere(snapshot, CASES[name].holds.replace("; i = __import__", ""), "strict")


def test_values_of_the_modules_that_strict_mode_has_come_back() -> None:
    new = moved(
        "import collections, datetime, decimal, re, random, functools, itertools, math\n"
        "c = collections.Counter('aa'); d = datetime.date(2020, 1, 1); n = decimal.Decimal('1.5'); p = re.compile('a')\n"
        "q = collections.deque([1]); dd = collections.defaultdict(list); f = functools.partial(max, 3); s = math.sqrt\n"
        "t = {1, 2}; o = collections.OrderedDict(a=1)\n@functools.total_ordering\nclass T:\n    def __init__(self, x): self.x = x\n"
        "    def __lt__(self, other): return self.x < other.x\nimport asyncio; lock = asyncio.Lock()",
        "strict",
    )

    new.run(
        "assert c['a'] == 2 and d.year == 2020 and n * 2 == 3 and p.match('a') and f(5) == 5 and s(4) == 2"
    )


def test_in_strict_mode_objects_do_not_say_how_they_are_pickled() -> None:
    place = Place("strict")
    exec("class A:\n    def __reduce__(self): return print, ()\na = A(); b = 1", place.names)

    snapshot = place.dump()

    assert snapshot.lost.keys() == {"a"} and "strict" in snapshot.lost["a"]


def test_a_snapshot_in_strict_mode_reads_no_module_that_the_policy_refuses() -> None:
    place = Place("off")
    place.run("import os, subprocess, socket\nf = os.system; g = subprocess.Popen; x = 1; h = subprocess.run")
    new = Place("strict")

    account = new.take(place.dump())

    assert account.restored == ["os", "x"] and not hasattr(new.names["os"], "system")
    assert {name for name, _, _ in account.lost} == {"f", "g", "h", "socket", "subprocess"}


def test_modules_come_back_as_the_views_that_an_import_gives() -> None:
    new = moved("import os, json, dataclasses\nimport os.path as p", "permissive")

    new.run("import os as again, os.path as p2\nassert again is os and p is p2 and not hasattr(os, 'system')")
    assert new.names["os"] is not os


def test_restored_functions_have_the_builtins_of_the_session() -> None:
    new = moved("def f(): return getattr", "permissive")

    assert new.names["f"].__builtins__ is new.builtins
    assert new.names["f"]() is new.builtins["getattr"]


def test_the_session_module_and_its_namespace_come_back_as_the_new_ones() -> None:
    new = moved("import __main__ as m\ng = globals()\nh = {'inner': g}")

    assert new.names["m"] is new.main
    assert new.names["g"] is new.names and new.names["h"]["inner"] is new.names


def test_functions_of_a_namespace_of_its_own_keep_it() -> None:
    new = moved("own = {}\nexec('x = 1\\ndef f(): return x', own)")

    new.run("own['x'] = 5\nassert own['f']() == 5")


def test_a_module_that_a_cell_made_comes_back() -> None:
    new = moved("import types\nm = types.ModuleType('mine'); m.x = [1]\nm.m = m")

    assert new.names["m"].x == [1] and new.names["m"].m is new.names["m"]


def test_names_with_double_underscores_are_left_alone() -> None:
    place = Place()
    place.run("x = 1; __secret__ = 2; __private = 3")

    snapshot = place.dump()

    assert snapshot.manifest["names"] == ["x", "__private"]


# ---- what cannot be kept


LOST = {
    "a generator that is under way": "v = (i for i in range(3))",
    "an open file": "v = open('/dev/null')",
    "a coroutine": "async def f(): pass\nv = f()",
    "an async generator that is under way": "async def f(): yield 1\nv = f()",
    "a thread": "import threading\nv = threading.Thread()",
    "a lock that is held": "import threading\nv = threading.Lock(); v.acquire()",
    "a memoryview": "v = memoryview(b'x')",
    "a network connection": "import socket\nv = socket.socket()",
    "a database connection": "import sqlite3\nv = sqlite3.connect(':memory:')",
    "a running event loop": "import asyncio\nv = asyncio.new_event_loop()",
    "a pool of workers": "import concurrent.futures\nv = concurrent.futures.ThreadPoolExecutor()",
    "the future result of a task": "import concurrent.futures\nv = concurrent.futures.Future()",
    "a traceback": "try: 1 / 0\nexcept Exception as e: v = e.__traceback__",
    "a queue whose items nobody can look at": "import queue\nv = queue.SimpleQueue()",
    "a weak reference": "import weakref\nclass A: pass\na = A(); v = weakref.proxy(a)",
    "TypeError: cannot pickle 're.Match' object": "import re\nv = re.match('a', 'a')",
    "it holds an open file": "v = {'deep': [open('/dev/null')]}",
    "it is nested too deeply": "v = []\nfor _ in range(100_000): v = [v]",
    "ValueError: not me": "class A:\n    def __reduce__(self): raise ValueError('not me')\nv = A()",
    "SystemExit: 3": "class A:\n    def __getstate__(self): raise SystemExit(3)\nv = A()",
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reason", LOST)
def test_what_cannot_be_kept_is_named_and_the_rest_is_kept(reason: str) -> None:
    place = Place()
    place.run("before = shared = [1]")
    place.run(LOST[reason])
    place.run("after = shared")

    snapshot = place.dump()
    new = Place()
    account = new.take(snapshot)

    assert snapshot.lost == {"v": reason}
    assert [entry[0] for entry in account.lost] == ["v"]
    assert new.names["before"] is new.names["after"] and "v" not in new.names
    _clean(place.names.pop("v"))


def _clean(value: Any) -> None:
    """End what a case has opened; take apart what is nested, which would end in a recursion."""
    while type(value) is list and value:
        value = value.pop()
    opened: Any = value["deep"][0] if isinstance(value, dict) else value
    if hasattr(opened, "close"):
        opened.close()


def test_many_variables_that_cannot_be_kept_do_not_take_long() -> None:
    place = Place()
    place.run("kept = 1")
    for number in range(1000):
        place.names[f"bad{number}"] = (x for x in range(3))
    start = time.monotonic()

    snapshot = place.dump()

    assert len(snapshot.lost) == 1000 and snapshot.manifest["names"] == ["kept"]
    assert time.monotonic() - start < 5


def test_the_value_shown_last_is_never_reported_as_lost() -> None:
    place = Place()
    place.run("_ = (i for i in ())\nx = 1")

    snapshot = place.dump()

    assert snapshot.lost == {} and snapshot.manifest["names"] == ["x"]


def test_a_part_of_the_session_itself_is_never_kept_by_value() -> None:
    place = Place("permissive")
    place.names["v"] = place.builtins["getattr"].__self__  # type: ignore[attr-defined]

    assert place.dump().lost == {"v": "a part of the session itself"}


def test_when_nobody_takes_the_snapshot_no_variable_is_blamed() -> None:
    place = Place()
    place.names["text"] = "x" * 100_000

    def send(data: bytes) -> None:
        if data[:1] == b"H":
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        place.snapshots.dump(1, send)


def test_a_hook_that_gives_something_else_each_time_ends_in_a_word_about_it() -> None:
    place = Place()
    place.run(
        "class A:\n    calls = 0\n    def __reduce__(self):\n        A.calls += 1\n"
        "        if A.calls % 2: raise ValueError\n        return A, ()\n"
        "a, b, c, d, e, f, g = [A() for _ in range(7)]"
    )
    sent: list[bytes] = []

    place.snapshots.dump(1, sent.append)

    last = received(sent).records[-1]
    assert isinstance(last, (states.End, states.GivenUp))


# ---- large values


def test_a_large_value_is_sent_once_and_never_again() -> None:
    place = Place()
    text, data = "ä" * 100_000, bytes(range(256)) * 1000
    place.names.update(a=text, b=[text], c=data, d={"x": data})
    assert place.dump_in_place() is None
    first = place.dump()
    digest = next(record.digest for record in first.records if isinstance(record, states.End))

    place.snapshots.kept(
        {"number": 1, "digest": digest.hex(), "hashed": first.manifest["hashed"], "blobs": list(first.blobs)}
    )
    place.names["more"] = 1
    sent = place.dump_in_place(2)

    assert len(first.blobs) == 2 and len(first.pickled) < 1000
    assert sent is not None
    second = received(sent)
    assert second.blobs == {}
    new = Place()
    new.take(second._replace(blobs=first.blobs))
    assert new.names["a"] == text and new.names["b"][0] is new.names["a"] and new.names["d"]["x"] == data


def test_of_a_large_text_that_is_known_nothing_is_read_again() -> None:
    place = Place()
    place.names["text"] = "ä" * 20_000_000
    place.snapshots.scan()
    copy = place.dump()
    digest = next(record.digest for record in copy.records if isinstance(record, states.End))
    place.snapshots.kept(
        {"number": 1, "digest": digest.hex(), "hashed": copy.manifest["hashed"], "blobs": list(copy.blobs)}
    )
    start = time.monotonic()

    sent = place.dump_in_place(2)

    assert sent == [states.same(2, digest)]
    assert time.monotonic() - start < 0.01


def test_nothing_but_a_word_is_sent_when_nothing_has_changed() -> None:
    place = Place()
    place.run(
        "x = [1]; s = {'a', 'b'}\ndef f(a=1): return x\nclass A:\n    __slots__ = ('y',)\na = A(); a.y = 2"
    )
    assert place.dump_in_place(1) is not None

    again = place.dump_in_place(2)
    place.run("x.append(2)")
    changed = place.dump_in_place(3)

    assert again is not None and isinstance(received(again).records[0], states.Same)
    assert changed is not None and isinstance(received(changed).records[0], states.Begin)


def test_a_snapshot_of_a_copy_counts_as_the_last_one_once_it_is_kept() -> None:
    place = Place()
    place.names["text"] = "x" * 100_000
    assert place.dump_in_place(1) is None
    copy = place.dump()
    digest = next(record.digest for record in copy.records if isinstance(record, states.End))
    message = {
        "number": 1,
        "digest": digest.hex(),
        "hashed": copy.manifest["hashed"],
        "blobs": list(copy.blobs),
    }

    place.snapshots.kept(message)

    assert place.dump_in_place(2) == [states.same(2, digest)]


def test_a_late_word_about_a_copy_does_not_make_a_newer_copy_the_same() -> None:
    place = Place()
    place.names["x"] = 1
    place.snapshots.copying(1)
    end = place.dump().records[-1]
    assert isinstance(end, states.End)
    place.names["x"] = 2
    place.snapshots.copying(2)

    place.snapshots.kept({"number": 1, "digest": end.digest.hex(), "hashed": [], "blobs": []})
    place.names["x"] = 1

    third = place.dump_in_place(3)
    assert third is not None and isinstance(received(third).records[0], states.Begin)


def test_a_late_word_about_an_older_snapshot_does_not_make_a_newer_one_the_same() -> None:
    place = Place()
    place.names["x"] = 1
    sent = place.dump_in_place(1)
    assert sent is not None
    end = received(sent).records[-1]
    assert isinstance(end, states.End)
    place.names["x"] = 2
    place.dump_in_place(2)

    place.snapshots.kept({"number": 1, "digest": end.digest.hex(), "hashed": [], "blobs": []})
    place.names["x"] = 1
    third = place.dump_in_place(3)

    assert third is not None and isinstance(received(third).records[0], states.Begin)


def test_a_large_value_that_is_deleted_is_not_kept_alive() -> None:
    place = Place()
    value = bytes(100_000)
    alone = sys.getrefcount(value)
    place.names["text"] = value
    place.dump_in_place()
    assert sys.getrefcount(value) > alone + 1

    del place.names["text"]
    place.dump_in_place()

    assert sys.getrefcount(value) == alone


def test_the_hash_of_a_restored_value_is_known_in_the_new_session() -> None:
    place = Place()
    place.names["text"] = "x" * 100_000
    snapshot = place.dump()
    new = Place()

    restore(
        *(new.names, new.builtins, "off", snapshot.manifest, snapshot.pickled, snapshot.blobs),
        found_large=new.snapshots.recall,
    )
    new.snapshots.known = set(snapshot.blobs)

    assert new.dump_in_place() is not None


def test_a_pickle_that_is_too_large_to_hold_is_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "MOST_GATHERED_BYTES", 10_000)
    place = Place()
    place.names["x"] = list(range(10**6))
    place.names["bad"] = (x for x in range(3))
    place.names["text"] = "y" * 100_000

    snapshot = place.dump()
    new = Place()
    new.take(snapshot)

    assert new.names["x"] == place.names["x"] and new.names["text"] == place.names["text"]
    assert snapshot.lost.keys() == {"bad"}
    assert all(
        len(r.data) <= states.MAX_PIECE_BYTES for r in snapshot.records if isinstance(r, states.Pickle)
    )


# ---- in place


IN_PLACE = {
    "plain values": ("x = [1, {'a': (2, 3.5, None)}, {1}, b'x', 'y', 1j, range(3)]", True),
    "functions, classes and their instances": (
        "import math, enum, collections, dataclasses\nclass A:\n    def m(self): return 1\na = A(); a.x = 1\nf = lambda: a\n"
        "class C(enum.Enum):\n    X = 1\nN = collections.namedtuple('N', 'a'); n = N(1)\n"
        "@dataclasses.dataclass\nclass D:\n    x: int\nd = D(1); q = collections.deque([1])",
        True,
    ),
    "small arrays": ("import numpy\nx = numpy.arange(3); y = x[1:]; z = numpy.float64(2)", True),
    "data frames": ("import pandas\nx = pandas.DataFrame()", False),
    "what is known to be lost": ("x = 1; g = (i for i in ())", True),
    "a class that says how it is pickled": (
        "class A:\n    def __getstate__(self): raise SystemError\na = A()",
        False,
    ),
    "a class that looks at each attribute": (
        "class A:\n    def __getattribute__(self, name): raise SystemError\na = A()",
        False,
    ),
    "a class that makes up attributes": (
        "class A:\n    def __getattr__(self, name): raise SystemError\na = A()",
        False,
    ),
    "a dict that makes up its items": (
        "class A(dict):\n    def items(self): raise SystemError\na = A(x=1)",
        False,
    ),
    "a metaclass": (
        "class M(type):\n    def __hash__(cls): raise SystemError\nclass A(metaclass=M): pass\na = A()",
        False,
    ),
    "a large text whose hash is not known": ("x = 'a' * 70_000", False),
    "much that is small": ("x = list(range(100_000))", False),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_only_what_leaves_no_trace_is_done(name: str) -> None:
    code, possible = IN_PLACE[name]
    place = Place()
    place.run(code)

    assert (place.dump_in_place() is not None) == possible


def test_in_place_and_in_a_copy_the_same_bytes_are_made() -> None:
    place = Place()
    place.run(IN_PLACE["functions, classes and their instances"][0])

    sent = place.dump_in_place()

    assert sent is not None
    assert received(sent).records == place.dump().records


def test_in_place_a_dump_is_given_up_when_its_time_is_over() -> None:
    place = Place()
    place.run("x = [[i] for i in range(5000)]")
    assert place.dump_in_place() is not None

    assert place.dump_in_place(2, seconds=-1) is None


# ---- what is missing or damaged when a snapshot is read


def test_a_variable_that_needs_a_module_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("class Thing:\n    pass\n")
    sys.path.insert(0, str(tmp_path))
    try:
        place = Place()
        place.run(
            "import elsewhere\nt = elsewhere.Thing()\nkept = [1]; both = {'t': [t], 'k': kept}\n"
            "class Sub(elsewhere.Thing):\n    pass\nsub = Sub()\ndef f(): return kept\ng = lambda x=t: x"
        )
        snapshot = place.dump()
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["elsewhere"]
    new = Place()

    account = new.take(snapshot)

    assert sorted(account.restored) == ["f", "kept"]
    assert sorted(entry[0] for entry in account.lost) == ["Sub", "both", "elsewhere", "g", "sub", "t"]
    assert {entry[2] for entry in account.lost} == {
        "it needs the module 'elsewhere', which is not installed here"
    }
    assert new.names["f"]() is new.names["kept"]


def test_code_of_another_python_is_refused_and_the_data_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from rlm_sessions.guest import _reductions

    place = Place()
    place.run("def f(): pass\nclass A:\n    def m(self): pass\na = A(); x = [1]; y = {'x': x}")
    with monkeypatch.context() as patched:
        patched.setattr(_reductions, "MAGIC", 1)
        snapshot = place.dump()
    new = Place()

    account = new.take(snapshot)

    assert account.restored == ["x", "y"] and new.names["y"]["x"] is new.names["x"]
    assert {entry[2] for entry in account.lost} == {"it has code that another version of Python compiled"}


def test_other_versions_are_noted() -> None:
    place = Place()
    place.run("import numpy\nx = numpy.arange(3)")
    snapshot = place.dump()
    assert snapshot.manifest["versions"].keys() == {"numpy"}
    snapshot.manifest["versions"]["numpy"] = "0.1"
    snapshot.manifest["python"] = "3.0.0"

    notes = Place().take(snapshot).notes

    assert notes[0].startswith("made with Python 3.0.0, read with 3.")
    assert notes[1].startswith("made with numpy 0.1, read with ")


@pytest.mark.parametrize("harm", ["gone", "cut"])
def test_a_damaged_blob_costs_only_the_variables_that_hold_it(harm: str) -> None:
    place = Place()
    place.run(
        "import numpy\na = numpy.arange(20_000.0); t = 'x' * 70_000; both = [1, t]; view = a[3:]\n"
        "fine = b'y' * 70_000; array = numpy.ones(20_000)"
    )
    snapshot = place.dump()
    for content in (place.names["a"].tobytes(), place.names["t"].encode()):
        name = hashlib.sha256(content).hexdigest()
        if harm == "gone":
            del snapshot.blobs[name]
        else:
            del snapshot.blobs[name][-1]
    new = Place()

    account = new.take(snapshot)

    assert account.restored == ["numpy", "fine", "array"]
    assert new.names["fine"] == b"y" * 70_000 and new.names["array"].sum() == 20_000
    assert {tuple(entry[::2]) for entry in account.lost} == {
        (name, "its data is damaged") for name in ("a", "t", "both", "view")
    }


MIXED = (
    "import math, enum, collections, dataclasses\na = [1, 2]; b = {'a': a, 'f': 1.5}; t = 'text'; u = (1, 'x')\n"
    "class A:\n    def __init__(self): self.x = [a]\n    def m(self): return self.x\no = A()\ndef f(x=a): return x\n"
    "class C(enum.Enum):\n    X = 1\nc = C.X; d = collections.deque([1, a]); e = {1, 2}; z = None"
)


def test_of_a_pickle_that_is_cut_the_beginning_is_read() -> None:
    place = Place()
    place.run(MIXED)
    snapshot = place.dump()
    names = snapshot.manifest["names"]
    most = 0

    for length in range(0, len(snapshot.pickled), 7):
        new = Place()
        account = new.take(snapshot._replace(pickled=snapshot.pickled[:length]))

        assert account.restored == names[: len(account.restored)]
        assert [entry[0] for entry in account.lost] == names[len(account.restored) :]
        assert len(account.restored) >= most
        most = len(account.restored)
        if "b" in account.restored:
            assert new.names["b"] == {"a": [1, 2], "f": 1.5} and new.names["b"]["a"] is new.names["a"]
        if "o" in account.restored:
            assert new.names["o"].m()[0] is new.names["a"]
    assert most >= len(names) - 1


def test_flipped_bytes_never_raise() -> None:
    place = Place()
    place.run(
        "a = [1, 2]; b = {'a': a, 'f': 1.5}; t = 'text'; u = (1, b'x'); v = {1, 2}; w = frozenset([3]); n = 10**30"
    )
    snapshot = place.dump()
    for at in range(len(snapshot.pickled)):
        for bits in (0x01, 0x80, 0xFF):
            pickled = bytearray(snapshot.pickled)
            pickled[at] ^= bits
            new = Place()

            account = new.take(snapshot._replace(pickled=bytes(pickled)))

            assert set(account.restored) <= new.names.keys()


def test_a_manifest_without_sense_never_raises() -> None:
    place = Place()
    place.run("x = 'a' * 70_000; y = 1")
    snapshot = place.dump()

    nonsenses: list[Any] = [None, 1, "x", [], [1], [[1]], {}, [["str", 1, None]]]
    for nonsense in nonsenses:
        for key in snapshot.manifest:
            account = Place().take(snapshot._replace(manifest={**snapshot.manifest, key: nonsense}))
            assert isinstance(account, Account)
    assert Place().take(snapshot._replace(manifest={})).restored == ["y"]


def test_what_was_lost_before_is_in_the_account_too() -> None:
    place = Place()
    place.run("g = (i for i in ()); x = 1")

    account = Place().take(place.dump())

    assert account == Account(["x"], [["g", "generator", "a generator that is under way"]], [])


def test_a_hook_that_raises_when_it_is_restored_costs_only_its_variable() -> None:
    place = Place()
    place.run(
        "class A:\n    def __init__(self): self.x = 1\n    def __setstate__(self, s): raise SystemExit('no')\n"
        "a = A(); holds = [a]; x = 1"
    )
    new = Place()

    account = new.take(place.dump())

    assert account.restored == ["A", "x"]
    assert [entry[::2] for entry in account.lost] == [["a", "SystemExit: no"], ["holds", "SystemExit: no"]]


# ---- any plain values


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.complex_numbers()
    | st.text(max_size=60)
    | st.text(st.characters(categories=["Cs"]), max_size=40)
    | st.binary(max_size=60)
    | st.binary(max_size=60).map(bytearray)
    | st.frozensets(st.integers(), max_size=3)
)


@st.composite
def namespaces(draw: st.DrawFn) -> dict[str, Any]:
    """Return variables among which lists, dicts, tuples and sets are shared at will."""
    pool: list[Any] = draw(st.lists(leaves, min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 8))):
        picked = [pool[index % len(pool)] for index in draw(st.lists(st.integers(0, 50), max_size=5))]
        kind = draw(st.sampled_from(["list", "self", "tuple", "dict", "set"]))
        made: Any = picked
        if kind == "tuple":
            made = tuple(picked)
        elif kind == "dict":
            made = {f"k{index}": value for index, value in enumerate(picked)}
        elif kind == "set":
            made = {value for value in picked if isinstance(value, (int, str, bytes, float, frozenset))}
        elif picked and kind == "self":
            picked.append(picked)
        pool.append(made)
    names = draw(st.lists(st.integers(0, 50), min_size=1, max_size=8))
    return {f"v{number}": pool[index % len(pool)] for number, index in enumerate(names)}


def spelled(value: Any) -> str:
    """Return the text of a value, in which the items of a set have an order of their own."""
    return f"{{{sorted(map(spelled, value))}}}" if isinstance(value, frozenset) else repr(value)


def is_same(one: Any, other: Any, pairs: dict[int, Any]) -> bool:
    """Return whether two values are equal and share their parts in the same way."""
    if type(one) is not type(other):
        return False
    if id(one) in pairs:
        return pairs[id(one)] is other or isinstance(
            one, (int, float, complex, str, bytes, tuple, frozenset, type(None))
        )
    pairs[id(one)] = other
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(is_same, one, other, [pairs] * len(one)))
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[key], other[key], pairs) for key in one)
    if isinstance(one, (float, complex)):
        return repr(one) == repr(other)
    if isinstance(one, (set, frozenset)):
        return collections.Counter(map(spelled, one)) == collections.Counter(map(spelled, other))
    return bool(one == other)


@settings(deadline=None)
@given(namespaces())
def test_any_plain_values_come_back_as_they_were_shared(values: dict[str, Any]) -> None:
    least = snapshots.LARGE
    snapshots.LARGE = 16
    try:
        place = Place()
        place.names.update(values)
        snapshot = place.dump()
        new = Place()
        account = new.take(snapshot)
    finally:
        snapshots.LARGE = least

    assert account.restored == list(values) and account.lost == []
    restored = {name: new.names[name] for name in values}
    assert is_same(list(values.values()), list(restored.values()), {})
    assert math.isfinite(len(snapshot.pickled))
