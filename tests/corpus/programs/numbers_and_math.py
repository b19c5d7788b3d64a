# %% primes factors and modular arithmetic
from math import gcd, isqrt, lcm, prod


def factors(n):
    found, d = [], 2
    while d * d <= n:
        while n % d == 0:
            found.append(d)
            n //= d
        d += 1
    return found + ([n] if n > 1 else [])


def extended(a, b):
    if b == 0:
        return a, 1, 0
    g, x, y = extended(b, a % b)
    return g, y, x - a // b * y


assert factors(360) == [2, 2, 2, 3, 3, 5] and prod(factors(9991)) == 9991
assert gcd(84, 36) == 12 and lcm(4, 6) == 12 and isqrt(99) == 9
assert pow(3, -1, 11) == 4 == extended(3, 11)[1] % 11
assert sum(divmod(17, 5)) == 5

# %% decimal money with rounding
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal, getcontext, localcontext

prices = [Decimal("19.99"), Decimal("5.005"), Decimal("0.1")]
total = sum(prices, Decimal())
assert total == Decimal("25.095")
assert total.quantize(Decimal("0.01"), rounding=ROUND_HALF_UP) == Decimal("25.10")
assert Decimal("2.5").quantize(Decimal("1"), rounding=ROUND_HALF_EVEN) == 2
with localcontext() as context:
    context.prec = 5
    assert str(Decimal(1) / Decimal(7)) == "0.14286"
getcontext().prec = 28
assert f"{Decimal('1234567.891'):,.2f}" == "1,234,567.89"
assert Decimal("NaN").is_nan() and -Decimal("Infinity") < 0

# %% fractions and continued fractions
from fractions import Fraction
from math import pi

assert Fraction("0.75") == Fraction(3, 4) == 0.75
assert sum(Fraction(1, n) for n in range(1, 5)) == Fraction(25, 12)
assert Fraction(pi).limit_denominator(1000) == Fraction(355, 113)


def continued(x):
    while x.denominator != 1:
        whole = x.numerator // x.denominator
        yield whole
        x = 1 / (x - whole)
    yield x.numerator


assert list(continued(Fraction(415, 93))) == [4, 2, 6, 7]

# %% statistics of a sample
import statistics
from statistics import NormalDist, StatisticsError

data = [2, 4, 4, 4, 5, 5, 7, 9]
assert statistics.fmean(data) == 5 and statistics.pstdev(data) == 2
assert statistics.mode(data) == 4 and statistics.median_low(data) == 4
assert statistics.quantiles(data, n=4) == [4.0, 4.5, 6.5]
normal = NormalDist.from_samples(data)
assert round(normal.cdf(normal.mean), 3) == 0.5
slope, intercept = statistics.linear_regression([1, 2, 3], [2, 4, 6])
assert (round(slope, 6), round(intercept, 6)) == (2, 0)
try:
    statistics.mean([])
except StatisticsError as error:
    assert "at least one data point" in str(error)

# %% random sampling that can be repeated
import random

rng = random.Random(42)
again = random.Random(42)
assert [rng.random() for _ in range(3)] == [again.random() for _ in range(3)]
deck = [f"{r}{s}" for s in "SHDC" for r in "23456789TJQKA"]
rng.shuffle(deck)
hands = [deck[i::4] for i in range(4)]
assert sorted(map(len, hands)) == [13] * 4 and len(set(deck)) == 52
random.seed(7)
first = [random.randint(1, 6) for _ in range(5)]
random.seed(7)
assert first == [random.randint(1, 6) for _ in range(5)]
assert random.choices("ab", weights=[0, 1], k=3) == ["b"] * 3
state = rng.getstate()
value = rng.gauss(0, 1)
rng.setstate(state)
assert rng.gauss(0, 1) == value

# %% monte carlo estimate of pi
import random


def estimate(n, seed):
    rng = random.Random(seed)
    inside = sum(rng.random() ** 2 + rng.random() ** 2 <= 1 for _ in range(n))
    return 4 * inside / n


assert abs(estimate(20_000, 1) - 3.14159) < 0.05

# %% newton bisection and numeric integration
import math


def newton(f, df, x, tolerance=1e-12):
    for _ in range(100):
        step = f(x) / df(x)
        x -= step
        if abs(step) < tolerance:
            return x
    raise ArithmeticError("no convergence")


