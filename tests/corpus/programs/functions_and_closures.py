# %% counter closure with nonlocal
def make_counter(start=0, *, step=1):
    count = start

    def bump(by=None):
        nonlocal count
        count += step if by is None else by
        return count

    def reset():
        nonlocal count
        count = start

    bump.reset = reset
    return bump


counter = make_counter(10, step=5)
assert counter() == 15 and counter(1) == 16
counter.reset()
assert counter() == 15

# %% decorator with arguments and functools wraps
import functools
import time


def retry(times, *, exceptions=(Exception,), delay=0):
    def decorate(func):
        @functools.wraps(func)
        def wrapper(*args, **kwargs):
            wrapper.calls += 1
            last = None
            for attempt in range(1, times + 1):
                try:
                    return func(*args, **kwargs)
                except exceptions as error:
                    last = error
                    time.sleep(delay)
            raise RuntimeError(f"{func.__name__} failed {times} times") from last

        wrapper.calls = 0
        return wrapper

    return decorate


attempts = []


@retry(3, exceptions=(ValueError,))
def flaky(limit):
    """Fails until it was called often enough."""
    attempts.append(limit)
    if len(attempts) < limit:
        raise ValueError("not yet")
    return len(attempts)


assert flaky(2) == 2
assert flaky.__name__ == "flaky" and flaky.__doc__.startswith("Fails")
assert flaky.__wrapped__ is not flaky
assert flaky.calls == 1
try:
    flaky(99)
except RuntimeError as error:
    assert isinstance(error.__cause__, ValueError)
    assert str(error) == "flaky failed 3 times"

# %% memoise by hand and by lru cache
from functools import cache, lru_cache


def memoise(func):
    table = {}

    def wrapper(*args):
        if args not in table:
            table[args] = func(*args)
        return table[args]

    wrapper.table = table
    return wrapper


@memoise
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)


@lru_cache(maxsize=32)
def slow_square(n):
    return n * n


@cache
def binomial(n, k):
    return 1 if k in (0, n) else binomial(n - 1, k - 1) + binomial(n - 1, k)


assert fib(60) == 1548008755920 and len(fib.table) == 61
assert [slow_square(i) for i in (2, 3, 2)] == [4, 9, 4]
assert slow_square.cache_info().hits == 1
slow_square.cache_clear()
assert slow_square.cache_info().currsize == 0
assert binomial(20, 10) == 184756

# %% positional only keyword only and star arguments
def describe(name, /, kind="thing", *extra, sep=", ", **options):
    parts = [f"{name} is a {kind}", *map(str, extra)]
    parts += [f"{key}={value!r}" for key, value in sorted(options.items())]
    return sep.join(parts)


assert describe("rex") == "rex is a thing"
assert describe("rex", "dog", 1, 2, age=3) == "rex is a dog, 1, 2, age=3"
assert describe("rex", name="shadow", sep="; ") == "rex is a thing; name='shadow'"
arguments = {"kind": "cat", "color": "grey"}
assert describe(*["tom"], **arguments) == "tom is a cat, color='grey'"
try:
    describe()
except TypeError as error:
    assert "missing 1 required positional argument: 'name'" in str(error)

# %% compose and partial
from functools import partial, reduce
from operator import add, mul


def compose(*functions):
    return reduce(lambda f, g: lambda x: f(g(x)), functions, lambda x: x)


double = partial(mul, 2)
increment = partial(add, 1)
assert compose(double, increment)(5) == 12
assert compose()(5) == 5
assert reduce(mul, range(1, 6), 1) == 120
power = partial(pow, exp=2)
assert list(map(power, range(4))) == [0, 1, 4, 9]

# %% default arguments late binding and lambdas in loops
callbacks = [lambda x, factor=factor: x * factor for factor in (1, 2, 3)]
late = [lambda: factor for factor in (1, 2, 3)]
assert [f(10) for f in callbacks] == [10, 20, 30]
assert [f() for f in late] == [3, 3, 3]


def append_to(item, target=None):
    target = [] if target is None else target
    target.append(item)
    return target


assert append_to(1) == [1] and append_to(2) == [2]

# %% single dispatch on type
from functools import singledispatch


@singledispatch
def to_json(value):
    raise TypeError(f"cannot convert {type(value).__name__}")


@to_json.register
def _(value: str):
    return '"' + value.replace('"', '\\"') + '"'


@to_json.register(int)
@to_json.register(float)
def _number(value):
    return repr(value)


@to_json.register
def _(value: list):
    return "[" + ",".join(map(to_json, value)) + "]"


@to_json.register
def _(value: dict):
    return "{" + ",".join(f"{to_json(k)}:{to_json(v)}" for k, v in value.items()) + "}"


to_json.register(type(None), lambda value: "null")
assert to_json({"a": [1, 2.5, "x"], "b": None}) == '{"a":[1,2.5,"x"],"b":null}'
try:
    to_json(object())
except TypeError as error:
    assert str(error) == "cannot convert object"

# %% recursion with accumulators and mutual recursion
def hanoi(n, source="A", target="C", spare="B"):
    if n == 0:
        return []
    return [*hanoi(n - 1, source, spare, target), (source, target), *hanoi(n - 1, spare, target, source)]


def is_even(n):
    return True if n == 0 else is_odd(n - 1)


def is_odd(n):
    return False if n == 0 else is_even(n - 1)


assert len(hanoi(5)) == 31
assert hanoi(2) == [("A", "B"), ("A", "C"), ("B", "C")]
assert is_even(10) and is_odd(7)

# %% global state and helper functions with underscores
_registry = {}
__version__ = "1.2"
_ = "unused"


def _key(name):
    return name.strip().lower()


def register(name):
    def wrap(func):
        _registry[_key(name)] = func
        return func

    return wrap


@register(" Hello ")
def _hello():
    global _calls
    _calls = globals().get("_calls", 0) + 1
    return f"hello {__version__}"


assert _registry["hello"]() == "hello 1.2"
assert _registry["hello"]() and _calls == 2
for _ in range(3):
    pass
assert _ == 2
if __name__ == "__main__":
    ran = True
assert ran

# %% annotations and signatures
from typing import Callable, Optional, get_type_hints


def apply(func: Callable[[int], int], value: int = 3, *, times: Optional[int] = None) -> int:
    """Apply `func`."""
    result: int = value
    for _ in range(times or 1):
        result = func(result)
    return result


assert apply(lambda x: x + 1) == 4
assert apply(lambda x: x * 2, 1, times=5) == 32
assert apply.__annotations__["return"] is int
assert get_type_hints(apply)["value"] is int
assert apply.__defaults__ == (3,)
assert apply.__kwdefaults__ == {"times": None}

# %% generators that receive values
def running_average():
    total = count = 0
    average = None
    while True:
        value = yield average
        if value is None:
            return total
        total += value
        count += 1
        average = total / count


averager = running_average()
next(averager)
assert [averager.send(v) for v in (10, 20, 30)] == [10.0, 15.0, 20.0]
try:
    averager.send(None)
except StopIteration as stop:
    assert stop.value == 60

# %% function attributes as a cheap registry
def command(func):
    command.all.append(func.__name__)
    func.is_command = True
    return func


command.all = []


@command
def start():
    return "started"


@command
def stop():
    return "stopped"


assert command.all == ["start", "stop"]
assert start.is_command and not hasattr(len, "is_command")
assert {name: globals()[name]() for name in command.all} == {"start": "started", "stop": "stopped"}
start.is_command = False
del stop.is_command
assert not getattr(stop, "is_command", False)
