"""Trajectories as people read them at a terminal: one line an event, or a tree of calls."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from rlm_runtime import within

from .output import Out, visible

if TYPE_CHECKING:
    from rlm_runtime import Call, Summary, Totals, Trajectory

_WIDTH, _LEAST_WIDTH, _MOST_WIDTH = 100, 16, 160
_BESIDE = 45  # what stands in a line beside its text: a name, a model, tokens, cost and time
_LEAST_USD = 1e-9
_TITLE_CHARACTERS = 100
_TREE, _PLAIN_TREE = ("├─ ", "└─ ", "│  ", "→"), ("|- ", "`- ", "|  ", "->")


def spent(tokens: int | None, cost_usd: float | None, milliseconds: float | None) -> str:
    """Return what something took, in a few words."""
    words = [] if tokens is None else [f"{tokens:,} tokens"]
    words += [] if cost_usd is None else [dollars(cost_usd)]
    words += [] if milliseconds is None else [seconds(milliseconds)]
    return "  ".join(words)


def dollars(cost_usd: float) -> str:
    """Return an amount of money; a small one with as many places as it needs."""
    if cost_usd >= 1 or cost_usd < _LEAST_USD:
        return f"${cost_usd:.2f}"
    digits = 3 - math.floor(math.log10(cost_usd))
    return "$" + f"{cost_usd:.{digits}f}".rstrip("0").rstrip(".")


def counted(number: int, one: str) -> str:
    """Return how many there are of something."""
    return f"{number:,} {one}" if number == 1 else f"{number:,} {one}s"


def seconds(milliseconds: float) -> str:
    """Return a time."""
    if milliseconds < 1000:
        return f"{milliseconds:.0f} ms"
    return f"{milliseconds / 1000:.1f} s" if milliseconds < 120_000 else f"{milliseconds / 60_000:.1f} min"


def short(value: Any, width: int = _WIDTH) -> str:
    """Return the beginning of a text on one line; of a long one that was not looked up, how long it is."""
    if (characters := within(value, "characters")) is not None:
        return f"({characters:,} characters)"
    if not isinstance(value, str):
        return "" if value is None else short(str(value), width)
    text = visible(" ".join(value[: width * 4].split()))
    return text if len(text) <= width and len(value) <= width * 4 else text[: width - 1] + "…"


def room(taken: int = 0) -> int:
    """Return how long a text may be in a line of which so much is taken; as long as ever where there is no terminal."""
    if not sys.stdout.isatty():
        return _WIDTH
    columns = shutil.get_terminal_size().columns
    return max(_LEAST_WIDTH, min(_MOST_WIDTH, columns - taken))


def _signs() -> tuple[str, str, str, str]:
    """Return the lines of a tree, as the terminal can show them."""
    try:
        "".join(_TREE).encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return _PLAIN_TREE
    return _TREE


# ---- one line an event


def line_of(event: Mapping[str, Any], out: Out) -> str:
    """Return an event in a line. Long texts may be there whole, or as they are in the file."""
    depth = "  " * int(event["depth"])
    number = out.style(f"{event['n']:>5}", "dim")
    width = room(len(depth) + 15 + _BESIDE)
    return f"{number} {event['call_id']:<8} {depth}{_said(event, out, width)}".rstrip()


def _said(event: Mapping[str, Any], out: Out, width: int) -> str:
    match event["kind"]:
        case "run_started":
            return f"{out.style('run', 'bold')}  {short(event.get('title'), width)}"
        case "call_started":
            name = out.style(visible(str(event.get("name", ""))), "cyan")
            return f"{name} {visible(str(event.get('model', '')))}  {short(_asked(event), width)}"
        case "call_ended":
            return _end_of(event, out, width)
        case "cell_started":
            return f"{out.style('code', 'blue')}  {short(event.get('code'), width)}"
        case "cell_ended":
            return f"{out.style('output', 'blue')}  {_cell_result(event, out, width)}"
        case "run_ended":
            return f"{out.style(str(event.get('finish', 'ended')), 'bold')}  {_end_of(event, out, width)}"
        case _:
            note = out.style(visible(str(event.get("note", event["kind"]))), "yellow")
            return f"{note}  {_error(event, out, width)}".rstrip()


def _asked(event: Mapping[str, Any]) -> Any:
    """Return what was asked last, or the arguments of a tool."""
    return within(event, "prompt", -1, "content") or within(event, "tool_calls", 0, "arguments")


def _end_of(event: Mapping[str, Any], out: Out, width: int) -> str:
    usage = within(event, "token_usage")
    tokens = usage and int(usage.get("input_tokens", 0)) + int(usage.get("output_tokens", 0))
    took = spent(tokens or None, event.get("cost_usd"), event.get("duration_ms"))
    kept = out.style("stored answer  ", "dim") if event.get("cached") else ""
    said = _error(event, out, width) or short(event.get("response"), width) or _used(event, width)
    return f"{kept}{said}  {out.style(took, 'dim')}"


def _used(event: Mapping[str, Any], width: int) -> str:
    return short(within(event, "tool_results", 0, "output") or within(event, "tool_calls", 0, "name"), width)


def _cell_result(event: Mapping[str, Any], out: Out, width: int) -> str:
    said = within(event, "tool_results", 0, "output") or within(event, "tool_results", 0, "value")
    took = spent(None, None, event.get("duration_ms"))
    return f"{_error(event, out, width) or short(said, width)}  {out.style(took, 'dim')}"


def _error(event: Mapping[str, Any], out: Out, width: int) -> str:
    if not event.get("error"):
        return ""
    kind = visible(str(within(event, "error", "kind") or "error"))
    return out.style(f"{kind}: ", "red") + short(within(event, "error", "message"), width)


# ---- a tree


def tree_lines(trajectory: Trajectory, out: Out, *, full: bool = False) -> Iterator[str]:
    """Yield a trajectory as a tree: what each call was asked, what it took, and below it what it led to."""
    yield from _branch(trajectory, trajectory.tree(), "", out, full)


def _branch(trajectory: Trajectory, call: Call, indent: str, out: Out, full: bool) -> Iterator[str]:
    parts = sorted([*_calls(call), *_cells(call), *_notes(call)], key=lambda part: part[0])
    tee, ell, bar, _ = _signs()
    for number, (_, part) in enumerate(parts, 1):
        last = number == len(parts)
        here, below = (ell, "   ") if last else (tee, bar)
        yield from _part(trajectory, part, indent + here, indent + below, out, full)


def _calls(call: Call) -> list[tuple[int, Any]]:
    return [(child.started["n"] if child.started else 10**9, child) for child in call.children]


def _cells(call: Call) -> list[tuple[int, Any]]:
    return [(cell[0]["n"], cell) for cell in call.cells]


def _notes(call: Call) -> list[tuple[int, Any]]:
    return [(note["n"], note) for note in call.notes]


def _part(trajectory: Trajectory, part: Any, first: str, rest: str, out: Out, full: bool) -> Iterator[str]:
    if isinstance(part, dict):
        yield f"{first}{_said(part, out, _room_beside(first))}"  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(part, tuple):
        yield from _cell_lines(trajectory, part, first, rest, out, full)  # pyright: ignore[reportUnknownArgumentType]
    else:
        yield f"{first}{_call_line(trajectory, part, out, _room_beside(first))}"
        if full:
            yield from _whole(trajectory, [part.started, part.ended], rest, out)
        yield from _branch(trajectory, part, rest, out, full)


def _room_beside(indent: str) -> int:
    return room(len(indent) + _BESIDE)


def _call_line(trajectory: Trajectory, call: Call, out: Out, width: int) -> str:
    started, ended = call.started or {}, call.ended
    name = out.style(visible(call.name or "call"), "cyan")
    model = visible(str((ended or {}).get("model") or started.get("model") or ""))
    what = "…" if ended is None else _end_of(_looked_up(trajectory, ended), out, width)
    return " ".join(filter(None, (name, model, f" {what}")))


def _cell_lines(
    trajectory: Trajectory, cell: tuple[Any, Any], first: str, rest: str, out: Out, full: bool
) -> Iterator[str]:
    started, ended = cell
    width = _room_beside(first)
    yield f"{first}{_said(_looked_up(trajectory, started), out, width)}"
    if not full:
        if ended is not None:
            result = _cell_result(_looked_up(trajectory, ended), out, width)
            yield f"{rest}{out.style(_signs()[3], 'dim')} {result}"
        return
    yield from _whole(trajectory, [started, ended], rest, out)


def _looked_up(trajectory: Trajectory, event: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an event with its texts, as far as they are still there."""
    from rlm_runtime import TrajectoryError

    try:
        return trajectory.whole(dict(event))
    except TrajectoryError:
        return event


