"""What the language policy costs: the time of small programs under each policy, as a multiple of plain Python's.

    python scripts/bench/policy_bench.py [rounds]

Each program is compiled once per policy and run in turn with the others, so that a busy machine slows all of them;
the figure is the ratio of the best times.
"""

from __future__ import annotations

import ast
import builtins
import operator
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path[:0] = [str(Path(__file__).parents[2] / layer) for layer in ("sessions", "sandboxes")]

from RestrictedPython import Guards  # noqa: E402
from RestrictedPython.compile import compile_restricted  # noqa: E402
from RestrictedPython.PrintCollector import PrintCollector  # noqa: E402

from rlm_sessions.guest import policy  # noqa: E402

PROGRAMS: dict[str, str] = {
    "names": """
def run():
    total, step = 0, 3
    for i in range(60_000):
        total = total + i * step - (total >> 7)
    return total
""",
    "attributes": """
class Point:
    def __init__(self, x, y):
        self.x = x
        self.y = y
    def norm(self):
        return self.x * self.x + self.y * self.y
points = [Point(i, i + 1) for i in range(200)]
def run():
    total = 0
    for _ in range(40):
        for point in points:
            total = total + point.norm() + point.x
    return total
""",
    "attribute writes": """
class Counter:
    def __init__(self):
        self.count = 0
        self.last = None
counter = Counter()
def run():
    for i in range(20_000):
        counter.count = i
        counter.last = i
    return counter.count
""",
    "private attributes": """
class Stack:
    def __init__(self):
        self._items = []
    def push(self, item):
        self._items.append(item)
    def size(self):
        return len(self._items)
def run():
    stack = Stack()
    for i in range(10_000):
        stack.push(i)
    return stack.size()
""",
    "items": """
grid = [[row * column for column in range(60)] for row in range(60)]
def run():
    total = 0
    for _ in range(5):
        for row in range(60):
            for column in range(60):
                total = total + grid[row][column]
    return total
""",
    "in-place items": """
def run():
    counts = {}
    for i in range(30_000):
        key = i % 97
        counts[key] = counts.get(key, 0)
        counts[key] += i
    return len(counts)
""",
    "closures": """
def make(step):
    total = 0
    def add(value):
        nonlocal total
        total += value * step
        return total
    return add
def run():
    add = make(3)
    for i in range(30_000):
        add(i)
    return add(0)
""",
    "strings": """
words = "the quick brown fox jumps over the lazy dog".split()
def run():
    out = []
    for i in range(4_000):
        word = words[i % len(words)]
        out.append(f"{word.upper()}:{i:05d}" + "{} {}".format(i, word))
    return len(" ".join(out))
""",
    "unpacking": """
pairs = [(i, (i + 1, i + 2)) for i in range(300)]
def run():
    total = 0
    for _ in range(50):
        for a, (b, c) in pairs:
            total += a + b - c
    return total
""",
    "comprehensions": """
def run():
    squares = [i * i for i in range(10_000) if i % 3]
    table = {i: value for i, value in enumerate(squares)}
    return sum(value for value in table.values()) + len({v % 7 for v in squares})
""",
    "generators": """
def numbers(n):
    for i in range(n):
        yield i, i * 2
def run():
    return sum(a + b for a, b in numbers(20_000))
""",
    "sorting": """
rows = [{"id": i, "score": (i * 7919) % 1009} for i in range(2_000)]
def run():
    ranked = sorted(rows, key=lambda row: (-row["score"], row["id"]))
    return ranked[0]["id"]
""",
    "module calls": """
import math
def run():
    total = 0.0
    for i in range(20_000):
        total = total + math.sin(i) * math.pi
    return int(total)
""",
    "exceptions": """
def run():
    failed = 0
    for i in range(10_000):
        try:
            if i % 3 == 0:
                raise ValueError(i)
        except ValueError as error:
            failed += len(error.args)
    return failed
""",
    "matching": """
def kind(value):
    match value:
        case {"type": "a", "n": n}:
            return n
        case [first, *rest]:
            return first
        case str():
            return 0
        case _:
            return -1
values = [{"type": "a", "n": 2}, [1, 2, 3], "x", 5]
def run():
    return sum(kind(values[i % 4]) for i in range(10_000))
""",
}
POLICIES = ("plain", "permissive", "strict", "stock")


