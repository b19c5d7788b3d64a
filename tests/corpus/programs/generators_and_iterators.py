# %% pipeline of generators
def read(lines):
    for line in lines:
        yield line.rstrip("\n")


def grep(pattern, lines):
    return (line for line in lines if pattern in line)


def number(lines):
    for n, line in enumerate(lines, 1):
        yield f"{n}: {line}"


source = ["alpha\n", "beta\n", "alphabet\n"]
assert list(number(grep("alpha", read(source)))) == ["1: alpha", "2: alphabet"]

# %% infinite sequences cut with itertools
from itertools import accumulate, chain, count, cycle, dropwhile, islice, takewhile


def fibonacci():
    a, b = 0, 1
    while True:
        yield a
        a, b = b, a + b


def sieve():
    composites = {}
    for n in count(2):
        if n not in composites:
            yield n
            composites[n * n] = [n]
        else:
            for prime in composites.pop(n):
                composites.setdefault(n + prime, []).append(prime)


assert list(islice(fibonacci(), 10)) == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]
assert list(takewhile(lambda p: p < 20, sieve())) == [2, 3, 5, 7, 11, 13, 17, 19]
assert list(accumulate([1, 2, 3, 4], lambda a, b: a * b)) == [1, 2, 6, 24]
assert list(islice(chain("ab", cycle("x")), 5)) == ["a", "b", "x", "x", "x"]
assert list(dropwhile(str.isdigit, "12a3")) == ["a", "3"]

# %% permutations combinations and products
from itertools import combinations, combinations_with_replacement, permutations, product

assert len(list(permutations("abcd", 2))) == 12
assert ["".join(c) for c in combinations("abc", 2)] == ["ab", "ac", "bc"]
assert sum(1 for _ in combinations_with_replacement(range(4), 2)) == 10
dice = [sum(roll) for roll in product(range(1, 7), repeat=2)]
assert dice.count(7) == 6
magic = [
    p
    for p in permutations(range(1, 10))
    if p[0] + p[1] + p[2] == p[3] + p[4] + p[5] == 15 == p[0] + p[4] + p[8] == p[2] + p[4] + p[6]
    and p[0] + p[3] + p[6] == p[1] + p[4] + p[7] == 15
]
assert len(magic) == 8

# %% yield from and recursive traversal
def walk(tree):
    if isinstance(tree, list):
        for branch in tree:
            yield from walk(branch)
    else:
        yield tree


def in_order(node):
    if node:
        left, value, right = node
        yield from in_order(left)
        yield value
        yield from in_order(right)


def delegating():
    result = yield from (x for x in "ab")
    yield result
    returned = yield from inner()
    yield returned


def inner():
    yield "inner"
    return "value of inner"


assert list(walk([1, [2, [3, [4]], 5]])) == [1, 2, 3, 4, 5]
assert list(in_order(((None, 1, None), 2, (None, 3, None)))) == [1, 2, 3]
assert list(delegating()) == ["a", "b", None, "inner", "value of inner"]

# %% batches windows and interleaving
from itertools import islice, tee, zip_longest


def batched(iterable, n):
    it = iter(iterable)
    while batch := list(islice(it, n)):
        yield batch


def windows(iterable, n):
    its = tee(iterable, n)
    for i, it in enumerate(its):
        next(islice(it, i, i), None)
    return zip(*its)


def interleave(*iterables):
    missing = object()
    for group in zip_longest(*iterables, fillvalue=missing):
        yield from (item for item in group if item is not missing)


assert list(batched("abcdefg", 3)) == [["a", "b", "c"], ["d", "e", "f"], ["g"]]
assert list(windows(range(5), 3)) == [(0, 1, 2), (1, 2, 3), (2, 3, 4)]
assert "".join(interleave("abc", "12", "xyz!")) == "a1xb2ycz!"

# %% generator close throw and cleanup
events = []


def resource():
    events.append("open")
    try:
        while True:
            try:
                got = yield
                events.append(got)
            except ValueError as error:
                events.append(f"handled {error}")
    finally:
        events.append("close")


r = resource()
next(r)
r.send("data")
r.throw(ValueError("oops"))
r.close()
assert events == ["open", "data", "handled oops", "close"]
assert list(r) == []

# %% grouping and run length encoding
from itertools import groupby, starmap


def encode(text):
    return [(char, len(list(run))) for char, run in groupby(text)]


def decode(runs):
    return "".join(starmap(lambda char, n: char * n, runs))


assert encode("aaabccd") == [("a", 3), ("b", 1), ("c", 2), ("d", 1)]
assert decode(encode("aaabccd")) == "aaabccd"
assert max(encode("abbbcc"), key=lambda pair: pair[1]) == ("b", 3)

# %% iterators with sentinel and two argument iter
import random
from io import StringIO

rng = random.Random(4)
rolls = list(iter(lambda: rng.randint(1, 6), 6))
assert 6 not in rolls
chunks = list(iter(lambda f=StringIO("abcdefgh"): f.read(3), ""))
assert chunks == ["abc", "def", "gh"]
it = iter([1, 2, 3])
assert next(it) == 1 and list(it) == [2, 3] and next(it, "done") == "done"

# %% coroutine style trampolines
from collections import deque


def task(name, n, out):
    for i in range(n):
        out.append(f"{name}{i}")
        yield


def run(*tasks):
    queue = deque(tasks)
    while queue:
        current = queue.popleft()
        try:
            next(current)
        except StopIteration:
            continue
        queue.append(current)


out = []
run(task("a", 3, out), task("b", 1, out), task("c", 2, out))
assert out == ["a0", "b0", "c0", "a1", "c1", "a2"]

# %% peekable iterator class
class Peekable:
    _empty = object()

    def __init__(self, iterable):
        self._it = iter(iterable)
        self._next = self._empty

    def __iter__(self):
        return self

    def __next__(self):
        if self._next is not self._empty:
            value, self._next = self._next, self._empty
            return value
        return next(self._it)

    def peek(self, default=None):
        if self._next is self._empty:
            self._next = next(self._it, self._empty)
        return default if self._next is self._empty else self._next


p = Peekable([1, 2, 3])
assert p.peek() == 1 and next(p) == 1 and list(p) == [2, 3] and p.peek("end") == "end"
