"""The Python API: `RLM`, which answers prompts by a recursive language model.

    rlm = RLM("gpt-4o-mini", backend="openai")
    result = await rlm.completion("How many errors are in the log?", context=Path("server.log"))

This is a door like those of `rlm_mcp`: the one place of the runtime that looks into the environment of the process,
for keys that are not given, unless it is given another one as `environ`. Importing it is cheap; what is heavy
is imported by the first completion.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from .errors import ModelUnavailable
from .opening import Means, Setup, Shared
from .own_tools import check_names, tools_of
from .tools import Tool

if TYPE_CHECKING:
    from .budget import Budget
    from .events import Event
    from .model import OnText
    from .run import Job, Outcome

Backend = Literal["litellm", "openai", "anthropic", "command"]
OnEvent = Callable[["Event"], Awaitable[None] | None]
OnExhausted = Literal["error", "partial"]

_BACKENDS = ("litellm", "openai", "anthropic", "command")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_BUDGET = {
    "max_depth": "max_depth",
    "max_subcalls": "max_subcalls",
    "token_budget": "tokens",
    "cost_budget_usd": "cost_usd",
    "wall_seconds": "wall_seconds",
    "max_turns": "max_turns",
    "max_tool_calls": "max_tool_calls",
}


class Options(TypedDict, total=False):
    """What one completion can have for itself. All but the first three are as in `RLM` unless given."""

    context: Any
    contexts: Mapping[str, Any]
    schema: Mapping[str, Any] | None
    model: str
    sub_model: str
    tools: Sequence[Tool | str]
    on_exhausted: OnExhausted
    recursive: bool | None
    on_event: OnEvent | None
    max_depth: int
    max_subcalls: int
    token_budget: int | None
    cost_budget_usd: float | None
    wall_seconds: float | None
    max_turns: int
    max_tool_calls: int


class RLM:
    """A recursive language model.

    What completions need (a model, a sandbox) is opened when the first of them begins and closed with the last that
    is at work; within `async with rlm:` it stays open between them.

    A completion that ends without a whole answer raises what ended it, with `.partial` and `.trajectory_id`; with
    `on_exhausted="partial"` it returns what there is.
    """

    def __init__(
        self,
        model: str = "",
        backend: Backend | None = None,
        api_key: str | None = None,
        environment: Literal["local", "docker"] = "local",
        *,
        api_base: str = "",
        sub_model: str = "",
        command: Sequence[str] = (),
        max_depth: int = 4,
        max_subcalls: int = 12,
        token_budget: int | None = 8000,
        cost_budget_usd: float | None = None,
        wall_seconds: float | None = None,
        max_turns: int = 30,
        max_tool_calls: int = 10_000,
        max_tokens: int = 4096,
        at_once: int = 16,
        prices: Mapping[str, tuple[float, float]] | None = None,
        on_exhausted: OnExhausted = "error",
        recursive: bool | None = None,
        tools: Sequence[Tool | str] = (),
        docker_image: str = "python:3.11-slim",
        docker_cpus: float = 1.0,
        docker_memory: str | int = "512m",
        docker_network_disabled: bool = True,
        snipara_api_key: str | None = None,
        snipara_project_slug: str | None = None,
        snipara_api_url: str | None = None,
        verbose: bool = False,
        log_dir: str | Path | None = "./logs",
        cache: bool = True,
        on_event: OnEvent | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        self.verbose = verbose
        self.at_once = at_once
        self._snipara = _unused_yet(snipara_api_key, snipara_project_slug, snipara_api_url)
        self._usual = Options(
            tools=tuple(tools),
            on_exhausted=_one_of("on_exhausted", on_exhausted, "error", "partial"),
            recursive=recursive,
            on_event=on_event,
            max_depth=max_depth,
            max_subcalls=max_subcalls,
            token_budget=token_budget,
            cost_budget_usd=cost_budget_usd,
            wall_seconds=wall_seconds,
            max_turns=max_turns,
            max_tool_calls=max_tool_calls,
        )
        check_names(tools)
        self._setup = Setup(
            model=model,
            sub_model=sub_model,
            backend=_backend(backend, model, command),
            api_key=api_key or "",
            api_base=api_base,
            environ=_environment() if environ is None else environ,
            prices=prices or {},
            max_tokens=max_tokens,
            command=tuple(command),
            log_dir=None if log_dir is None else Path(log_dir).expanduser().absolute(),
            cache=cache,
            environment=_one_of("environment", environment, "local", "docker"),
            docker_image=docker_image,
            docker_cpus=docker_cpus,
            docker_memory_bytes=_bytes_of(docker_memory),
            docker_network_disabled=docker_network_disabled,
        )
        self._shared = Shared(self._setup)

    async def __aenter__(self) -> Self:
        try:
            await self._shared.enter()
        except BaseException:
            await self._shared.leave()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._shared.leave()

    async def completion(self, prompt: str, system: str = "", **options: Unpack[Options]) -> Outcome:
        """Return the answer to a prompt, and what it took.

        `context` is what it is about: a text, bytes, a JSON value, or the `Path` of a file. It becomes the variable
        `context`; `contexts` are several, by the names of their variables. `schema` is a JSON schema of the answer,
        which is `value` of the result then. Raise `RLMError`.
        """
        return await self._complete(prompt, system, options)

    async def stream(self, prompt: str, system: str = "", **options: Unpack[Options]) -> AsyncGenerator[str]:
        """Yield the answer to a prompt: as it comes where the model is simply asked, else when it is there.

        If it broke off on its way and was asked for again, it begins anew on a line of its own.
        """
        pieces = asyncio.Queue[str | None]()
        heard = _Heard(pieces) if options.get("schema") is None else None
        work = asyncio.create_task(self._complete(prompt, system, options, heard))
        work.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (piece := await pieces.get()) is not None:
                yield piece
            outcome = await work
            if rest := outcome.response if heard is None else heard.rest(outcome.response):
                yield rest
        finally:
            work.cancel()
            await asyncio.wait([work])

    def completion_sync(self, prompt: str, system: str = "", **options: Unpack[Options]) -> Outcome:
        """Return the answer to a prompt, for programs that have no event loop."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return asyncio.run(self._complete(prompt, system, options))
        raise RuntimeError("An event loop runs here already: `await rlm.completion(...)` instead.")

    async def _complete(
        self, prompt: str, system: str, options: Options, heard: _Heard | None = None
    ) -> Outcome:
        wanted = self._usual | options
        _check(wanted)
        async with self._shared.use() as means:
            from .log import Log, open_log

            job = await asyncio.to_thread(self._job, prompt, system, wanted, means)
            if self._setup.log_dir is None:
                return await self._run(job, wanted, means, Log.nowhere(), heard)
            secrets = await asyncio.to_thread(lambda: self._setup.secrets)
            async with open_log(self._setup.log_dir, secrets=secrets) as log:
                return await self._run(job, wanted, means, log, heard)

    async def _run(self, job: Job, wanted: Options, means: Means, log: Any, heard: _Heard | None) -> Outcome:
        from .run import run

        if self.verbose:
            log.listeners.append(_tell)
        if heard is not None:
            log.listeners.append(heard.note)
        on_text: OnText | None = None if heard is None else heard.hear
        return await run(
            job,
            ladder=means.ladder,
            rooms=means.rooms,
            log=log,
            store=means.store,
            on_event=wanted.get("on_event"),
            on_text=on_text,
        )

    def _job(self, prompt: str, system: str, wanted: Options, means: Means) -> Job:
        from .run import Job

        return Job(
            prompt,
            contexts=_contexts(wanted),
            system=system,
            schema=wanted.get("schema"),
            model=wanted.get("model", ""),
            sub_model=wanted.get("sub_model", self._setup.sub_model),
            budget=self._budget(wanted),
            tools=tools_of(wanted.get("tools", ()), means.rooms),
            on_exhausted=wanted.get("on_exhausted", "error"),
            recursive=wanted.get("recursive"),
        )

    def _budget(self, wanted: Options) -> Budget:
        from .budget import Budget

        given: dict[str, Any] = {name: wanted.get(option) for option, name in _BUDGET.items()}
        return Budget(at_once=self.at_once, **given)


