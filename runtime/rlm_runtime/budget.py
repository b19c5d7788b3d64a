"""What a run may spend, and the pool that its whole tree of calls spends it from.

Nothing is spent that was not admitted: the most that a request can cost is reserved before it is sent, and what
it did not use is given back after. So no budget is overshot, however many ask at once. Whoever finds too little
left waits while others have something in flight, in the order of coming; when nobody has, the request is made
smaller, and if that is not enough it is refused.

Only requests in flight hold anything: whoever waits for a child, or before another try, holds nothing, and so
nobody can wait for himself. A model that uses more than its bound is counted as it says, and its next bounds are
taken as that much larger. A request that was cut off may have cost all that was reserved: that is held against
the budget, and told apart from what is known.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from collections.abc import AsyncGenerator, Generator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property

import anyio

from .errors import (
    CallBudgetExhausted,
    CostBudgetExhausted,
    MaxDepthExceeded,
    ModelError,
    PriceUnknown,
    RLMError,
    TimeBudgetExhausted,
    TokenBudgetExhausted,
)
from .model import Bound, Model, Request, Usage

LEAST_OUTPUT_TOKENS = 16  # an answer that is made shorter than this is no answer
MAX_REFUSED, MAX_REFUSED_CHARACTERS = 10_000, 64_000_000  # each of them is in the log
SHORT_OUTPUT_TOKENS = 512  # what most answers to one of many questions have room in

_MOST_USD = 1e12  # who tells that one request cost more knows nothing of it
_PARTS = 10**12  # money is counted in whole parts of a dollar, so that giving back is exact
_EXACT_TOKENS = 64  # closer than this, nobody needs to know a share
_RECOVERY = 0.5  # how much further a model that was busy is opened after each answer


@dataclass(frozen=True)
class Budget:
    """What a run may spend. None is no limit.

    `max_subcalls` counts what code asks of models and children, `tokens` and `cost_usd` what models use in the
    whole tree, `wall_seconds` runs from the opening of the pool and stands still while only a client that answers
    by itself is waited for, `at_once` is how many requests are in flight, `max_turns` is kept by each run for
    itself, and `max_tool_calls` ends code that calls tools for ever.
    """

    max_depth: int = 4
    max_subcalls: int = 12
    tokens: int | None = 8000
    cost_usd: float | None = None
    wall_seconds: float | None = None
    at_once: int = 16
    max_turns: int = 30
    max_tool_calls: int = 10_000

    def __post_init__(self) -> None:
        if self.at_once < 1:
            raise ValueError(f"at_once is {self.at_once}, and must be 1 or more.")
        limits = (
            self.max_depth,
            self.max_subcalls,
            self.tokens,
            self.cost_usd,
            self.wall_seconds,
            self.max_turns,
            self.max_tool_calls,
        )
        if any(limit is not None and not limit >= 0 for limit in limits):
            raise ValueError(f"No limit of a budget can be below zero: {self}.")


@dataclass(frozen=True)
class Spent:
    """What was spent up to now. A cost of None is not known, which is not nothing.

    The unsure part is what requests without an answer may have used at most. It is held against the budget
    and is no part of `tokens` and `cost_usd`. What is over the budget was used by a model beyond what it was
    told to keep to.
    """

    calls: int = 0
    requests: int = 0
    tokens: int = 0
    cost_usd: float | None = 0.0
    seconds: float = 0.0
    depth_reached: int = 0
    unsure_tokens: int = 0
    unsure_cost_usd: float | None = 0.0
    over_tokens: int = 0
    over_cost_usd: float = 0.0


class Admitted:
    """A request that may be sent now. Its reservation ends with `settle`, or with the context that gave it."""

    def __init__(self, request: Request, bound: Bound, grant: _Grant) -> None:
        self.request = request
        self.bound = bound
        self._grant = grant

    @property
    def shortened(self) -> bool:
        """Whether less may be answered than was asked for, because no more is left."""
        return self._grant.shortened

    @property
    def in_short(self) -> bool:
        """Whether it may be answered with its share only, and more may be left."""
        return self._grant.in_short

    @property
    def unsure(self) -> Bound | None:
        """The most that it may have used, once it is over and nobody said what it did use."""
        if not self._grant.written_off:
            return None
        worst, out = self._grant.worst, self.bound.output_tokens
        cost = None if self.bound.cost_usd is None else worst.parts / _PARTS
        return Bound(worst.tokens - out, out, cost)

    def settle(self, usage: Usage) -> None:
        """Say what was used. The rest of the reservation is given back."""
        if not self._grant.settled:
            self._grant.settled = True
            self._grant.ledger.settle(self._grant.worst, usage, self.bound, self._grant.lane)
            self._grant.lane.most += _RECOVERY

    def slow_down(self) -> None:
        """Have fewer requests to this model at once, because it has too many.

        What was sent before the last time says nothing new.
        """
        lane = self._grant.lane
        if self._grant.number > lane.lowered_at:
            lane.most = max(1, lane.in_flight // 2)
            lane.lowered_at = lane.admitted


class Pool:
    """What one run, with all its children, may spend. `open_pool` makes one; its clock runs from then on."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.began = anyio.current_time()
        self._clock = _Clock(self.began, budget.wall_seconds)
        self._ledger = _Ledger(budget)
        self._calls = self._requests = self._depth = self._tool_calls = 0
        self._refused = self._refused_characters = 0
        self._in_flight = self._with_client = 0
        self._lanes: dict[str, _Lane] = {}
        self._tickets = itertools.count()
        self._places: dict[int, anyio.Semaphore] = {}

    @property
    def deadline(self) -> float:
        """When the time will be over, as far as it is known now."""
        return self._clock.deadline

    def time_limit(self) -> AbstractContextManager[anyio.CancelScope]:
        """Return a scope that ends when the time is over."""
        return self._clock.limit()

    @property
    def in_flight(self) -> int:
        """How many requests are under way."""
        return self._in_flight

    def spent(self) -> Spent:
        """Return what was spent up to now."""
        ledger = self._ledger
        return Spent(
            calls=self._calls,
            requests=self._requests,
            tokens=ledger.tokens,
            cost_usd=ledger.cost_usd,
            seconds=anyio.current_time() - self.began,
            depth_reached=self._depth,
            unsure_tokens=ledger.unsure.tokens,
            unsure_cost_usd=ledger.unsure_cost_usd,
            over_tokens=ledger.over.tokens,
            over_cost_usd=ledger.over.parts / _PARTS,
        )

    @asynccontextmanager
    async def call(self, depth: int, *, child: bool = False) -> AsyncGenerator[None]:
        """Admit one call of code at `depth`; raise a `BudgetExhausted`.

        Of children, at most `at_once` live at each depth. A child only ever waits for deeper ones, so none
        of them waits for itself.
        """
        self._admit_call(depth)
        if not child:
            yield
            return
        place = self._places.setdefault(depth, anyio.Semaphore(self.budget.at_once))
        with self.time_limit() as patience:
            await place.acquire()
        if patience.cancelled_caught:
            raise self._too_late()
        try:
            yield
        finally:
            place.release()

    def _admit_call(self, depth: int) -> None:
        budget = self.budget
        self.check_time()
        if depth > budget.max_depth:
            raise MaxDepthExceeded(depth, budget.max_depth, "Answer at this depth, or raise max_depth.")
        if self._calls >= budget.max_subcalls:
            advice = "Go on with what is there, ask about larger pieces, or raise max_subcalls."
            raise CallBudgetExhausted(self._calls, budget.max_subcalls, advice)
        self._calls += 1
        self._depth = max(self._depth, depth)

    def tool_call(self) -> None:
        """Admit one call of a tool; raise a `BudgetExhausted`."""
        self.check_time()
        most = self.budget.max_tool_calls
        if self._tool_calls >= most:
            raise CallBudgetExhausted(most, most, "Answer with what is there.", what="max_tool_calls")
        self._tool_calls += 1

    def note_refusal(self, characters: int) -> None:
        """Take note of a call that brought nothing, although it is in the log with so many characters."""
        self._refused += 1
        self._refused_characters += characters

    def check_patience(self) -> None:
        """Raise `CallBudgetExhausted` when code goes on asking although it was refused again and again."""
        if self._refused >= MAX_REFUSED or self._refused_characters >= MAX_REFUSED_CHARACTERS:
            advice = "Nothing more is answered here: end the code."
            raise CallBudgetExhausted(
                self._refused, self._refused, advice, what="patience with calls that are refused"
            )

    def check_time(self) -> None:
        """Raise `TimeBudgetExhausted` when the time is over."""
        if anyio.current_time() >= self.deadline:
            raise self._too_late()

    def _too_late(self) -> TimeBudgetExhausted:
        seconds = round(self._clock.seconds, 3)
        return TimeBudgetExhausted(seconds, self.budget.wall_seconds or 0.0, "Raise wall_seconds for more.")

    @asynccontextmanager
    async def request(
        self, model: Model, request: Request, *, in_short: bool = False
    ) -> AsyncGenerator[Admitted]:
        """Reserve the most that `request` can cost, and hold one of `at_once` meanwhile.

        One `in_short`, if it does not say itself how long its answer may be, takes no more than its share: half
        of what is left is for all that may be asked beside it, unless that is less than a short answer needs.
        Send `admitted.request`, which may be shortened, and `settle` what it used. Without that, a
        request that the model failed costs what its error says, and one that was cut off, or of which the
        error only says that it may be billed, all it could.
        """
        grant, admitted = await self._admission(model, request, in_short)
        try:
            yield admitted
        except ModelError as problem:
            if problem.usage is not None or not problem.may_be_billed:
                self._end(grant, admitted, problem.usage or Usage(cost_usd=0.0))
            raise
        finally:
            costs_nothing = model.kind in ("client", "replay")
            self._end(grant, admitted, Usage(cost_usd=0.0) if costs_nothing else None)

    def take_over(self, usage: Usage, unsure_tokens: int) -> None:
        """Count what a run that is played again had used in tries that are not made again."""
        self._ledger.take_over(usage, unsure_tokens)

    def _end(self, grant: _Grant, admitted: Admitted, usage: Usage | None) -> None:
        """Take note that a request is over; of one that nobody settled, only its bound is known."""
        if not grant.settled:
            grant.settled = True
            if usage is None:
                grant.written_off = True
                self._ledger.write_off(grant.worst, priced=admitted.bound.cost_usd is not None)
            else:
                self._ledger.settle(grant.worst, usage, admitted.bound, grant.lane)
        if grant.in_flight:
            grant.in_flight = False
            grant.lane.in_flight -= 1
            self._in_flight -= 1
            self._with_client -= grant.lane.is_client
            self._admit_waiting()
            self._mind_clock()

    def _mind_clock(self) -> None:
        """Let the time stand still while nothing is waited for but a client that answers by itself."""
        self._clock.stand(0 < self._with_client == self._in_flight)

    # ---- who waits

    async def _admission(self, model: Model, request: Request, in_short: bool) -> tuple[_Grant, Admitted]:
        self.check_time()
        name = request.model or model.name
        bound = model.bound(request)
        if self.budget.cost_usd is not None and bound.cost_usd is None:
            raise PriceUnknown(name)
        lane = self._lanes.setdefault(f"{model.kind} {name}", _Lane(is_client=model.kind == "client"))
        waiting = _Waiting(next(self._tickets), lane, model, request, bound, in_short)
        lane.waiting.append(waiting)
        self._admit_waiting()
        try:
            if waiting.outcome is None:
                with self.time_limit():
                    await waiting.decided.wait()
        except BaseException:
            self._leave(waiting)
            raise
        if waiting.outcome is None:
            self._leave(waiting)
            raise self._too_late()
        if isinstance(waiting.outcome, RLMError):
            raise waiting.outcome
        return waiting.outcome

    def _leave(self, waiting: _Waiting) -> None:
        """Forget somebody who does not wait any longer, and what was granted a moment too late."""
        if isinstance(waiting.outcome, tuple):
            self._requests -= 1
            self._end(*waiting.outcome, Usage(cost_usd=0.0))
        elif waiting.outcome is None:
            waiting.lane.waiting.remove(waiting)
            self._admit_waiting()

    def _admit_waiting(self) -> None:
        """Decide about those who wait, first come first served, until one of them must go on waiting.

        Who waits for a model that is busy is passed by; who waits for a budget is not, because what
        it needs would never come together.
        """
        while self._in_flight < self.budget.at_once and anyio.current_time() < self.deadline:
            heads = [lane.waiting[0] for lane in self._lanes.values() if lane.open]
            first = min(heads, key=lambda waiting: waiting.ticket, default=None)
            if first is None or not self._decide(first):
                return
            first.lane.waiting.popleft()
            first.decided.set()

    def _decide(self, waiting: _Waiting) -> bool:
        """Admit or refuse it, and return True; or return False when it must wait."""
        ledger, lane = self._ledger, waiting.lane
        if waiting.in_short and waiting.request.max_tokens is None and self._shorten(waiting):
            return True
        if ledger.fits(lane.worst(waiting.bound)):
            self._grant(waiting, waiting.request, waiting.bound)
        elif not ledger.could_fit(least := lane.worst(waiting.least)):
            waiting.outcome = ledger.exhausted(least)
        elif self._in_flight:
            return False
        else:
            self._grant(waiting, *_longest(waiting, ledger))
        return True

    def _shorten(self, waiting: _Waiting) -> bool:
        """Admit a request with an answer of its share, where the usual one is longer than that."""
        ledger, lane = self._ledger, waiting.lane
        beside = min(self.budget.at_once - self._in_flight, self.budget.max_subcalls - self._calls + 1)
        most = waiting.bound.output_tokens
        if most <= SHORT_OUTPUT_TOKENS or ledger.has_share(lane.worst(waiting.bound), beside):
            return False
        request, bound = waiting.with_output(SHORT_OUTPUT_TOKENS)
        if not ledger.fits(lane.worst(bound)):
            return False
        low, high = SHORT_OUTPUT_TOKENS, most
        while high - low > _EXACT_TOKENS:
            middle = (low + high) // 2
            longer = waiting.with_output(middle)
            if ledger.has_share(lane.worst(longer[1]), beside):
                low, (request, bound) = middle, longer
            else:
                high = middle
        self._grant(waiting, request, bound, in_short=True)
        return True

    def _grant(self, waiting: _Waiting, request: Request, bound: Bound, *, in_short: bool = False) -> None:
        lane = waiting.lane
        lane.admitted += 1
        lane.in_flight += 1
        self._in_flight += 1
        self._with_client += lane.is_client
        self._mind_clock()
        self._requests += 1
        worst = lane.worst(bound)
        self._ledger.reserve(worst)
        grant = _Grant(self._ledger, lane, worst, lane.admitted, request is not waiting.request, in_short)
        waiting.outcome = (grant, Admitted(request, bound, grant))


