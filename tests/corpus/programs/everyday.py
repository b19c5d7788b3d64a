# %% roman numerals both ways
NUMERALS = [(1000, "M"), (900, "CM"), (500, "D"), (400, "CD"), (100, "C"), (90, "XC"), (50, "L"), (40, "XL"),
            (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")]


def roman(n):
    out = ""
    for value, letters in NUMERALS:
        while n >= value:
            out += letters
            n -= value
    return out


def arabic(text):
    values = dict((letters, value) for value, letters in NUMERALS)
    return sum(-values[a] if values[a] < values.get(b, 0) else values[a] for a, b in zip(text, text[1:] + " "))


assert roman(1994) == "MCMXCIV" and all(arabic(roman(n)) == n for n in range(1, 500))

# %% fizz buzz in one expression
out = [("Fizz" * (not n % 3) + "Buzz" * (not n % 5)) or n for n in range(1, 16)]
print(*out, sep="\n")
assert out[2] == "Fizz" and out[-1] == "FizzBuzz" and out[0] == 1

# %% an inventory kept in a dictionary
inventory = {}


def add(item, quantity=1, price=None):
    entry = inventory.setdefault(item, {"quantity": 0, "price": 0.0})
    entry["quantity"] += quantity
    if price is not None:
        entry["price"] = price
    return entry["quantity"]


def remove(item, quantity=1):
    if item not in inventory:
        raise KeyError(f"no {item!r} in stock")
    if inventory[item]["quantity"] < quantity:
        raise ValueError(f"only {inventory[item]['quantity']} of {item!r}")
    inventory[item]["quantity"] -= quantity
    if not inventory[item]["quantity"]:
        del inventory[item]


add("apple", 10, 0.5)
add("pear", price=0.75)
remove("pear")
for wrong in (("fig", 1), ("apple", 99)):
    try:
        remove(*wrong)
    except (KeyError, ValueError) as error:
        print(f"{type(error).__name__}: {error.args[0]}")
value = sum(entry["quantity"] * entry["price"] for entry in inventory.values())
assert value == 5.0 and list(inventory) == ["apple"]

# %% check passwords and explain
import re

RULES = {
    "eight characters": lambda p: len(p) >= 8,
    "a digit": re.compile(r"\d").search,
    "an upper case letter": re.compile(r"[A-Z]").search,
    "no spaces": lambda p: " " not in p,
}


def missing(password):
    return [name for name, rule in RULES.items() if not rule(password)]


assert missing("Secret123") == [] and missing("a b") == ["eight characters", "a digit", "an upper case letter", "no spaces"]

# %% loan payments as a table
def schedule(principal, annual, months):
    rate = annual / 12
    payment = principal * rate / (1 - (1 + rate) ** -months)
    balance = principal
    for month in range(1, months + 1):
        interest = balance * rate
        balance -= payment - interest
        yield month, round(payment, 2), round(interest, 2), round(abs(balance), 2)


rows = list(schedule(1000, 0.12, 12))
header = f"{'month':>5} {'pay':>8} {'interest':>9} {'left':>9}"
print(header, *(f"{m:>5} {p:>8.2f} {i:>9.2f} {b:>9.2f}" for m, p, i, b in rows), sep="\n")
assert rows[0][1] == 88.85 and rows[-1][3] == 0.0

# %% anagrams and palindromes
from collections import defaultdict

words = "listen silent enlist google elgoog noon level abc".split()
groups = defaultdict(list)
for word in words:
    groups["".join(sorted(word))].append(word)
anagrams = sorted(group for group in groups.values() if len(group) > 1)
assert anagrams == [["google", "elgoog"], ["listen", "silent", "enlist"]]
assert [w for w in words if w == w[::-1]] == ["noon", "level"]

# %% temperatures converted by a table of functions
convert = {
    ("c", "f"): lambda t: t * 9 / 5 + 32,
    ("f", "c"): lambda t: (t - 32) * 5 / 9,
    ("c", "k"): lambda t: t + 273.15,
}
convert["f", "k"] = lambda t: convert["c", "k"](convert["f", "c"](t))
assert convert["c", "f"](100) == 212 and round(convert["f", "k"](32), 2) == 273.15

# %% score a quiz with partial credit
answers = {"q1": "b", "q2": {"a", "c"}, "q3": 3.14}
given = {"q1": "B", "q2": {"a"}, "q3": 3.1, "q4": "?"}


def mark(expected, actual):
    if isinstance(expected, str):
        return float(expected.lower() == actual.lower())
    if isinstance(expected, set):
        return len(expected & actual) / len(expected | actual)
    return 1.0 if abs(expected - actual) < 0.05 else 0.0


marks = {q: mark(expected, given[q]) for q, expected in answers.items() if q in given}
assert marks == {"q1": 1.0, "q2": 0.5, "q3": 1.0} and sum(marks.values()) / len(marks) > 0.8

# %% pascal triangle and binomials
from math import comb

rows = [[1]]
while len(rows) < 6:
    last = rows[-1]
    rows.append([a + b for a, b in zip([0, *last], [*last, 0])])
width = len(" ".join(map(str, rows[-1])))
print("\n".join(" ".join(map(str, row)).center(width) for row in rows))
assert rows[5] == [comb(5, k) for k in range(6)] == [1, 5, 10, 10, 5, 1]

# %% a histogram of dice in text
import random
from collections import Counter

rng = random.Random(2024)
rolls = Counter(rng.randint(1, 6) + rng.randint(1, 6) for _ in range(600))
top = max(rolls.values())
bars = [f"{face:>2} {'#' * round(20 * rolls[face] / top):<20} {rolls[face]}" for face in range(2, 13)]
assert len(bars) == 11 and sum(rolls.values()) == 600 and max(map(len, bars)) <= 27

# %% flatten and rebuild a nested structure
def flatten(obj, prefix=""):
    if isinstance(obj, dict):
        for key, value in obj.items():
            yield from flatten(value, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(obj, list):
        for i, value in enumerate(obj):
            yield from flatten(value, f"{prefix}[{i}]")
    else:
        yield prefix, obj


nested = {"a": {"b": [1, {"c": None}]}, "d": "x"}
flat = dict(flatten(nested))
assert flat == {"a.b[0]": 1, "a.b[1].c": None, "d": "x"}

# %% keep variables across what would be several cells
total = 0
history = []


def record(amount, note=""):
    global total
    total += amount
    history.append((len(history) + 1, amount, note or None))
    return total


record(10, "start")
record(-3)
_ = record(5, note="bonus")
(first_id, *_), *others = history
assert total == 12 and first_id == 1 and len(others) == 2
del record, others
assert "record" not in dir()

# %% clean messy strings from a form
RAW = ["  Ann   LEE ", "o'brien,  PAT", "müller\tJürgen\n", ""]


def tidy(name):
    if "," in name:
        last, _, first = name.partition(",")
        name = f"{first} {last}"
    return " ".join(part.capitalize() if "'" not in part else part.title() for part in name.split())


assert [tidy(n) for n in RAW] == ["Ann Lee", "Pat O'Brien", "Müller Jürgen", ""]
assert "a-b_c".replace("-", " ").replace("_", " ").split() == list("abc")
assert "x".join(["1", "2"]).zfill(5) == "001x2" and "Title Case".swapcase() == "tITLE cASE"
assert "key=value=x".split("=", 1) == ["key", "value=x"] and "prefix_a".removeprefix("prefix_") == "a"

# %% a shopping cart with tax and coupons
from decimal import Decimal

cart = [("book", 2, Decimal("12.50")), ("pen", 10, Decimal("0.99"))]
coupons = {"TEN": lambda total: total * Decimal("0.9"), "FIVE": lambda total: max(total - 5, Decimal(0))}


def checkout(cart, *codes, tax=Decimal("0.2")):
    total = sum((n * price for _, n, price in cart), Decimal(0))
    for code in codes:
        try:
            total = coupons[code](total)
        except KeyError:
            raise ValueError(f"unknown coupon {code}") from None
    return (total * (1 + tax)).quantize(Decimal("0.01"))


assert checkout(cart) == Decimal("41.88")
assert checkout(cart, "TEN", "FIVE") == Decimal("31.69")
try:
    checkout(cart, "NOPE")
except ValueError as error:
    assert str(error) == "unknown coupon NOPE" and error.__cause__ is None

# %% progress with early exits and sentinels
MISSING = object()


def find(items, test, default=MISSING):
    for item in items:
        if test(item):
            return item
    if default is MISSING:
        raise LookupError("nothing found")
    return default


assert find([1, 4, 6], lambda n: n > 3) == 4 and find([], bool, None) is None
try:
    find([0], bool)
except LookupError as error:
    assert error.args == ("nothing found",)
