"""The runtime: a recursive language model that keeps its budget and can be played again.

What is listed here is brought in when it is first asked for, with what it needs and no more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .answers import Answerer, Child, ChildJob, ChildResult, Ladder
    from .api import RLM
    from .budget import Budget, Pool, Spent, open_pool
    from .cache import AnswerStore, Stored, key_of
    from .contexts import ContextFile
    from .errors import (
        AnswerInvalid,
        BudgetExhausted,
        CallBudgetExhausted,
        CostBudgetExhausted,
        MaxDepthExceeded,
        ModelBusy,
        ModelError,
        ModelRefused,
        ModelUnavailable,
        PriceUnknown,
        ReplayDiverged,
        REPLExecutionError,
        RLMError,
        RunFailed,
        TimeBudgetExhausted,
        TokenBudgetExhausted,
        ToolFailed,
        ToolNotFoundError,
        TrajectoryError,
        TurnBudgetExhausted,
    )
    from .event_lines import within
    from .events import RUN, Event
    from .events import Kind as EventKind
    from .log import Log, open_log
    from .log import new_id as new_trajectory_id
    from .loop import child_runs
    from .model import Bound, Finish, Message, Model, OnText, Reply, Request, ToolSpec, ToolUse, Usage
    from .model import Kind as ModelKind
    from .models.anthropic import AnthropicModel
    from .models.bounds import most_tokens
    from .models.command import CommandModel
    from .models.litellm import LiteLLMModel
    from .models.openai import OpenAIModel
    from .models.prices import Price, Prices
    from .models.programs import secrets_in
    from .models.providers import ADDRESS_OF, KEY_OF, WITHIN_COMMAND, provider_of, seen_by
    from .own_tools import file_read
    from .pruning import Bound as KeptBound
    from .pruning import Kept as KeptTrajectory
    from .pruning import Removed as RemovedTrajectories
    from .pruning import beyond as trajectories_beyond
    from .pruning import kept_in as kept_trajectories
    from .pruning import remove as remove_trajectories
    from .replay import Replayed
    from .replay import replay as replay_trajectory
    from .retries import Retries
    from .rooms import Rooms
    from .run import Job, Outcome
    from .run import run as run_job
    from .schemas import shape_of
    from .tools import Tool
    from .trajectory import Call, Summary, Totals, Trajectory, is_running, summary_of, trajectories
    from .trajectory import find as find_trajectory
    from .trajectory import placed as placed_trajectories
    from .trajectory import read as read_trajectory
else:
    from importlib import import_module

    # which module has what, for each by its name there; "x=y" is x there and y here
    _TABLE = {
        "answers": "Answerer Child ChildJob ChildResult Ladder",
        "api": "RLM",
        "budget": "Budget Pool Spent open_pool",
        "cache": "AnswerStore Stored key_of",
        "contexts": "ContextFile",
        "errors": (
            "AnswerInvalid BudgetExhausted CallBudgetExhausted CostBudgetExhausted MaxDepthExceeded ModelBusy "
            "ModelError ModelRefused ModelUnavailable PriceUnknown REPLExecutionError ReplayDiverged RLMError "
            "RunFailed TimeBudgetExhausted TokenBudgetExhausted ToolFailed ToolNotFoundError TrajectoryError "
            "TurnBudgetExhausted"
        ),
        "event_lines": "within",
        "events": "RUN Event Kind=EventKind",
        "log": "Log open_log new_id=new_trajectory_id",
        "loop": "child_runs",
        "model": ("Bound Finish Kind=ModelKind Message Model OnText Reply Request ToolSpec ToolUse Usage"),
        "models.anthropic": "AnthropicModel",
        "models.bounds": "most_tokens",
        "models.command": "CommandModel",
        "models.litellm": "LiteLLMModel",
        "models.openai": "OpenAIModel",
        "models.prices": "Price Prices",
        "models.programs": "secrets_in",
        "models.providers": "ADDRESS_OF KEY_OF WITHIN_COMMAND provider_of seen_by",
        "own_tools": "file_read",
        "pruning": (
            "Bound=KeptBound Kept=KeptTrajectory Removed=RemovedTrajectories beyond=trajectories_beyond "
            "kept_in=kept_trajectories remove=remove_trajectories"
        ),
        "replay": "Replayed replay=replay_trajectory",
        "retries": "Retries",
        "rooms": "Rooms",
        "run": "Job Outcome run=run_job",
        "schemas": "shape_of",
        "tools": "Tool",
        "trajectory": (
            "Call Summary Totals Trajectory find=find_trajectory is_running placed=placed_trajectories "
            "read=read_trajectory summary_of trajectories"
        ),
    }
    _PLACES = {
        name.rpartition("=")[2]: (module, name.partition("=")[0])
        for module, names in _TABLE.items()
        for name in names.split()
    }

    def __getattr__(name):
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, there = _PLACES[name]
        value = globals()[name] = getattr(import_module(f".{module}", __name__), there)
        return value

    def __dir__():
        return sorted({*globals(), *_PLACES})


__all__ = [
    "ADDRESS_OF",
    "KEY_OF",
    "RLM",
    "RUN",
    "WITHIN_COMMAND",
    "AnswerInvalid",
    "AnswerStore",
    "Answerer",
    "AnthropicModel",
    "Bound",
    "Budget",
    "BudgetExhausted",
    "Call",
    "CallBudgetExhausted",
    "Child",
    "ChildJob",
    "ChildResult",
    "CommandModel",
    "ContextFile",
    "CostBudgetExhausted",
    "Event",
    "EventKind",
    "Finish",
    "Job",
    "KeptBound",
    "KeptTrajectory",
    "Ladder",
    "LiteLLMModel",
    "Log",
    "MaxDepthExceeded",
    "Message",
    "Model",
    "ModelBusy",
    "ModelError",
    "ModelKind",
    "ModelRefused",
    "ModelUnavailable",
    "OnText",
    "OpenAIModel",
    "Outcome",
    "Pool",
    "Price",
    "PriceUnknown",
    "Prices",
    "REPLExecutionError",
    "RLMError",
    "RemovedTrajectories",
    "ReplayDiverged",
    "Replayed",
    "Reply",
    "Request",
    "Retries",
    "Rooms",
    "RunFailed",
    "Spent",
    "Stored",
    "Summary",
    "TimeBudgetExhausted",
    "TokenBudgetExhausted",
    "Tool",
    "ToolFailed",
    "ToolNotFoundError",
    "ToolSpec",
    "ToolUse",
    "Totals",
    "Trajectory",
    "TrajectoryError",
    "TurnBudgetExhausted",
    "Usage",
    "child_runs",
    "file_read",
    "find_trajectory",
    "is_running",
    "kept_trajectories",
    "key_of",
    "most_tokens",
    "new_trajectory_id",
    "open_log",
    "open_pool",
    "placed_trajectories",
    "provider_of",
    "read_trajectory",
    "remove_trajectories",
    "replay_trajectory",
    "run_job",
    "secrets_in",
    "seen_by",
    "shape_of",
    "summary_of",
    "trajectories",
    "trajectories_beyond",
    "within",
]