def open_pool(budget: Budget) -> Pool:
    """Return a pool of `budget` whose clock begins to run now."""
    return Pool(budget)


def _longest(waiting: _Waiting, ledger: _Ledger) -> tuple[Request, Bound]:
    """Return the request with the longest answer for which enough is left. The shortest one is known to fit."""
    low, best = waiting.shortest.max_tokens or 1, (waiting.shortest, waiting.least)
    high = waiting.bound.output_tokens
    while low < high:
        middle = (low + high + 1) // 2
        request = replace(waiting.request, max_tokens=middle)
        bound = waiting.model.bound(request)
        if ledger.fits(waiting.lane.worst(bound)):
            low, best = middle, (request, bound)
        else:
            high = middle - 1
    return best


class _Clock:
    """The time of a run, which can stand still."""

    def __init__(self, began: float, most_seconds: float | None) -> None:
        self._began = began
        self._most_seconds = math.inf if most_seconds is None else most_seconds
        self._stands_since: float | None = None
        self._scopes = set[anyio.CancelScope]()

    @property
    def seconds(self) -> float:
        """How long it ran."""
        now = anyio.current_time() if self._stands_since is None else self._stands_since
        return now - self._began

    @property
    def deadline(self) -> float:
        return math.inf if self._stands_since is not None else self._began + self._most_seconds

    @contextmanager
    def limit(self) -> Generator[anyio.CancelScope]:
        with anyio.CancelScope(deadline=self.deadline) as scope:
            self._scopes.add(scope)
            try:
                yield scope
            finally:
                self._scopes.discard(scope)

    def stand(self, still: bool) -> None:
        """Stand still, or go on from where it stood. Time that is over stays over."""
        now = anyio.current_time()
        if still == (self._stands_since is not None) or (still and now >= self.deadline):
            return
        if self._stands_since is not None:
            self._began += now - self._stands_since
        self._stands_since = now if still else None
        for scope in self._scopes:
            scope.deadline = self.deadline


