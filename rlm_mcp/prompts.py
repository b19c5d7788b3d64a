"""Prompts: ways to begin that a person can choose in a client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    GetPromptResult,
    ListPromptsResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    TextContent,
)

from .resources import wrong_cursor

MOST_CHARACTERS = 10_000

_STAY_MS = 3_600_000

_ANALYSE_FILE = """\
Answer a question about a file that may be far too large to read here.

File: {path}
Question: {question}

1. Load it with set_repl_context(files={{"data": <the path above>}}). Its content does not pass \
through this conversation.
2. Look at its shape with execute_python: len(data), the first and last lines, how its records are separated.
3. Find what bears on the question by code: search, split, count, parse. Print only what you need to read, \
a few thousand characters at a time, and keep what you find in variables.
4. Check the result another way where that is cheap: a count, a sum, a sample read by eye.
5. Answer from what was computed. Quote the passages or numbers that it rests on, and say what was not looked at."""

_REPL_WORKFLOW = """\
Work in this project's persistent Python session like this:

- Variables, functions and imports stay between calls, after errors, and over days. Build on what is there; \
get_repl_context() lists it.
- Load files with set_repl_context(files={"name": "path"}), one path or a pattern such as "src/**/*.py". Large \
data lives in variables and is not printed.
- Run small steps with execute_python(code). The value of the last expression is shown; figures come back as images.
- Print little. Long output loses its middle; the whole is the resource that the answer names, rlm://outputs/ID.
- get_repl_context(names=["name"]) shows values. For a large one, print a slice of it instead.
- A cell that takes long can be given more time: execute_python(code, timeout_s=300).
- clear_repl_context(names=["name"]) deletes what is not needed; without names everything goes.
- What ran before can be read at rlm://sessions/PROJECT/cells, with ?search= to find a text in it."""


class _Ready(NamedTuple):
    prompt: Prompt
    text: Callable[[Mapping[str, str]], str]


def _ready(name: str, title: str, description: str, text: str, **arguments: str) -> _Ready:
    prompt = Prompt(
        name=name,
        title=title,
        description=description,
        arguments=[
            PromptArgument(name=each, description=arguments[each], required=True) for each in arguments
        ],
    )

    def filled(given: Mapping[str, str]) -> str:
        return text.format(**given) if arguments else text

    return _Ready(prompt, filled)


_PROMPTS: Mapping[str, _Ready] = {
    ready.prompt.name: ready
    for ready in (
        _ready(
            "analyse_file",
            "Analyse a large file",
            "Answer a question about a file of any size by computing on it, without reading it into the conversation.",
            _ANALYSE_FILE,
            path="The file: a path in the project's folder, or an absolute one",
            question="What you want to know",
        ),
        _ready(
            "repl_workflow",
            "Work in the persistent session",
            "How to use this project's Python session well: state that stays, large data, outputs.",
            _REPL_WORKFLOW,
        ),
    )
}


def list_prompts(cursor: str | None) -> ListPromptsResult:
    """Answer prompts/list, in one page."""
    if cursor is not None:
        raise wrong_cursor(cursor)
    prompts = [ready.prompt for ready in _PROMPTS.values()]
    return ListPromptsResult(prompts=prompts, ttl_ms=_STAY_MS, cache_scope="private")


def get_prompt(name: str, arguments: Mapping[str, str] | None) -> GetPromptResult:
    """Answer prompts/get. Raise `MCPError`."""
    ready = _PROMPTS.get(name)
    if ready is None:
        raise MCPError(INVALID_PARAMS, f"There is no prompt {name[:100]!r}; there are {', '.join(_PROMPTS)}.")
    given = dict(arguments or {})
    _check(ready.prompt, given)
    message = PromptMessage(role="user", content=TextContent(text=ready.text(given)))
    return GetPromptResult(description=ready.prompt.description, messages=[message])


def _check(prompt: Prompt, given: Mapping[str, str]) -> None:
    names = [argument.name for argument in prompt.arguments or ()]
    takes = f"{prompt.name} takes {', '.join(names)}." if names else f"{prompt.name} takes no arguments."
    for name in names:
        if not given.get(name, "").strip():
            raise MCPError(INVALID_PARAMS, f"The argument {name!r} is missing. {takes}")
        if len(given[name]) > MOST_CHARACTERS:
            raise MCPError(
                INVALID_PARAMS, f"The argument {name!r} is longer than {MOST_CHARACTERS} characters."
            )
    if unknown := sorted(given.keys() - set(names)):
        raise MCPError(INVALID_PARAMS, f"There is no argument {unknown[0][:100]!r}. {takes}")
