# %% dataclass with defaults factories and ordering
from dataclasses import asdict, astuple, dataclass, field, fields, replace


@dataclass(order=True)
class Item:
    priority: int
    name: str = field(compare=False)
    tags: list[str] = field(default_factory=list, compare=False, repr=False)

    def __post_init__(self):
        self.name = self.name.title()


a, b = Item(2, "write"), Item(1, "read", ["x"])
assert sorted([a, b])[0] is b
assert repr(b) == "Item(priority=1, name='Read')"
assert asdict(b) == {"priority": 1, "name": "Read", "tags": ["x"]}
assert astuple(a) == (2, "Write", [])
assert replace(a, priority=9).priority == 9
assert [f.name for f in fields(Item)] == ["priority", "name", "tags"]

# %% frozen dataclass as dictionary key
import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cell:
    row: int
    column: int

    def neighbours(self):
        for dr in (-1, 0, 1):
            for dc in (-1, 0, 1):
                if dr or dc:
                    yield Cell(self.row + dr, self.column + dc)


def step(alive):
    counts = {}
    for cell in alive:
        for n in cell.neighbours():
            counts[n] = counts.get(n, 0) + 1
    return {cell for cell, n in counts.items() if n == 3 or (n == 2 and cell in alive)}


blinker = {Cell(0, -1), Cell(0, 0), Cell(0, 1)}
assert step(blinker) == {Cell(-1, 0), Cell(0, 0), Cell(1, 0)}
assert step(step(blinker)) == blinker
try:
    Cell(0, 0).row = 3
except dataclasses.FrozenInstanceError:
    pass
else:
    raise AssertionError

# %% dataclass inheritance init var and kw only
from dataclasses import KW_ONLY, InitVar, dataclass, field
from typing import ClassVar


@dataclass
class Base:
    registry: ClassVar[list] = []
    name: str
    scale: InitVar[float] = 1.0
    size: float = field(init=False)

    def __post_init__(self, scale):
        self.size = len(self.name) * scale
        self.registry.append(self.name)


@dataclass
class Derived(Base):
    _: KW_ONLY
    color: str = "red"
    _hidden: int = 0

    def __post_init__(self, scale):
        super().__post_init__(scale)
        self._hidden = 5


d = Derived("abc", 2.0, color="blue")
assert (d.size, d.color, d._hidden) == (6.0, "blue", 5)
assert Base.registry == ["abc"]
assert Derived.__dataclass_fields__["color"].kw_only

# %% make dataclass at run time
from dataclasses import dataclass, field, is_dataclass, make_dataclass

Config = make_dataclass(
    "Config",
    [("host", str), ("port", int, 80), ("options", dict, field(default_factory=dict))],
    namespace={"url": lambda self: f"http://{self.host}:{self.port}"},
)
c = Config("example.org")
assert c.url() == "http://example.org:80"
assert is_dataclass(Config) and c == Config("example.org", 80, {})

# %% enum members values and lookup
from enum import Enum, IntEnum, auto, unique


@unique
class Color(Enum):
    RED = 1
    GREEN = 2
    BLUE = 3

    @property
    def pretty(self):
        return self.name.title()

    @classmethod
    def _missing_(cls, value):
        if isinstance(value, str):
            return cls[value.upper()]
        return None


class Level(IntEnum):
    LOW = auto()
    HIGH = auto()


assert Color("red") is Color.RED and Color(2).pretty == "Green"
assert [c.name for c in Color] == ["RED", "GREEN", "BLUE"]
assert Level.HIGH > Level.LOW and Level.HIGH == 2
assert Color.RED.value == 1 and Color.RED._value_ == 1
assert list(Color.__members__) == ["RED", "GREEN", "BLUE"]
try:
    Color(9)
except ValueError as error:
    assert "9 is not a valid" in str(error)

# %% flags and string enums
from enum import Enum, Flag, IntFlag, auto


class Permission(Flag):
    READ = auto()
    WRITE = auto()
    EXECUTE = auto()
    ALL = READ | WRITE | EXECUTE


class Method(str, Enum):
    GET = "get"
    POST = "post"

    def __str__(self):
        return self.value


class Bits(IntFlag):
    A = 1
    B = 2


mine = Permission.READ | Permission.WRITE
assert Permission.READ in mine and Permission.EXECUTE not in mine
assert mine ^ Permission.READ == Permission.WRITE
assert ~mine & Permission.ALL == Permission.EXECUTE
assert f"{Method.GET}" == "get" and Method("post") is Method.POST
assert Bits.A | Bits.B == 3

# %% enum with methods per member
import math
from enum import Enum


