"""The process in which LiteLLM runs: it needs seconds and 200 MB to load, and prints where it should not.

A line of JSON each way, over its input and what was its output:

    {"id": 1, "call": {...}}       what `litellm.acompletion` takes, any number of them at once
    {"id": 1, "cancel": true}
    {"ready": true}                first of all; or {"unavailable": why}
    {"id": 1, "event": {...}}      a piece of a reply that is streamed
    {"id": 1, "whole": {...}}      a reply, in the form of chat completions; null at the end of a stream
    {"id": 1, "failure": {...}}    what went wrong, as far as it is known: status, headers, body

Its environment is all that it knows of keys. It ends when its input does, which it does with its host. This file
runs by itself, with nothing of this project beside it, so that `openai` is not the module next to it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from importlib import import_module
from typing import Any, BinaryIO, TypeGuard

_MOST_BYTES = 64 * 1024 * 1024
_MOST_BYTES_OF_A_FAILURE = 64 * 1024
_MOST_MEMORY = 4 * 1024 * 1024 * 1024
_LOOK_SECONDS = 2.0
_HEADERS = ("retry-after", "retry-after-ms")
_NOT_CONNECTED = frozenset(
    {"ConnectError", "ConnectTimeout", "ClientConnectorError", "ClientConnectorDNSError", "ProxyError"}
)
_AROUND_A_MESSAGE = re.compile(
    r"^.*?Exception - |^litellm\.\w+: |\.? (?:Handle with `litellm\.\w+`|Original exception: ).*$", re.DOTALL
)


class Refused(Exception):
    """A call that nobody needs to try again."""

    def __init__(self, reason: str, *, status: int | None = None) -> None:
        self.status = status
        super().__init__(reason)


class Worker:
    """The calls that run."""

    def __init__(self, replies: BinaryIO, litellm: Any, given: dict[str, str]) -> None:
        self._replies = replies
        self._litellm = litellm
        self._given = given
        self._running: dict[int, asyncio.Task[None]] = {}

    def take(self, line: bytes) -> None:
        """Do what a line says."""
        asked = json.loads(line)
        number = asked["id"]
        if "call" in asked:
            self._running[number] = asyncio.create_task(self._run(number, asked["call"]))
        elif number in self._running:
            self._running[number].cancel()

    def say(self, **said: Any) -> None:
        """Send a line. A host that is gone needs none."""
        try:
            self._replies.write(json.dumps(said, default=str).encode() + b"\n")
            self._replies.flush()
        except OSError:
            os._exit(0)

    async def _run(self, number: int, call: dict[str, Any]) -> None:
        try:
            await self._answer(number, call)
        except (Exception, asyncio.CancelledError) as problem:  # noqa: BLE001 - whatever it is, it is the answer
            self.say(id=number, failure=_told_in_any_case(problem))
        finally:
            self._running.pop(number, None)

    async def _answer(self, number: int, call: dict[str, Any]) -> None:
        if not self._provider(call["model"]):
            raise Refused(
                "LiteLLM does not know its provider. Put it in front: openai/..., anthropic/..., gemini/..."
            )
        access = self._access(call["model"])
        reply = await self._litellm.acompletion(**call, **access, num_retries=0, max_retries=0)
        if reply is None:  # what it makes of a second 422, after it had left out what the first one named
            raise Refused("The server does not take this request", status=422)
        if not call.get("stream"):
            whole = reply.model_dump(exclude_none=True)
            whole["usage"] = self._usage(call["model"], reply, reply.usage)
            self.say(id=number, whole=_bounded(whole))
            return
        async for event in self._events(call["model"], reply):
            self.say(id=number, event=event)
        self.say(id=number, whole=None)

    async def _events(self, model: str, stream: Any) -> AsyncIterator[dict[str, Any]]:
        """Yield the pieces of a reply. An end and a usage that LiteLLM made up are left out."""
        usage = None
        async for piece in stream:
            event = piece.model_dump(exclude_none=True)
            usage = getattr(piece, "usage", None) or usage
            event.pop("usage", None)
            yield event
        if getattr(stream, "received_finish_reason", "") is None:
            raise ConnectionError("The stream ended before the reply did")
        if usage and any(getattr(piece, "usage", None) for piece in getattr(stream, "chunks", ())):
            response = self._litellm.ModelResponse(model=model, usage=usage)
            yield {"usage": self._usage(model, response, usage)}

    def _usage(self, model: str, reply: Any, usage: Any) -> dict[str, Any]:
        """Return what was used. A cost of nothing is how LiteLLM says that it knows no price."""
        counted: dict[str, Any] = usage.model_dump(exclude_none=True)
        try:
            cost = self._litellm.completion_cost(completion_response=reply, model=model)
        except Exception:  # noqa: BLE001 - it raises what it likes for a model that it has no price of
            cost = 0.0
        return counted | ({"cost_usd": cost} if cost else {})

    def _access(self, model: str) -> dict[str, str]:
        """Return the key and the address that were given: for models of their provider, and for no others."""
        if self._provider(model) != self._provider(self._given["model"]):
            return {}
        access = {name: self._given[name] for name in ("api_key", "api_base") if self._given[name]}
        if "api_base" in access and "OPENAI_API_KEY" not in os.environ:
            access.setdefault("api_key", "none")  # servers of one's own often want none, but the client does
        return access

    def _provider(self, model: str) -> str:
        try:
            return str(self._litellm.get_llm_provider(model)[1])
        except Exception:  # noqa: BLE001 - a model that it does not know
            return ""


def told(problem: BaseException) -> dict[str, Any]:
    """Return what is known of a failure. LiteLLM guesses a status from words: that of the response is the true one."""
    chain = list(_chain(problem))
    response = _response(chain)
    guessed = getattr(problem, "status_code", None)
    headers = getattr(response, "headers", {})
    return {
        "status": getattr(problem, "status", None) if response is None else response.status_code,
        "guessed": guessed if isinstance(guessed, int) else None,
        "for_good": any(map(_is_for_good, chain)),
        "sent": not any(type(link).__name__ in _NOT_CONNECTED for link in chain),
        "headers": {name: headers[name] for name in _HEADERS if name in headers},
        "body": _said(chain, responded=response is not None),
    }


def _is_for_good(problem: BaseException) -> bool:
    """Return whether asking again changes nothing. OpenAI's base class itself is raised where a key is missing."""
    kind = type(problem)
    is_base = kind.__name__ == "OpenAIError" and kind.__module__.startswith(
        "openai"
    )  # LiteLLM has another one
    return isinstance(problem, ImportError | Refused) or is_base


