"""Turns: what is done about a reply of a model. The rules, all of them:

*   A reply with code is code. Of a reply in text, the first block of code is run, and those that follow it with
    nothing but blank space between. Whatever else was written after that was written before there was an output,
    so it is left out: it is not run, it is no answer, and the model does not find it in its own history.
*   A block is fenced by ``` or ~~~ and named repl, python or py; where the model has native tools, only repl,
    because an answer may well show some Python. A fence within the code does not end the block, if the code up
    to there is none and a later fence makes it whole. A block without an end is run, unless the reply was cut off.
*   Native calls are taken in the order in which they stand. Text beside them is a remark. After one that fails
    the others still run, after `final` none does.
*   Words are an answer if they come without code, and after at least one real output: something was printed or
    shown, or a tool said something. The native `final_answer`
    is words too, and counts when it is the only call of its reply. `final(value)` in code counts by itself, for
    its value was made by what ran; but not if the cell raised an error after all.
*   What a model thinks between <think> tags before it speaks is neither.
*   A reply that was cut off, at max_tokens or by a refusal, is no answer, and code that was cut off is not run.

What comes from contexts, outputs and sub-answers is never read by these rules. This module does no I/O.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

FENCED = ("repl", "python", "py", "python3")
NATIVE = ("repl",)

_OPENING = re.compile(r" {0,3}(`{3,}|~{3,})[ \t]*([A-Za-z0-9_+-]*)[ \t]*\r?\n?")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
_THOUGHT = re.compile(r"\A\s*<think(?:ing)?>.*?</think(?:ing)?>\s*", re.DOTALL)
_FLAGS = ast.PyCF_ONLY_AST | ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_LONGEST_LOOKED_AT = 100_000
_MOST_ENDS = 20


def without_thought(text: str) -> str:
    """Return a reply without what a model thought before it, where its server leaves that in the text."""
    return _THOUGHT.sub("", text, count=1)


@dataclass(frozen=True)
class Said:
    """A reply in text: the code to run, if it has any, and as much of it as is `kept`.

    `left_out` says that something stood after the code. `cut_off` code is not whole, and not to be run.
    """

    code: str = ""
    kept: str = ""
    left_out: bool = False
    cut_off: bool = False


def read(text: str, names: Sequence[str], *, cut_off: bool = False) -> Said:
    """Return what a reply says. Blocks of the languages `names` are code; `cut_off` ends within one are no end."""
    lines = _LINE.findall(text)
    blocks: list[str] = []
    at = end = 0
    while at < len(lines):
        block = _block(lines, at, names)
        if block is not None:
            if block.open_ended and cut_off:
                return Said(kept=text, cut_off=True) if not blocks else _said(lines, blocks, end)
            blocks.append(block.code)
            at = end = block.end
        elif blocks and lines[at].strip():
            break
        else:
            at = _after(lines, at)
    return _said(lines, blocks, end) if blocks else Said(kept=text, cut_off=cut_off)


def _said(lines: list[str], blocks: list[str], end: int) -> Said:
    left_out = any(line.strip() for line in lines[end:])
    return Said("\n".join(blocks), "".join(lines[:end]).rstrip(), left_out)


@dataclass(frozen=True)
class _Block:
    code: str
    end: int
    open_ended: bool = False


def _block(lines: list[str], at: int, names: Sequence[str]) -> _Block | None:
    """Return the block of code that begins in this line, if one does."""
    opened = _OPENING.fullmatch(lines[at])
    if opened is None or opened[2].lower() not in names:
        return None
    ends = [n for n in range(at + 1, len(lines)) if _closes(lines[n], opened[1])]
    if not ends:
        return _Block("".join(lines[at + 1 :]), len(lines), open_ended=True)
    codes = {end: "".join(lines[at + 1 : end]) for end in ends[:_MOST_ENDS]}
    chosen = (
        ends[0] if _is_whole(codes[ends[0]]) else next((n for n in codes if _is_whole(codes[n])), ends[0])
    )
    return _Block(codes[chosen], chosen + 1)


def _closes(line: str, fence: str) -> bool:
    mark = line.strip()
    return len(mark) >= len(fence) and set(mark) == {fence[0]}


def _is_whole(code: str) -> bool:
    """Whether it is Python, as far as its grammar says."""
    if len(code) > _LONGEST_LOOKED_AT:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            compile(code, "<reply>", "exec", _FLAGS, dont_inherit=True)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return True


def _after(lines: list[str], at: int) -> int:
    """Return the line after this one, or after the block of something else that begins here."""
    opened = _OPENING.fullmatch(lines[at])
    if opened is None:
        return at + 1
    return next((n + 1 for n in range(at + 1, len(lines)) if _closes(lines[n], opened[1])), at + 1)