def _whole(
    trajectory: Trajectory, events: list[Mapping[str, Any] | None], indent: str, out: Out
) -> Iterator[str]:
    for event in events:
        if event is None:
            continue
        facts = _looked_up(trajectory, event)
        for name in ("prompt", "code", "response", "tool_calls", "tool_results", "error"):
            if facts.get(name):
                yield f"{indent}{out.style(name, 'bold')}"
                yield from (f"{indent}  {line}" for line in _paragraph(facts[name]))


def _paragraph(value: Any) -> Iterator[str]:
    if within(value, 0, "role") is None:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
        yield from map(visible, text.splitlines())
        return
    for message in value:
        yield f"[{message['role']}]"
        yield from map(visible, str(message.get("content", "")).splitlines())


# ---- above a tree, and below


def heading(summary: Summary, out: Out) -> Iterator[str]:
    """Yield what a run is."""
    state = summary.finish if summary.state == "ended" else summary.state
    color = "red" if summary.failed else "green" if summary.state == "ended" else "yellow"
    about = (summary.started_at, visible(summary.model))
    yield "  ".join(filter(None, (out.style(summary.id, "bold"), out.style(state, color), *about)))
    if summary.title:
        yield visible(summary.title) + ("…" if len(summary.title) == _TITLE_CHARACTERS else "")


def footing(summary: Summary, totals: Totals, out: Out) -> Iterator[str]:
    """Yield what a run came to."""
    if summary.reason:
        yield out.style(visible(summary.reason), "red" if summary.failed else "yellow")
    cost = "cost unknown" if totals.cost_usd is None else dollars(totals.cost_usd)
    took = "" if summary.duration_ms is None else f", {seconds(summary.duration_ms)}"
    yield out.style(
        f"{counted(totals.calls, 'call')}, {totals.input_tokens:,} + {totals.output_tokens:,} tokens, {cost}, "
        f"depth {totals.depth_reached}{took}",
        "dim",
    )
