# %% group and summarise sales records
from collections import defaultdict
from statistics import mean, median

sales = [
    {"region": "north", "rep": "ann", "amount": 120.0},
    {"region": "south", "rep": "bob", "amount": 80.5},
    {"region": "north", "rep": "cid", "amount": 60.0},
    {"region": "south", "rep": "bob", "amount": 19.5},
]
by_region = defaultdict(list)
for sale in sales:
    by_region[sale["region"]].append(sale["amount"])
summary = {
    region: {"n": len(amounts), "total": sum(amounts), "mean": mean(amounts), "median": median(amounts)}
    for region, amounts in sorted(by_region.items())
}
for region, stats in summary.items():
    print(f"{region:<6} n={stats['n']} total={stats['total']:>7.2f}")
assert summary["north"] == {"n": 2, "total": 180.0, "mean": 90.0, "median": 90.0}
assert list(summary) == ["north", "south"]

# %% count items in place
counts = {}
for word in "to be or not to be".split():
    counts[word] = counts.get(word, 0)
    counts[word] += 1
matrix = [[0] * 3 for _ in range(3)]
matrix[1][2] += 5
matrix[1][2] -= 1
matrix[0] += [7]
assert counts == {"to": 2, "be": 2, "or": 1, "not": 1}
assert matrix == [[0, 0, 0, 7], [0, 0, 4], [0, 0, 0]]

# %% nested dictionaries that make themselves
from collections import defaultdict


def tree():
    return defaultdict(tree)


root = tree()
root["europe"]["france"]["paris"] = 2.1
root["europe"]["italy"]["rome"] = 2.8
root["asia"]["japan"]["tokyo"] = 13.9


def flatten(node, path=()):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, (*path, key))
        else:
            yield ".".join((*path, key)), value


assert dict(flatten(root)) == {"europe.france.paris": 2.1, "europe.italy.rome": 2.8, "asia.japan.tokyo": 13.9}

# %% an LRU cache from an ordered dict
from collections import OrderedDict


class LRU:
    def __init__(self, size):
        self._size = size
        self._items = OrderedDict()

    def __getitem__(self, key):
        self._items.move_to_end(key)
        return self._items[key]

    def __setitem__(self, key, value):
        self._items[key] = value
        self._items.move_to_end(key)
        while len(self._items) > self._size:
            self._items.popitem(last=False)

    def __contains__(self, key):
        return key in self._items

    def __len__(self):
        return len(self._items)


cache = LRU(2)
cache["a"], cache["b"] = 1, 2
assert cache["a"] == 1
cache["c"] = 3
assert "b" not in cache and "a" in cache and len(cache) == 2

# %% a sliding window with deque
from collections import deque


def moving_average(values, size):
    window = deque(maxlen=size)
    for value in values:
        window.append(value)
        if len(window) == size:
            yield sum(window) / size


assert list(moving_average([1, 2, 3, 4, 5], 3)) == [2, 3, 4]
d = deque("abc")
d.rotate(1)
d.appendleft("z")
d.extend("xy")
assert "".join(d) == "zcabxy"
d.clear()
assert not d

# %% named tuples with defaults and helpers
from collections import namedtuple

Point = namedtuple("Point", "x y z", defaults=[0])
p = Point(1, 2)
q = p._replace(x=10)
assert p == (1, 2, 0) and q.x == 10
assert p._asdict() == {"x": 1, "y": 2, "z": 0}
assert Point._fields == ("x", "y", "z")
assert Point._make([7, 8, 9]).z == 9
assert Point._field_defaults == {"z": 0}


class Vector(Point):
    __slots__ = ()

    def __add__(self, other):
        return Vector(*(a + b for a, b in zip(self, other)))

    @property
    def length(self):
        return sum(c * c for c in self) ** 0.5


assert Vector(1, 2, 2).length == 3.0
assert (Vector(1, 1) + Vector(2, 3)) == (3, 4, 0)

# %% chain map for layered settings
from collections import ChainMap

base = {"color": "red", "size": 1}
user = {"size": 2}
settings = ChainMap({}, user, base)
settings["color"] = "blue"
assert settings["size"] == 2
assert base["color"] == "red"
assert dict(settings) == {"color": "blue", "size": 2}
assert settings.maps[0] == {"color": "blue"}
child = settings.new_child({"size": 99})
assert child["size"] == 99 and child.parents["size"] == 2

# %% invert index and set operations
documents = {"d1": "red green", "d2": "green blue", "d3": "red blue blue"}
index = {}
for name, text in documents.items():
    for word in text.split():
        index.setdefault(word, set()).add(name)
