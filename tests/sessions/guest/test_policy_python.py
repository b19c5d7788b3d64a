"""The policy against Python itself: its syntax tree, its own grammar tests, and its whole library.

Every refusal in them must have a reason that is written down here. Where an interpreter comes without its tests
(Debian's does), those are skipped, but never in CI.
"""

from __future__ import annotations

import ast
import builtins
import contextlib
import importlib
import importlib.util
import os
import re
import sys
import sysconfig
import types
import unittest
import warnings
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from RestrictedPython.transformer import RestrictingNodeTransformer

from rlm_sessions.guest import _module_rules, _nodes, policy

LIBRARY = Path(sysconfig.get_path("stdlib"))
TESTS = LIBRARY / "test"

_FRAMES = "the running frames of the interpreter"
_CODE = "code objects and globals of functions"
_IMPORTS = "the import machinery"
_BUILTINS = "the builtins"
_PROGRAMS = "starting programs"
_MACHINE_CODE = "machine code"

REASONS = {
    **dict.fromkeys(
        "tb_frame f_back f_builtins f_code f_generator f_globals f_locals f_trace".split(), _FRAMES
    ),
    **dict.fromkeys(
        "f_trace_lines f_trace_opcodes gi_frame gi_code cr_frame cr_code ag_frame".split(), _FRAMES
    ),
    **dict.fromkeys(
        "ag_code _getframe _getframemodulename _current_frames _current_exceptions".split(), _FRAMES
    ),
    **dict.fromkeys("__globals__ co_code _co_code_adaptive __code__ __closure__".split(), _CODE),
    **dict.fromkeys("__loader__ __spec__".split(), _IMPORTS),
    **dict.fromkeys("__builtins__ __build_class__".split(), _BUILTINS),
    **dict.fromkeys("subprocess_exec subprocess_shell".split(), _PROGRAMS),
    **dict.fromkeys("create_subprocess_exec create_subprocess_shell".split(), _PROGRAMS),
    **dict.fromkeys("load_extension enable_load_extension".split(), _MACHINE_CODE),
    **dict.fromkeys("_settraceallthreads _setprofileallthreads".split(), _FRAMES),
    "__subclasses__": "every class of the interpreter",
}
"""What permissive mode refuses in Python's own code."""

STRICT_REASONS = {
    **REASONS,
    **dict.fromkeys(
        "tb_next gi_yieldfrom cr_await cr_origin ag_await get_stack print_stack".split(), _FRAMES
    ),
    **dict.fromkeys("__reduce__ __reduce_ex__".split(), "functions that make any object"),
    **dict.fromkeys(
        "__bases__ __match_args__ __dataclass_fields__ __dataclass_params__".split(), "what classes rely on"
    ),
    **dict.fromkeys("__annotate__ __annotate_func__".split(), "what classes rely on"),
    "get_loop": "the event loop",
    "except*": "CVE-2025-22153",
    "a class pattern in a class body": "names that a metaclass could answer for",
}

GRAMMAR = """
    test_asyncgen test_augassign test_baseexception test_bool test_builtin test_class test_collections test_complex
    test_contextlib test_contextlib_async test_coroutines test_decorators test_defaultdict test_descr test_dict
    test_dictcomps test_dictviews test_enum test_except_star test_exception_group test_exceptions test_extcall
    test_float test_format test_fstring test_funcattrs test_functools test_future test_generator_stop test_generators
    test_genericalias test_genexps test_global test_grammar test_int test_iter test_itertools test_keywordonlyarg
    test_lambda test_list test_listcomps test_lltrace test_metaclass test_named_expressions test_nonlocal test_patma
    test_pep646_syntax test_pep479 test_positional_only_arg test_print test_property test_raise test_scope test_set
    test_setcomps test_slice test_string_literals test_subclassinit test_super test_syntax test_tstring test_tuple
    test_type_aliases test_type_annotations test_type_comments test_type_params test_types test_typing
    test_unicode_identifiers test_unpack test_unpack_ex test_with test_yield_from
    test_dataclasses/__init__ test_asyncio/test_tasks test_asyncio/test_taskgroups
""".split()

RUN = """
    test_grammar test_patma test_named_expressions test_decorators test_with test_augassign test_except_star
    test_dictcomps test_fstring test_keywordonlyarg test_positional_only_arg test_yield_from test_global test_class
    test_super test_property test_scope test_subclassinit test_generator_stop test_int test_bool test_contextlib
    test_textwrap test_fractions test_heapq test_bisect test_string
""".split()