def _told_in_any_case(problem: BaseException) -> dict[str, Any]:
    try:
        return told(problem)
    except Exception as odd:  # noqa: BLE001 - an exception whose parts raise; without an answer its caller would wait
        plain = f"{type(problem).__name__}, which cannot be shown ({type(odd).__name__})"
        unknown = {"status": None, "guessed": None, "headers": dict[str, str](), "body": plain}
        return {**unknown, "for_good": False, "sent": True}


def _response(chain: list[BaseException]) -> Any:
    """Return the response that a failure began with. One without headers was made up."""
    responses = [getattr(link, "response", None) for link in reversed(chain)]
    real = (
        each
        for each in responses
        if getattr(each, "headers", None) and isinstance(getattr(each, "status_code", None), int)
    )
    return next(real, None)


def _said(chain: list[BaseException], *, responded: bool) -> Any:
    for link in reversed(chain):
        body = getattr(link, "body", None)
        if _is_object(body):
            return {"error": body}
    inner = next((link for link in chain if type(link).__module__.startswith("litellm.llms.")), chain[0])
    text = _AROUND_A_MESSAGE.sub("", str(inner)[:_MOST_BYTES_OF_A_FAILURE]).strip() or type(inner).__name__
    last = str(chain[-1]).strip()
    return text if responded or not last or last in text or text in last else f"{text.rstrip('.')}: {last}"


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)


def _chain(problem: BaseException | None) -> Iterator[BaseException]:
    for _ in range(20):
        if problem is None:
            return
        yield problem
        problem = problem.__cause__ or problem.__context__


