"""A dozen small programs of the kinds that models write; each keeps one core busy for about a tenth of a second."""

from __future__ import annotations

PROGRAMS: dict[str, str] = {
    "sums at module level": """
total = 0
for number in range(1_500_000):
    if number % 3 == 0:
        total += number * 2
""",
    "recursion": """
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
total = fib(28)
""",
    "sieve": """
def primes(limit):
    sieve = [True] * limit
    for number in range(2, int(limit ** 0.5) + 1):
        if sieve[number]:
            for multiple in range(number * number, limit, number):
                sieve[multiple] = False
    return [number for number in range(2, limit) if sieve[number]]
total = len(primes(1_200_000))
""",
    "counting words": """
text = "the quick brown fox jumps over the lazy dog and runs away from the angry bear " * 30_000
counts = {}
for word in text.split():
    counts[word] = counts.get(word, 0) + 1
total = sorted(counts.items(), key=lambda item: -item[1])[0][1]
""",
    "objects": """
class Account:
    def __init__(self, owner):
        self.owner = owner
        self.balance = 0
        self.history = []
    def deposit(self, amount):
        self.balance = self.balance + amount
        self.history.append(amount)
accounts = [Account(f"owner {n}") for n in range(100)]
for turn in range(8000):
    for account in accounts:
        account.deposit(turn)
total = sum(account.balance for account in accounts)
""",
    "matrices of lists": """
def product(a, b):
    columns = list(zip(*b))
    return [[sum(x * y for x, y in zip(row, column)) for column in columns] for row in a]
matrix = [[(i * j) % 7 for j in range(130)] for i in range(130)]
total = sum(map(sum, product(matrix, matrix)))
""",
    "strings": """
parts = []
for number in range(200_000):
    parts.append(f"{number:05d}:{number % 17}".upper().replace(":", "-"))
total = len(",".join(parts))
""",
    "regular expressions": """
import re
pattern = re.compile(r"(\\w+)@(\\w+)\\.com")
text = " ".join(f"name{n}@host{n % 9}.com or nothing" for n in range(70_000))
total = sum(len(user) for user, host in pattern.findall(text))
""",
    "JSON": """
import json
records = [{"id": n, "name": f"record {n}", "tags": ["a", "b", str(n)], "value": n / 7} for n in range(25_000)]
total = len(json.loads(json.dumps(records)))
""",
    "generators": """
def numbers(limit):
    for number in range(limit):
        yield number
def squares(source):
    for number in source:
        yield number * number
total = sum(number for number in squares(numbers(1_200_000)) if number % 2)
""",
    "exceptions": """
total = 0
for number in range(600_000):
    try:
        total += 10 // (number % 5)
    except ZeroDivisionError:
        total -= 1
""",
    "dynamic programming": """
def distance(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (x != y))
    return row[-1]
total = distance("kitten sitting on a mitten " * 24, "sitting kitten in the kitchen " * 24)
""",
}


def timed(source: str) -> str:
    """Return the program with two clocks around it: it prints the seconds that passed, and those it worked."""
    before = "import time\nbegan, worked = time.perf_counter(), time.process_time()\n"
    return f"{before}{source}\nprint(time.perf_counter() - began, time.process_time() - worked)\n"
