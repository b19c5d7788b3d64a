"""Real programs run under the policy: all of them in permissive mode, and in strict mode all but those listed.

A program is a cell: the text below one `# %%` line in `tests/corpus/programs`. `[3.12]` at the end of its title
is the Python that it needs.
"""

from __future__ import annotations

import ast
import asyncio
import builtins
import contextlib
import inspect
import io
import re
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from rlm_sessions.guest import policy
from rlm_sessions.guest._transformer import EXCEPT_STAR_IS_SOUND

PROGRAMS = Path(__file__).parents[2] / "corpus" / "programs"

_FILES = "it works on files"
_SCIENCE = "it imports an installed package"
_THREADS = "a second thread could change what a guard has just looked at"
_IMPORTS = "it imports by name"
_READS = "the module reads files, runs source text or reads attributes by name"
_INTERPRETER = "it looks into the interpreter"

REFUSED_IN_STRICT = {
    "files: binary files seeking and memory maps": _FILES,
    "files: compressed files and tar archives": _FILES,
    "files: copy move and archive with shutil": _FILES,
    "files: csv and json on disk": _FILES,
    "files: fileinput linecache and reading in chunks": _FILES,
    "files: glob patterns and file times": _FILES,
    "files: pickle objects to disk and back": _FILES,
    "files: temporary files and descriptors of our own": _FILES,
    "files: walk a tree and summarise by suffix": _FILES,
    "files: write read and append text files": _FILES,
    "science: dates parsed by C code that imports": _SCIENCE,
    "science: matplotlib figure to bytes": _SCIENCE,
    "science: numpy arrays masks and broadcasting": _SCIENCE,
    "science: numpy random linear algebra and statistics": _SCIENCE,
    "science: numpy structured data and text": _SCIENCE,
    "science: pandas group aggregate and pivot": _SCIENCE,
    "science: pandas reading merging and cleaning": _SCIENCE,
    "science: pandas time series and apply": _SCIENCE,
    "science: polars lazy query": _SCIENCE,
    "async_code: run blocking work in threads": _THREADS,
    "standard_library: producer and consumer threads": _THREADS,
    "standard_library: thread pool map and futures": _THREADS,
    "standard_library: threads with locks and local data": _THREADS,
    "introspection: import by name and optional packages": _IMPORTS,
    "formats: configparser from text": _READS,
    "standard_library: a small unittest suite run in place": _READS,
    "standard_library: argparse with subcommands on a list": _READS,
    "standard_library: doctest examples in a docstring": _READS,
    "standard_library: introspection of functions and classes": _READS,
    "standard_library: mocks and patches": _READS,
    "standard_library: sqlite in memory": _READS,
    "introspection: code facts and closures of one's own functions": _INTERPRETER,
    "introspection: garbage collection and object sizes": _INTERPRETER,
    "standard_library: system facts": _INTERPRETER,
}
"""Programs that strict mode refuses, and why."""

if not EXCEPT_STAR_IS_SOUND:
    REFUSED_IN_STRICT["syntax: exception groups and except star"] = "CVE-2025-22153 in this release of Python"


class Program(NamedTuple):
    """One program of the corpus."""

    title: str
    source: str
    needs: tuple[int, int]


def _programs() -> Iterator[Program]:
    for path in sorted(PROGRAMS.glob("*.py")):
        parts = re.split(
            r"^# %% (.+?)(?: \[3\.(\d+)\])?$", path.read_text(encoding="utf-8"), flags=re.MULTILINE
        )
        for title, minor, source in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
            yield Program(f"{path.stem}: {title}", source, (3, int(minor or 9)))


ALL = {program.title: program for program in _programs()}
RUNNABLE = [title for title, program in ALL.items() if sys.version_info >= program.needs]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cell"])


def run(source: str, mode: policy.Mode) -> None:
    module = types.ModuleType("__main__")
    names = vars(module)
    names["__builtins__"] = policy.builtins_for(mode, vars(builtins))
    main, sys.modules["__main__"] = sys.modules["__main__"], module
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            tree = policy.check(ast.parse(source), source, "<cell>", mode)
            code = compile(tree, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
            if code.co_flags & inspect.CO_COROUTINE:
                asyncio.run(eval(code, names))
            else:
                exec(code, names)
    finally:
        sys.modules["__main__"] = main


@pytest.mark.parametrize("title", RUNNABLE)
def test_the_program_runs_in_plain_python(title: str) -> None:
    run(ALL[title].source, "off")


@pytest.mark.parametrize("title", RUNNABLE)
def test_the_program_runs_in_permissive_mode(title: str) -> None:
    run(ALL[title].source, "permissive")


@pytest.mark.parametrize("title", [title for title in RUNNABLE if title not in REFUSED_IN_STRICT])
def test_the_program_runs_in_strict_mode(title: str) -> None:
    run(ALL[title].source, "strict")


@pytest.mark.parametrize("title", REFUSED_IN_STRICT)
def test_the_program_is_refused_in_strict_mode(title: str) -> None:
    with pytest.raises((policy.PolicyRefusal, ImportError, AttributeError, PermissionError)):
        run(ALL[title].source, "strict")


def test_the_corpus_is_large_and_strict_mode_runs_most_of_it() -> None:
    assert len(ALL) >= 250
    assert len(REFUSED_IN_STRICT) / len(ALL) < 0.15


@pytest.mark.parametrize("title", RUNNABLE)
def test_permissive_mode_leaves_a_program_as_it_was_written_but_for_names_that_need_a_guard(
    title: str,
) -> None:
    source = ALL[title].source
    tree = ast.parse(source)

    checked = ast.dump(policy.check(ast.parse(source), source, "<cell>", "permissive"))

    if not _needs_a_guard(tree):
        assert checked == ast.dump(tree)
    assert checked.count("<policy") <= 12


def _needs_a_guard(tree: ast.AST) -> bool:
    guarded = {
        "format",
        "format_map",
        "__self__",
        "__getattribute__",
        "__code__",
        "__closure__",
        "__import__",
    }
    return any(
        getattr(node, "attr", None) in guarded or getattr(node, "id", None) == "__import__"
        for node in ast.walk(tree)
    )