assert index["red"] & index["blue"] == {"d3"}
assert index["red"] | index["green"] == {"d1", "d2", "d3"}
assert index["green"] - index["red"] == {"d2"}
assert {"d1"} < index["green"]
both = {frozenset(pair) for pair in [("a", "b"), ("b", "a")]}
assert len(both) == 1

# %% sort by several keys and stable grouping
from itertools import groupby
from operator import attrgetter, itemgetter

people = [("ann", 31, "oslo"), ("bob", 25, "rome"), ("cid", 31, "rome"), ("dan", 25, "oslo")]
ordered = sorted(people, key=lambda p: (-p[1], p[0]))
assert [p[0] for p in ordered] == ["ann", "cid", "bob", "dan"]
by_city = {city: [p[0] for p in group] for city, group in groupby(sorted(people, key=itemgetter(2)), itemgetter(2))}
assert by_city == {"oslo": ["ann", "dan"], "rome": ["bob", "cid"]}


class Box:
    def __init__(self, name, w):
        self.name, self.w = name, w


boxes = [Box("b", 2), Box("a", 2), Box("c", 1)]
boxes.sort(key=attrgetter("w", "name"))
assert [b.name for b in boxes] == ["c", "a", "b"]
assert max(boxes, key=attrgetter("w")).name == "a"

# %% transpose zip and unpack
matrix = [(1, 2, 3), (4, 5, 6)]
transposed = list(map(list, zip(*matrix)))
first, *middle, last = range(6)
(a, (b, *c)), d = (1, (2, 3, 4)), 5
head, *_ = "hello"
assert transposed == [[1, 4], [2, 5], [3, 6]]
assert (first, middle, last) == (0, [1, 2, 3, 4], 5)
assert (a, b, c, d, head) == (1, 2, [3, 4], 5, "h")
merged = {**{"a": 1}, "b": 2, **{"a": 3}}
assert merged == {"a": 3, "b": 2}
assert [*range(3), *"ab"] == [0, 1, 2, "a", "b"]
for i, (x, y) in enumerate(zip("ab", [1, 2]), start=1):
    assert (i, x, y) in [(1, "a", 1), (2, "b", 2)]

# %% subclass dict and list from collections
from collections import UserDict, UserList


class CaseInsensitive(UserDict):
    def __setitem__(self, key, value):
        super().__setitem__(key.lower(), value)

    def __getitem__(self, key):
        return super().__getitem__(key.lower())


class Stack(UserList):
    def push(self, item):
        self.data.append(item)

    def peek(self):
        return self.data[-1]


headers = CaseInsensitive({"Content-Type": "text/html"})
assert headers["CONTENT-TYPE"] == "text/html"
stack = Stack([1])
stack.push(2)
assert stack.peek() == 2 and len(stack) == 2

# %% custom sequence with slicing
from collections.abc import Sequence


class Ring(Sequence):
    def __init__(self, items):
        self._items = tuple(items)

    def __len__(self):
        return len(self._items)

    def __getitem__(self, index):
        if isinstance(index, slice):
            start, stop, step = index.start or 0, index.stop, index.step or 1
            return [self[i] for i in range(start, stop, step)]
        return self._items[index % len(self._items)]

    def __iter__(self):
        return iter(self._items)


ring = Ring("abc")
assert ring[4] == "b" and ring[-1] == "c"
assert ring[0:7:2] == ["a", "c", "b", "a"]
assert list(reversed(ring)) == ["c", "b", "a"]
assert "b" in ring and ring.index("c") == 2 and ring.count("a") == 1

# %% counters as multisets
from collections import Counter

stock = Counter(apples=3, pears=1)
order = Counter(apples=1, pears=2)
assert stock - order == Counter(apples=2)
assert stock + order == Counter(apples=4, pears=3)
assert stock & order == Counter(apples=1, pears=1)
stock.subtract(order)
assert stock["pears"] == -1
stock.update({"figs": 2})
assert +stock == Counter(apples=2, figs=2)
assert sorted(stock.elements()) == ["apples", "apples", "figs", "figs"]

# %% join two tables on a key
users = [{"id": 1, "name": "ann"}, {"id": 2, "name": "bob"}, {"id": 3, "name": "cid"}]
orders = [{"user": 1, "total": 5}, {"user": 1, "total": 7}, {"user": 3, "total": 1}]
totals = {}
for order in orders:
    totals.setdefault(order["user"], []).append(order["total"])
joined = [{**user, "orders": totals.get(user["id"], [])} for user in users]
left = [row for row in joined if not row["orders"]]
assert joined[0] == {"id": 1, "name": "ann", "orders": [5, 7]}
assert [row["name"] for row in left] == ["bob"]
assert sum(sum(row["orders"]) for row in joined) == 13