def simpson(f, a, b, n=100):
    h = (b - a) / n
    return h / 3 * sum((1 if i in (0, n) else 4 if i % 2 else 2) * f(a + i * h) for i in range(n + 1))


assert math.isclose(newton(lambda x: x * x - 2, lambda x: 2 * x, 1.0), math.sqrt(2))
assert math.isclose(simpson(math.sin, 0, math.pi), 2, rel_tol=1e-6)
try:
    newton(lambda x: x * x + 1, lambda x: 2 * x or 1, 0.5)
except (ArithmeticError, ZeroDivisionError):
    pass

# %% complex numbers and roots of unity
import cmath

roots = [cmath.exp(2j * cmath.pi * k / 4) for k in range(4)]
assert all(cmath.isclose(r**4, 1) for r in roots)
z = complex(3, 4)
assert abs(z) == 5 and z.conjugate() == 3 - 4j and z.real == 3
assert cmath.isclose(cmath.sqrt(-1), 1j)
r, phi = cmath.polar(1j)
assert r == 1 and cmath.isclose(cmath.rect(r, phi), 1j)

# %% integers in other bases and bit tricks
def to_base(n, base, digits="0123456789abcdefghijklmnopqrstuvwxyz"):
    if n == 0:
        return "0"
    sign, n, out = "-" if n < 0 else "", abs(n), []
    while n:
        n, digit = divmod(n, base)
        out.append(digits[digit])
    return sign + "".join(reversed(out))


assert to_base(255, 16) == f"{255:x}" == "ff" and int("zz", 36) == 1295
assert to_base(-10, 2) == "-1010" and bin(10) == "0b1010"
assert (37).bit_count() == 3 and (1023).bit_length() == 10
assert int.from_bytes(b"\x01\x00", "big") == 256
assert (1000).to_bytes(2, "little") == b"\xe8\x03"
assert 1_000_000 == 10**6 and 0xFF == 255 and 1e3 == 1000

# %% float pitfalls and formatting
import math
import sys

assert 0.1 + 0.2 != 0.3 and math.isclose(0.1 + 0.2, 0.3)
assert math.fsum([0.1] * 10) == 1.0 and sum([0.1] * 10) != 1.0 or sys.version_info >= (3, 12)
assert (0.5).as_integer_ratio() == (1, 2) and float.fromhex("0x1.8p0") == 1.5
assert round(2.5) == 2 and round(-1.567, 1) == -1.6
assert math.inf > 1e308 and math.isnan(math.nan)
assert sys.float_info.max > 1e300 and sys.maxsize > 2**31
assert "%.3e" % 12345.678 == "1.235e+04" and "%5.1f|%-6s|%+d|%%" % (3.14159, "ab", 5) == "  3.1|ab    |+5|%"

# %% vectors with operators and numbers abc
from __future__ import annotations

import math
import numbers
from dataclasses import dataclass


@dataclass(frozen=True)
class Vec:
    x: float
    y: float

    def __add__(self, other: Vec) -> Vec:
        return Vec(self.x + other.x, self.y + other.y)

    def __mul__(self, other: Vec | float) -> Vec | float:
        if isinstance(other, Vec):
            return self.x * other.x + self.y * other.y
        if isinstance(other, numbers.Real):
            return Vec(self.x * other, self.y * other)
        return NotImplemented

    __rmul__ = __mul__

    def __matmul__(self, other: Vec) -> float:
        return self.x * other.y - self.y * other.x

    def __abs__(self) -> float:
        return math.hypot(self.x, self.y)


assert 2 * Vec(1, 2) + Vec(0, 1) == Vec(2, 5)
assert Vec(1, 2) * Vec(3, 4) == 11 and Vec(1, 0) @ Vec(0, 1) == 1
assert abs(Vec(3, 4)) == 5
try:
    Vec(1, 2) * None
except TypeError as error:
    assert "unsupported operand" in str(error)

# %% linear regression and gradient descent by hand
points = [(x, 3 * x + 2) for x in range(10)]
w = b = 0.0
for _ in range(4000):
    dw = sum(2 * (w * x + b - y) * x for x, y in points) / len(points)
    db = sum(2 * (w * x + b - y) for x, y in points) / len(points)
    w -= 0.02 * dw
    b -= 0.02 * db
assert abs(w - 3) < 1e-3 and abs(b - 2) < 1e-2