FAILS_FOR_A_REASON = {
    "test_selectors": "sys.modules cannot be assigned",
    "test_delegator_is_visible_to_debugger": "inspect.stack opens frames",
    "test_marshal": "marshal makes code objects",
    "test_patma_249": "it reads the frame that runs it",
    "TestTracing": "sys.settrace",
    "test_refleaks": "it compiles the whole of its own file, of which a part is refused",
    "WithTrace": "sys.settrace",
    "testInteractionWithTraceFunc": "sys.settrace",
    "testCellLeak": "it looks into closures of other code",
    "test_eval_bytes_invalid_escape": "it asks for the message of a warning in source that it compiles",
}
"""Tests of Python's own that cannot pass under the policy: parts of their names."""


def _need(path: Path) -> None:
    if path.exists():
        return
    if os.environ.get("CI"):
        pytest.fail(f"this interpreter has no {path}: CI needs one that comes with its tests")
    pytest.skip(f"this interpreter comes without {path.name}")


def _read(path: Path) -> tuple[ast.Module, str] | None:
    """Return the tree and text of a source; None for one that is wrong on purpose."""
    data = path.read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(data), data.decode("utf-8", "replace")
        except (SyntaxError, ValueError):
            return None


def _refused_in(path: Path, mode: policy.Mode) -> list[str]:
    """Return what is refused in a source; compile it if nothing is."""
    parsed = _read(path)
    if parsed is None:
        return []
    try:
        tree = policy.check(*parsed, str(path), mode)
    except policy.PolicyRefusal as refusal:
        return [found.what for found in refusal.refusals]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compile(tree, str(path), "exec", dont_inherit=True)
    return []


def _has_reason(what: str, mode: policy.Mode) -> bool:
    name = re.sub(r'^`\.?(?:\["(\w+)"\])?|`.*$', r"\1", what)
    if mode == "strict" and re.fullmatch(r"_\w+", name) and what == f"`{name}`":
        return True  # a private name, imported from a module or read by a pattern
    return name in (STRICT_REASONS if mode == "strict" else REASONS)


# ---- its syntax tree


def _node_types(kind: type = ast.AST) -> Iterator[type]:
    node: type
    for node in kind.__subclasses__():
        yield node
        yield from _node_types(node)


def test_every_node_type_of_this_python_has_been_decided_on() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        concrete = {
            node for node in _node_types() if not node.__subclasses__() and node.__module__ in ("ast", "_ast")
        }

    decided = {node.__name__ for node in _nodes.CHILDREN} | _nodes.LEAVES | _nodes.NEVER_IN_A_CELL
    assert {node.__name__ for node in concrete} - decided == set()


def test_every_field_of_every_node_has_been_decided_on() -> None:
    assert _nodes.UNDECIDED_FIELDS == {}


def test_every_node_type_that_restrictedpython_knows_has_been_decided_on() -> None:
    known = {
        name.removeprefix("visit_") for name in dir(RestrictingNodeTransformer) if name.startswith("visit_")
    }

    decided = set(_nodes.KNOWN) | _nodes.LEAVES | _nodes.NEVER_IN_A_CELL
    assert known - decided == set()


@pytest.mark.parametrize("mode", ["permissive", "strict"])
def test_a_node_type_that_nobody_has_decided_on_is_refused(mode: policy.Mode) -> None:
    class Surprise(ast.expr):
        _fields = ()

    tree = ast.Module([ast.Expr(Surprise(lineno=1, col_offset=0), lineno=1, col_offset=0)], [])

    with pytest.raises(policy.PolicyRefusal, match="Surprise"):
        policy.check(tree, "?", "<cell>", mode)


_DOORS_OF_TYPES = {
    types.FrameType: "f_lasti f_lineno clear",
    types.TracebackType: "tb_lasti tb_lineno tb_next",
    types.GeneratorType: "close gi_running gi_suspended gi_yieldfrom gi_state send throw",
    types.CoroutineType: "close cr_await cr_origin cr_running cr_suspended cr_state send throw",
    types.AsyncGeneratorType: "aclose ag_await ag_running ag_suspended ag_state asend athrow",
    types.CodeType: (
        "co_argcount co_cellvars co_consts co_exceptiontable co_filename co_firstlineno co_flags co_freevars co_lines "
        "co_linetable co_lnotab co_name co_names co_nlocals co_posonlyargcount co_kwonlyargcount co_positions "
        "co_qualname co_stacksize co_varnames co_branches _varname_from_oparg replace"
    ),
    types.FunctionType: "",
    types.MethodType: "",
    types.BuiltinFunctionType: "",
}
_HARMLESS = """
    __aiter__ __anext__ __annotations__ __await__ __call__ __defaults__ __del__ __dict__ __func__ __get__ __iter__
    __kwdefaults__ __module__ __name__ __next__ __objclass__ __qualname__ __self__ __signature__ __text_signature__
    __type_params__ __class_getitem__ __replace__ __annotate__ __closure__ __code__
""".split()


