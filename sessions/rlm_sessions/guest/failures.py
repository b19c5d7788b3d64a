"""Why a call has no answer, as exceptions that code in a cell can catch.

CallFailed                    somebody was asked, and did not answer
├── BudgetExhausted           it would cost more than is left; nothing was spent on it
│   ├── MaxDepthExceeded
│   ├── TokenBudgetExhausted
│   ├── CallBudgetExhausted
│   ├── CostBudgetExhausted
│   ├── TimeBudgetExhausted
│   └── TurnBudgetExhausted
├── PriceUnknown              a cost cap cannot be kept for a model whose price nobody told
├── ModelBusy                 the model could not answer, after all tries
├── ModelRefused              the model will not answer this, however often it is asked
├── ModelUnavailable          there is no model to ask
├── AnswerInvalid             the answer is not what its schema asks for, after all repairs
├── RunFailed                 a child run ended without an answer
├── ToolFailed                a tool raised an error
└── ToolNotFound              there is no tool of that name

The host names what went wrong; a name that is not here becomes a plain `CallFailed`.
"""

from __future__ import annotations


class CallFailed(Exception):
    """The host could not answer a call. `kind` is the host's name for what went wrong.

    One that code raises by itself may have a message only.
    """

    def __init__(self, kind: str, message: str | None = None) -> None:
        self.kind = type(self).__name__ if message is None else kind
        super().__init__(kind if message is None else message)


class BudgetExhausted(CallFailed):
    """The call would cost more than is left of the budget; it was not made, and nothing was spent on it."""


class MaxDepthExceeded(BudgetExhausted):
    """The call would recurse deeper than `max_depth`."""


class TokenBudgetExhausted(BudgetExhausted):
    """The tokens of the run are used up, or what is left is too little for this call."""


class CallBudgetExhausted(BudgetExhausted):
    """The calls of the run are used up."""


class CostBudgetExhausted(BudgetExhausted):
    """The money of the run is used up, or what is left is too little for this call."""


class TimeBudgetExhausted(BudgetExhausted):
    """The time of the run is over."""


class TurnBudgetExhausted(BudgetExhausted):
    """A child run had all its turns."""


class PriceUnknown(CallFailed):
    """A cost cap cannot be kept for a model whose price is not known."""


class ModelBusy(CallFailed):
    """The model could not answer, after all tries: too many requests, a failure, no answer in time."""


class ModelRefused(CallFailed):
    """The model will not answer this, however often it is asked."""


class ModelUnavailable(CallFailed):
    """There is no model to ask."""


class AnswerInvalid(CallFailed):
    """The answer is not what its schema asks for, after all repairs."""


class RunFailed(CallFailed):
    """A child run ended without an answer."""


class ToolFailed(CallFailed):
    """A tool raised an error."""


class ToolNotFound(CallFailed):
    """There is no tool of that name."""


FAMILY: tuple[type[CallFailed], ...] = (
    *(CallFailed, BudgetExhausted, MaxDepthExceeded, TokenBudgetExhausted, CallBudgetExhausted),
    *(CostBudgetExhausted, TimeBudgetExhausted, TurnBudgetExhausted, PriceUnknown, ModelBusy, ModelRefused),
    *(ModelUnavailable, AnswerInvalid, RunFailed, ToolFailed, ToolNotFound),
)
_BY_KIND: dict[str, type[CallFailed]] = {
    **{kind.__name__: kind for kind in FAMILY},
    "ToolNotFoundError": ToolNotFound,
}


def failure(kind: str, message: str) -> CallFailed:
    """Return the exception for what the host calls `kind`."""
    made: type[CallFailed] = _BY_KIND.get(kind, CallFailed)
    return made(kind, message)
