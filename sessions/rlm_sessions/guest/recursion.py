"""What code in a cell asks models, child runs and tools by; and `final`, which ends the cell with an answer.

They are builtins of every cell. Each asks one call of the host, which decides who answers it and what it may cost;
nothing here knows a model. In a thread with a running event loop they return an awaitable that has been asked already.
"""

from __future__ import annotations

import inspect
import itertools
import json
import keyword
import math
import re
import sys
import threading
import types
from collections.abc import Iterable
from typing import Any, Callable, NamedTuple, Union

from . import variables
from .awaiting import changed, handed_over
from .batches import Answers, Batch
from .calls import Calls, wait_for
from .failures import FAMILY, CallFailed

MAX_CALL_BYTES = 16 * 1024 * 1024

_PLACES = re.compile(r"\{(item|index)\}")
_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

_Prompts = Union[str, Callable[[Any], str], Iterable[str]]


class FinalAnswer(SystemExit):
    """Ends a cell by `final`. No `Exception`, so that code which catches those does not stop it."""


class Given(NamedTuple):
    """What `final` was given."""

    value: Any


class Functions:
    """The functions for the cells of one session, with the tools that were granted to it."""

    def __init__(self, calls: Calls, tools: Iterable[dict[str, Any]] = ()) -> None:
        self._calls = calls
        self._main = threading.get_ident()
        self._groups = itertools.count(1)
        self._tools = {told["name"]: _function_for(_Tool(self, told), told["description"]) for told in tools}
        self._is_answered = False
        self.given: Given | None = None

    def names(self) -> dict[str, Any]:
        """Return what cells find as builtins."""
        own = {name: getattr(self, name) for name in "llm_query llm_map rlm_query rlm_map final".split()}
        batched = {"llm_query_batched": self.llm_map, "rlm_query_batched": self.rlm_map}
        classes = {kind.__name__: kind for kind in FAMILY}
        return {**batched, **own, **classes, "Answers": Answers, **self._tools}

    def begin_cell(self, *, is_answered: bool) -> None:
        """Forget the answer that the cell before gave."""
        self._is_answered = is_answered
        self.given = None

    # ---- models

    def llm_query(
        self,
        prompt: str,
        *,
        system: str | None = None,
        model: str | None = None,
        schema: dict[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        fresh: bool = False,
    ) -> Any:
        """Ask a model one question and return its answer: text, or with `schema` the value it describes.

        The model sees `system` and `prompt` and nothing else, so the prompt must hold what it is to read.
        `schema` is a JSON schema (a dict); `model` names another model than the usual one for sub-calls;
        `fresh=True` asks again even where the answer is known. In async code: `await llm_query(...)`.

        Raises CallFailed: BudgetExhausted, ModelBusy (after all retries), ModelRefused, ModelUnavailable,
        AnswerInvalid (no answer fits the schema). For many questions use llm_map, which asks them at once.
        """
        options = _options(
            system=system, model=model, schema=schema, max_tokens=max_tokens, temperature=temperature
        )
        return self._ask("llm_query", {"prompt": _text(prompt), **options, **_fresh(fresh)})

    def llm_map(
        self,
        prompts: _Prompts,
        items: Iterable[Any] | None = None,
        *,
        system: str | None = None,
        model: str | None = None,
        schema: dict[str, Any] | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        max_concurrency: int | None = None,
        fresh: bool = False,
    ) -> Any:
        """Ask a model many questions at once and return the answers, in order.

        llm_map(["...", "..."])                                 one prompt each
        llm_map("Summarize, in one line:\\n{item}", chunks)      a template: {item}, and {index} if wanted
        llm_map(lambda chunk: f"Summarize {chunk!r}", chunks)   a function that makes each prompt

        A question that fails has its error (a CallFailed) in its place and never ends the others: see `.failed`,
        a list of (index, error), and `.ok`, the answers without those. Options are those of llm_query;
        `max_concurrency` asks fewer at a time. In async code: `await llm_map(...)`.
        """
        options = _options(
            system=system, model=model, schema=schema, max_tokens=max_tokens, temperature=temperature
        )
        texts = _prompts(prompts, items, "llm_query")
        return self._ask_all(
            "llm_query", [{"prompt": text} for text in texts], {**options, **_fresh(fresh)}, max_concurrency
        )

    # ---- child runs

    def rlm_query(
        self,
        prompt: str,
        context: Any = None,
        *,
        model: str | None = None,
        schema: dict[str, Any] | None = None,
        tools: Iterable[str] | None = None,
    ) -> Any:
        """Have a model work on `prompt` in a REPL of its own, where `context` is a variable; return its answer.

        For what one look by llm_query cannot do: a context too long for one prompt, or work in steps. `context` is
        text or plain data of any size up to 16 MB. `tools` names the tools it gets: all that may be granted unless
        given, none for []. It sees no variable of yours. Options, errors and `await` as with llm_query.
        """
        options = _child_options(model=model, schema=schema, tools=tools)
        return self._ask("rlm_query", {"prompt": _text(prompt), **_context(context), **options})

    def rlm_map(
        self,
        prompts: _Prompts,
        items: Iterable[Any] | None = None,
        *,
        contexts: Iterable[Any] | None = None,
        model: str | None = None,
        schema: dict[str, Any] | None = None,
        tools: Iterable[str] | None = None,
        max_concurrency: int | None = None,
    ) -> Any:
        """Start many rlm_query at once and return their answers, in order; prompts and errors as with llm_map.

        rlm_map("List every date in `context`.", contexts=documents)   one prompt, each with a context of its own
        rlm_map(["...", "..."], contexts=[first, second])              and with prompts of their own
        """
        options = _child_options(model=model, schema=schema, tools=tools)
        questions = _child_questions(prompts, items, contexts)
        return self._ask_all("rlm_query", questions, options, max_concurrency)

    # ---- tools

    def call_tool(self, name: str, arguments: dict[str, Any]) -> Any:
        """Call a tool of the host."""
        return handed_over(self._asked("tool", {"name": name, "arguments": arguments}))

    # ---- the answer

    def final(self, value: Any) -> None:
        """End this cell with `value` as the answer.

        Any value: text of any length, plain data exactly as it is, anything else as its repr. Nothing after it
        runs, but `finally` does. The first one counts. For the cell's own code, not for threads.
        """
        if threading.get_ident() != self._main:
            raise RuntimeError(
                "final() ends the cell, which a thread cannot do. Return the value from the thread, and give it to "
                "final() in the cell's own code."
            )
        if self.given is None:
            if self._is_answered:
                asked = self._calls.ask("final", _body(_final_payload(value)))
                self._calls.hurry()
                wait_for(asked)
            self.given = Given(value)
        raise FinalAnswer

    # ---- help

    def help(self, *about: Any) -> None:
        """Print what there is to know about something; without anything, what code here can call."""
        if not about:
            own = ("llm_query", "llm_map", "rlm_query", "rlm_map", *self._tools, "final", "display")
            sys.stdout.write(f"Code here can call {', '.join(own)}. help(llm_map) tells about one.\n")
            return
        own_words = _words_of(about[0]) if len(about) == 1 else None
        if own_words is not None:
            sys.stdout.write(f"{own_words}\n")
            return
        import pydoc

        pydoc.Helper(output=sys.stdout).help(*about)

    # ---- asking

    def _ask(self, name: str, payload: dict[str, Any]) -> Any:
        return handed_over(changed(self._asked(name, payload), _content))

    def _asked(self, name: str, payload: dict[str, Any]) -> Any:
        asked = self._calls.ask(name, _body(payload))
        self._calls.hurry()
        return asked

    def _ask_all(
        self, name: str, questions: list[dict[str, Any]], options: dict[str, Any], at_once: int | None
    ) -> Any:
        together = {**options, **self._group(at_once)}
        bodies = [_question(question, together) for question in questions]
        batch = Batch(self._calls, name, bodies, _content)
        try:
            batch.begin()
            return handed_over(batch.answers, unwanted=batch.give_up)
        except BaseException:
            batch.give_up()
            raise

    def _group(self, at_once: Any) -> dict[str, Any]:
        if at_once is None:
            return {}
        if not isinstance(at_once, int) or isinstance(at_once, bool) or at_once < 1:
            raise ValueError(f"max_concurrency is a whole number from 1, not {at_once!r}")
        return {"group": [f"map {next(self._groups)}", min(at_once, 10_000)]}


def _words_of(function: Any) -> str | None:
    """Return how one of our functions is called, and what it does; None for anything else."""
    if type(function) is not types.MethodType or not isinstance(function.__self__, (Functions, _Tool)):
        return None
    signature = inspect.signature(function)
    empty = inspect.Signature.empty
    plain = [each.replace(annotation=empty) for each in signature.parameters.values()]
    called = f"{function.__name__}{signature.replace(parameters=plain, return_annotation=empty)}"
    return f"{called}\n\n{inspect.getdoc(function) or ''}"


# ---- what is sent


def _question(question: dict[str, Any], together: dict[str, Any]) -> Callable[[], bytes]:
    return lambda: _body({**question, **together})


def _body(payload: dict[str, Any]) -> bytes:
    """Return a payload as it is sent. Texts go as they are, lone surrogates too."""
    try:
        body = _to_json(payload).encode("utf-8", "surrogatepass")
    except (TypeError, ValueError, RecursionError) as problem:
        raise TypeError(
            f"this cannot be sent ({problem}): a call carries text, numbers, lists and dicts; convert the rest"
        ) from None
    if len(body) > MAX_CALL_BYTES:
        raise CallFailed(
            "TooLarge",
            f"a call may carry {MAX_CALL_BYTES:,} bytes, and this one has {len(body):,}; send a part of it",
        )
    return body


def _content(answer: Any) -> Any:
    """Return what is in an answer: a value by schema, or a text."""
    if not isinstance(answer, dict):
        return answer
    return answer["value"] if "value" in answer else answer.get("text", answer)


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return str.__str__(prompt)
    if isinstance(prompt, (bytes, bytearray)):
        raise TypeError(
            "a prompt is text, and this is bytes: decode it first, as by .decode('utf-8', 'replace')"
        )
    raise TypeError(f"a prompt is text, and this is {_kind(prompt)}: convert it, as by str() or an f-string")


def _kind(value: Any) -> str:
    return f"a value of type {type(value).__name__}"


def _options(*, schema: Any, **options: Any) -> dict[str, Any]:
    if schema is not None and not isinstance(schema, dict):
        raise TypeError(f"schema is a JSON schema as a dict, like {{'type': 'integer'}}, not {_kind(schema)}")
    return {name: value for name, value in {"schema": schema, **options}.items() if value is not None}


def _fresh(fresh: bool) -> dict[str, Any]:
    return {"fresh": True} if fresh else {}


def _child_options(*, tools: Iterable[str] | None, **options: Any) -> dict[str, Any]:
    if isinstance(tools, str):
        raise TypeError(f"tools is a list of names: [{tools!r}]")
    named = None if tools is None else [getattr(tool, "__name__", tool) for tool in tools]
    return _options(**options, tools=named)


def _context(context: Any) -> dict[str, Any]:
    return {} if context is None else {"context": context}


def _final_payload(value: Any) -> dict[str, Any]:
    """Return a value exactly where that can be, and else its repr, told as such by the name of its type."""
    if _is_json(value, 0):
        return {"value": value}
    return {"value": repr(value), "repr": variables.type_name(value)}


def _is_json(value: Any, depth: int) -> bool:
    """Return whether JSON has a value of its own for this one."""
    if value is None or isinstance(value, (str, int)):
        return True
    if isinstance(value, float):
        return math.isfinite(value)
    if depth > 100:
        return False
    if isinstance(value, (list, tuple)):
        return all(_is_json(item, depth + 1) for item in value)
    return isinstance(value, dict) and all(
        isinstance(key, str) and _is_json(value[key], depth + 1) for key in value
    )


# ---- prompts of many questions


def _prompts(prompts: _Prompts, items: Iterable[Any] | None, one: str) -> list[str]:
    """Return the prompts, before anything is asked: what is wrong with one of them costs nothing."""
    if isinstance(prompts, str):
        return _from_template(prompts, items, one)
    if callable(prompts):
        return [_text(prompts(item)) for item in _items(items)]
    if items is not None:
        raise TypeError("with items, the first argument is a template ('... {item} ...') or a function")
    return [_text(prompt) for prompt in prompts]


def _items(items: Iterable[Any] | None) -> list[Any]:
    if items is None:
        raise TypeError("a template or a function needs items: give them as the second argument")
    if isinstance(items, (str, bytes, bytearray)):
        raise TypeError("items is one text here; give a list of texts")
    return list(items)


def _from_template(template: str, items: Iterable[Any] | None, one: str) -> list[str]:
    if items is None:
        raise TypeError(
            f"this is one prompt: use {one}(prompt), or give items for a template or a list of prompts"
        )
    found = _items(items)
    if not _PLACES.search(template):
        raise ValueError("the template does not say where an item goes: write {item} there")
    return [_filled(template, index, item) for index, item in enumerate(found)]


def _filled(template: str, index: int, item: Any) -> str:
    if isinstance(item, (bytes, bytearray)):
        _text(item)
    return _PLACES.sub(lambda place: str(item if place[1] == "item" else index), template)


def _child_questions(
    prompts: _Prompts, items: Iterable[Any] | None, contexts: Iterable[Any] | None
) -> list[dict[str, Any]]:
    if contexts is None:
        return [{"prompt": text} for text in _prompts(prompts, items, "rlm_query")]
    each = _items(contexts)
    texts = (
        [prompts] * len(each) if isinstance(prompts, str) and items is None else _prompts(prompts, items, "")
    )
    if len(texts) != len(each):
        raise ValueError(f"there are {len(texts)} prompts and {len(each)} contexts")
    return [{"prompt": text, **_context(context)} for text, context in zip(texts, each)]


# ---- tools as functions


class _Tool:
    """A tool of the host, as its function finds it: a function alone has nothing that a cell could take out of it."""

    def __init__(self, functions: Functions, told: dict[str, Any]) -> None:
        self.functions = functions
        self.name = told["name"]
        self.signature = _signature(told["parameters"])

    def call(self, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        given = dict(self.signature.bind(*arguments, **named).arguments)
        return self.functions.call_tool(self.name, {**given.pop("others", {}), **given})


def _function_for(tool: _Tool, description: str) -> types.MethodType:
    """Return a function with the name, the parameters and the words of a tool."""

    def call(self: _Tool, *arguments: Any, **named: Any) -> Any:
        return self.call(arguments, named)

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    parameters = [itself, *tool.signature.parameters.values()]
    call.__name__ = call.__qualname__ = tool.name
    call.__doc__ = description or None
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return types.MethodType(call, tool)


def _signature(schema: dict[str, Any]) -> inspect.Signature:
    """Return the parameters that a JSON schema of an object describes, those that are required first."""
    properties: dict[str, Any] = schema.get("properties", {})
    required = schema.get("required", [])
    named = [name for name in properties if _can_be_parameter(name)]
    parameters = [_parameter(name, name in required, properties[name]) for name in named]
    parameters.sort(key=lambda parameter: parameter.default is not inspect.Parameter.empty)
    if len(named) < len(properties) or not properties:
        parameters.append(inspect.Parameter("others", inspect.Parameter.VAR_KEYWORD))
    return inspect.Signature(parameters)


def _can_be_parameter(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in ("self", "others")


def _parameter(name: str, required: bool, described: Any) -> inspect.Parameter:
    default = described.get("default") if isinstance(described, dict) else None
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=inspect.Parameter.empty if required else default,
    )