class Planet(Enum):
    EARTH = (5.976e24, 6.37814e6)
    MARS = (6.421e23, 3.3972e6)

    def __init__(self, mass, radius):
        self.mass = mass
        self.radius = radius

    @property
    def gravity(self):
        return 6.67430e-11 * self.mass / self.radius**2


assert math.isclose(Planet.EARTH.gravity, 9.80, rel_tol=0.01)
assert max(Planet, key=lambda p: p.gravity) is Planet.EARTH
Animal = Enum("Animal", "CAT DOG")
assert Animal.DOG.value == 2

# %% generics and typed containers
from typing import Generic, Iterator, TypeVar

T = TypeVar("T")
K = TypeVar("K", bound="Comparable")


class Stack(Generic[T]):
    def __init__(self) -> None:
        self._items: list[T] = []

    def push(self, item: T) -> "Stack[T]":
        self._items.append(item)
        return self

    def pop(self) -> T:
        return self._items.pop()

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)


stack: Stack[int] = Stack[int]()
stack.push(1).push(2)
assert stack.pop() == 2 and len(stack) == 1
assert Stack[int].__origin__ is Stack
assert Stack.__parameters__ == (T,)

# %% typed dict literal and named tuple
from typing import Literal, NamedTuple, NotRequired, TypedDict, get_args, get_origin


class Movie(TypedDict):
    title: str
    year: int
    rating: NotRequired[float]


class Employee(NamedTuple):
    name: str
    salary: float = 1000.0

    def raised(self, percent: float) -> "Employee":
        return self._replace(salary=self.salary * (1 + percent / 100))


Mode = Literal["r", "w"]
movie: Movie = {"title": "Alien", "year": 1979}
assert Movie.__annotations__.keys() == {"title", "year", "rating"}
assert Movie.__required_keys__ == {"title", "year"}
assert Employee("ann").raised(10).salary == 1100.0
assert get_args(Mode) == ("r", "w") and get_origin(list[int]) is list

# %% type checks with hints read at run time
from dataclasses import dataclass
from typing import Optional, Union, get_args, get_origin, get_type_hints


@dataclass
class Row:
    id: int
    label: Optional[str] = None
    score: Union[int, float] = 0


def check(obj):
    problems = []
    for name, hint in get_type_hints(type(obj)).items():
        allowed = get_args(hint) if get_origin(hint) is Union else (hint,)
        value = getattr(obj, name)
        if not isinstance(value, tuple(allowed)):
            problems.append(f"{name}: {type(value).__name__}")
    return problems


assert check(Row(1, "x", 2.5)) == []
assert check(Row("1", 5, None)) == ["id: str", "label: int", "score: NoneType"]

# %% overloads casts aliases and final
from typing import Any, Final, TypeAlias, cast, overload

Vector: TypeAlias = list[float]
LIMIT: Final = 10


@overload
def scale(value: float, by: float) -> float: ...
@overload
def scale(value: Vector, by: float) -> Vector: ...
def scale(value: Any, by: float) -> Any:
    if isinstance(value, list):
        return [v * by for v in value]
    return value * by


assert scale(2.0, 3) == 6.0
assert scale([1.0, 2.0], 2) == [2.0, 4.0]
assert cast(str, 5) == 5
x: int | None = None
assert x is None and LIMIT == 10

# %% dataclass serialisation round trip
import json
from dataclasses import asdict, dataclass, field
from datetime import date


@dataclass
class Author:
    name: str
    born: date


@dataclass
class Book:
    title: str
    author: Author
    keywords: list[str] = field(default_factory=list)

    @classmethod
    def from_dict(cls, data):
        author = Author(data["author"]["name"], date.fromisoformat(data["author"]["born"]))
        return cls(data["title"], author, data.get("keywords", []))

    def to_json(self):
        return json.dumps(asdict(self), default=str, sort_keys=True)


book = Book("Emma", Author("Jane Austen", date(1775, 12, 16)), ["novel"])
assert Book.from_dict(json.loads(book.to_json())) == book

# %% self type and fluent builder
from dataclasses import dataclass, field
from typing import Self


@dataclass
class Query:
    _table: str = ""
    _where: list[str] = field(default_factory=list)
    _limit: int | None = None

    def table(self, name: str) -> Self:
        self._table = name
        return self

    def where(self, *conditions: str) -> Self:
        self._where.extend(conditions)
        return self

    def limit(self, n: int) -> Self:
        self._limit = n
        return self

    def __str__(self) -> str:
        parts = [f"SELECT * FROM {self._table}"]
        if self._where:
            parts.append("WHERE " + " AND ".join(self._where))
        if self._limit is not None:
            parts.append(f"LIMIT {self._limit}")
        return " ".join(parts)


text = str(Query().table("users").where("age > 3", "name = 'x'").limit(5))
assert text == "SELECT * FROM users WHERE age > 3 AND name = 'x' LIMIT 5"