# ---- the books


@dataclass(frozen=True)
class _Worst:
    """The most that something may use, in tokens and in parts of a dollar."""

    tokens: int = 0
    parts: int = 0

    def __add__(self, other: _Worst) -> _Worst:
        return _Worst(self.tokens + other.tokens, self.parts + other.parts)

    def __sub__(self, other: _Worst) -> _Worst:
        return _Worst(self.tokens - other.tokens, self.parts - other.parts)


class _Ledger:
    """What was spent and what is reserved, of tokens and of money."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._most_parts = None if budget.cost_usd is None else int(budget.cost_usd * _PARTS)
        self.tokens = 0
        self.cost_usd: float | None = 0.0
        self.unsure = _Worst()
        self._priced = True  # all that is unsure
        self._charged_parts = 0
        self._reserved = _Worst()

    @property
    def over(self) -> _Worst:
        """What was used that the budget does not have."""
        tokens = 0 if self._budget.tokens is None else self.tokens - self._budget.tokens
        parts = 0 if self._most_parts is None else self._charged_parts - self._most_parts
        return _Worst(max(0, tokens), max(0, parts))

    def fits(self, worst: _Worst) -> bool:
        """Whether it can be had beside all that is reserved."""
        return self.could_fit(worst + self._reserved)

    def has_share(self, worst: _Worst, among: int) -> bool:
        """Whether so many of it can be had from half of what is left."""
        many = 2 * max(1, among)
        return self.fits(_Worst(worst.tokens * many, worst.parts * many))

    def could_fit(self, worst: _Worst) -> bool:
        """Whether it can be had if all that is reserved is given back."""
        whole = worst + self.unsure
        tokens, parts = self._budget.tokens, self._most_parts
        return (tokens is None or self.tokens + whole.tokens <= tokens) and (
            parts is None or self._charged_parts + whole.parts <= parts
        )

    def exhausted(self, worst: _Worst) -> TokenBudgetExhausted | CostBudgetExhausted:
        """Return the error for something that cannot be had."""
        used, budget = self.tokens + self.unsure.tokens, self._budget
        if budget.tokens is not None and used + worst.tokens > budget.tokens:
            advice = f"The next request may take {worst.tokens}. Ask with less text, or raise token_budget."
            return TokenBudgetExhausted(used, budget.tokens, advice)
        cost = (self._charged_parts + self.unsure.parts) / _PARTS
        advice = (
            f"The next request may cost {worst.parts / _PARTS:.6g}. Ask with less text, or raise the budget."
        )
        return CostBudgetExhausted(cost, budget.cost_usd or 0.0, advice)

    def reserve(self, worst: _Worst) -> None:
        self._reserved += worst

    @property
    def unsure_cost_usd(self) -> float | None:
        """The most that the unsure part may have cost; None where nobody knows a price."""
        return self.unsure.parts / _PARTS if self._priced else None

    def write_off(self, worst: _Worst, *, priced: bool) -> None:
        """Hold all that was reserved against the budget: what was used of it will never be known."""
        self._reserved -= worst
        self.unsure += worst
        self._priced = self._priced and priced

    def take_over(self, usage: Usage, unsure_tokens: int) -> None:
        """Count what was used elsewhere."""
        self.tokens += usage.tokens
        cost = _sane(usage.cost_usd)
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        self.unsure += _Worst(unsure_tokens)

    def settle(self, worst: _Worst, usage: Usage, bound: Bound, lane: _Lane) -> None:
        """Count what was used in place of what was reserved. A cost that nobody told is charged in full."""
        cost = _sane(usage.cost_usd)
        tokens = max(0, usage.input_tokens) + max(0, usage.output_tokens)
        self._reserved -= worst
        self.tokens += tokens
        self._charged_parts += worst.parts if cost is None else math.ceil(cost * _PARTS)
        self.cost_usd = None if cost is None or self.cost_usd is None else self.cost_usd + cost
        lane.learn(bound, tokens, cost)


def _sane(cost_usd: float | None) -> float | None:
    return cost_usd if cost_usd is not None and 0 <= cost_usd <= _MOST_USD else None


@dataclass
class _Lane:
    """The requests to one model: who waits, how many are in flight, and how many may be."""

    is_client: bool = False
    waiting: deque[_Waiting] = field(default_factory=deque["_Waiting"])
    in_flight: int = 0
    admitted: int = 0
    most: float = math.inf
    lowered_at: int = 0
    tokens_scale: float = 1.0
    cost_scale: float = 1.0

    @property
    def open(self) -> bool:
        return bool(self.waiting) and self.in_flight < int(min(self.most, 1e9))

    def worst(self, bound: Bound) -> _Worst:
        cost = (bound.cost_usd or 0.0) * self.cost_scale
        return _Worst(math.ceil(bound.tokens * self.tokens_scale), math.ceil(cost * _PARTS))

    def learn(self, bound: Bound, tokens: int, cost_usd: float | None) -> None:
        """Take the bounds of a model that used more than its bound as that much larger from now on."""
        if tokens > bound.tokens:
            self.tokens_scale = max(self.tokens_scale, tokens / max(1, bound.tokens))
        if cost_usd and bound.cost_usd and cost_usd > bound.cost_usd:
            self.cost_scale = max(self.cost_scale, cost_usd / bound.cost_usd)


@dataclass
class _Grant:
    """What was granted to one request, until it is over."""

    ledger: _Ledger
    lane: _Lane
    worst: _Worst
    number: int
    shortened: bool
    in_short: bool
    settled: bool = False
    written_off: bool = False
    in_flight: bool = True


@dataclass
class _Waiting:
    """A request for which somebody waits, and what becomes of it."""

    ticket: int
    lane: _Lane
    model: Model
    request: Request
    bound: Bound
    in_short: bool = False
    decided: anyio.Event = field(default_factory=anyio.Event)
    outcome: tuple[_Grant, Admitted] | RLMError | None = None

    @cached_property
    def shortest(self) -> Request:
        """The request with the shortest answer that is worth its price."""
        usual = self.request.max_tokens or max(1, self.bound.output_tokens)
        return replace(self.request, max_tokens=min(usual, LEAST_OUTPUT_TOKENS))

    @cached_property
    def least(self) -> Bound:
        """The most that the shortest one can cost."""
        return self.model.bound(self.shortest)

    def with_output(self, tokens: int) -> tuple[Request, Bound]:
        """The request with an answer of at most so many tokens."""
        request = replace(self.request, max_tokens=tokens)
        return request, self.model.bound(request)
