"""What is admitted never costs more than there is, however many ask at once, and nobody waits for ever."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime.budget import LEAST_OUTPUT_TOKENS, Budget, Pool, Spent, open_pool
from rlm_runtime.errors import (
    BudgetExhausted,
    CallBudgetExhausted,
    CostBudgetExhausted,
    MaxDepthExceeded,
    ModelBusy,
    PriceUnknown,
    TimeBudgetExhausted,
    TokenBudgetExhausted,
)
from rlm_runtime.model import Message, Model, Request, Usage
from tests.fakes.answering import MemoryModel

NOTHING = Usage(cost_usd=0.0)
ENDLESS = Budget(max_depth=100, max_subcalls=10_000, tokens=None, at_once=4)


def asking(text: str, max_tokens: int | None = None) -> Request:
    return Request((Message("user", text),), max_tokens=max_tokens)


def always(usage: Usage) -> Callable[[Request, str], Usage]:
    return lambda _request, _text: usage


async def ask(pool: Pool, model: Model, request: Request) -> None:
    async with pool.request(model, request) as admitted:
        admitted.settle((await model.complete(admitted.request)).usage)


async def all_at_once(*tasks: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with anyio.fail_after(20):
        async with anyio.create_task_group() as group:
            for task in tasks:
                group.start_soon(task)


class Held:
    """Requests that are in flight until a test lets them end."""

    def __init__(self, pool: Pool, model: Model) -> None:
        self._pool = pool
        self._model = model
        self.admitted: list[str] = []
        self.refused: list[Exception] = []
        self.sizes: dict[str, int | None] = {}
        self._ends: dict[str, anyio.Event] = {}

    async def hold(self, text: str, usage: Usage = NOTHING) -> None:
        request = asking(text)
        try:
            async with self._pool.request(self._model, request) as admitted:
                self.admitted.append(text)
                self.sizes[text] = admitted.request.max_tokens
                await self._ends.setdefault(text, anyio.Event()).wait()
                admitted.settle(usage)
        except BudgetExhausted as problem:
            self.refused.append(problem)

    def end(self, *texts: str) -> None:
        for text in texts:
            self._ends.setdefault(text, anyio.Event()).set()


# ---- tokens and money


async def test_what_a_request_did_not_use_is_given_back() -> None:
    pool, model = open_pool(Budget(tokens=1000)), MemoryModel(usual_output_tokens=900)

    for _ in range(5):
        await ask(pool, model, asking("0123456789"))

    assert pool.spent().tokens == 5 * 20


async def test_a_request_that_does_not_fit_beside_another_waits_for_it_and_gets_its_whole_size() -> None:
    pool, model = open_pool(Budget(tokens=300)), MemoryModel(usual_output_tokens=200)
    held = Held(pool, model)

    before: list[str] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "first")
            group.start_soon(held.hold, "second")
            await anyio.wait_all_tasks_blocked()
            before = list(held.admitted)
            held.end("first", "second")

    assert before == ["first"]
    assert held.admitted == ["first", "second"] and held.sizes["second"] is None


async def test_the_last_request_is_made_as_small_as_what_is_left() -> None:
    pool, model = open_pool(Budget(tokens=100)), MemoryModel(lambda _: "x" * 500, usual_output_tokens=4096)

    await ask(pool, model, asking("0123456789"))

    assert model.requests[0].max_tokens == 90
    assert pool.spent().tokens == 100


async def test_an_answer_is_not_made_shorter_than_one_that_says_something() -> None:
    pool, model = open_pool(Budget(tokens=10 + LEAST_OUTPUT_TOKENS - 1)), MemoryModel()

    with pytest.raises(TokenBudgetExhausted) as caught:
        await ask(pool, model, asking("0123456789"))

    assert model.requests == []
    assert (caught.value.tokens_used, caught.value.budget) == (0, 25)
    assert "may take 26" in str(caught.value)


async def test_a_short_answer_that_was_asked_for_needs_no_more_than_that() -> None:
    pool, model = open_pool(Budget(tokens=12)), MemoryModel(lambda _: "ab")

    await ask(pool, model, asking("0123456789", max_tokens=2))

    assert pool.spent().tokens == 12


async def test_who_can_never_be_admitted_hears_it_while_others_are_still_in_flight() -> None:
    pool, model = open_pool(Budget(tokens=1000)), MemoryModel()
    held = Held(pool, model)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "small")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(TokenBudgetExhausted):
                await ask(pool, model, asking("x" * 2000))
            held.end("small")


async def test_money_is_kept_as_tokens_are() -> None:
    pool = open_pool(Budget(tokens=None, cost_usd=1.0))
    model = MemoryModel(lambda _: "x" * 1000, price_usd=0.01, usual_output_tokens=4096)

    await ask(pool, model, asking("0123456789"))
    with pytest.raises(CostBudgetExhausted):
        await ask(pool, model, asking("more"))

    assert model.requests[0].max_tokens == 90
    assert pool.spent().cost_usd == pytest.approx(1.0)


async def test_a_cost_cap_does_not_pass_on_an_unknown_price() -> None:
    pool, model = open_pool(Budget(cost_usd=1.0)), MemoryModel(price_usd=None)

    with pytest.raises(PriceUnknown, match="memory"):
        await ask(pool, model, asking("hello"))

    assert model.requests == []


async def test_an_unknown_cost_makes_the_sum_unknown_for_good() -> None:
    pool = open_pool(Budget())

    await ask(pool, MemoryModel(), asking("known"))
    await ask(pool, MemoryModel(price_usd=None), asking("unknown"))
    await ask(pool, MemoryModel(), asking("known"))

    assert pool.spent().cost_usd is None


async def test_a_cost_that_a_model_does_not_tell_is_charged_at_its_bound() -> None:
    pool = open_pool(Budget(tokens=None, cost_usd=1.0))
    model = MemoryModel(price_usd=0.005, usual_output_tokens=100, usage=always(Usage(1, 1, None)))

    await ask(pool, model, asking("x" * 90))
    with pytest.raises(CostBudgetExhausted):
        await ask(pool, model, asking("x" * 90, max_tokens=5))

    assert pool.spent().cost_usd is None


async def test_a_model_that_uses_more_than_its_bound_is_counted_and_believed_less() -> None:
    pool = open_pool(Budget(tokens=3000))
    model = MemoryModel(usual_output_tokens=90, usage=always(Usage(500, 500, 0.0)))

    await ask(pool, model, asking("0123456789"))
    await ask(pool, model, asking("0123456789"))
    await ask(pool, model, asking("0123456789"))
    with pytest.raises(TokenBudgetExhausted):
        await ask(pool, model, asking("0123456789"))

    assert pool.spent().tokens == 3000


async def test_nothing_is_admitted_after_a_model_overshot_the_budget() -> None:
    pool, model = open_pool(Budget(tokens=200)), MemoryModel(usage=always(Usage(5000, 5000, 0.0)))

    await ask(pool, model, asking("0123456789"))
    with pytest.raises(TokenBudgetExhausted):
        await ask(pool, MemoryModel(name="honest"), asking("x", max_tokens=1))

    assert pool.spent().tokens == 10_000


@pytest.mark.parametrize(
    "usage", [Usage(-50, -50, -1.0), Usage(0, 0, float("nan")), Usage(0, 0, float("inf"))]
)
async def test_nonsense_in_a_usage_gives_nothing_back(usage: Usage) -> None:
    pool, model = open_pool(Budget(tokens=1000)), MemoryModel(usage=always(usage))

    await ask(pool, model, asking("hello"))

    assert pool.spent().tokens == 0 and pool.spent().cost_usd is None


# ---- calls, depth and time


async def test_calls_are_counted_over_the_whole_tree() -> None:
    pool = open_pool(Budget(max_subcalls=3))

    async with pool.call(1, child=True), pool.call(2, child=True), pool.call(3):
        with pytest.raises(CallBudgetExhausted):
            async with pool.call(1):
                pass

    assert pool.spent().calls == 3 and pool.spent().depth_reached == 3


async def test_no_call_is_deeper_than_max_depth() -> None:
    pool = open_pool(Budget(max_depth=2))

    with pytest.raises(MaxDepthExceeded) as caught:
        async with pool.call(3):
            pass

    assert caught.value.depth == 3 and replace(pool.spent(), seconds=0.0) == Spent()


async def test_when_the_time_is_over_nothing_is_admitted_and_who_waits_hears_it() -> None:
    pool, model = open_pool(Budget(tokens=None, wall_seconds=0.05, at_once=1)), MemoryModel()
    held = Held(pool, model)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "in flight")
            await anyio.wait_all_tasks_blocked()
            with pytest.raises(TimeBudgetExhausted):
                await ask(pool, model, asking("waits"))
            with pytest.raises(TimeBudgetExhausted):
                async with pool.call(1):
                    pass
            held.end("in flight")

    assert held.admitted == ["in flight"] and model.requests == []


@pytest.mark.parametrize("budget", [{"at_once": 0}, {"tokens": -1}, {"wall_seconds": float("nan")}])
def test_a_budget_that_makes_no_sense_is_refused(budget: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"at_once|below zero"):
        Budget(**budget)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# ---- at once, in order


async def test_at_once_is_reached_and_never_passed() -> None:
    pool, model = open_pool(ENDLESS), MemoryModel(seconds=0.001)

    await all_at_once(*[lambda: ask(pool, model, asking("hello"))] * 50)

    assert model.most_at_once == 4 and len(model.requests) == 50


async def test_whoever_came_first_is_first() -> None:
    pool, model = open_pool(replace(ENDLESS, at_once=1)), MemoryModel(seconds=0.0001)

    await all_at_once(*(lambda n=n: ask(pool, model, asking(f"{n:02}")) for n in range(30)))

    assert [request.messages[0].content for request in model.requests] == [f"{n:02}" for n in range(30)]


async def test_whoever_came_first_is_first_also_among_models() -> None:
    pool, asked = open_pool(replace(ENDLESS, at_once=1)), list[str]()

    async def one(number: int) -> None:
        async with pool.request(MemoryModel(name=f"m{number % 3}"), asking("hello")) as admitted:
            asked.append(str(number))
            await anyio.lowlevel.checkpoint()
            admitted.settle(NOTHING)

    await all_at_once(*(partial(one, number) for number in range(12)))

    assert asked == [str(number) for number in range(12)]


async def test_when_a_large_request_is_given_up_those_behind_it_go_on() -> None:
    pool, model = open_pool(replace(ENDLESS, tokens=1200)), MemoryModel(usual_output_tokens=100)
    held = Held(pool, model)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "small")
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as large:
                large.start_soon(held.hold, "L" * 1100)
                await anyio.wait_all_tasks_blocked()
                group.start_soon(held.hold, "behind")
                await anyio.wait_all_tasks_blocked()
                large.cancel_scope.cancel()
            await anyio.wait_all_tasks_blocked()
            held.end(*held.admitted)

    assert held.admitted == ["small", "behind"]


async def test_small_requests_do_not_starve_a_large_one() -> None:
    pool, model = open_pool(replace(ENDLESS, tokens=1200)), MemoryModel(usual_output_tokens=100)
    held = Held(pool, model)

    waiting: list[str] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "small")
            await anyio.wait_all_tasks_blocked()
            group.start_soon(held.hold, "L" * 1100)
            group.start_soon(held.hold, "later")
            await anyio.wait_all_tasks_blocked()
            waiting = list(held.admitted)
            held.end("small", "L" * 1100, "later")

    assert waiting == ["small"]
    assert held.admitted == ["small", "L" * 1100, "later"]


async def test_a_model_that_has_too_many_gets_half_as_many_and_more_again_when_it_answers() -> None:
    pool, model = open_pool(replace(ENDLESS, at_once=8)), MemoryModel()
    held = Held(pool, model)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for n in range(7):
                group.start_soon(held.hold, str(n))
            await anyio.wait_all_tasks_blocked()
            async with pool.request(model, asking("too many")) as admitted:
                admitted.slow_down()
            held.end(*"0123456")
    slow = MemoryModel(seconds=0.001)
    await all_at_once(*[lambda: ask(pool, slow, asking("hello"))] * 4)
    first = slow.most_at_once
    await all_at_once(*[lambda: ask(pool, slow, asking("hello"))] * 40)

    assert 4 <= first < 8
    assert slow.most_at_once == 8


async def test_who_waits_for_a_busy_model_does_not_hold_up_another() -> None:
    pool, busy, other = open_pool(replace(ENDLESS, at_once=4)), MemoryModel(), MemoryModel(name="other")
    held = Held(pool, busy)

    before: list[str] = []
    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            async with pool.request(busy, asking("too many")) as admitted:
                admitted.slow_down()
            group.start_soon(held.hold, "first")
            group.start_soon(held.hold, "waits")
            await anyio.wait_all_tasks_blocked()
            await ask(pool, other, asking("hello"))
            before = list(held.admitted)
            held.end("first", "waits")

    assert before == ["first"] and len(other.requests) == 1


# ---- ends that nobody planned


async def test_who_is_cancelled_while_waiting_leaves_nothing_behind() -> None:
    pool, model = open_pool(replace(ENDLESS, tokens=10_000, at_once=1)), MemoryModel()
    held = Held(pool, model)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "in flight")
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(ask, pool, model, asking("waits"))
                await anyio.wait_all_tasks_blocked()
                waiting.cancel_scope.cancel()
            held.end("in flight")
    await ask(pool, model, asking("x" * 9900))

    assert pool.spent().unsure_tokens == 0 and pool.spent().requests == 2


async def test_who_is_cancelled_at_the_moment_of_being_admitted_gives_back_its_place() -> None:
    pool, model = open_pool(replace(ENDLESS, at_once=1)), MemoryModel()
    held = Held(pool, model)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(held.hold, "in flight")
            await anyio.wait_all_tasks_blocked()
            async with anyio.create_task_group() as waiting:
                waiting.start_soon(held.hold, "cancelled")
                await anyio.wait_all_tasks_blocked()
                held.end("in flight")
                await anyio.lowlevel.checkpoint()  # the first one ends, and admits the second
                waiting.cancel_scope.cancel()
            await ask(pool, model, asking("next"))

    assert len(model.requests) == 1


async def test_a_request_that_is_cut_off_is_held_against_the_budget_and_told_apart() -> None:
    pool, model = open_pool(Budget(tokens=1000)), MemoryModel()

    with anyio.move_on_after(0.01):
        async with pool.request(model, asking("0123456789")):
            await anyio.sleep_forever()

    assert pool.spent().tokens == 0 and pool.spent().unsure_tokens == 110
    with pytest.raises(TokenBudgetExhausted):
        await ask(pool, model, asking("x" * 880))


async def test_a_request_that_a_client_never_answered_costs_nothing() -> None:
    pool, model = open_pool(Budget(tokens=1000)), MemoryModel(kind="client")

    with anyio.move_on_after(0.01):
        async with pool.request(model, asking("0123456789")):
            await anyio.sleep_forever()

    assert pool.spent().unsure_tokens == 0


async def test_a_failed_request_costs_what_its_error_says() -> None:
    pool, model = open_pool(Budget(tokens=1000)), MemoryModel()
    told = ModelBusy("memory", "it broke off")
    told.usage = Usage(7, 3, 0.5)

    for problem in (ModelBusy("memory", "too many"), told):
        with pytest.raises(ModelBusy):
            async with pool.request(model, asking("0123456789")):
                raise problem

    assert pool.spent().tokens == 10 and pool.spent().cost_usd == 0.5 and pool.spent().unsure_tokens == 0


async def test_a_parent_that_waits_for_its_children_holds_none_of_at_once() -> None:
    pool, model = open_pool(replace(ENDLESS, at_once=1)), MemoryModel(seconds=0.0001)

    async def run(depth: int) -> None:
        async with pool.call(depth, child=depth < 4):
            await ask(pool, model, asking("before"))
            if depth < 4:
                await all_at_once(*[lambda: run(depth + 1)] * 2)
            await ask(pool, model, asking("after"))

    await all_at_once(*[lambda: run(1)] * 3)

    assert len(model.requests) == 2 * 3 * (1 + 2 + 4 + 8) and model.most_at_once == 1


# ---- properties


ASKS = st.lists(
    st.tuples(
        st.integers(1, 200),  # characters of the prompt
        st.none() | st.integers(1, 300),  # max_tokens
        st.integers(0, 400),  # characters of the answer
        st.integers(0, 4),  # after how many turns of the loop it comes
        st.integers(0, 3),  # how long the model takes, in turns
        st.none() | st.integers(0, 8),  # after how many turns it is cancelled
        st.booleans(),  # whether the model is busy
        st.integers(0, 1),  # which model
    ),
    min_size=1,
    max_size=25,
)


async def turns(count: int) -> None:
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


@settings(max_examples=150, deadline=None)
@given(asks=ASKS, tokens=st.integers(0, 2000), at_once=st.integers(1, 6), price=st.floats(0, 0.01))
def test_whatever_is_asked_in_whatever_order_nothing_overshoots_and_nothing_leaks(
    asks: list[tuple[int, int | None, int, int, int, int | None, bool, int]],
    tokens: int,
    at_once: int,
    price: float,
) -> None:
    cost_usd = price * 500
    billed_tokens = billed_cost = in_flight = most = 0.0

    async def scenario() -> None:
        nonlocal billed_tokens, billed_cost, in_flight, most
        pool = open_pool(Budget(tokens=tokens, cost_usd=cost_usd, at_once=at_once, max_subcalls=1000))
        models = [MemoryModel(name=f"m{n}", price_usd=price) for n in range(2)]

        async def one(ask: tuple[int, int | None, int, int, int, int | None, bool, int]) -> None:
            nonlocal billed_tokens, billed_cost, in_flight, most
            characters, max_tokens, answered, after, takes, _, busy, which = ask
            await turns(after)
            model = models[which]
            try:
                async with pool.request(model, asking("x" * characters, max_tokens)) as admitted:
                    in_flight += 1
                    most = max(most, in_flight)
                    bound = model.bound(admitted.request)
                    used = min(answered, bound.output_tokens)
                    try:
                        if busy:
                            await turns(takes)
                            admitted.slow_down()
                            raise ModelBusy(model.name, "busy")
                        # billed as soon as it is sent, whoever still listens
                        billed_tokens += characters + used
                        billed_cost += (characters + used) * price
                        await turns(takes)
                        admitted.settle(Usage(characters, used, (characters + used) * price))
                    finally:
                        in_flight -= 1
            except (BudgetExhausted, ModelBusy):
                pass

        async def with_cancel(ask: tuple[int, int | None, int, int, int, int | None, bool, int]) -> None:
            if ask[5] is None:
                await one(ask)
                return
            async with anyio.create_task_group() as group:
                group.start_soon(one, ask)
                await turns(ask[5])
                group.cancel_scope.cancel()

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                for ask in asks:
                    group.start_soon(with_cancel, ask)
        spent = pool.spent()
        assert billed_tokens <= spent.tokens + spent.unsure_tokens <= tokens
        assert billed_cost <= cost_usd * (1 + 1e-9)
        assert most <= at_once
        await no_leak(pool, tokens - spent.tokens - spent.unsure_tokens)

    anyio.run(scenario)


async def no_leak(pool: Pool, left: int) -> None:
    """Have all that is left of the tokens asked for at once, and every place taken."""
    budget = pool.budget
    if left >= 2:
        async with pool.request(
            MemoryModel(name="free", price_usd=0.0), asking("x" * (left - 1), 1)
        ) as admitted:
            admitted.settle(NOTHING)
    free = [MemoryModel(name=f"free{n}", price_usd=0.0) for n in range(budget.at_once)]
    if left < 2 * budget.at_once:
        return
    async with anyio.create_task_group() as group:
        held = [Held(pool, model) for model in free]
        for n, each in enumerate(held):
            group.start_soon(_hold_small, pool, free[n], each)
        await anyio.wait_all_tasks_blocked()
        assert sum(len(each.admitted) for each in held) == budget.at_once
        group.cancel_scope.cancel()


async def _hold_small(pool: Pool, model: MemoryModel, held: Held) -> None:
    async with pool.request(model, asking("x", 1)):
        held.admitted.append("x")
        await anyio.sleep_forever()


TREES: st.SearchStrategy[Any] = st.recursive(
    st.just(()), lambda inner: st.lists(inner, max_size=4), max_leaves=20
)


@settings(max_examples=60, deadline=None)
@given(
    tree=TREES,
    at_once=st.integers(1, 3),
    tokens=st.integers(0, 3000),
    cancelled=st.none() | st.integers(0, 30),
)
def test_no_tree_of_parents_that_wait_for_children_stands_still(
    tree: Sequence[Any], at_once: int, tokens: int, cancelled: int | None
) -> None:
    async def scenario() -> None:
        pool, model = open_pool(replace(ENDLESS, at_once=at_once, tokens=tokens)), MemoryModel()

        async def run(node: Sequence[Any], depth: int) -> None:
            try:
                async with pool.call(depth, child=True):
                    await ask(pool, model, asking("before"))
                    async with anyio.create_task_group() as group:
                        for child in node:
                            group.start_soon(run, child, depth + 1)
                    await ask(pool, model, asking("after"))
            except BudgetExhausted:
                pass

        with anyio.fail_after(10):
            async with anyio.create_task_group() as group:
                group.start_soon(run, tree, 1)
                if cancelled is not None:
                    await turns(cancelled)
                    group.cancel_scope.cancel()
        assert pool.spent().tokens + pool.spent().unsure_tokens <= tokens
        await no_leak(pool, tokens - pool.spent().tokens - pool.spent().unsure_tokens)

    anyio.run(scenario)


# ---- the clock


async def test_the_clock_stands_still_while_only_a_client_is_waited_for() -> None:
    pool, thought = open_pool(Budget(wall_seconds=0.2)), anyio.Event()
    client = MemoryModel(kind="client")

    async with anyio.create_task_group() as tasks:
        with pool.time_limit():
            async with pool.request(client, Request((Message("user", "a"),))) as admitted:
                tasks.start_soon(_later, thought, 0.5)
                await thought.wait()
                admitted.settle(NOTHING)
            pool.check_time()
            await anyio.sleep(5)

    with pytest.raises(TimeBudgetExhausted, match=r"0\.2"):
        pool.check_time()


async def test_the_clock_runs_while_anything_else_is_waited_for() -> None:
    pool = open_pool(Budget(wall_seconds=0.1))

    with pool.time_limit() as limit:
        async with pool.request(MemoryModel(kind="client"), Request((Message("user", "a"),))):
            async with pool.request(MemoryModel(), Request((Message("user", "b"),))):
                await anyio.sleep(5)

    assert limit.cancelled_caught


async def _later(event: anyio.Event, seconds: float) -> None:
    await anyio.sleep(seconds)
    event.set()