class Measured(NamedTuple):
    """The best time of one program under each policy; None where the policy refuses it."""

    program: str
    seconds: dict[str, float | None]

    def ratio(self, name: str) -> float | None:
        """Return the time under a policy as a multiple of plain Python's."""
        plain, seconds = self.seconds["plain"], self.seconds[name]
        return None if plain is None or seconds is None else seconds / plain


def measure(rounds: int = 15) -> list[Measured]:
    """Return the best of so many rounds for every program under every policy."""
    return [Measured(name, _best(source, rounds)) for name, source in PROGRAMS.items()]


def _best(source: str, rounds: int) -> dict[str, float | None]:
    runs = {name: _prepared(source, name) for name in POLICIES}
    best: dict[str, float | None] = dict.fromkeys(POLICIES)
    for _ in range(rounds):
        for name, run in runs.items():
            if run is not None:
                started = time.perf_counter()
                run()
                spent = time.perf_counter() - started
                best[name] = min(best[name] or spent, spent)
    return best


def _prepared(source: str, name: str) -> Callable[[], object] | None:
    module = types.ModuleType("__main__")
    try:
        code = _compiled(source, name, vars(module))
    except SyntaxError:
        return None
    main, sys.modules["__main__"] = sys.modules["__main__"], module
    try:
        exec(code, vars(module))
    finally:
        sys.modules["__main__"] = main
    run: Callable[[], object] = vars(module)["run"]
    return run


def _compiled(source: str, name: str, names: dict[str, Any]) -> Any:
    if name == "stock":
        names.update(_stock_names())
        return compile_restricted(source, f"<{name}>", "exec")
    mode: policy.Mode = "permissive" if name == "permissive" else "strict" if name == "strict" else "off"
    names["__builtins__"] = policy.builtins_for(mode, vars(builtins))
    return compile(policy.check(ast.parse(source), source, f"<{name}>", mode), f"<{name}>", "exec")


def _first(value: Any, *_: Any) -> Any:
    return value


def _in_place(operation: str, left: Any, right: Any) -> Any:
    return left + right if operation == "+=" else left - right if operation == "-=" else left * right


def _stock_names() -> dict[str, Any]:
    """Return the cheapest guards that RestrictedPython's own transformer can be given."""
    return {
        "__builtins__": {
            **vars(Guards)["safe_builtins"],
            **{
                name: getattr(builtins, name)
                for name in ("sum", "sorted", "len", "enumerate", "dict", "list")
            },
            "__import__": __import__,
        },
        "__metaclass__": type,
        "__name__": "__main__",
        "_getattr_": getattr,
        "_getitem_": operator.getitem,
        "_getiter_": iter,
        "_iter_unpack_sequence_": _first,
        "_unpack_sequence_": _first,
        "_write_": _first,
        "_print_": PrintCollector,
        "_inplacevar_": _in_place,
    }


def main() -> None:
    """Print the table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    measured = measure(rounds)
    print(f"{'program':<20}{'plain ms':>10}" + "".join(f"{name:>12}" for name in POLICIES[1:]))
    for row in measured:
        ratios = (row.ratio(name) for name in POLICIES[1:])
        shown = "".join(f"{'refused' if ratio is None else f'{ratio:.2f}x':>12}" for ratio in ratios)
        print(f"{row.program:<20}{(row.seconds['plain'] or 0) * 1000:>10.2f}{shown}")
    print(f"{'geometric mean':<30}" + "".join(f"{_mean(measured, name):>11.2f}x" for name in POLICIES[1:]))


def _mean(measured: list[Measured], name: str) -> float:
    ratios = [ratio for row in measured if (ratio := row.ratio(name)) is not None]
    product = 1.0
    for ratio in ratios:
        product *= ratio
    return product ** (1 / len(ratios)) if ratios else 0.0


if __name__ == "__main__":
    main()
