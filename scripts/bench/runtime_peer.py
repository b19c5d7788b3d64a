"""Runs a peer in the peer's own environment, so that it can be measured. It knows nothing of ours.

    python runtime_peer.py rlms|dspy URL

Each line that comes in is a request, each line that goes out its answer: what the run said and how many seconds it
took by a clock around it, or why it failed. `model` names the root, whose program says what is done; `at_once`, if
it is given, is put in place of the number of questions that the peer has under way at most, which is fixed in it.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

_DEPTH, _CALLS = 2, 1000


class Rlms:
    """rlms, with its REPL in a process of its own kind: the one that it runs in."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._rlm: Any = importlib.import_module("rlm.core.rlm")
        self._handler = self._rlm.LMHandler

    def run(self, model: str, context: str, at_once: int | None) -> str:
        raised = {} if at_once is None else {"batch_max_concurrent": at_once}
        self._rlm.LMHandler = functools.partial(self._handler, **raised)
        engine = self._rlm.RLM(
            backend="openai",
            backend_kwargs=self._backend(model),
            other_backends=["openai"],
            other_backend_kwargs=[self._backend("leaf")],
            max_depth=_DEPTH,
        )
        return str(engine.completion(context).response)

    def _backend(self, model: str) -> dict[str, Any]:
        return {"model_name": model, "base_url": f"{self._url}/v1", "api_key": "none"}


class Dspy:
    """dspy.RLM, with the interpreter of its own that needs nothing from the network: a plain subprocess."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._dspy: Any = importlib.import_module("dspy")
        self._interpreter: Any = importlib.import_module("dspy.primitives.local_interpreter").LocalInterpreter

    def run(self, model: str, context: str, at_once: int | None) -> str:
        engine = self._dspy.RLM(
            "context -> seconds: list[float]",
            max_llm_calls=_CALLS,
            sub_lm=self._lm("leaf"),
            interpreter_factory=self._interpreter,
        )
        if at_once is not None:
            engine._make_llm_tools = functools.partial(engine._make_llm_tools, max_workers=at_once)
        with self._dspy.context(lm=self._lm(model)):
            return str(engine(context=context).seconds)

    def _lm(self, model: str) -> Any:
        return self._dspy.LM(f"openai/{model}", api_base=f"{self._url}/v1", api_key="none", cache=False)


KINDS: dict[str, Callable[[str], Rlms | Dspy]] = {"rlms": Rlms, "dspy": Dspy}


def main() -> None:
    """Answer requests until there are no more."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    peer = KINDS[sys.argv[1]](sys.argv[2])
    for line in sys.stdin:
        print(json.dumps(_answer(peer, json.loads(line))), file=answers, flush=True)


def _answer(peer: Rlms | Dspy, asked: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        output = peer.run(asked["model"], asked["context"], asked.get("at_once"))
    except Exception as problem:  # noqa: BLE001 - of a peer, whose errors can be any
        return {"error": f"{type(problem).__name__}: {problem}"}
    return {"seconds": time.perf_counter() - began, "output": output}


if __name__ == "__main__":
    main()
