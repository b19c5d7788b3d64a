"""Every kind of syntax-tree node that the language policy has decided on, and where its children are.

A node type, or a field of one, that a newer Python adds is not here: the policy refuses it until somebody has
decided, and a test names it.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import cast

_CHILDREN = """
    Module: body | type_ignores
    Expression: body
    Interactive: body

    FunctionDef: args body decorator_list returns type_params | name type_comment
    AsyncFunctionDef: args body decorator_list returns type_params | name type_comment
    ClassDef: bases keywords decorator_list type_params | body name
    Return: value
    Delete: targets
    Assign: targets value | type_comment
    TypeAlias: name type_params value
    AugAssign: target op value
    AnnAssign: target annotation value | simple
    For: target iter body orelse | type_comment
    AsyncFor: target iter body orelse | type_comment
    While: test body orelse
    If: test body orelse
    With: items body | type_comment
    AsyncWith: items body | type_comment
    Match: subject cases
    Raise: exc cause
    Try: body handlers orelse finalbody
    TryStar: body handlers orelse finalbody
    Assert: test msg
    Import: | names
    ImportFrom: | module names level
    Global: | names
    Nonlocal: | names
    Expr: value
    Pass:
    Break:
    Continue:

    BoolOp: op values
    NamedExpr: target value
    BinOp: left op right
    UnaryOp: op operand
    Lambda: args body
    IfExp: test body orelse
    Dict: keys values
    Set: elts
    ListComp: elt generators
    SetComp: elt generators
    DictComp: key value generators
    GeneratorExp: elt generators
    Await: value
    Yield: value
    YieldFrom: value
    Compare: left ops comparators
    Call: func args keywords
    FormattedValue: value format_spec | conversion
    Interpolation: value format_spec | str conversion
    JoinedStr: values
    TemplateStr: values
    Constant: | value kind
    Attribute: value | attr ctx
    Subscript: value slice | ctx
    Starred: value | ctx
    Name: | id ctx
    List: elts | ctx
    Tuple: elts | ctx
    Slice: lower upper step

    comprehension: target iter ifs | is_async
    ExceptHandler: type body | name
    arguments: posonlyargs args vararg kwonlyargs kw_defaults kwarg defaults
    arg: annotation | arg type_comment
    keyword: value | arg
    alias: | name asname
    withitem: context_expr optional_vars
    match_case: pattern guard body
    MatchValue: value
    MatchSingleton: | value
    MatchSequence: patterns
    MatchMapping: keys patterns | rest
    MatchClass: cls patterns kwd_patterns | kwd_attrs
    MatchStar: | name
    MatchAs: pattern | name
    MatchOr: patterns
    TypeVar: bound default_value | name
    ParamSpec: default_value | name
    TypeVarTuple: default_value | name
"""

LEAVES = frozenset(
    "Load Store Del And Or Add Sub Mult MatMult Div Mod Pow LShift RShift BitOr BitXor BitAnd FloorDiv Invert Not "
    "UAdd USub Eq NotEq Lt LtE Gt GtE Is IsNot In NotIn Pass Break Continue Constant MatchSingleton alias".split()
)
"""Nodes that are allowed as they are and hold nothing to look into."""

NEVER_IN_A_CELL = frozenset(
    "FunctionType TypeIgnore Suite Num Str Bytes NameConstant Ellipsis AugLoad AugStore Param Index ExtSlice".split()
)
"""Nodes that parsing a cell does not make: type comments, and what `ast` keeps from before 3.9. Refused."""


def _table() -> tuple[dict[str, tuple[str, ...]], dict[str, frozenset[str]]]:
    children: dict[str, tuple[str, ...]] = {}
    known: dict[str, frozenset[str]] = {}
    for line in filter(None, map(str.strip, _CHILDREN.splitlines())):
        name, _, fields = line.partition(":")
        nodes, _, facts = fields.partition("|")
        children[name] = tuple(nodes.split())
        known[name] = frozenset((nodes + " " + facts).split())
    return children, known


_BY_NAME, KNOWN = _table()

CHILDREN: Mapping[type, tuple[str, ...]] = {
    node: tuple(field for field in fields if field in node._fields)
    for name, fields in _BY_NAME.items()
    if (node := getattr(ast, name, None)) is not None
}
"""For each decided node type of this Python, the fields that hold nodes."""

UNDECIDED_FIELDS: Mapping[type, tuple[str, ...]] = {
    node: undecided
    for node in CHILDREN
    if (
        undecided := tuple(
            field for field in cast("type[ast.AST]", node)._fields if field not in KNOWN[node.__name__]
        )
    )
}
"""Fields that this Python has and nobody has decided on; a node that uses one is refused."""
