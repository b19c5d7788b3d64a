# %% match statements of every kind
from dataclasses import dataclass


@dataclass
class Point:
    x: int
    y: int


@dataclass
class Circle:
    centre: Point
    radius: float = 1


def describe(value):
    match value:
        case None | True | False:
            return "constant"
        case int(n) if n < 0:
            return f"negative {n}"
        case int() | float():
            return "number"
        case str() as text if len(text) > 5:
            return "long text"
        case "go" | "stop" as word:
            return f"command {word}"
        case [] | ():
            return "empty"
        case [x]:
            return f"one {x}"
        case [first, *_, last]:
            return f"from {first} to {last}"
        case {"type": "move", "to": [x, y], **rest}:
            return f"move to {x},{y} with {sorted(rest)}"
        case Point(x=0, y=0):
            return "origin"
        case Point(x, 0) | Point(0, x):
            return f"on an axis at {x}"
        case Circle(Point(x, y), radius=r):
            return f"circle at {x},{y} of {r}"
        case _:
            return "other"


assert [describe(v) for v in (None, -5, 2.5, "a long one", "go", [], [7], (1, 2, 3))] == [
    "constant", "negative -5", "number", "long text", "command go", "empty", "one 7", "from 1 to 3",
]
assert describe({"type": "move", "to": [1, 2], "speed": 3}) == "move to 1,2 with ['speed']"
assert describe(Point(0, 0)) == "origin"
assert describe(Point(0, 4)) == "on an axis at 4"
assert describe(Circle(Point(1, 2), 3)) == "circle at 1,2 of 3"
assert describe(object()) == "other"

# %% match on dotted constants and nested mappings
from enum import Enum


class Op(Enum):
    ADD = "+"
    MUL = "*"


class Limits:
    MAX = 100


def run(command):
    match command:
        case (Op.ADD, *numbers):
            return sum(numbers)
        case (Op.MUL, a, b):
            return a * b
        case {"value": Limits.MAX}:
            return "max"
        case {"user": {"name": str(name), "roles": [*_, "admin"]}}:
            return f"admin {name}"
        case {"user": {"name": name}}:
            return f"user {name}"
        case _:
            return None


assert run((Op.ADD, 1, 2, 3)) == 6
assert run((Op.MUL, 4, 5)) == 20
assert run({"value": 100}) == "max"
assert run({"user": {"name": "ann", "roles": ["dev", "admin"]}}) == "admin ann"
assert run({"user": {"name": "bob"}}) == "user bob"
assert run("?") is None

# %% walrus in comprehensions loops and conditions
import re

lines = ["a=1", "bad", "b=22"]
pairs = {m[1]: int(m[2]) for line in lines if (m := re.match(r"(\w+)=(\d+)$", line))}
total = 0
stream = iter([3, 4, 0, 9])
while (chunk := next(stream)) != 0:
    total += chunk
assert pairs == {"a": 1, "b": 22} and total == 7
assert any((hit := n) % 5 == 0 for n in [3, 10, 7]) and hit == 10
print(f"{(width := 8)} {'x':>{width}}")
squares = [y := 1, y**2, (y := 3) ** 2]
assert squares == [1, 1, 9]

# %% augmented assignment of every target
class Thing:
    count = 0


thing = Thing()
thing.count += 1
thing.count *= 10
values = [1, 2, 3, 4]
values[0] += 5
values[1:3] += [9]
table = {"a": {"b": 1}}
table["a"]["b"] <<= 3
table["a"]["b"] |= 1
n = 17
n //= 2
n **= 2
n %= 10
n ^= 3
n >>= 1
name = "ab"
name += "c"
flags = {1, 2}
flags &= {2, 3}
flags -= {2}
assert (thing.count, values, table) == (10, [6, 2, 3, 9, 4], {"a": {"b": 9}})
assert (n, name, flags) == (3, "abc", set())

# %% try except else finally and chaining
log = []


def risky(value):
    try:
        log.append("try")
        result = 10 / value
    except ZeroDivisionError as error:
        log.append("except")
        raise ValueError("bad value") from error
    except (TypeError, AttributeError):
        return None
    else:
        log.append("else")
        return result
    finally:
        log.append("finally")


