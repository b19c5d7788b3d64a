"""The language policy: what Python a cell may be written in.

Three modes. *off* is plain Python. *permissive* is a seat belt inside a strong jail: it refuses what reaches for
the interpreter or the system, and nothing else. *strict* is for hosts where no jail holds: pure computation with a
short list of modules. Code that is let through runs at the speed of plain Python, but for private attributes,
attribute assignment and class patterns in strict mode.

What neither mode claims: text that a library compiles by itself (`DataFrame.query`, doctest) is not read, libraries
that are not Python's own are handed out as they are, and no policy over source is a wall against an adversary.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

from . import _module_rules, _transformer
from ._strict_guard import StrictGuard
from ._transformer import Refusal
from .guards import Guard

Mode = Literal["off", "permissive", "strict"]
_Tree = TypeVar("_Tree", bound=ast.AST)


class PolicyUnavailable(RuntimeError):
    """The policy was asked for and RestrictedPython, on which it is built, is not there."""


class PolicyRefusal(SyntaxError):
    """The source says something that the policy refuses. Nothing of it has run."""

    def __init__(self, refusals: Sequence[Refusal], source: str, filename: str) -> None:
        self.refusals = sorted(refusals)
        first = self.refusals[0]
        lines = source.splitlines()
        text = lines[first.line - 1] if first.line <= len(lines) else ""
        end_text = lines[first.end_line - 1] if first.end_line <= len(lines) else ""
        where = (filename, first.line, _offset(text, first.column), text)
        super().__init__(self._message(), (*where, first.end_line, _offset(end_text, first.end_column)))

    def _message(self) -> str:
        first = self.refusals[0]
        message = f"{first.what} is refused: {first.door.why}. {first.door.instead}"
        more = len(self.refusals) - 1
        if not more:
            return message
        return f"{message} ({more} more refused {'place' if more == 1 else 'places'} in this code)"


def available() -> bool:
    """Return whether the modes other than "off" can be had; if not, `unavailable_because` says why."""
    return _transformer.UNAVAILABLE is None


def unavailable_because() -> str | None:
    """Return why the policy cannot be had, or None."""
    return _transformer.UNAVAILABLE


def check(tree: ast.Module, source: str, filename: str, mode: Mode) -> ast.Module:
    """Return the tree to compile, which may be `tree` rewritten in place; raise `PolicyRefusal` if it is refused."""
    return tree if mode == "off" else _checked(tree, source, filename, mode)


def open_doors(*, network: bool, processes: bool) -> None:
    """Let the permissive mode hand out the modules for what the sandbox of this process opens."""
    _module_rules.open_doors(network=network, processes=processes)


def builtins_for(mode: Mode, real: Mapping[str, object]) -> dict[str, object]:
    """Return the `__builtins__` for the cells of one session in that mode.

    A cell can change what it is given, and a namespace without `__builtins__` gets the real ones from the
    interpreter, so put this into the namespace again before each cell. The namespace's `__name__` is `__main__`.
    """
    if mode == "off":
        return dict(real)
    _require()
    kind = StrictGuard if mode == "strict" else Guard
    return kind(mode, real, _checked).builtins


def _checked(tree: _Tree, source: str, filename: str, mode: str) -> _Tree:
    _require()
    policy = _transformer.Policy(strict=mode == "strict")
    policy.visit(tree)
    if policy.refusals:
        raise PolicyRefusal(policy.refusals, source, filename)
    return tree


def _require() -> None:
    if _transformer.UNAVAILABLE is not None:
        raise PolicyUnavailable(
            f"The language policy cannot be had: {_transformer.UNAVAILABLE}. Install RestrictedPython 9 for this "
            "interpreter, or turn the policy off where the sandbox holds without it."
        )


def _offset(line: str, column: int) -> int:
    """Return the 1-based character at a column that the tree counts in bytes."""
    return len(line.encode("utf-8", "surrogatepass")[:column].decode("utf-8", "ignore")) + 1
