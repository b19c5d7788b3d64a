# %% a bank account with validation and properties
class InsufficientFunds(Exception):
    def __init__(self, needed, available):
        super().__init__(f"needed {needed}, have {available}")
        self.needed = needed
        self.available = available


class Account:
    interest = 0.02
    _count = 0

    def __init__(self, owner, balance=0):
        self.owner = owner
        self._balance = balance
        type(self)._count += 1

    @property
    def balance(self):
        return self._balance

    @balance.setter
    def balance(self, value):
        if value < 0:
            raise InsufficientFunds(-value, self._balance)
        self._balance = value

    @classmethod
    def count(cls):
        return cls._count

    @staticmethod
    def is_valid(number):
        return number.isdigit() and len(number) == 8

    def withdraw(self, amount):
        self.balance -= amount
        return self

    def __repr__(self):
        return f"{type(self).__name__}({self.owner!r}, {self._balance!r})"


account = Account("ann", 100)
assert repr(account.withdraw(30)) == "Account('ann', 70)"
try:
    account.withdraw(500)
except InsufficientFunds as error:
    assert error.available == 70 and "needed 430" in str(error)
assert Account.count() == 1 and Account.is_valid("12345678")

# %% operator overloading for a fraction class
from functools import total_ordering
from math import gcd


@total_ordering
class Frac:
    __slots__ = ("n", "d")

    def __init__(self, n, d=1):
        g = gcd(n, d) or 1
        self.n, self.d = n // g, d // g

    def __add__(self, other):
        other = other if isinstance(other, Frac) else Frac(other)
        return Frac(self.n * other.d + other.n * self.d, self.d * other.d)

    __radd__ = __add__

    def __mul__(self, other):
        return Frac(self.n * other.n, self.d * other.d)

    def __neg__(self):
        return Frac(-self.n, self.d)

    def __eq__(self, other):
        return (self.n, self.d) == (other.n, other.d)

    def __lt__(self, other):
        return self.n * other.d < other.n * self.d

    def __hash__(self):
        return hash((self.n, self.d))

    def __bool__(self):
        return self.n != 0

    def __float__(self):
        return self.n / self.d

    def __str__(self):
        return f"{self.n}/{self.d}" if self.d != 1 else str(self.n)


assert str(Frac(1, 2) + Frac(1, 3)) == "5/6"
assert str(sum([Frac(1, 4)] * 4)) == "1"
assert Frac(1, 3) <= Frac(1, 2) and Frac(2, 4) == Frac(1, 2)
assert len({Frac(1, 2), Frac(2, 4)}) == 1
assert not Frac(0) and float(-Frac(1, 4)) == -0.25
try:
    Frac(1).x = 2
except AttributeError:
    pass

# %% inheritance super and method resolution order
class Base:
    def __init__(self, **kwargs):
        self.trace = ["Base"]
        super().__init__(**kwargs)

    def who(self):
        return "base"


class Left(Base):
    def __init__(self, left=0, **kwargs):
        super().__init__(**kwargs)
        self.left = left
        self.trace.append("Left")

    def who(self):
        return "left>" + super().who()


class Right(Base):
    def __init__(self, right=0, **kwargs):
        super().__init__(**kwargs)
        self.right = right
        self.trace.append("Right")

    def who(self):
        return "right>" + super().who()


class Both(Left, Right):
    pass


both = Both(left=1, right=2)
assert both.who() == "left>right>base"
assert both.trace == ["Base", "Right", "Left"]
assert [c.__name__ for c in Both.__mro__] == ["Both", "Left", "Right", "Base", "object"]
assert issubclass(Both, Right) and isinstance(both, Base)
assert Both.__bases__ == (Left, Right)

# %% descriptors that validate
class Positive:
    def __set_name__(self, owner, name):
        self._name = "_" + name

    def __get__(self, obj, owner=None):
        return self if obj is None else getattr(obj, self._name)

    def __set__(self, obj, value):
        if value <= 0:
            raise ValueError(f"{self._name[1:]} must be positive")
        setattr(obj, self._name, value)


class Rectangle:
    width = Positive()
    height = Positive()

    def __init__(self, width, height):
        self.width = width
        self.height = height

    @property
    def area(self):
        return self.width * self.height


assert Rectangle(2, 3).area == 6
assert isinstance(Rectangle.width, Positive)
try:
    Rectangle(0, 1)
except ValueError as error:
    assert str(error) == "width must be positive"

