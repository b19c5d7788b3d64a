# %% gather with a bounded semaphore
import asyncio


async def work(n, limit, running):
    async with limit:
        running.append(n)
        await asyncio.sleep(0)
        return n * n


async def main():
    limit = asyncio.Semaphore(3)
    running = []
    results = await asyncio.gather(*(work(n, limit, running) for n in range(8)))
    return results, running


results, running = asyncio.run(main())
assert results == [n * n for n in range(8)] and sorted(running) == list(range(8))

# %% top level await
import asyncio


async def double(x):
    await asyncio.sleep(0)
    return 2 * x


value = await double(21)
values = [await double(i) for i in range(3)]
assert value == 42 and values == [0, 2, 4]
async with asyncio.timeout(5):
    value = await double(value)
assert value == 84

# %% async generators and comprehensions
import asyncio


async def numbers(n):
    for i in range(n):
        await asyncio.sleep(0)
        yield i


async def main():
    evens = [i async for i in numbers(6) if i % 2 == 0]
    squares = {i: i * i async for i in numbers(4)}
    total = 0
    async for i in numbers(5):
        if i == 3:
            break
        total += i
    else:
        total = -1
    return evens, squares, total


assert asyncio.run(main()) == ([0, 2, 4], {0: 0, 1: 1, 2: 4, 3: 9}, 3)

# %% producer consumer with a queue
import asyncio


async def producer(queue, n):
    for i in range(n):
        await queue.put(i)
    await queue.put(None)


async def consumer(queue):
    got = []
    while (item := await queue.get()) is not None:
        got.append(item * 10)
        queue.task_done()
    return got


async def main():
    queue = asyncio.Queue(maxsize=2)
    task = asyncio.create_task(producer(queue, 5))
    got = await consumer(queue)
    await task
    return got


assert asyncio.run(main()) == [0, 10, 20, 30, 40]

# %% async context managers and iterators as classes
import asyncio


class Connection:
    def __init__(self):
        self.log = []

    async def __aenter__(self):
        self.log.append("open")
        return self

    async def __aexit__(self, kind, error, trace):
        self.log.append("close" if kind is None else kind.__name__)
        return True

    def __aiter__(self):
        self._left = 3
        return self

    async def __anext__(self):
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        return self._left


async def main():
    async with Connection() as connection:
        rows = [row async for row in connection]
    async with connection:
        raise ValueError("lost")
    return rows, connection.log


assert asyncio.run(main()) == ([2, 1, 0], ["open", "close", "open", "ValueError"])

# %% task groups and cancellation
import asyncio


async def child(name, log, delay):
    try:
        await asyncio.sleep(delay)
        log.append(f"{name} done")
        return name
    except asyncio.CancelledError:
        log.append(f"{name} cancelled")
        raise


async def main():
    log = []
    async with asyncio.TaskGroup() as group:
        a = group.create_task(child("a", log, 0))
        b = group.create_task(child("b", log, 0))
    results = [a.result(), b.result()]
    task = asyncio.create_task(child("c", log, 60))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        results.append("gone")
    return results, log


assert asyncio.run(main()) == (["a", "b", "gone"], ["a done", "b done", "c cancelled"])

# %% timeouts and wait for first
import asyncio


async def after(delay, value):
    await asyncio.sleep(delay)
    return value


async def main():
    try:
        await asyncio.wait_for(after(30, "slow"), timeout=0.01)
    except asyncio.TimeoutError:
        outcome = "timeout"
    tasks = {asyncio.create_task(after(0, "fast")), asyncio.create_task(after(30, "slow"))}
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    return outcome, [task.result() for task in done]


assert asyncio.run(main()) == ("timeout", ["fast"])

# %% results as they complete with errors collected
import asyncio


async def job(n):
    await asyncio.sleep(0)
    if n == 2:
        raise ValueError(f"job {n}")
    return n


async def main():
    results = await asyncio.gather(*map(job, range(4)), return_exceptions=True)
    good = [r for r in results if not isinstance(r, Exception)]
    bad = [str(r) for r in results if isinstance(r, Exception)]
    finished = []
    for future in asyncio.as_completed([job(0), job(1)]):
        finished.append(await future)
    return good, bad, sorted(finished)


assert asyncio.run(main()) == ([0, 1, 3], ["job 2"], [0, 1])

# %% async locks events and shared state
import asyncio
from contextlib import asynccontextmanager


@asynccontextmanager
async def transaction(store):
    backup = dict(store)
    try:
        yield store
    except Exception:
        store.clear()
        store.update(backup)
        raise


async def main():
    lock, ready = asyncio.Lock(), asyncio.Event()
    store = {"n": 0}

    async def bump():
        await ready.wait()
        async with lock:
            current = store["n"]
            await asyncio.sleep(0)
            store["n"] = current + 1

    tasks = [asyncio.create_task(bump()) for _ in range(5)]
    ready.set()
    await asyncio.gather(*tasks)
    try:
        async with transaction(store):
            store["n"] = 99
            raise RuntimeError
    except RuntimeError:
        pass
    return store["n"]


assert asyncio.run(main()) == 5

# %% awaitable objects and coroutine plumbing
import asyncio
import types


class Later:
    def __init__(self, value):
        self.value = value

    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return self.value


@types.coroutine
def bare():
    yield
    return "bare"


async def main():
    return await Later(3) + len(await bare())


assert asyncio.run(main()) == 7
coroutine = main()
assert asyncio.iscoroutine(coroutine)
coroutine.close()

# %% run blocking work in threads
import asyncio
import time


def blocking(n):
    time.sleep(0.001)
    return n + 1


async def main():
    return await asyncio.gather(*(asyncio.to_thread(blocking, i) for i in range(4)))


assert asyncio.run(main()) == [1, 2, 3, 4]