assert risky(5) == 2.0
assert risky("x") is None
try:
    risky(0)
except ValueError as error:
    assert type(error.__cause__) is ZeroDivisionError
    assert error.__suppress_context__
    error.add_note("seen")
    assert error.__notes__ == ["seen"]
assert log == ["try", "else", "finally", "try", "finally", "try", "except", "finally"]
try:
    try:
        raise KeyError("a")
    except KeyError:
        raise IndexError("b")
except IndexError as error:
    assert isinstance(error.__context__, KeyError)

# %% exception groups and except star
def fail():
    raise ExceptionGroup("several", [ValueError("a"), TypeError("b"), ExceptionGroup("inner", [ValueError("c")])])


seen = []
try:
    fail()
except* ValueError as group:
    seen.append(sorted(str(e) for e in group.exceptions if not isinstance(e, ExceptionGroup)))
except* TypeError as group:
    seen.append([str(e) for e in group.exceptions])
assert seen == [["a"], ["b"]]

# %% f strings of every form
import datetime

name, value, width = "pi", 3.14159, 10
when = datetime.date(2024, 2, 29)
data = {"key": [1, 2]}
assert f"{name}={value:.2f}" == "pi=3.14"
assert f"{name!r:>{width}}" == "      'pi'"
assert f"{value:{width}.{3}}" == "      3.14"
assert f"{when:%d %B %Y}" == "29 February 2024"
assert f"{data['key'][0]}{{literal}}" == "1{literal}"
assert f"{value=:.1f}" == "value=3.1"
assert f"{name=}" == "name='pi'"
assert f"{'yes' if value > 3 else 'no'}" == "yes"
assert f"{12345678:,} {0.256:.1%} {255:#x} {5:03d} {-7:+}" == "12,345,678 25.6% 0xff 005 -7"
assert f"{(lambda x: x * 2)(4)}" == "8"
assert f"{'a' 'b'}" f"{1}" == "ab1"

# %% comprehensions nested conditional and async free
matrix = [[i * j for j in range(4)] for i in range(3)]
flat = [cell for row in matrix for cell in row if cell % 2 == 0]
lookup = {(i, j): cell for i, row in enumerate(matrix) for j, cell in enumerate(row) if cell}
letters = {char for word in ("abc", "bcd") for char in word}
lazy = (x if x > 2 else -x for x in range(5))
primes = [n for n in range(2, 50) if all(n % d for d in range(2, int(n**0.5) + 1))]
assert flat == [0, 0, 0, 0, 0, 2, 0, 2, 4, 6]
assert lookup[2, 3] == 6 and len(lookup) == 6
assert letters == set("abcd") and sum(lazy) == 4
assert primes[-1] == 47 and len(primes) == 15

# %% slices steps and deletion
items = list(range(10))
del items[::3]
items[1:3] = "xyz"
assert items == [1, "x", "y", "z", 5, 7, 8]
del items[0], items[-1]
data = {"a": 1, "b": 2}
del data["a"]
name = 1
del name
assert "name" not in globals()
assert "abcdef"[-2:0:-2] == "ec"
assert (lambda s: s[slice(1, None, 2)])("abcdef") == "bdf"
assert items[...] if False else True


class Grid:
    def __getitem__(self, key):
        return key


assert Grid()[1:2, ..., ::3] == (slice(1, 2), ..., slice(None, None, 3))

# %% loops with else break and continue
def first_factor(n):
    for d in range(2, n):
        if n % d == 0:
            break
    else:
        return None
    return d


found = []
for outer in range(3):
    for inner in range(3):
        if inner == outer:
            continue
        if inner > 1:
            break
        found.append((outer, inner))
while True:
    found.append("end")
    break
assert first_factor(35) == 5 and first_factor(13) is None
assert found == [(0, 1), (1, 0), (2, 0), (2, 1), "end"]

# %% chained comparisons conditional expressions and boolean logic
x = 5
assert 1 < x <= 5 != 6 > 2
assert not (x < 3 or x > 8) and x is not None
sign = "neg" if x < 0 else "zero" if x == 0 else "pos"
default = None or [] or "fallback"
assert (sign, default) == ("pos", "fallback")
assert (0 and 1) == 0 and (2 and 3) == 3
assert all([]) and not any([])
assert 3 in {1, 2, 3} and 4 not in (1, 2)
assert ~5 == -6 and 6 & 3 == 2 and 6 | 3 == 7 and 6 ^ 3 == 5 and 1 << 4 == 16