# %% registry by init subclass
class Plugin:
    registry = {}

    def __init_subclass__(cls, /, name=None, **kwargs):
        super().__init_subclass__(**kwargs)
        cls.registry[name or cls.__name__.lower()] = cls


class Upper(Plugin):
    def run(self, text):
        return text.upper()


class Reverse(Plugin, name="backwards"):
    def run(self, text):
        return text[::-1]


assert sorted(Plugin.registry) == ["backwards", "upper"]
assert Plugin.registry["backwards"]().run("abc") == "cba"

# %% metaclass that collects fields
class Field:
    def __init__(self, kind, default=None):
        self.kind, self.default = kind, default


class ModelMeta(type):
    def __new__(mcls, name, bases, namespace, **options):
        fields = {key: value for key, value in namespace.items() if isinstance(value, Field)}
        cls = super().__new__(mcls, name, bases, {k: v for k, v in namespace.items() if k not in fields})
        cls.fields = {**getattr(cls, "fields", {}), **fields}
        cls.table = options.get("table", name.lower())
        return cls

    def __init__(cls, name, bases, namespace, **options):
        super().__init__(name, bases, namespace)

    def __len__(cls):
        return len(cls.fields)


class Model(metaclass=ModelMeta):
    def __init__(self, **values):
        for name, field in self.fields.items():
            setattr(self, name, field.kind(values.get(name, field.default)))


class User(Model, table="people"):
    name = Field(str)
    age = Field(int, 0)


user = User(name="ann", age="41")
assert (user.name, user.age) == ("ann", 41)
assert User.table == "people" and len(User) == 2
assert type(User) is ModelMeta

# %% context manager class and iterator protocol
class Timer:
    def __enter__(self):
        self.events = ["enter"]
        return self

    def __exit__(self, kind, error, trace):
        self.events.append(kind.__name__ if kind else "clean")
        return kind is ZeroDivisionError


class Countdown:
    def __init__(self, n):
        self.n = n

    def __iter__(self):
        return self

    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n + 1


with Timer() as timer:
    1 / 0
assert timer.events == ["enter", "ZeroDivisionError"]
with Timer() as clean:
    pass
assert clean.events[-1] == "clean"
assert list(Countdown(3)) == [3, 2, 1]

# %% abstract base classes and protocols
from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable


class Shape(ABC):
    @abstractmethod
    def area(self) -> float: ...

    @property
    @abstractmethod
    def name(self) -> str: ...

    def describe(self):
        return f"{self.name} of area {self.area():.2f}"


class Circle(Shape):
    name = "circle"

    def __init__(self, r):
        self._r = r

    def area(self):
        return 3.14159 * self._r**2


@runtime_checkable
class HasArea(Protocol):
    def area(self) -> float: ...


assert Circle(1).describe() == "circle of area 3.14"
try:
    Shape()
except TypeError as error:
    assert "abstract" in str(error)
assert isinstance(Circle(2), HasArea) and not isinstance(3, HasArea)

# %% name mangling and private attributes
class Safe:
    __secret = 7

    def __init__(self, pin):
        self.__pin = pin
        self._tries = 0

    def open(self, pin):
        self._tries += 1
        return self.__pin == pin and self.__check()

    def __check(self):
        return self.__secret == 7

    def __eq__(self, other):
        return self.__pin == other.__pin


class Bigger(Safe):
    def __init__(self, pin):
        super().__init__(pin)
        self.__pin = "other"


box = Bigger(1234)
assert box.open(1234) and box._tries == 1
assert box._Safe__pin == 1234 and box._Bigger__pin == "other"
assert Safe(1) == Safe(1)
assert not hasattr(box, "__pin")

# %% getattr setattr and attribute proxies
class Recorder:
    def __init__(self, target):
        object.__setattr__(self, "_target", target)
        object.__setattr__(self, "calls", [])

    def __getattr__(self, name):
        value = getattr(self._target, name)
        if callable(value):

            def call(*args, **kwargs):
                self.calls.append(name)
                return value(*args, **kwargs)

            return call
        return value

    def __setattr__(self, name, value):
        self.calls.append(f"set {name}")
        setattr(self._target, name, value)


class Plain:
    size = 1

    def double(self):
        return self.size * 2


plain = Plain()
proxy = Recorder(plain)
proxy.size = 21
assert proxy.double() == 42
assert proxy.calls == ["set size", "double"]
assert plain.__dict__ == {"size": 21}
try:
    proxy.nothing