@pytest.mark.parametrize("kind", _DOORS_OF_TYPES, ids=lambda kind: kind.__name__)
def test_every_attribute_that_leads_into_the_interpreter_is_refused_or_guarded(kind: type) -> None:
    attributes = set(dir(kind)) - set(dir(object)) - set(_DOORS_OF_TYPES[kind].split()) - set(_HARMLESS)

    for name in sorted(attributes):
        source = f"x.{name}"
        with pytest.raises(policy.PolicyRefusal):
            policy.check(ast.parse(source), source, "<cell>", "permissive")


# ---- its own grammar tests


@pytest.mark.parametrize("mode", ["permissive", "strict"])
@pytest.mark.parametrize("name", GRAMMAR)
def test_a_grammar_test_compiles_but_for_what_reaches_into_the_interpreter(
    name: str, mode: policy.Mode
) -> None:
    _need(TESTS / "test_grammar.py")
    path = TESTS / f"{name}.py"
    if not path.exists():
        path = TESTS / "test_dataclasses.py" if name.startswith("test_dataclasses") else path
    if not path.exists():
        return  # a test of another Python than this

    unexplained = [what for what in _refused_in(path, mode) if not _has_reason(what, mode)]

    assert unexplained == []


@pytest.mark.parametrize("name", RUN)
def test_a_grammar_test_passes_in_permissive_mode(name: str) -> None:
    _need(TESTS / "test_grammar.py")
    path = TESTS / f"{name}.py"

    with _running(path) as (suite, left_out):
        result = unittest.TestResult()
        suite.run(result)

    failed = [case.id() for case, _ in (*result.failures, *result.errors)] + left_out
    told = "".join(text for _, text in (*result.failures, *result.errors))[-3000:]
    assert [case for case in failed if not any(part in case for part in FAILS_FOR_A_REASON)] == [], told
    assert result.testsRun > 0


@contextlib.contextmanager
def _running(path: Path) -> Generator[tuple[unittest.TestSuite, list[str]], None, None]:
    """Load a test module under the policy, without the functions in it that the policy refuses."""
    module: Any = types.ModuleType(f"{path.stem}_under_policy")
    module.__file__ = str(path)
    module.__builtins__ = policy.builtins_for("permissive", vars(builtins))
    tree, left_out = _without_refused(path)
    source = path.read_text(encoding="utf-8")
    sys.modules[module.__name__] = module
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            checked = policy.check(tree, source, str(path), "permissive")
            exec(compile(checked, str(path), "exec", dont_inherit=True), vars(module))
            cases = [value for value in vars(module).values() if _is_test_case(value, module.__name__)]
            suite = unittest.TestSuite(map(unittest.defaultTestLoader.loadTestsFromTestCase, cases))
            yield suite, left_out
    finally:
        del sys.modules[module.__name__]


def _is_test_case(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, unittest.TestCase) and value.__module__ == module


def _without_refused(path: Path) -> tuple[ast.Module, list[str]]:
    parsed = _read(path)
    assert parsed is not None
    tree, source = parsed
    try:
        policy.check(ast.parse(source), source, str(path), "permissive")
    except policy.PolicyRefusal as refusal:
        lines = {found.line for found in refusal.refusals}
        remover = _Remover(lines)
        remover.visit(tree)
        return tree, remover.removed
    return tree, []


class _Remover(ast.NodeTransformer):
    """Takes out the test functions that contain certain lines."""

    def __init__(self, lines: set[int]) -> None:
        self._lines = lines
        self.removed: list[str] = []

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        for function in [
            part for part in node.body if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))
        ]:
            if any(function.lineno <= line <= (function.end_lineno or 0) for line in self._lines):
                node.body.remove(function)
                self.removed.append(f"{node.name}.{function.name}")
        node.body = node.body or [ast.Pass(lineno=node.lineno, col_offset=0)]
        return node


# ---- its whole library


