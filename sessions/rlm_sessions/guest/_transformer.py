"""The part of the policy that reads source: one walk over a cell's syntax tree.

It refuses what it can judge from the source and leaves everything else as it was written, so that what it lets
through runs at the speed of plain Python. A name that only the object can decide about becomes a call to a guard.
The guards *hand out* what they allow; none of them stands before an operation that is still there, so that a cell
which puts its own function under a guard's name gains nothing.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from . import _names, _nodes, _templates
from ._names import Door

if TYPE_CHECKING:
    from RestrictedPython.transformer import RestrictingNodeTransformer as _Base

    UNAVAILABLE: str | None
else:
    try:
        from RestrictedPython.transformer import RestrictingNodeTransformer as _Base

        UNAVAILABLE = None
    except (ImportError, AttributeError, TypeError, SyntaxError) as problem:  # missing, or for another Python
        _Base = ast.NodeTransformer
        UNAVAILABLE = f"RestrictedPython cannot be imported ({type(problem).__name__}: {problem})"

_Node = TypeVar("_Node", bound=ast.AST)
_Handler = Callable[[Any, Any], ast.AST]

_UNDECIDED = Door("nobody has decided yet what it may do here", "Write it with older syntax.")
_EXCEPT_STAR = Door(
    "in this release of Python a group with a split() of its own breaks into the interpreter (CVE-2025-22153)",
    "Catch the group with `except ExceptionGroup as group` and look into group.exceptions.",
)
_PATTERN = Door(
    "a pattern reads it from any object, unseen", "Match the object, and look at the attribute in the body."
)
_CLASS_BODY = Door("a metaclass could answer for its names", "Match in a function.")
_HIDDEN_IMPORT = Door(
    "an import reads it from any object, unseen", "Import the module, and use its public names."
)

EXCEPT_STAR_IS_SOUND = sys.version_info >= (3, 13, 2) or (3, 12, 9) <= sys.version_info[:3] < (3, 13)


class Refusal(NamedTuple):
    """One place in a cell that the policy refuses."""

    line: int
    column: int
    end_line: int
    end_column: int
    what: str
    door: Door


class Policy(_Base):
    """RestrictedPython's transformer, taught all of today's syntax and without its cost at run time."""

    def __init__(self, *, strict: bool) -> None:
        super().__init__()
        self.refusals: list[Refusal] = []
        self._strict = strict
        self._refused = _names.STRICT_REFUSED_ATTRIBUTES if strict else _names.REFUSED_ATTRIBUTES
        self._guarded = _names.STRICT_GUARDED_ATTRIBUTES if strict else _names.GUARDED_ATTRIBUTES
        self._stack: list[ast.AST] = []
        self._class_bodies: list[tuple[str, list[ast.stmt]]] = []
        self._class = ""
        self._in_patterns: set[int] = set()

    def visit(self, node: _Node) -> _Node:
        """Judge and rewrite a whole tree in place. A stack of our own, so that depth costs no recursion."""
        self._stack.append(node)
        while self._stack or self._class_bodies:
            if not self._stack:
                self._class, body = self._class_bodies.pop()
                self._look_into(body)
            while self._stack:
                self._look_at(self._stack.pop())
        return node

    def error(self, node: ast.AST, info: str) -> None:
        """Take in what the base class refuses: a node type that it does not know."""
        self._refuse(node, info.rstrip("."), _UNDECIDED)

    def _refuse(self, node: Any, what: str, door: Door) -> None:
        line, column = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
        end_line = getattr(node, "end_lineno", None) or line
        end_column = getattr(node, "end_col_offset", None)
        self.refusals.append(
            Refusal(line, column, end_line, column if end_column is None else end_column, what, door)
        )

    # ---- walking

    def _look_at(self, node: ast.AST) -> None:
        for field in _nodes.CHILDREN[type(node)]:
            child: Any = getattr(node, field, None)
            if child.__class__ is list:
                self._look_into(child)
            elif child is not None:
                admitted = self._admit(child)
                if admitted is not child:
                    setattr(node, field, admitted)

    def _look_into(self, children: list[Any]) -> None:
        push = self._stack.append
        for index, child in enumerate(children):
            action = _ACTIONS.get(child.__class__)
            if action is _LEAF:
                continue
            if action is _PLAIN:
                push(child)
                continue
            admitted = self._admit(child)
            if admitted is not child:
                children[index] = admitted

    def _admit(self, node: Any) -> Any:
        action = _ACTIONS.get(node.__class__)
        if action is _LEAF:
            return node
        if action is None:
            self.generic_visit(node)
            return node
        admitted = node if action is _PLAIN else action(self, node)
        self._stack.append(admitted)
        return admitted

    # ---- names

    def _name(self, node: ast.Name) -> ast.AST:
        if node.id in _names.REFUSED_VARIABLES:
            self._refuse(node, f"`{node.id}`", _names.REFUSED_VARIABLES[node.id])
        elif node.id == "__import__" and isinstance(node.ctx, ast.Load):
            node.id = _names.GUARD_IMPORT
        return node

    def _bind(self, node: ast.AST, *names: str | None) -> None:
        for name in names:
            if name is not None and name in _names.REFUSED_VARIABLES:
                self._refuse(node, f"`{name}`", _names.REFUSED_VARIABLES[name])

    def _named(self, node: Any) -> Any:
        self._bind(node, node.name)
        return node

    def _argument(self, node: ast.arg) -> ast.AST:
        self._bind(node, node.arg)
        return node

    def _declaration(self, node: Any) -> Any:
        self._bind(node, *node.names)
        return node

    def _class_definition(self, node: ast.ClassDef) -> ast.AST:
        self._bind(node, node.name)
        self._class_bodies.append((node.name, node.body))
        if self._strict:
            self._no_patterns_in(node.body)
        return node

    def _no_patterns_in(self, body: list[ast.stmt]) -> None:
        """Refuse class patterns whose class is looked up where a metaclass can answer differently each time."""
        for node in _statements_in_class(body):
            if type(node).__name__ == "match_case" and _classes_by_position(getattr(node, "pattern", node)):
                self._refuse(getattr(node, "pattern", node), "a class pattern in a class body", _CLASS_BODY)

    # ---- attributes

    def _attribute(self, node: ast.Attribute) -> ast.AST:
        name = node.attr
        if name in self._refused:
            self._refuse(node, f"`.{name}`", self._refused[name])
        elif id(node) in self._in_patterns:
            self._read_unseen(node, name, _PATTERN)
        elif not isinstance(node.ctx, ast.Load):
            return self._target(node) if self._strict else node
        elif name in self._guarded or (self._strict and _needs_guard(name)):
            return self._guard(node)
        return node

    def _guard(self, node: ast.Attribute) -> ast.AST:
        if node.attr in ("format", "format_map") and _is_text(node.value) and self._is_decided(node.value):
            return node
        return _call(node, _names.GUARD_READ, node.value, self._text_of(node))

    def _is_decided(self, template: Any) -> bool:
        """Judge a literal template here, so that formatting with it costs nothing; some names take a guard."""
        names = list(_templates.attributes_of(template.value))
        for name in names:
            if name in self._refused:
                self._refuse(template, f"`.{name}` in a format string", self._refused[name])
        return all(self._may_be_read_unseen(name) or name in self._refused for name in names)

    def _target(self, node: ast.Attribute) -> ast.AST:
        """Make `a.b` an item of a guard: items may stand wherever an attribute is assigned, changed or deleted."""
        self._may_store(node)
        holder = _call(node, _names.GUARD_TARGET, node.value)
        item = ast.Subscript(value=holder, slice=self._text_of(node), ctx=node.ctx)
        return ast.copy_location(item, node)

    def _may_store(self, node: ast.Attribute) -> None:
        if node.attr in _names.STRICT_MANAGED:
            self._refuse(node, f"`.{node.attr}`", _names.STRICT_MANAGED[node.attr])

    def _assignment(self, node: ast.Assign) -> ast.AST:
        target = node.targets[0]
        if isinstance(target, ast.Name) and target.id == "__match_args__":
            self._match_args(node.value)
        if not self._strict or len(node.targets) > 1 or not isinstance(target, ast.Attribute):
            return node
        if target.attr in self._refused:
            return node
        self._may_store(target)
        store = _call(target, _names.GUARD_STORE, node.value, target.value, self._text_of(target))
        return ast.copy_location(ast.Expr(store), node)

    def _text_of(self, node: ast.Attribute) -> ast.Constant:
        return ast.copy_location(ast.Constant(_mangled(node.attr, self._class)), node)

    def _item(self, node: ast.Subscript) -> ast.AST:
        key = getattr(node.slice, "value", None)
        if type(key) is str and key.startswith("__"):
            door = _names.REFUSED_VARIABLES.get(key) or self._refused.get(key)
            if key in _names.UNSEEN_NAMES:
                door = _names.STRICT_REFUSED_ATTRIBUTES.get(key)
            if door is not None:
                self._refuse(node, f'`["{key}"]`', door)
        return node

    # ---- attributes that the interpreter reads by itself

    def _may_be_read_unseen(self, name: str) -> bool:
        if name in self._refused:
            return False
        return (
            not (name in self._guarded or _needs_guard(name))
            if self._strict
            else name not in _names.UNSEEN_NAMES
        )

    def _read_unseen(self, node: ast.AST, name: str, door: Door) -> None:
        if not self._may_be_read_unseen(name):
            self._refuse(node, f"`{name}`", self._refused.get(name, door))

    def _import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            first, *others = alias.name.split(".")
            self._bind(alias, alias.asname or first)
            for name in others:
                self._read_unseen(alias, name, _HIDDEN_IMPORT)
        return node

    def _import_from(self, node: ast.ImportFrom) -> ast.AST:
        if node.names[0].name == "*":
            return self._import_star(node) if self._strict else node
        for alias in node.names:
            self._bind(alias, alias.asname or alias.name)
            self._read_unseen(alias, alias.name, _HIDDEN_IMPORT)
        return node

    def _import_star(self, node: ast.ImportFrom) -> ast.AST:
        call = _call(node, _names.GUARD_STAR, ast.Constant(node.module or ""), ast.Constant(node.level or 0))
        return ast.copy_location(ast.Expr(call), node)

    def _match_args(self, value: ast.expr) -> None:
        for item in getattr(value, "elts", ()):
            if _is_text(item) and item.value in self._refused:
                self._refuse(item, f"`{item.value}` in __match_args__", self._refused[item.value])

    def _match(self, node: ast.Match) -> ast.AST:
        if self._strict:
            node.cases = [step for case in node.cases for step in _with_a_look_at_classes(case)]
        return node

    def _match_value(self, node: Any) -> Any:
        self._leave_as_written(node.value)
        return node

    def _match_class(self, node: Any) -> Any:
        self._leave_as_written(node.cls)
        for name in node.kwd_attrs:
            self._read_unseen(node, name, _PATTERN)
        return node

    def _match_mapping(self, node: Any) -> Any:
        self._bind(node, node.rest)
        self._leave_as_written(*node.keys)
        return node

    def _leave_as_written(self, *expressions: ast.expr) -> None:
        """Remember attributes in patterns, where the grammar of Python has no place for a call."""
        for expression in expressions:
            self._in_patterns.update(
                id(part) for part in ast.walk(expression) if isinstance(part, ast.Attribute)
            )

    def _except_star(self, node: Any) -> Any:
        if self._strict and not EXCEPT_STAR_IS_SOUND:
            self._refuse(node, "`except*`", _EXCEPT_STAR)
        return node

    def _with_undecided_field(self, node: Any) -> Any:
        for field in _nodes.UNDECIDED_FIELDS[type(node)]:
            if getattr(node, field, None):
                self._refuse(node, f"{type(node).__name__} with `{field}`", _UNDECIDED)
        return node


def _needs_guard(name: str) -> bool:
    return name[0] == "_" and name not in _names.STRICT_PLAIN_DUNDERS


def _mangled(name: str, class_name: str) -> str:
    """Return the name that the compiler would make of `name` in the body of a class."""
    stripped = class_name.lstrip("_")
    if not stripped or not name.startswith("__") or name.endswith("__"):
        return name
    return f"_{stripped}{name}"


def _is_text(node: Any) -> bool:
    return isinstance(node, ast.Constant) and type(node.value) is str


def _call(like: ast.expr | ast.stmt, guard: str, *arguments: ast.expr) -> ast.Call:
    function = ast.copy_location(ast.Name(guard, ast.Load()), like)
    for argument in arguments:
        if not hasattr(argument, "lineno"):
            ast.copy_location(argument, like)
    return ast.copy_location(ast.Call(func=function, args=list(arguments), keywords=[]), like)


def _with_a_look_at_classes(case: Any) -> Iterator[Any]:
    """Yield a case, after one that never matches where the case reads attributes that its classes name."""
    classes = _classes_by_position(case.pattern)
    if classes:
        yield _look_case(case.pattern, classes)
    yield case


def _classes_by_position(pattern: ast.AST) -> list[Any]:
    parts: Iterator[Any] = ast.walk(pattern)
    return [part.cls for part in parts if type(part).__name__ == "MatchClass" and part.patterns]


def _look_case(like: Any, classes: Sequence[Any]) -> Any:
    look = _call(like, _names.GUARD_MATCH, *(_path_of(node, like) for node in classes))
    anything = ast.copy_location(ast.MatchAs(pattern=None, name=None), like)  # type: ignore[attr-defined,unused-ignore]
    return ast.match_case(  # type: ignore[attr-defined,unused-ignore]
        pattern=anything, guard=look, body=[ast.copy_location(ast.Pass(), like)]
    )


def _path_of(node: Any, like: Any) -> ast.Tuple:
    """Return a dotted name as a tuple of its first value and the other names."""
    names: list[ast.expr] = []
    while isinstance(node, ast.Attribute):
        names.insert(0, ast.Constant(node.attr))
        node = node.value
    path = ast.Tuple([ast.Name(node.id, ast.Load()), *names], ast.Load())
    for part in (path, *path.elts):
        ast.copy_location(part, like)
    return path


def _statements_in_class(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes that run in the namespace of the class itself."""
    left: list[ast.AST] = list(body)
    while left:
        node = left.pop()
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            left.extend(ast.iter_child_nodes(node))


