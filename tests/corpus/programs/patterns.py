# %% observer with weak methods
from weakref import WeakMethod


class Signal:
    def __init__(self):
        self._listeners = []

    def connect(self, method):
        self._listeners.append(WeakMethod(method))

    def emit(self, *args):
        alive = [(ref, method) for ref in self._listeners if (method := ref()) is not None]
        self._listeners = [ref for ref, _ in alive]
        return [method(*args) for _, method in alive]


class Listener:
    def __init__(self, name):
        self.name = name

    def heard(self, what):
        return f"{self.name} heard {what}"


signal, ann, bob = Signal(), Listener("ann"), Listener("bob")
signal.connect(ann.heard)
signal.connect(bob.heard)
assert signal.emit("x") == ["ann heard x", "bob heard x"]
del bob
assert signal.emit("y") == ["ann heard y"]

# %% command with undo and redo
class Editor:
    def __init__(self):
        self.text = ""
        self._done, self._undone = [], []

    def do(self, command):
        command.apply(self)
        self._done.append(command)
        self._undone.clear()

    def undo(self):
        command = self._done.pop()
        command.revert(self)
        self._undone.append(command)

    def redo(self):
        command = self._undone.pop()
        command.apply(self)
        self._done.append(command)


class Insert:
    def __init__(self, at, text):
        self.at, self.text = at, text

    def apply(self, editor):
        editor.text = editor.text[: self.at] + self.text + editor.text[self.at :]

    def revert(self, editor):
        editor.text = editor.text[: self.at] + editor.text[self.at + len(self.text) :]


editor = Editor()
editor.do(Insert(0, "world"))
editor.do(Insert(0, "hello "))
editor.undo()
assert editor.text == "world"
editor.redo()
assert editor.text == "hello world"

# %% strategies chosen by a registry
from typing import Callable, Dict

Strategy = Callable[[float], float]
STRATEGIES: Dict[str, Strategy] = {}


def strategy(name: str) -> Callable[[Strategy], Strategy]:
    def register(func: Strategy) -> Strategy:
        STRATEGIES[name] = func
        return func

    return register


@strategy("none")
def _none(price: float) -> float:
    return price


@strategy("half")
def _half(price: float) -> float:
    return price / 2


STRATEGIES["capped"] = lambda price: min(price, 50.0)
assert {name: f(80.0) for name, f in STRATEGIES.items()} == {"none": 80.0, "half": 40.0, "capped": 50.0}

# %% dependency injection and a service container
class Container:
    def __init__(self):
        self._makers = {}
        self._made = {}

    def register(self, kind, maker=None, *, shared=True):
        self._makers[kind] = (maker or kind, shared)
        return self

    def get(self, kind):
        if kind in self._made:
            return self._made[kind]
        maker, shared = self._makers[kind]
        needs = getattr(maker, "__annotations__", {}) if not isinstance(maker, type) else {}
        if isinstance(maker, type) and "__init__" in vars(maker):
            needs = {k: v for k, v in maker.__init__.__annotations__.items() if k != "return"}
        made = maker(**{name: self.get(hint) for name, hint in needs.items() if hint in self._makers})
        if shared:
            self._made[kind] = made
        return made


class Clock:
    def now(self):
        return 12


class Greeter:
    def __init__(self, clock: Clock):
        self.clock = clock

    def greet(self):
        return "good day" if self.clock.now() >= 12 else "good morning"


container = Container().register(Clock).register(Greeter)
assert container.get(Greeter).greet() == "good day"
assert container.get(Greeter) is container.get(Greeter)
assert container.get(Greeter).clock is container.get(Clock)

# %% result type instead of exceptions
from __future__ import annotations

from dataclasses import dataclass
from typing import Callable, Generic, TypeVar, Union

T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Ok(Generic[T]):
    value: T

    def then(self, f: Callable[[T], Result[U]]) -> Result[U]:
        return f(self.value)


@dataclass(frozen=True)
class Err:
    reason: str

    def then(self, f: object) -> Err:
        return self


Result = Union[Ok[T], Err]


