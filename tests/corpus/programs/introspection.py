# %% code facts and closures of one's own functions
def outer(factor):
    def inner(value, *, extra=0):
        total = value * factor
        return total + extra

    return inner


triple = outer(3)
assert triple.__code__.co_varnames[: triple.__code__.co_argcount] == ("value",)
assert triple.__code__.co_freevars == ("factor",)
assert [cell.cell_contents for cell in triple.__closure__] == [3]
assert outer.__closure__ is None and triple.__qualname__ == "outer.<locals>.inner"

# %% bind a method to an object at run time
import types


class Robot:
    def __init__(self, name):
        self.name = name


def greet(self):
    return f"beep {self.name}"


robot = Robot("r2")
robot.greet = types.MethodType(greet, robot)
Robot.shout = lambda self: greet(self).upper()
assert robot.greet() == "beep r2" and robot.shout() == "BEEP R2"
assert robot.greet.__func__ is greet and robot.greet.__self__ is robot
assert isinstance(greet, types.FunctionType) and isinstance(len, types.BuiltinFunctionType)

# %% modules as objects
import json
import math
import types

import collections.abc as abc
import os.path as p
import xml.etree.ElementTree

assert isinstance(math, types.ModuleType) and math.__name__ == "math" and json.__doc__
assert p.join("a", "b") and abc.Sized and xml.etree.ElementTree.Element("x").tag == "x"
assert "sin" in dir(math) and getattr(math, "pi") > 3 and not hasattr(math, "nope")
try:
    math.nope
except AttributeError as error:
    assert str(error) == "module 'math' has no attribute 'nope'"
try:
    from json import nope
except ImportError as error:
    assert str(error).startswith("cannot import name 'nope' from 'json'")
from math import *
from collections import *

assert floor(2.5) == 2 and Counter("aa")["a"] == 2

# %% import by name and optional packages
import importlib
import importlib.util

assert importlib.import_module("textwrap").dedent(" a") == "a"
assert importlib.import_module("urllib.parse").quote("a b") == "a%20b"
assert __import__("json").dumps([1]) == "[1]"
have = {name: importlib.util.find_spec(name) is not None for name in ("json", "no_such_package_at_all")}
assert have == {"json": True, "no_such_package_at_all": False}
try:
    import no_such_package_at_all
except ModuleNotFoundError as error:
    assert error.name == "no_such_package_at_all"
    assert str(error) == "No module named 'no_such_package_at_all'"

# %% walk attributes generically and compare
class Settings:
    debug = False
    level: int = 3
    _private = "hidden"

    def __init__(self):
        self.name = "x"

    def helper(self):
        return 1


s = Settings()
public = {n: getattr(s, n) for n in dir(s) if not n.startswith("_") and not callable(getattr(s, n))}
assert public == {"debug": False, "level": 3, "name": "x"}
assert vars(s) == {"name": "x"} == s.__dict__
assert Settings.__annotations__ == {"level": int} and Settings.__module__ == "__main__"
assert s.__class__ is Settings and type(s).__name__ == "Settings"
s.__dict__.update(a=1)
setattr(s, "b", 2)
delattr(s, "a")
assert not hasattr(s, "a") and s.b == 2

# %% plain errors say what plain Python says
messages = []
for action in (
    lambda: undefined_name,
    lambda: (1).missing,
    lambda: [][3],
    lambda: {}["k"],
    lambda: "a" + 1,
    lambda: int("x"),
    lambda: (lambda f: f())(None),
):
    try:
        action()
    except Exception as error:
        messages.append(f"{type(error).__name__}: {error}")
assert messages == [
    "NameError: name 'undefined_name' is not defined",
    "AttributeError: 'int' object has no attribute 'missing'",
    "IndexError: list index out of range",
    "KeyError: 'k'",
    'TypeError: can only concatenate str (not "int") to str',
    "ValueError: invalid literal for int() with base 10: 'x'",
    "TypeError: 'NoneType' object is not callable",
]