class _Heard:
    """What was heard of an answer that is streamed."""

    def __init__(self, pieces: asyncio.Queue[str | None]) -> None:
        self._pieces = pieces
        self._said = ""
        self._broke_off = False

    async def hear(self, text: str) -> None:
        """Pass on a piece, unless an earlier answer broke off: what follows is not its rest."""
        if not self._broke_off:
            self._said += text
            await self._pieces.put(text)

    def note(self, event: Event) -> None:
        """Take note that an answer will be asked for again."""
        if event.get("note") == "no_answer" and self._said:
            self._broke_off = True

    def rest(self, whole: str) -> str:
        """Return what is still to be said."""
        from .turns import without_thought

        if not self._said:
            return whole
        for said in (self._said, without_thought(self._said)):
            if whole.startswith(said):
                return whole[len(said) :]
        return f"\n{whole}"


def _environment() -> Mapping[str, str]:
    return dict(os.environ)


def _backend(backend: Backend | None, model: str, command: Sequence[str]) -> Backend:
    chosen: Backend = backend or ("command" if command and not model else "litellm")
    if chosen not in _BACKENDS and model in _BACKENDS:
        raise ValueError(f"The model comes first, and then the backend: RLM({chosen!r}, {model!r}).")
    _one_of("backend", chosen, *_BACKENDS)
    if chosen == "command" and not command:
        raise ModelUnavailable("", "no command was named", 'Name one: RLM(command=["claude", "-p"]).')
    if chosen != "command" and not model:
        raise ModelUnavailable("", "no model was named", 'Name one: RLM("openai/gpt-4o-mini").')
    return chosen