# %% decorators stacked and arbitrary expressions
registry = {}


def tag(name):
    def wrap(func):
        func.tags = [*getattr(func, "tags", []), name]
        registry[func.__name__] = func.tags
        return func

    return wrap


decorators = [tag("a"), tag("b")]


@decorators[0]
@decorators[1]
@(lambda f: f)
def decorated():
    return 1


assert decorated() == 1 and registry == {"decorated": ["b", "a"]}


class Button:
    handlers = []

    @classmethod
    def on_click(cls, func):
        cls.handlers.append(func)
        return func


@Button.on_click
def clicked():
    return "click"


assert [h() for h in Button.handlers] == ["click"]

# %% with statements several managers and parentheses
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from io import StringIO

events = []


@contextmanager
def step(name):
    events.append(f"+{name}")
    try:
        yield name.upper()
    finally:
        events.append(f"-{name}")


with (
    step("a") as a,
    step("b") as b,
):
    events.append(a + b)
with ExitStack() as stack:
    names = [stack.enter_context(step(n)) for n in "xy"]
    stack.callback(events.append, "callback")
with suppress(KeyError), closing(StringIO()) as out:
    out.write("hi")
    {}["missing"]
assert out.closed
with nullcontext(5) as five:
    pass
assert events == ["+a", "+b", "AB", "-b", "-a", "+x", "+y", "callback", "-y", "-x"]
assert five == 5

# %% global and nonlocal across three levels
level = "module"


def outer():
    level = "outer"

    def middle():
        nonlocal level
        level += "+middle"

        def inner():
            global level
            level = "changed by inner"

        inner()

    middle()
    return level


assert outer() == "outer+middle"
assert level == "changed by inner"

# %% star expressions in calls returns and index
def spread(*args, **kwargs):
    return args, kwargs


def many():
    rest = (2, 3)
    return 1, *rest


assert many() == (1, 2, 3)
assert spread(*[1], 2, *(3,), a=1, **{"b": 2}) == ((1, 2, 3), {"a": 1, "b": 2})
*init, last = [1, 2, 3]
for head, *tail in [(1, 2, 3), "ab"]:
    pass
assert (init, last, head, tail) == ([1, 2], 3, "a", ["b"])
print(*["a", "b"], sep="-", end="\n")
assert max(*[3, 1], 2) == 3

# %% lambda defaults conditional imports and late definitions
try:
    import tomllib
except ImportError:
    tomllib = None
handlers = {
    "add": lambda a, b=1, *c, d=2, **e: a + b + sum(c) + d + len(e),
    "noop": lambda: None,
}
assert handlers["add"](1) == 4
assert handlers["add"](1, 2, 3, d=4, x=5) == 11
assert handlers["noop"]() is None


def uses_later():
    return defined_later()


def defined_later():
    return "later"


assert uses_later() == "later"
if tomllib:
    assert tomllib.loads("a = 1\n[b]\nc = [1, 2]") == {"a": 1, "b": {"c": [1, 2]}}

# %% assertion messages and custom exceptions hierarchy
class AppError(Exception):
    """Base."""

    code = 1

    def __init__(self, message, **details):
        super().__init__(message)
        self.details = details


class NotFound(AppError):
    code = 404


class Conflict(AppError):
    code = 409


def act(kind):
    errors = {"missing": NotFound, "dup": Conflict}
    raise errors[kind](f"{kind}!", kind=kind)


codes = []
for kind in ("missing", "dup", "other"):
    try:
        act(kind)
    except NotFound as error:
        codes.append(error.code)
    except AppError as error:
        codes.append((error.code, error.details["kind"]))
    except KeyError as error:
        codes.append(error.args[0])
assert codes == [404, (409, "dup"), "other"]
try:
    assert 1 == 2, f"numbers differ: {1} != {2}"
except AssertionError as error:
    assert str(error) == "numbers differ: 1 != 2"
