# %% argparse with subcommands on a list
import argparse

parser = argparse.ArgumentParser(prog="tool", description="A tool.")
parser.add_argument("-v", "--verbose", action="count", default=0)
sub = parser.add_subparsers(dest="command", required=True)
add = sub.add_parser("add", help="add numbers")
add.add_argument("numbers", nargs="+", type=float)
add.add_argument("--round", type=int, dest="digits")
args = parser.parse_args(["-vv", "add", "1", "2.5", "--round", "1"])
assert (args.verbose, args.command, sum(args.numbers), args.digits) == (2, "add", 3.5, 1)
assert "A tool." in parser.format_help()
try:
    parser.parse_args(["nope"])
except SystemExit as stop:
    assert stop.code == 2

# %% logging to a string
import io
import logging

stream = io.StringIO()
logger = logging.getLogger("corpus.demo")
logger.setLevel(logging.DEBUG)
logger.propagate = False
handler = logging.StreamHandler(stream)
handler.setFormatter(logging.Formatter("%(levelname)s:%(name)s:%(message)s"))
logger.addHandler(handler)
logger.info("started %d jobs", 3)
try:
    1 / 0
except ZeroDivisionError:
    logger.exception("failed")
child = logger.getChild("inner")
child.warning("careful")
logger.removeHandler(handler)
lines = stream.getvalue().splitlines()
assert lines[0] == "INFO:corpus.demo:started 3 jobs"
assert lines[1] == "ERROR:corpus.demo:failed" and lines[-1] == "WARNING:corpus.demo.inner:careful"
assert any("ZeroDivisionError" in line for line in lines)

# %% a small unittest suite run in place
import io
import unittest


def clamp(value, low, high):
    return max(low, min(high, value))


class ClampTest(unittest.TestCase):
    def setUp(self):
        self.low, self.high = 0, 10

    def test_inside(self):
        self.assertEqual(clamp(5, self.low, self.high), 5)

    def test_outside(self):
        for value, expected in ((-1, 0), (99, 10)):
            with self.subTest(value=value):
                self.assertEqual(clamp(value, self.low, self.high), expected)

    def test_error(self):
        with self.assertRaisesRegex(TypeError, "not supported"):
            clamp("x", 0, 1)


suite = unittest.defaultTestLoader.loadTestsFromTestCase(ClampTest)
result = unittest.TextTestRunner(stream=io.StringIO(), verbosity=0).run(suite)
assert result.wasSuccessful() and result.testsRun == 3

# %% doctest examples in a docstring
import doctest


def median(values):
    """Return the middle value.

    >>> median([3, 1, 2])
    2
    >>> median([1, 2, 3, 4])
    2.5
    >>> median([])
    Traceback (most recent call last):
    ...
    ValueError: empty
    """
    if not values:
        raise ValueError("empty")
    ordered = sorted(values)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


tests = doctest.DocTestFinder().find(median, "median", globs={"median": median})
runner = doctest.DocTestRunner(verbose=False)
results = [runner.run(test) for test in tests]
assert sum(r.attempted for r in results) == 3 and sum(r.failed for r in results) == 0

# %% mocks and patches
from unittest import mock


class Service:
    def fetch(self, key):
        raise ConnectionError


def load(service, keys):
    return {key: service.fetch(key) for key in keys}


service = mock.Mock(spec=Service)
service.fetch.side_effect = lambda key: key.upper()
assert load(service, ["a", "b"]) == {"a": "A", "b": "B"}
assert service.fetch.call_count == 2
service.fetch.assert_called_with("b")
with mock.patch.object(Service, "fetch", return_value=1):
    assert Service().fetch("x") == 1
with mock.patch.dict({"a": 1}, {"b": 2}) as patched:
    assert patched == {"a": 1, "b": 2}

# %% copy deep and shallow with hooks
import copy


class Graph:
    def __init__(self):
        self.nodes = {"a": ["b"]}
        self.cache = object()

    def __deepcopy__(self, memo):
        new = type(self)()
        memo[id(self)] = new
        new.nodes = copy.deepcopy(self.nodes, memo)
        new.cache = self.cache
        return new

    def __copy__(self):
        new = type(self)()
        new.nodes = self.nodes
        return new


g = Graph()
deep, shallow = copy.deepcopy(g), copy.copy(g)
g.nodes["a"].append("c")
assert deep.nodes == {"a": ["b"]} and shallow.nodes == {"a": ["b", "c"]}
assert deep.cache is g.cache
loop = [1]
loop.append(loop)
again = copy.deepcopy(loop)
assert again[1] is again and again is not loop

# %% weak references and caches
import gc
import weakref


class Big:
    def __init__(self, name):
        self.name = name


cache = weakref.WeakValueDictionary()
big = cache["a"] = Big("a")
gone = []
ref = weakref.ref(big, lambda r: gone.append(True))
assert ref() is big and "a" in cache
del big
gc.collect()
assert ref() is None and "a" not in cache and gone == [True]

# %% threads with locks and local data
import threading


class Counter:
    def __init__(self):
        self._lock = threading.Lock()
        self.value = 0

    def bump(self, n):
        for _ in range(n):
            with self._lock:
                self.value += 1