except AttributeError as error:
    assert "'Plain' object has no attribute 'nothing'" in str(error)

# %% callable objects slots and class methods as constructors
class Polynomial:
    __slots__ = ("_coefficients",)

    def __init__(self, *coefficients):
        self._coefficients = coefficients

    @classmethod
    def from_roots(cls, *roots):
        result = [1]
        for root in roots:
            shifted = [0, *result]
            result = [s - root * c for s, c in zip(shifted, [*result, 0])]
        return cls(*result)

    def __call__(self, x):
        total = 0
        for coefficient in reversed(self._coefficients):
            total = total * x + coefficient
        return total

    def __len__(self):
        return len(self._coefficients)

    def __getitem__(self, index):
        return self._coefficients[index]


p = Polynomial.from_roots(1, 2)
assert [p[i] for i in range(len(p))] == [2, -3, 1]
assert p(1) == p(2) == 0 and p(3) == 2
assert not hasattr(p, "__dict__")

# %% class decorators and dynamic classes
def add_repr(cls):
    def __repr__(self):
        values = ", ".join(f"{k}={v!r}" for k, v in vars(self).items())
        return f"{cls.__name__}({values})"

    cls.__repr__ = __repr__
    return cls


@add_repr
class Person:
    def __init__(self, name, age):
        self.name = name
        self.age = age


Dynamic = type("Dynamic", (Person,), {"greet": lambda self: f"hi {self.name}", "kind": "made"})
assert repr(Person("ann", 3)) == "Person(name='ann', age=3)"
assert Dynamic("bob", 4).greet() == "hi bob" and Dynamic.kind == "made"
assert Dynamic.__name__ == "Dynamic" and issubclass(Dynamic, Person)

# %% comparison of identity equality and hashing
class Node:
    def __init__(self, value, next_=None):
        self.value = value
        self.next = next_

    def __iter__(self):
        node = self
        while node:
            yield node.value
            node = node.next


def reverse(node):
    previous = None
    while node:
        node.next, previous, node = previous, node, node.next
    return previous


chain = Node(1, Node(2, Node(3)))
assert list(reverse(chain)) == [3, 2, 1]
a = b = []
assert a is b and a is not []
assert Node(1) != Node(1)
assert {type(x) for x in (1, "a", 2.0, None, True)} == {int, str, float, type(None), bool}

# %% new singleton and cached instances
class Singleton:
    _instance = None

    def __new__(cls, *args, **kwargs):
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance


class Celsius(float):
    def __new__(cls, value):
        return super().__new__(cls, round(value, 1))

    @property
    def fahrenheit(self):
        return self * 9 / 5 + 32


assert Singleton() is Singleton()
assert Celsius(36.66) == 36.7
assert Celsius(100).fahrenheit == 212

# %% state machine with methods looked up by name
class Traffic:
    order = {"red": "green", "green": "yellow", "yellow": "red"}

    def __init__(self):
        self.state = "red"
        self.log = []

    def step(self):
        handler = getattr(self, f"on_{self.state}", self.on_default)
        self.log.append(handler())
        self.state = self.order[self.state]

    def on_red(self):
        return "stop"

    def on_green(self):
        return "go"

    def on_default(self):
        return "?"


light = Traffic()
for _ in range(4):
    light.step()
assert light.log == ["stop", "go", "?", "stop"]

# %% visitor pattern over a small tree
class Num:
    def __init__(self, value):
        self.value = value


class Add:
    def __init__(self, left, right):
        self.left, self.right = left, right


class Mul(Add):
    pass


class Visitor:
    def visit(self, node):
        for cls in type(node).__mro__:
            method = getattr(self, f"visit_{cls.__name__.lower()}", None)
            if method:
                return method(node)
        raise NotImplementedError(type(node).__name__)


class Evaluate(Visitor):
    def visit_num(self, node):
        return node.value

    def visit_add(self, node):
        return self.visit(node.left) + self.visit(node.right)

    def visit_mul(self, node):
        return self.visit(node.left) * self.visit(node.right)


class Show(Visitor):
    def visit_num(self, node):
        return str(node.value)

    def visit_add(self, node):
        sign = {"Add": "+", "Mul": "*"}[node.__class__.__name__]
        return f"({self.visit(node.left)} {sign} {self.visit(node.right)})"


tree = Add(Num(2), Mul(Num(3), Num(4)))
assert Evaluate().visit(tree) == 14
assert Show().visit(tree) == "(2 + (3 * 4))"
