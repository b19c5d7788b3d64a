"""Which Python runs, and that none chosen by a project runs outside the jail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import InterpreterUnusable, Limits, SandboxUnavailable
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import open_session

SYSTEM_PYTHON = next(p for p in (Path("/usr/bin/python3"), Path(sys.executable)) if p.exists())


def make_venv(folder: Path, python: Path = SYSTEM_PYTHON) -> Path:
    """Make a virtual environment, without pip, and return it."""
    subprocess.run([str(python), "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


def install(venv: Path, name: str, text: str) -> None:
    """Put a module into a virtual environment."""
    (next(venv.glob("lib/python3*/site-packages")) / f"{name}.py").write_text(text)


def copy_interpreter(folder: Path) -> Path:
    """Copy a whole Python into a folder: its program and its standard library, without what is large."""
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    (folder / "bin").mkdir(parents=True)
    (folder / "lib").mkdir()
    shutil.copy(base, folder / "bin" / version)
    left_out = shutil.ignore_patterns(
        "test", "site-packages", "dist-packages", "idlelib", "ensurepip", "__pycache__", "config-*"
    )
    shutil.copytree(sysconfig.get_path("stdlib"), folder / "lib" / version, ignore=left_out)
    for library in Path(sysconfig.get_config_var("LIBDIR")).glob("libpython3*.so*"):
        shutil.copy(library, folder / "lib")
    return folder / "bin" / version


async def test_the_packages_of_a_projects_environment_can_be_imported(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / ".venv")
    install(venv, "only_here", "answer = 42")

    async with LocalSandbox(python=venv) as sandbox, open_session(sandbox, project=tmp_path) as session:
        result = await session.run("import only_here\nonly_here.answer")

    assert result.value == "42"
    assert session.isolation.strong


async def test_a_project_with_an_environment_gets_it_without_being_asked(tmp_path: Path) -> None:
    install(make_venv(tmp_path / "with" / ".venv"), "only_here", "answer = 42")
    (tmp_path / "without").mkdir()

    async with LocalSandbox() as sandbox:
        async with open_session(sandbox, project=tmp_path / "with") as session:
            own = await session.run("import only_here\nonly_here.answer")
        async with open_session(sandbox, project=tmp_path / "without") as session:
            none = await session.run("import numpy\nnumpy.__name__")

    assert (own.value, none.value) == ("42", "'numpy'")


async def test_its_packages_are_seen_where_the_projects_files_are_not(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / ".venv")
    install(venv, "only_here", "answer = 42")
    (tmp_path / "data.txt").write_text("canary")

    async with (
        LocalSandbox(python=venv / "bin" / "python") as sandbox,
        open_session(sandbox, project=tmp_path, limits=Limits(files="none")) as session,
    ):
        module = await session.run("import only_here\nonly_here.answer")
        data = await session.run(f"open({str(tmp_path / 'data.txt')!r}).read()")

    assert module.value == "42"
    assert data.error is not None


async def test_code_that_an_environment_runs_at_start_runs_inside(tmp_path: Path) -> None:
    venv = make_venv(tmp_path / "project" / ".venv")
    reach = f"import os; os.makedirs({str(tmp_path / 'reached')!r})"
    install(venv, "sitecustomize", reach)
    (next(venv.glob("lib/python3*/site-packages")) / "start.pth").write_text(reach + "\n")

    async with LocalSandbox(python=venv) as sandbox:
        try:
            async with open_session(sandbox, project=tmp_path / "project") as session:
                await session.run("1")
        except Exception as problem:
            assert "did not come up" in str(problem)

    assert not (tmp_path / "reached").exists()


async def test_an_interpreter_in_the_project_is_started_inside_the_jail(tmp_path: Path) -> None:
    python = copy_interpreter(tmp_path / "project" / "python")

    with anyio.fail_after(60):
        async with (
            LocalSandbox(python=python) as sandbox,
            open_session(sandbox, project=tmp_path / "project") as session,
        ):
            where = await session.run("import sys\nsys.executable")
            kept = await session.run("x = 1\nx + 1")

    assert where.value == repr(str(python))
    assert kept.value == "2"
    assert session.isolation.strong


@pytest.mark.parametrize("place", ["project/python3", "elsewhere/python3"])
async def test_a_program_that_only_claims_to_be_python_never_runs_outside(tmp_path: Path, place: str) -> None:
    project, reached = tmp_path / "project", tmp_path / "reached"
    (project / ".venv" / "bin").mkdir(parents=True)
    (project / ".venv" / "pyvenv.cfg").touch()
    (tmp_path / "elsewhere").mkdir()
    fake = tmp_path / place
    fake.write_text(f"#!/bin/sh\ntouch {reached}\n")
    fake.chmod(0o755)
    (project / ".venv" / "bin" / "python").symlink_to(fake)

    refused = False
    async with LocalSandbox(python=project / ".venv") as sandbox:
        try:
            async with open_session(sandbox, project=project):
                pass
        except InterpreterUnusable:
            refused = True

    assert refused
    assert not reached.exists()


async def test_links_in_an_environment_show_nothing_outside_it(tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "secret.txt").write_text("canary")
    venv = make_venv(tmp_path / "project" / ".venv")
    packages = next(venv.glob("lib/python3*/site-packages"))
    shutil.rmtree(packages)
    packages.symlink_to(tmp_path / "private")

    async with (
        LocalSandbox(python=venv) as sandbox,
        open_session(sandbox, project=tmp_path / "project", policy="off") as session,
    ):
        result = await session.run(f"open({str(tmp_path / 'private' / 'secret.txt')!r}).read()")

    assert result.error is not None and "canary" not in str(result)


@pytest.mark.parametrize("name", ["missing", "folder"])
async def test_what_is_no_python_is_told_with_a_way_out(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    told = ""

    async with LocalSandbox(python=tmp_path / name) as sandbox:
        try:
            async with open_session(sandbox):
                pass
        except InterpreterUnusable as problem:
            told = str(problem)

    assert str(tmp_path / name) in told and "leave it out" in told


async def test_modules_are_loaded_beforehand_where_asked(tmp_path: Path) -> None:
    async with LocalSandbox(preload=("numpy", "pandas")) as sandbox, open_session(sandbox) as session:
        result = await session.run(
            "import time\nt = time.perf_counter()\nimport numpy, pandas\ntime.perf_counter() - t"
        )
        draws = {(await session.run("numpy.random.random()")).value}
        async with open_session(sandbox) as other:
            draws.add((await other.run("import numpy\nnumpy.random.random()")).value)

    assert float(result.value or 99) < 0.1
    assert len(draws) == 2  # a copied generator would draw the same in every session


async def test_a_module_to_load_that_is_not_installed_is_told() -> None:
    told = ""

    async with LocalSandbox(preload=("no_such_module",)) as sandbox:
        try:
            async with open_session(sandbox):
                pass
        except SandboxUnavailable as problem:
            told = str(problem)

    assert "no_such_module" in told