# %% templates made at run time
class Person:
    def __init__(self, name):
        self.name = name
        self.tags = {"role": "admin"}


templates = {"hello": "Hello {p.name}!", "role": "{p.tags[role]:>8}", "both": "{0.name} {0.__class__.__name__}"}
ann = Person("Ann")
assert templates["hello"].format(p=ann) == "Hello Ann!"
assert templates["role"].format(p=ann) == "   admin"
assert templates["both"].format(ann) == "Ann Person"
assert "{x} {y}".format_map({"x": 1, "y": 2}) == "1 2"
render = "{:>5}".format
assert list(map(render, ["a", "b"])) == ["    a", "    b"]
assert str.format("{0}{1}{0}", "a", "b") == "aba"


class Money:
    def __init__(self, n):
        self.n = n

    def __format__(self, spec):
        return f"${self.n:{spec or '.2f'}}"

    def format(self):
        return "own method"


assert "{} {:.0f}".format(Money(3), Money(4)) == "$3.00 $4" and Money(1).format() == "own method"
assert format(Money(2), ".1f") == "$2.0"

# %% string formatter subclass
import string


class Upper(string.Formatter):
    def format_field(self, value, spec):
        if spec == "upper":
            return str(value).upper()
        return super().format_field(value, spec)

    def get_value(self, key, args, kwargs):
        return kwargs.get(key, f"<{key}>") if isinstance(key, str) else super().get_value(key, args, kwargs)


assert Upper().format("{name:upper} {missing} {0}", 5, name="ann") == "ANN <missing> 5"
assert [field for _, field, _, _ in string.Formatter().parse("a{b}c{d!r:>{w}}")] == ["b", "d"]

# %% garbage collection and object sizes
import gc
import sys


class Node:
    alive = 0

    def __init__(self):
        Node.alive += 1
        self.me = self

    def __del__(self):
        Node.alive -= 1


for _ in range(5):
    Node()
gc.collect()
assert Node.alive == 0 and gc.isenabled()
assert sys.getsizeof("a" * 1000) > 1000 and sys.getrefcount(Node) > 1
assert "json" not in sys.builtin_module_names and "sys" in sys.modules

# %% attribute access hooks
class Dotted(dict):
    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name, value):
        self[name] = value

    def __delattr__(self, name):
        del self[name]


class Watched:
    def __init__(self):
        self.reads = []

    def __getattribute__(self, name):
        if name != "reads":
            super().__getattribute__("reads").append(name)
        return object.__getattribute__(self, name)

    def hello(self):
        return "hi"


d = Dotted(a=1)
d.b = 2
del d.a
assert d == {"b": 2} and not hasattr(d, "a")
w = Watched()
assert w.hello() == "hi" and w.reads == ["hello"]

# %% freeze an object after construction
class Frozen:
    __slots__ = ("_values", "_frozen")

    def __init__(self, **values):
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_frozen", True)

    def __getattr__(self, name):
        try:
            return object.__getattribute__(self, "_values")[name]
        except KeyError:
            raise AttributeError(f"no {name}") from None

    def __setattr__(self, name, value):
        raise TypeError("frozen")

    def __eq__(self, other):
        return type(self) is type(other) and self._values == other._values

    def __hash__(self):
        return hash(tuple(sorted(self._values.items())))


f = Frozen(x=1, y=2)
assert f.x == 1 and f == Frozen(y=2, x=1) and len({f, Frozen(x=1, y=2)}) == 1
for action in (lambda: setattr(f, "x", 3), lambda: f.z):
    try:
        action()
    except (TypeError, AttributeError) as error:
        assert str(error) in ("frozen", "no z")

# %% the running program's name and documentation
"""A program with a docstring."""

__all__ = ["main"]
__author__ = "somebody"


def main(argv=None):
    """Return how many arguments there were."""
    return len(argv or [])


assert __name__ == "__main__" and main.__module__ == "__main__"
assert main(["a", "b"]) == 2
if __name__ == "__main__":
    code = main()
assert code == 0