def _one_of(name: str, value: Any, *known: str) -> Any:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; it can be {', '.join(map(repr, known))}.")
    return value


def _bytes_of(size: str | int) -> int:
    if isinstance(size, int):
        return size
    found = _SIZE.fullmatch(size.strip())
    if found is None:
        raise ValueError(
            f'docker_memory is {size!r}; write a number of bytes, or a size such as "512m" or "2g".'
        )
    return int(float(found[1]) * 1024 ** " kmgt".index(found[2].lower() or " "))


def _unused_yet(*snipara: str | None) -> tuple[str | None, ...]:
    if any(snipara):
        warnings.warn(
            "What is given for Snipara is kept, and not used yet: nothing is asked there.", stacklevel=3
        )
    return snipara


def _check(wanted: Options) -> None:
    if unknown := wanted.keys() - Options.__annotations__.keys():
        raise TypeError(f"A completion has no option {sorted(unknown)[0]!r}.")
    if "context" in wanted and "context" in wanted.get("contexts", {}):
        raise ValueError("There are two contexts of the name 'context'. Leave one out.")
    check_names(wanted.get("tools", ()))


def _contexts(wanted: Options) -> dict[str, Any]:
    from .contexts import ContextFile

    given = dict(wanted.get("contexts", {}))
    if wanted.get("context") is not None:
        given["context"] = wanted.get("context")
    return {
        name: ContextFile(each.expanduser().absolute()) if isinstance(each, Path) else each
        for name, each in given.items()
    }


def _tell(event: Event) -> None:
    """Say on stderr what happened."""
    said = event.get("response") or event.get("code") or event.get("note") or event.get("title") or ""
    error = event.get("error")
    words = f"{error['kind']}: {error['message']}" if error else " ".join(str(said).split())
    at = f"{'  ' * event['depth']}{event['call_id']} {event['kind']} {event.get('name', '')}".rstrip()
    printable = "".join(each if each.isprintable() else "?" for each in words[:120])
    sys.stderr.write(f"{at}  {printable}".rstrip() + "\n")