counter = Counter()
local = threading.local()
seen = []


def work(name):
    local.name = name
    counter.bump(200)
    seen.append(local.name)


threads = [threading.Thread(target=work, args=(i,), name=f"w{i}") for i in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert counter.value == 800 and sorted(seen) == [0, 1, 2, 3]
assert threading.current_thread() is threading.main_thread()

# %% thread pool map and futures
from concurrent.futures import ThreadPoolExecutor, as_completed, wait


def square(n):
    if n == 3:
        raise ValueError("three")
    return n * n


with ThreadPoolExecutor(max_workers=3) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
    futures = {pool.submit(square, n): n for n in range(5)}
    results, failed = {}, []
    for future in as_completed(futures):
        try:
            results[futures[future]] = future.result()
        except ValueError as error:
            failed.append(str(error))
done, pending = wait(list(futures))
assert results == {0: 0, 1: 1, 2: 4, 4: 16} and failed == ["three"] and not pending

# %% producer and consumer threads
import queue
import threading

jobs = queue.Queue(maxsize=3)
results = []


def consume():
    while True:
        item = jobs.get()
        if item is None:
            jobs.task_done()
            return
        results.append(item * 2)
        jobs.task_done()


worker = threading.Thread(target=consume, daemon=True)
worker.start()
for i in range(5):
    jobs.put(i)
jobs.put(None)
jobs.join()
worker.join(timeout=5)
assert results == [0, 2, 4, 6, 8]
priority = queue.PriorityQueue()
for item in ((3, "c"), (1, "a"), (2, "b")):
    priority.put(item)
assert [priority.get()[1] for _ in range(3)] == ["a", "b", "c"]
try:
    priority.get_nowait()
except queue.Empty:
    pass

# %% operators as functions
import operator
from operator import itemgetter, methodcaller

rows = [{"n": 2, "s": "b"}, {"n": 1, "s": "a"}]
assert sorted(rows, key=itemgetter("n"))[0]["s"] == "a"
assert list(map(methodcaller("upper"), "ab")) == ["A", "B"]
assert list(map(methodcaller("split", ",", maxsplit=1), ["a,b,c"])) == [["a", "b,c"]]
assert operator.attrgetter("real", "imag")(3 + 4j) == (3, 4)
ops = {"+": operator.add, "-": operator.sub, "*": operator.mul, "//": operator.floordiv}


def rpn(text):
    stack = []
    for token in text.split():
        if token in ops:
            b, a = stack.pop(), stack.pop()
            stack.append(ops[token](a, b))
        else:
            stack.append(int(token))
    return stack.pop()


assert rpn("3 4 + 2 * 7 -") == 7
assert operator.itemgetter(1, -1)("abc") == ("b", "c") and operator.contains([1], 1)

# %% warnings caught and raised
import warnings


def old():
    warnings.warn("use new()", DeprecationWarning, stacklevel=2)
    return 1


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    old()
assert [str(w.message) for w in caught] == ["use new()"] and caught[0].category is DeprecationWarning
with warnings.catch_warnings():
    warnings.simplefilter("error")
    try:
        old()
    except DeprecationWarning as error:
        assert str(error) == "use new()"

# %% tracebacks as text
import sys
import traceback


def inner():
    raise ValueError("deep")


def outer():
    try:
        inner()
    except ValueError as error:
        raise RuntimeError("outer") from error


try:
    outer()
except RuntimeError as error:
    text = traceback.format_exc()
    kind, value, trace = sys.exc_info()
    lines = traceback.format_exception(error)
    assert kind is RuntimeError and value is error and trace.tb_lineno > 0
assert "direct cause" in text and text.rstrip().endswith("RuntimeError: outer")
assert "".join(lines).count("ValueError: deep") == 1
assert traceback.format_exception_only(KeyError("x")) == ["KeyError: 'x'\n"]

# %% introspection of functions and classes
import inspect


class Sample:
    """A sample."""

    limit = 3

    def method(self, a, b: int = 2, *args, key=None) -> str:
        """Do it."""
        return str(a)


signature = inspect.signature(Sample.method)
assert list(signature.parameters) == ["self", "a", "b", "args", "key"]
assert signature.parameters["b"].default == 2 and signature.return_annotation is str
assert inspect.getdoc(Sample) == "A sample." and inspect.isclass(Sample)
names = [name for name, _ in inspect.getmembers(Sample, inspect.isfunction)]
assert names == ["method"] and callable(Sample().method)
bound = signature.bind(None, 1, key="x")
bound.apply_defaults()
assert bound.arguments["b"] == 2 and bound.arguments["args"] == ()
assert not inspect.iscoroutinefunction(Sample.method) and inspect.isgenerator(x for x in ())

# %% sqlite in memory
import sqlite3

db = sqlite3.connect(":memory:")
db.row_factory = sqlite3.Row
db.executescript("create table t (id integer primary key, name text, score real);")
with db:
    db.executemany("insert into t (name, score) values (?, ?)", [("a", 1.5), ("b", 2.5), ("c", None)])
rows = db.execute("select name, score from t where score > :low order by score desc", {"low": 1}).fetchall()
assert [tuple(row) for row in rows] == [("b", 2.5), ("a", 1.5)]
assert db.execute("select count(*) as n, avg(score) from t").fetchone()["n"] == 3
db.create_function("twice", 1, lambda x: None if x is None else x * 2)
assert db.execute("select twice(score) from t where name = 'a'").fetchone()[0] == 3.0
try:
    db.execute("select * from missing")
except sqlite3.OperationalError as error:
    assert "no such table" in str(error)
db.close()

# %% ast walking and literal evaluation
import ast

source = "def f(x):\n    return x + g(1)\n\ntotal = f(2) * 3\n"
tree = ast.parse(source)
calls = sorted({node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call)})
assert calls == ["f", "g"]