def _bounded(whole: dict[str, Any]) -> dict[str, Any]:
    if len(json.dumps(whole, default=str)) > _MOST_BYTES:
        raise Refused(f"The answer is larger than {_MOST_BYTES >> 20} MiB")
    return whole


def _given() -> dict[str, str]:
    return {
        name: os.environ.pop(f"RLM_LITELLM_{name.upper()}", "") for name in ("model", "api_key", "api_base")
    }


def _import() -> Any:
    """Import LiteLLM so that it asks nobody, reads no file of settings, and says nothing."""
    os.environ.update(
        LITELLM_LOCAL_MODEL_COST_MAP="True",
        LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS="True",
        LITELLM_LOCAL_BLOG_POSTS="True",
        LITELLM_MODE="PRODUCTION",
    )
    library: Any = import_module("litellm")
    _guard()
    library.telemetry = False
    library.suppress_debug_info = True
    library.drop_params = True
    library.modify_params = True  # it then gives each provider messages in an order that it takes
    library.callbacks = []
    return library


def _guard() -> None:
    """Have no redirect followed, and no more read of an answer than is passed on, whichever provider is asked."""
    try:
        httpx: Any = import_module("httpx")
    except ImportError:  # then nothing is asked by it
        return
    send_one, send = httpx.AsyncClient._send_single_request, httpx.AsyncClient.send

    class Bounded(httpx.AsyncByteStream):  # type: ignore[misc, unused-ignore]
        def __init__(self, stream: Any, *, failed: bool) -> None:
            self._stream = stream
            self._failed = failed

        async def __aiter__(self) -> AsyncIterator[bytes]:
            size = 0
            async for chunk in self._stream:
                size += len(chunk)
                if self._failed and size > _MOST_BYTES_OF_A_FAILURE:
                    return
                if size > _MOST_BYTES:
                    raise Refused(f"The answer is larger than {_MOST_BYTES >> 20} MiB")
                yield chunk

        async def aclose(self) -> None:
            await self._stream.aclose()

    async def send_bounded(client: Any, request: Any) -> Any:
        request.headers["accept-encoding"] = "identity"
        response = await send_one(client, request)
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.stream.aclose()
            raise Refused("The answer is packed, although it was asked for plain")
        response.stream = Bounded(response.stream, failed=not response.is_success)
        return response

    async def send_here(client: Any, request: Any, **given: Any) -> Any:
        return await send(client, request, **{**given, "follow_redirects": False})

    httpx.AsyncClient._send_single_request, httpx.AsyncClient.send = send_bounded, send_here


def _bound_memory() -> None:
    """Have one answer that gets too large fail, and not the machine; where the system can do that."""
    try:
        import resource
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    most = _MOST_MEMORY if most == resource.RLIM_INFINITY else min(most, _MOST_MEMORY)
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def _read(asked: BinaryIO, loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[bytes]) -> None:
    """Read until the host closes our input, or ends; then end, whatever runs."""
    for line in asked:
        loop.call_soon_threadsafe(lines.put_nowait, line)
    os._exit(0)


def _watch(host: int) -> None:
    """End with the host also where another process has inherited the other end of our input."""
    while os.getppid() == host:
        time.sleep(_LOOK_SECONDS)
    os._exit(0)


async def _serve(asked: BinaryIO, replies: BinaryIO) -> None:
    lines: asyncio.Queue[bytes] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    threading.Thread(target=_read, args=(asked, loop, lines), daemon=True).start()
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()
    given = _given()
    try:
        worker = Worker(replies, _import(), given)
    except Exception as problem:  # noqa: BLE001 - the import of so much may raise anything
        missing = isinstance(problem, ImportError) and problem.name == "litellm"
        Worker(replies, None, given).say(unavailable=f"{type(problem).__name__}: {problem}", missing=missing)
        return
    worker.say(ready=True)
    while True:
        worker.take(await lines.get())


def main() -> None:
    """Answer until the input ends. What anybody prints goes to the errors, and what anybody reads is empty."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the host decides when this ends
    _bound_memory()
    asked, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    asyncio.run(_serve(asked, replies))
    os._exit(0)  # a thread still reads


if __name__ == "__main__":
    main()
