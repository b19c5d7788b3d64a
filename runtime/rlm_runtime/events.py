"""The events of a trajectory: what happened in one run, as a reader sees it. The only place that knows their form.

A trajectory is a file of JSON lines, one event each, written as it happens. Every event has

    schema          the version of this form, now 1
    trajectory_id   which run
    n               its number within the run, from 1
    time            when, in UTC
    kind            which of the kinds below
    call_id         which call it belongs to; the run itself is the call "0"
    parent_call_id  which call made that one; "" for the run itself
    depth           0 for the run, 1 for what its code asks, and so on

and, where they apply: prompt, response, tool_calls, tool_results, token_usage, cost_usd, duration_ms, error.
Texts that are long are written once, as a line of the kind "text", and named by its number afterwards:
{"ref": n, "characters": k}. So a log grows with what is said, and not with how often it is said again.

    run_started     prompt, model, budget, contexts: name -> {"type", "size", "ref"}
    text            sha256, text; no event of its own, so of the above it has schema, n and kind only
    call_started    name ("root", "llm_query", "rlm_query", a tool), prompt: a list of messages, model
    call_ended      response, tool_calls, token_usage, cost_usd, duration_ms, finish, error, answered_by, cached
    cell_started    code
    cell_ended      tool_results: output, value, changed; duration_ms, error
    note            what the runtime did by itself: a repair, another try, compaction, a limit
    run_ended       response, finish, reason, token_usage, cost_usd, duration_ms, calls, depth_reached, error
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

SCHEMA = 1
RUN = "0"
INLINE_CHARACTERS = 200

Kind: TypeAlias = Literal[
    "run_started",
    "text",
    "call_started",
    "call_ended",
    "cell_started",
    "cell_ended",
    "note",
    "run_ended",
]
Event: TypeAlias = dict[str, Any]
