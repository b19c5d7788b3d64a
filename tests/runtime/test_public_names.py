"""What the runtime shows is all there is to import from it, and importing it costs next to nothing."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

import pytest

import rlm_runtime


@pytest.mark.parametrize("name", rlm_runtime.__all__)
def test_each_public_name_is_there(name: str) -> None:
    assert getattr(rlm_runtime, name) is not None


def test_no_public_name_is_that_of_a_module() -> None:
    modules = {module.name for module in pkgutil.iter_modules(rlm_runtime.__path__)}

    assert not modules & set(rlm_runtime.__all__)


def test_the_names_are_known_before_they_are_brought_in() -> None:
    assert set(rlm_runtime.__all__) <= set(dir(rlm_runtime))
    assert not hasattr(rlm_runtime, "nothing_of_that_name")


@pytest.mark.parametrize(
    ("asked", "brought", "not_brought"),
    [
        ("import rlm_runtime", "rlm_runtime", "rlm_runtime.errors"),
        ("from rlm_runtime import RLMError", "rlm_runtime.errors", "anyio"),
        ("from rlm_runtime import open_log", "rlm_runtime.log", "rlm_runtime.run"),
        ("from rlm_runtime import OpenAIModel", "rlm_runtime.models.openai", "httpx2"),
    ],
)
def test_what_is_asked_for_is_brought_in_and_no_more(asked: str, brought: str, not_brought: str) -> None:
    program = f"import sys; {asked}; print({brought!r} in sys.modules, {not_brought!r} in sys.modules)"

    ran = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:] = {sys.path!r}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout == "True False\n"
