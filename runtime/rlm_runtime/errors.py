"""What can go wrong in the runtime.

RLMError
├── ModelError                a model did not answer
│   ├── ModelRefused          it will not, however often it is asked: a wrong key, a wrong request
│   ├── ModelBusy             it could not, after all tries: too many requests, a failure, no answer in time
│   └── ModelUnavailable      there is none: not configured, not installed, no such command
├── BudgetExhausted           something would cost more than is left
│   ├── MaxDepthExceeded
│   ├── TokenBudgetExhausted
│   ├── CallBudgetExhausted
│   ├── CostBudgetExhausted
│   ├── TimeBudgetExhausted
│   └── TurnBudgetExhausted
├── PriceUnknown              a cost cap cannot be kept for a model whose price nobody told
├── AnswerInvalid             an answer that is not what its schema asks for, after all repairs
├── REPLExecutionError        code that had to run failed
├── ToolNotFoundError
├── ToolFailed
├── RunFailed                 a run ended without an answer
├── AnswerNotWanted           nobody waits for this answer: a wrong handle, or one that was given before
└── TrajectoryError           a log that is not there, cannot be read, or cannot be played again
    └── ReplayDiverged        what runs now is not what ran then
"""

from __future__ import annotations

from collections.abc import Sequence

from .model import Usage


class RLMError(Exception):
    """Base of all errors of the runtime. One that ended a run says which, and what there is of an answer."""

    trajectory_id: str = ""
    partial: str = ""


class ModelError(RLMError):
    """A model did not answer. `usage` is what it used nevertheless, where that is known.

    Where it is not, `may_be_billed` says whether the request had been sent and may cost what an answer costs.
    """

    usage: Usage | None = None
    may_be_billed = False

    def __init__(self, model: str, reason: str, *, status: int | None = None) -> None:
        self.model = model
        self.reason = reason
        self.status = status
        super().__init__(self._message())

    def _message(self) -> str:
        return f"The model {self.model!r} did not answer: {self.reason}"


class ModelRefused(ModelError):
    """A model will not answer this request, however often it is asked."""

    def _message(self) -> str:
        return f"The model {self.model!r} refused: {self.reason}"


class ModelBusy(ModelError):
    """A model could not answer now. `retry_after_seconds` is what it said itself."""

    def __init__(
        self,
        model: str,
        reason: str,
        *,
        status: int | None = None,
        retry_after_seconds: float | None = None,
        tries: int = 1,
    ) -> None:
        self.retry_after_seconds = retry_after_seconds
        self.tries = tries
        super().__init__(model, reason, status=status)

    def _message(self) -> str:
        often = "" if self.tries == 1 else f" in {self.tries} tries"
        return f"The model {self.model!r} did not answer{often}: {self.reason}"


class ModelUnavailable(ModelError):
    """There is no model to ask. `advice` says how to get one."""

    def __init__(self, model: str, reason: str, advice: str) -> None:
        self.advice = advice
        super().__init__(model, reason)

    def _message(self) -> str:
        who = f"The model {self.model!r} cannot be asked" if self.model else "There is no model to ask"
        return f"{who}: {self.reason}. {self.advice}"


class BudgetExhausted(RLMError):
    """Something would cost more than is left of a budget; it was not done, and nothing was spent on it."""

    what = "budget"

    def __init__(self, used: float, most: float, advice: str = "") -> None:
        self.used = used
        self.most = most
        super().__init__(self._message() + (f" {advice}" if advice else ""))

    def say_what_failed_before(self, reason: str) -> None:
        """Say that as well: a request that failed and may be billed is why there is so little left."""
        self.args = (f"{self} The request before it failed: {reason}",)

    def _message(self) -> str:
        return f"The {self.what} is used up: {self.used:g} of {self.most:g}."


class MaxDepthExceeded(BudgetExhausted):
    """A call would recurse deeper than `max_depth`."""

    what = "depth"

    def __init__(self, depth: int, most: int, advice: str = "") -> None:
        self.depth = depth
        super().__init__(depth, most, advice)

    def _message(self) -> str:
        return f"This would be depth {self.depth}, and max_depth is {self.most:g}."


class TokenBudgetExhausted(BudgetExhausted):
    """The tokens of a run are used up, or what is left is too little for the next call."""

    what = "token_budget"

    def __init__(self, tokens_used: int, budget: int, advice: str = "") -> None:
        self.tokens_used = tokens_used
        self.budget = budget
        super().__init__(tokens_used, budget, advice)


class CallBudgetExhausted(BudgetExhausted):
    """The calls of a run are used up: those to models and children, or those to tools (`what`)."""

    what = "max_subcalls"

    def __init__(self, used: float, most: float, advice: str = "", *, what: str = "max_subcalls") -> None:
        self.what = what
        super().__init__(used, most, advice)


class CostBudgetExhausted(BudgetExhausted):
    """The money of a run is used up, or what is left is too little for the next call."""

    what = "cost_budget_usd"


class TimeBudgetExhausted(BudgetExhausted):
    """The time of a run is over."""

    what = "wall_seconds"


class TurnBudgetExhausted(BudgetExhausted):
    """A run had all its turns."""

    what = "max_turns"


class PriceUnknown(RLMError):
    """A cost cap cannot be kept for a model whose price is not known."""

    def __init__(self, model: str) -> None:
        self.model = model
        super().__init__(
            f"cost_budget_usd cannot be kept, because the price of {model!r} is not known. "
            "Name its price in [rlm.prices], choose another model, or leave the cap out and use token_budget."
        )


class AnswerInvalid(RLMError):
    """An answer is not what its schema asks for, after all repairs. `text` is what was said last."""

    def __init__(self, problems: Sequence[str], text: str) -> None:
        self.problems = tuple(problems)
        self.text = text
        super().__init__(f"The answer is not what its schema asks for: {'; '.join(self.problems)}.")


class REPLExecutionError(RLMError):
    """Code failed. `stderr` is its traceback."""

    def __init__(self, message: str, stderr: str = "") -> None:
        self.stderr = stderr
        super().__init__(message)


class ToolNotFoundError(RLMError):
    """There is no tool of that name, or it was not granted."""

    def __init__(self, name: str, known: Sequence[str] = ()) -> None:
        self.name = name
        self.known = tuple(known)
        there = f"There are: {', '.join(self.known)}." if self.known else "There are none."
        super().__init__(f"There is no tool {name!r}. {there}")


class ToolFailed(RLMError):
    """A tool raised an error."""

    def __init__(self, name: str, kind: str, reason: str) -> None:
        self.name = name
        self.kind = kind
        super().__init__(f"The tool {name!r} failed: {kind}: {reason}")


class RunFailed(RLMError):
    """A run ended without an answer. `partial` is what there is of one."""

    def __init__(self, reason: str, partial: str = "", trajectory_id: str = "") -> None:
        self.reason = reason
        self.partial = partial
        self.trajectory_id = trajectory_id
        super().__init__(f"The run ended without an answer: {reason}")


class AnswerNotWanted(RLMError):
    """Nobody waits for this answer."""


class TrajectoryError(RLMError):
    """A trajectory is not there, cannot be read, or cannot be played again."""


class ReplayDiverged(TrajectoryError):
    """What runs now is not what ran then. `event` is the first event that differs."""

    def __init__(self, event: int, expected: str, found: str) -> None:
        self.event = event
        self.expected = expected
        self.found = found
        super().__init__(
            f"The replay left its path at event {event}: then it was {expected}, and now it is {found}. "
            "`rlm replay ID --from N` with a live model goes on from there in another way."
        )
