"""Scripts for a scripted model, and scripts made of scripts.

conversation(first, second, ...)   a root: its nth turn answers, whoever else talks at the same time
by_model({"root": ..., "leaf": ...})   another script for each model that is asked
Oracle(secret)                     a leaf that nobody can guess: what it says depends on the prompt and the secret
failing_first(turn, script)        each prompt meets `turn` first, once or `times` times
late(seconds, script)              the same, after a while
backwards(n, script)               n requests at once, of which the last one is answered first
"""

from __future__ import annotations

import hmac
from collections import Counter
from collections.abc import Mapping, Sequence
from inspect import isawaitable

import anyio

from tests.fakes.turns import Answer, Answerer, Refusal, Reply, Request, Turn


async def turn_of(answer: Answer, request: Request) -> Turn:
    """Return the turn that an answer comes to for a request."""
    if not callable(answer):
        return answer
    turn = answer(request)
    return await turn if isawaitable(turn) else turn


def conversation(*turns: Answer) -> Answerer:
    """A model whose turn is told by the conversation alone: what is asked the nth time gets the nth answer."""

    async def answer(request: Request) -> Turn:
        if request.turn >= len(turns):
            return Refusal(400, "The script of this model has no further turn.")
        return await turn_of(turns[request.turn], request)

    return answer


def by_model(scripts: Mapping[str, Answer]) -> Answerer:
    """Several models at one address."""

    async def answer(request: Request) -> Turn:
        if request.model not in scripts:
            return Refusal(404, f"The model {request.model} does not exist.", code="model_not_found")
        return await turn_of(scripts[request.model], request)

    return answer


class Oracle:
    """A model that answers each prompt in a way that only its secret explains. Use it as a script."""

    def __init__(self, secret: str, *, among: Sequence[str] = ()) -> None:
        self._secret = secret.encode()
        self._among = among

    def says(self, prompt: str) -> str:
        """Return what it says to a prompt: one of `among`, or twelve characters."""
        sealed = hmac.digest(self._secret, prompt.encode("utf-8", "replace"), "sha256")
        if self._among:
            return self._among[int.from_bytes(sealed[:8], "big") % len(self._among)]
        return sealed.hex()[:12]

    def __call__(self, request: Request) -> Turn:
        return Reply(self.says(request.prompt))


def failing_first(turn: Turn, script: Answer, *, times: int = 1) -> Answerer:
    """A model that answers no prompt before it was asked `times` times."""
    asked: Counter[str] = Counter()

    async def answer(request: Request) -> Turn:
        asked[request.prompt] += 1
        return turn if asked[request.prompt] <= times else await turn_of(script, request)

    return answer


def late(seconds: float, script: Answer) -> Answerer:
    """A model that takes its time."""

    async def answer(request: Request) -> Turn:
        await anyio.sleep(seconds)
        return await turn_of(script, request)

    return answer


def backwards(number: int, script: Answer) -> Answerer:
    """A model that waits for so many requests at once, and answers the last one first, one after another."""
    answered = [anyio.Event() for _ in range(number)]
    place = iter(range(number))

    async def answer(request: Request) -> Turn:
        mine = next(place)
        if mine < number - 1:
            await answered[mine + 1].wait()
        turn = await turn_of(script, request)
        answered[mine].set()
        return turn

    return answer