def number(text: str) -> Result[int]:
    return Ok(int(text)) if text.strip().lstrip("-").isdigit() else Err(f"{text!r} is no number")


def reciprocal(n: int) -> Result[float]:
    return Err("zero") if n == 0 else Ok(1 / n)


outcomes = [number(t).then(reciprocal) for t in ("4", "0", "x")]
match outcomes:
    case [Ok(value), Err(reason), Err(other)]:
        assert (value, reason, other) == (0.25, "zero", "'x' is no number")
    case _:
        raise AssertionError(outcomes)

# %% middleware chain of callables
def timing(handler):
    def wrapped(request):
        response = handler(request)
        response["headers"]["x-steps"] = str(len(request["path"]))
        return response

    return wrapped


def auth(handler):
    return lambda request: handler(request) if request.get("user") else {"status": 401, "headers": {}}


def app(request):
    return {"status": 200, "headers": {}, "body": f"hello {request['user']}"}


for layer in (auth, timing):
    app = layer(app)
assert app({"path": "/a", "user": "ann"})["body"] == "hello ann"
assert app({"path": "/abc"}) == {"status": 401, "headers": {"x-steps": "4"}}

# %% rate limiter with an injected clock
class RateLimiter:
    def __init__(self, rate, per, clock):
        self._rate, self._per, self._clock = rate, per, clock
        self._allowance = float(rate)
        self._last = clock()

    def allow(self):
        now = self._clock()
        self._allowance = min(self._rate, self._allowance + (now - self._last) * self._rate / self._per)
        self._last = now
        if self._allowance < 1:
            return False
        self._allowance -= 1
        return True


time = [0.0]
limiter = RateLimiter(2, 10, lambda: time[0])
assert [limiter.allow() for _ in range(3)] == [True, True, False]
time[0] += 5
assert limiter.allow() and not limiter.allow()

# %% lazy attributes and a proxy
class lazy:
    def __init__(self, func):
        self.func = func
        self.__doc__ = func.__doc__

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, obj, owner=None):
        if obj is None:
            return self
        value = obj.__dict__[self.name] = self.func(obj)
        return value


class Page:
    loads = 0

    @lazy
    def content(self):
        """The content."""
        Page.loads += 1
        return "x" * 10


page = Page()
assert page.content == page.content == "x" * 10 and Page.loads == 1
assert Page.content.__doc__ == "The content." and "content" in page.__dict__

# %% event store with replay and snapshots
import json
from dataclasses import dataclass, field


@dataclass
class Cart:
    items: dict = field(default_factory=dict)
    version: int = 0

    def apply(self, event):
        handler = getattr(self, "_on_" + event["type"])
        handler(**{k: v for k, v in event.items() if k != "type"})
        self.version += 1

    def _on_added(self, sku, n=1):
        self.items[sku] = self.items.get(sku, 0) + n

    def _on_removed(self, sku):
        self.items.pop(sku, None)


log = [{"type": "added", "sku": "a"}, {"type": "added", "sku": "b", "n": 3}, {"type": "removed", "sku": "a"}]
stored = [json.dumps(event) for event in log]
cart = Cart()
for line in stored:
    cart.apply(json.loads(line))
assert cart == Cart({"b": 3}, 3)
again = Cart({"a": 1, "b": 3}, 2)
again.apply(log[2])
assert again == cart

# %% specification objects combined with operators
class Spec:
    def __init__(self, test, name="spec"):
        self._test = test
        self.name = name

    def __call__(self, item):
        return self._test(item)

    def __and__(self, other):
        return Spec(lambda item: self(item) and other(item), f"({self.name} and {other.name})")

    def __or__(self, other):
        return Spec(lambda item: self(item) or other(item), f"({self.name} or {other.name})")

    def __invert__(self):
        return Spec(lambda item: not self(item), f"not {self.name}")


even = Spec(lambda n: n % 2 == 0, "even")
big = Spec(lambda n: n > 5, "big")
rule = even & ~big | Spec(lambda n: n == 9, "nine")
assert [n for n in range(12) if rule(n)] == [0, 2, 4, 9]
assert rule.name == "((even and not big) or nine)"
