"""A cell: compile it, run it, show what came of it.

The namespace is that of the module `__main__`, so that classes, functions and
everything that looks for their module find it. What runs here may do anything
to this process; keeping it from the rest of the world is the sandbox's work.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import inspect
import os
import sys
import tokenize
import types
from collections.abc import Coroutine, Iterable
from io import StringIO
from typing import Any, NamedTuple

from . import display, errors, figures, policy, variables
from .calls import Calls
from .display import Display
from .interrupts import Interrupts
from .outlet import Outlet
from .recursion import FinalAnswer, Functions

_OURS = os.path.dirname(os.path.abspath(__file__))
_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_MAX_CHANGED = 50


class Ran(NamedTuple):
    """What the host is told when a cell is over."""

    error: dict[str, Any] | None
    value: str | None
    exit_code: str | None
    changed: list[str]
    removed: list[str]
    final: bool = False


class Repl:
    """The namespace of one session, and running cells in it."""

    def __init__(
        self,
        outlet: Outlet,
        calls: Calls,
        interrupts: Interrupts,
        mode: policy.Mode,
        tools: Iterable[dict[str, Any]] = (),
    ) -> None:
        self.main = types.ModuleType("__main__")
        self._outlet = outlet
        self._interrupts = interrupts
        self.mode: policy.Mode = mode
        self._sources = errors.CellSources()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._shown = 0
        sys.modules["__main__"] = self.main
        names: dict[str, Any] = {
            "call": calls.call,
            "call_many": calls.call_many,
            "call_async": calls.call_async,
        }
        self._functions = Functions(calls, tools)
        names.update(self._functions.names(), help=self._functions.help)
        offered = {**vars(builtins), **names, "display": self.display, "exit": _exit, "quit": _exit}
        self.builtins = policy.builtins_for(self.mode, offered)
        self.namespace["__builtins__"] = self.builtins
        figures.on_show(self._show_figures)

    @property
    def namespace(self) -> dict[str, Any]:
        """The variables of the session."""
        return self.main.__dict__

    def run(self, cell: int, code: str, *, is_answered: bool = False) -> Ran:
        """Run one cell to its end, whatever that is. `is_answered` says that somebody answers its calls."""
        self._functions.begin_cell(is_answered=is_answered)
        self.namespace["__builtins__"] = self.builtins
        before = variables.named(self.namespace)
        self._shown = 0
        value, problem = None, None
        try:
            with self._interrupts.let_in():
                try:
                    value = self._execute_to_final(cell, code)
                finally:
                    self._show_figures()
        except BaseException as raised:  # a cell may raise anything, and the session goes on
            problem = raised
        error, exit_code = self._describe(problem)
        changed, removed = _difference(before, variables.named(self.namespace))
        return Ran(error, value, exit_code, changed, removed, self._functions.given is not None)

    def _describe(self, problem: BaseException | None) -> tuple[dict[str, Any] | None, str | None]:
        """Return what is told of how a cell ended. Its exception may be anything."""
        if problem is None:
            return None, None
        try:
            with self._interrupts.let_in():
                if isinstance(problem, SystemExit):
                    return None, "0" if problem.code is None else errors.message_of(problem)[:200]
                return errors.describe(problem, _OURS), None
        except BaseException:
            return {"name": errors.class_name(problem), "message": "", "traceback": "", "limit": None}, None

    def _execute_to_final(self, cell: int, code: str) -> str | None:
        """Run the code; what it gave to `final` is its value then."""
        try:
            value = self._execute(cell, code)
        except FinalAnswer:
            value = None
        given = self._functions.given
        return value if given is None else self._show(given.value, silent=False)

    def _execute(self, cell: int, code: str) -> str | None:
        name = f"<cell {cell}>"
        self._sources.add(name, code)
        tree = ast.parse(code, name)
        tree = policy.check(tree, code, name, self.mode)
        body, last = _split(tree)
        if body.body:
            self._evaluate(compile(body, name, "exec", _AWAIT, dont_inherit=True))
        if last is None:
            return None
        value = self._evaluate(compile(last, name, "eval", _AWAIT, dont_inherit=True))
        return None if value is None else self._show(value, silent=_ends_with_semicolon(code))

    def _evaluate(self, code: types.CodeType) -> Any:
        if code.co_flags & inspect.CO_COROUTINE:
            return self._run_coroutine(eval(code, self.namespace))
        return eval(code, self.namespace)

    def _run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self._loop is None or self._loop.is_closed():
            self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(coroutine)
        try:
            return self._loop.run_until_complete(task)
        except (KeyboardInterrupt, SystemExit):
            task.cancel()
            self._loop.run_until_complete(asyncio.wait([task], timeout=1))
            if task.done() and not task.cancelled():
                task.exception()  # it is raised here; asyncio need not report it once more
            raise

    def _show(self, value: Any, *, silent: bool) -> str | None:
        self.namespace["_"] = value
        if silent:
            return None
        text = display.text_of(value)
        self._send(display.picture_of(value))
        display.shown(value)
        return text

    def display(self, *values: Any) -> None:
        """Show values at once, as the last expression of a cell is shown at its end."""
        for value in values:
            picture = display.picture_of(value)
            if picture is None:
                self._outlet.write("out", display.text_of(value) + "\n")
            else:
                self._send(picture)
                display.shown(value)

    def _show_figures(self) -> None:
        for figure in display.open_figures():
            self._send(figure)

    def _send(self, shown: Display | None) -> None:
        if shown is not None and self._shown < display.MAX_DISPLAYS:
            self._shown += 1
            self._outlet.frame("display", shown.data, mime=shown.mime)


def _split(tree: ast.Module) -> tuple[ast.Module, ast.Expression | None]:
    """Return a cell without its last expression, and that expression."""
    if not tree.body or not isinstance(tree.body[-1], ast.Expr):
        return tree, None
    last = tree.body[-1].value
    return ast.Module(tree.body[:-1], tree.type_ignores), ast.Expression(last)


def _ends_with_semicolon(code: str) -> bool:
    if not code.rstrip().endswith(";") and "#" not in code:
        return False
    skipped = (tokenize.NEWLINE, tokenize.NL, tokenize.COMMENT, tokenize.ENDMARKER, tokenize.DEDENT)
    tokens = [
        token for token in tokenize.generate_tokens(StringIO(code).readline) if token.type not in skipped
    ]
    return bool(tokens) and tokens[-1].string == ";"


def _difference(before: dict[str, Any], after: dict[str, Any]) -> tuple[list[str], list[str]]:
    missing = object()
    changed = [name[:200] for name, value in after.items() if before.get(name, missing) is not value]
    removed = [name[:200] for name in before if name not in after]
    return changed[:_MAX_CHANGED], removed[:_MAX_CHANGED]


def _exit(code: Any = None) -> None:
    """End this cell; the session and its variables stay."""
    raise SystemExit(code)
