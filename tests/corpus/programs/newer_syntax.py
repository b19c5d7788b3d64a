# %% type parameters for functions and classes [3.12]
from dataclasses import dataclass


def first[T](items: list[T], default: T | None = None) -> T | None:
    return items[0] if items else default


class Stack[T]:
    def __init__(self, *items: T) -> None:
        self._items: list[T] = [*items]

    def pop(self) -> T:
        return self._items.pop()


@dataclass
class Pair[K, V: (int, str)]:
    key: K
    value: V


def call[**P, R](f, *args: P.args, **kwargs: P.kwargs) -> R:
    return f(*args, **kwargs)


class Many[*Ts]:
    pass


assert first([1, 2]) == 1 and first([], 5) == 5 and Stack(1, 2).pop() == 2
assert Pair("a", 1) == Pair("a", 1) and call(max, 1, 2) == 2
assert first.__type_params__[0].__name__ == "T" and Many.__type_params__

# %% type aliases [3.12]
type Number = int | float
type Tree[T] = T | list[Tree[T]]


def total(tree: Tree[Number]) -> Number:
    return sum(map(total, tree)) if isinstance(tree, list) else tree


assert total([1, [2, [3.5]]]) == 6.5
assert Number.__value__ == int | float and Tree.__name__ == "Tree"

# %% nested quotes in f strings [3.12]
songs = {"a": ["x", "y"]}
assert f"{", ".join(songs["a"])}" == "x, y"
assert f"{f"{f"{1 + 1}"}"}" == "2"
assert f"{
    songs["a"][0]  # the first
}" == "x"

# %% overriding and batches from the library [3.12]
from itertools import batched
from typing import override


class Base:
    def run(self):
        return "base"


class Child(Base):
    @override
    def run(self):
        return "child"


assert Child().run() == "child" and list(batched("abcde", 2)) == [("a", "b"), ("c", "d"), ("e",)]

# %% defaults of type parameters and copy replace [3.13]
import copy
from dataclasses import dataclass


@dataclass(frozen=True)
class Box[T = int]:
    item: T
    size: int = 1


assert copy.replace(Box(1), size=5) == Box(1, 5)
assert Box.__type_params__[0].__default__ is int

# %% except and finally without parentheses [3.14]
try:
    raise ValueError("x")
except ValueError, TypeError:
    caught = True
assert caught

# %% template strings [3.14]
name = "ann"
template = t"hello {name!r:>8}"
assert template.strings == ("hello ", "")
assert template.interpolations[0].value == "ann" and template.interpolations[0].format_spec == ">8"