class Rename(ast.NodeTransformer):
    def visit_Name(self, node):
        node.id = node.id.upper()
        return node


class Functions(ast.NodeVisitor):
    def __init__(self):
        self.found = []

    def visit_FunctionDef(self, node):
        self.found.append((node.name, [a.arg for a in node.args.args]))
        self.generic_visit(node)


visitor = Functions()
visitor.visit(tree)
assert visitor.found == [("f", ["x"])]
assert ast.unparse(Rename().visit(ast.parse("a + b"))) == "A + B"
assert ast.literal_eval("{'a': [1, (2, None)], 'b': True}") == {"a": [1, (2, None)], "b": True}
assert ast.unparse(ast.parse("1+2")) == "1 + 2"
try:
    ast.literal_eval("__import__('os')")
except ValueError:
    pass

# %% evaluating expressions from text
namespace = {"x": 3, "__builtins__": {}}
assert eval("x * 2 + 1", namespace) == 7
try:
    eval("len([1])", namespace)
except NameError as error:
    assert "len" in str(error)
scope = {}
exec("def f(n):\n    return n + 1\n\nvalue = f(41)", scope)
assert scope["value"] == 42 and scope["f"](1) == 2
y = 10
assert eval("y + 1") == 11
exec("y += 5")
assert y == 15
results = [eval(text, {"a": 2}) for text in ("a**3", "[i for i in range(a)]", "(lambda q: q + a)(1)")]
assert results == [8, [0, 1], 3]

# %% timing small pieces of code
import timeit

assert timeit.timeit("sum(range(10))", number=10) > 0
assert timeit.timeit(lambda: [i * i for i in range(10)], number=5) > 0
timer = timeit.Timer("total += n", setup="total, n = 0, 3")
assert len(timer.repeat(repeat=2, number=5)) == 2
data = list(range(100))
assert timeit.timeit("sorted(data)", globals=globals(), number=3) > 0

# %% context variables and caches on methods
from contextvars import ContextVar, copy_context
from functools import cached_property, lru_cache

user = ContextVar("user", default="nobody")


def who():
    return user.get()


token = user.set("ann")
context = copy_context()
user.reset(token)
assert who() == "nobody" and context.run(who) == "ann"


class Data:
    def __init__(self, values):
        self.values = values
        self.computed = 0

    @cached_property
    def total(self):
        self.computed += 1
        return sum(self.values)

    @staticmethod
    @lru_cache
    def power(n):
        return 2**n


d = Data([1, 2, 3])
assert d.total == d.total == 6 and d.computed == 1
del d.total
assert d.total == 6 and d.computed == 2 and Data.power(10) == 1024

# %% simple namespaces and mapping proxies
from types import MappingProxyType, SimpleNamespace

config = SimpleNamespace(host="h", port=1)
config.port += 1
config.debug = True
assert vars(config) == {"host": "h", "port": 2, "debug": True}
assert repr(SimpleNamespace(a=1)) == "namespace(a=1)"
frozen = MappingProxyType({"a": 1})
try:
    frozen["b"] = 2
except TypeError as error:
    assert "does not support item assignment" in str(error)
assert {**frozen, "b": 2} == {"a": 1, "b": 2}

# %% system facts
import os
import platform
import sys

assert sys.version_info >= (3, 9) and sys.byteorder in ("little", "big")
assert sys.getsizeof([]) > 0 and sys.getrecursionlimit() >= 100
assert os.sep in os.path.join("a", "b") and os.linesep and os.name in ("posix", "nt")
assert (os.cpu_count() or 1) >= 1 and isinstance(os.getpid(), int)
assert platform.python_version().startswith(f"{sys.version_info.major}.")
assert os.environ.get("NO_SUCH_VARIABLE") is None
limit = sys.getrecursionlimit()
sys.setrecursionlimit(limit + 10)
sys.setrecursionlimit(limit)

# %% capturing printed output
import contextlib
import io
import sys

buffer = io.StringIO()
with contextlib.redirect_stdout(buffer):
    print("captured")
    sys.stdout.write("too\n")
assert buffer.getvalue() == "captured\ntoo\n"
before, sys.stdout = sys.stdout, io.StringIO()
try:
    print("swapped")
    text = sys.stdout.getvalue()
finally:
    sys.stdout = before
assert text == "swapped\n"
print("to the error stream", file=sys.stderr)
