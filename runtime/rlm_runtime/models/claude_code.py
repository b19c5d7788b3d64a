"""Claude Code as a model: `claude -p`, without tools, without servers of its own, and without files of a session.

What it prints are the events of Anthropic's API, one of which each line holds. Left to itself it would ask again
when an answer is cut off, empty or refused, and print the last answer only: it is therefore ended as soon as the
first one is over in such a way, and that answer, as far as it goes, is the reply.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

from rlm_runtime.errors import ModelBusy, ModelError, ModelRefused
from rlm_runtime.model import Bound, OnText, Reply, Request, Usage
from rlm_runtime.models.anthropic import draft_of, gathering
from rlm_runtime.models.bounds import most_tokens
from rlm_runtime.models.direct import Draft, before_stop, tokens_of
from rlm_runtime.models.failures import MALFORMED, Secrets, Server, billed
from rlm_runtime.models.json_values import Json, is_object, is_too_much, parsed
from rlm_runtime.models.prices import Prices
from rlm_runtime.models.program_kinds import Ended, Hearing, failure
from rlm_runtime.models.windows import window_of
from rlm_runtime.models.wire_http import MOST_BYTES

_OPTIONS = (
    *("-p", "--output-format", "stream-json", "--verbose", "--include-partial-messages"),
    *("--tools", "", "--strict-mcp-config", "--disable-slash-commands", "--setting-sources", ""),
    "--no-session-persistence",
)
_ROLE = "You answer what you are asked."
_ENVIRONMENT: Mapping[str, str] = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "CLAUDE_CODE_DISABLE_REFUSAL_RETRY": "1",
    "CLAUDE_CODE_MAX_RETRIES": "0",
    "DISABLE_AUTOUPDATER": "1",
}
_AROUND_A_PROMPT = 2500  # what it tells the model by itself has 1700 bytes
_OWN_OPTIONS = frozenset({"-p", "--print"})


def is_claude_code(command: Sequence[str]) -> bool:
    """Whether a command is Claude Code, and leaves to us in which form it answers."""
    return (
        bool(command)
        and PurePath(command[0]).stem == "claude"
        and not any(
            part.startswith("--output-format") or part in {"{prompt}", "{system}"} for part in command
        )
    )


class ClaudeCode:
    """The program `claude`. Further arguments, such as `--model`, are passed on."""

    def __init__(self, command: Sequence[str], prices: Prices) -> None:
        self.command = tuple(command)
        self._prices = prices

    def command_for(self, request: Request) -> Sequence[str]:
        has_role = any(message.role == "system" and message.content for message in request.messages)
        own = [part for part in self.command[1:] if part not in _OWN_OPTIONS]
        model = ("--model", "{model}") if request.model else ()
        return (
            self.command[0],
            *_OPTIONS,
            "--system-prompt",
            "{system}" if has_role else _ROLE,
            *own,
            *model,
        )

    def environment(self, most_out: int) -> Mapping[str, str]:
        return {**_ENVIRONMENT, "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(most_out)}

    def window_tokens(self, model: str) -> int | None:
        return window_of(model or "claude-")

    def bound(self, request: Request, most_out: int) -> Bound:
        most_in = most_tokens(request) + _AROUND_A_PROMPT
        price = self._prices.of(request.model or self._model, "anthropic")
        return Bound(most_in, most_out, None if price is None else price.of(most_in, most_out))

    def hearing(
        self, name: str, request: Request, most_out: int, on_text: OnText | None, secrets: Secrets
    ) -> Hearing:
        return _Answer(name, self.command[0], request, on_text, secrets, self._prices)

    @property
    def _model(self) -> str:
        """The model that the command names."""
        named = zip(("", *self.command), self.command, strict=False)
        return next((model for option, model in named if option == "--model"), "")


class _Answer:
    """The lines that it prints, of which the first message of the model is the reply."""

    def __init__(
        self,
        name: str,
        program: str,
        request: Request,
        on_text: OnText | None,
        secrets: Secrets,
        prices: Prices,
    ) -> None:
        self._name = name
        self._program = program
        self._request = request
        self._on_text = on_text
        self._secrets = secrets
        self._prices = prices
        self._begun: list[bytes] = []  # parts of a line whose end has not come yet
        self._size = 0
        self._message = gathering()
        self._draft: Draft | None = None
        self._result: Json = {}
        self._has_begun = False

    async def hear(self, chunk: bytes) -> bool:
        self._size += len(chunk)
        if self._size > MOST_BYTES:
            reason = f"`{self._program}` printed more than {MOST_BYTES >> 20} MiB"
            raise self.without_reply(ModelRefused(self._name, reason))
        for line in self._lines(chunk):
            text = self._take(parsed(line))
            if text and self._on_text:
                await self._on_text(text)
            if self._would_ask_again():
                return True
        return False

    def _lines(self, chunk: bytes) -> list[bytes]:
        if b"\n" not in chunk:
            self._begun.append(chunk)
            return []
        *lines, rest = b"".join([*self._begun, chunk]).split(b"\n")
        self._begun = [rest]
        return [line for line in lines if not is_too_much(line)]

    def _take(self, said: object) -> str:
        """Take in one line, and return the text that it adds."""
        if not is_object(said):
            return ""
        if said.get("type") == "result":
            self._result = said
        if said.get("type") != "stream_event" or self._draft is not None:
            return ""
        try:
            text = self._message.add(said["event"])
            if self._message.is_whole(at_end=True):
                self._draft = draft_of(self._message.whole())
        except MALFORMED as problem:
            reason = f"`{self._program}` says what is no message: {problem!r}"
            raise billed(ModelBusy(self._name, reason)) from problem
        return text

    def _would_ask_again(self) -> bool:
        return self._draft is not None and (self._draft.finish != "stop" or not self._draft.text.strip())

    def reply(self, ended: Ended) -> Reply:
        draft = self._draft
        if draft is None or (self._result.get("is_error") and not ended.is_cut):
            raise self.without_reply(self._failure(ended)) if self._has_begun else self._failure(ended)
        usage = self._result.get("usage")
        tokens_in = tokens_of(usage, *_INPUT_TOKENS) or draft.input_tokens or most_tokens(self._request)
        tokens_out = tokens_of(usage, "output_tokens") or draft.output_tokens or 0
        price = self._prices.of(draft.model, "anthropic")
        told = self._cost or None
        cost = told if told or price is None else price.of(tokens_in, tokens_out)
        text = before_stop(draft.text, self._request.stop)
        return Reply(text, usage=Usage(tokens_in, tokens_out, cost), model=draft.model, finish=draft.finish)

    def without_reply(self, problem: ModelError) -> ModelError:
        usage, cost = self._result.get("usage"), self._cost
        tokens = [tokens_of(usage, *_INPUT_TOKENS), tokens_of(usage, "output_tokens")]
        if cost and all(each is not None for each in tokens):
            problem.usage = Usage(tokens[0] or 0, tokens[1] or 0, cost)
        return billed(problem)

    @property
    def _cost(self) -> float | None:
        cost = self._result.get("total_cost_usd")
        return cost if isinstance(cost, int | float) else None

    def _failure(self, ended: Ended) -> ModelError:
        status, said = self._result.get("api_error_status"), str(self._result.get("result") or "")
        if isinstance(status, int):
            server = Server("its service", "ANTHROPIC_API_KEY, or log in with `claude`", True, self._secrets)
            return server.failure(self._name, status, {}, said)
        return failure(self._name, self._program, ended, said, self._secrets)


_INPUT_TOKENS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