_LEAF: Any = "leaf"
_PLAIN: Any = "plain"
_HANDLERS: dict[str, _Handler] = {
    "Name": Policy._name,
    "FunctionDef": Policy._named,
    "AsyncFunctionDef": Policy._named,
    "ExceptHandler": Policy._named,
    "MatchStar": Policy._named,
    "MatchAs": Policy._named,
    "TypeVar": Policy._named,
    "ParamSpec": Policy._named,
    "TypeVarTuple": Policy._named,
    "ClassDef": Policy._class_definition,
    "arg": Policy._argument,
    "Global": Policy._declaration,
    "Nonlocal": Policy._declaration,
    "Attribute": Policy._attribute,
    "Assign": Policy._assignment,
    "Subscript": Policy._item,
    "Import": Policy._import,
    "ImportFrom": Policy._import_from,
    "Match": Policy._match,
    "MatchValue": Policy._match_value,
    "MatchClass": Policy._match_class,
    "MatchMapping": Policy._match_mapping,
    "TryStar": Policy._except_star,
}


def _action(node: type) -> Any:
    if node in _nodes.UNDECIDED_FIELDS:
        return Policy._with_undecided_field
    if node.__name__ in _nodes.LEAVES:
        return _LEAF
    return _HANDLERS.get(node.__name__, _PLAIN)


_DECIDED = {*_nodes.CHILDREN, *(getattr(ast, name) for name in _nodes.LEAVES if hasattr(ast, name))}
_ACTIONS: dict[type, Any] = {type(None): _LEAF, **{node: _action(node) for node in _DECIDED}}