@pytest.mark.parametrize(("mode", "accepted"), [("permissive", 0.90), ("strict", 0.75)])
def test_the_library_compiles_but_for_what_reaches_into_the_interpreter(
    mode: policy.Mode, accepted: float
) -> None:
    sources = list(_library())

    refused = {path: found for path in sources if (found := _refused_in(path, mode))}

    counts = Counter(what for found in refused.values() for what in found)
    share = 1 - len(refused) / len(sources)
    print(f"{mode}: {len(sources)} modules, {share:.1%} accepted")
    print(*(f"{count:6} {what}" for what, count in counts.most_common()), sep="\n")
    assert [what for what in counts if not _has_reason(what, mode)] == []
    assert share > accepted


def _library() -> Iterator[Path]:
    left_out = {"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__"}
    for path in sorted(LIBRARY.rglob("*.py")):
        if not left_out.intersection(path.relative_to(LIBRARY).parts):
            yield path


READS_BY_NAME = {
    "ast": "NodeTransformer.generic_visit NodeVisitor.visit NodeVisitor.visit_Constant copy_location dump._format "
    "iter_fields parse main",
    "abc": "update_abstractmethods",
    "base64": "main",
    "codecs": "StreamReader.__getattr__ StreamReaderWriter.__getattr__ StreamRecoder.__getattr__ StreamWriter.__getattr__ "
    "open",
    "collections": "OrderedDict.__reduce__ namedtuple",
    "contextlib": "_RedirectStream.__enter__ _RedirectStream.__exit__",
    "copy": "_reconstruct",
    "csv": "",
    "dataclasses": "_FuncBuilder.add_fns_to_class _add_slots _asdict_inner _astuple_inner _create_fn _dataclass_getstate "
    "_dataclass_setstate _get_field _process_class _replace _set_new_attribute _update_func_cell_for__class__ fields "
    "replace _make_annotate_function",
    "enum": "EnumType.__new__ EnumType._add_member_ EnumType._find_new_ _proto_member.__set_name__ _proto_member._add_ "
    "Enum.__new__ _dataclass_repr "
    "_simple_enum.convert_class _test_simple_enum property.__get__ property.__set__ property.__delete__",
    "functools": "total_ordering update_wrapper",
    "gzip": "main",
    "hashlib": "__get_openssl_constructor",
    "logging": "FileHandler._open LogRecord.__init__",
    "operator": "attrgetter.__init__.func methodcaller.__call__",
    "os": "_fwalk _wrap_close.__getattr__ fdopen fwalk",
    "pprint": "PrettyPrinter._pprint_dataclass",
    "quopri": "main",
    "reprlib": "Repr.repr1",
    "shlex": " shlex.sourcehook",
    "string": "Formatter.get_field",
    "timeit": "Timer.__init__",
    "traceback": "_compute_suggestion_error",
    "typing": "_ProtocolMeta.__init__ __getattr__ runtime_checkable ForwardRef.__init__ ForwardRef._evaluate NamedTupleMeta.__new__ _BaseGenericAlias.__getattr__ "
    "_BaseGenericAlias.__setattr__ _ProtocolMeta.__instancecheck__ _is_callable_members_only _proto_hook "
    "get_type_hints no_type_check _lazy_annotationlib evaluate_forward_ref _collect_parameters "
    "_get_protocol_attrs",
    "warnings": "_getcategory",
    "xml.etree.ElementTree": "ElementTree.parse _get_writer iterparse iterparse.iterator",
    "xml.sax": "_create_parser",
    "xml.sax.saxutils": "_gettextwriter._wrapper.__getattr__ prepare_input_source",
}
"""Functions in the modules of strict mode that read, write or run what they are told by name: looked at, each of
them out of a cell's reach, guarded, or harmless."""


@pytest.mark.parametrize("module", sorted(_module_rules.STRICT_MODULES))
def test_every_function_that_works_by_name_in_a_strict_module_has_been_looked_at(module: str) -> None:
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return
    tree = ast.parse(Path(spec.origin).read_bytes())

    found = {".".join(path) for path in _works_by_name(tree, ())}

    assert found - set(READS_BY_NAME.get(module, "").split()) - {""} == set()


def _works_by_name(node: ast.AST, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for child in ast.iter_child_nodes(node):
        is_scope = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        inner = (*path, getattr(child, "name", "")) if is_scope else path
        if (
            isinstance(child, ast.Call)
            and isinstance(child.func, ast.Name)
            and _is_by_name(child, child.func.id)
        ):
            yield inner
        yield from _works_by_name(child, inner)


def _is_by_name(call: ast.Call, function: str) -> bool:
    if function in ("exec", "eval", "compile", "__import__", "open"):
        return True
    is_access = function in ("getattr", "setattr", "delattr") and len(call.args) > 1
    return is_access and not isinstance(call.args[1], ast.Constant)
