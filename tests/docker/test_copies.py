"""What a program on another machine is given of a project: a copy within bounds, in which nothing surprises."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import Limits, Process, SandboxUnavailable
from rlm_sandboxes.docker import DockerSandbox, copies
from tests.contracts.asking import evaluate
from tests.contracts.conftest import PROBE
from tests.docker.engine import Engine

MIB = 1024 * 1024


@asynccontextmanager
async def started(engine: Engine, project: Path, limits: Limits) -> AsyncGenerator[Process]:
    with anyio.fail_after(60):
        async with (
            DockerSandbox(engine.image, engine=engine.host, copy_files=True, pull="never") as sandbox,
            sandbox.start(PROBE, project, limits) as process,
        ):
            yield process


def test_nothing_is_read_through_a_folder_that_has_become_a_link(tmp_path: Path) -> None:
    folder, other = tmp_path / "folder", tmp_path / "other"
    for each in (folder / "below", other):
        each.mkdir(parents=True)
        (each / "data.txt").write_text(each.name)
    with os.fdopen(copies.open_within(folder, folder / "below/data.txt")) as file:
        assert file.read() == "below"

    (folder / "below").rename(tmp_path / "moved")
    (folder / "below").symlink_to(other)

    with pytest.raises(NotADirectoryError):
        copies.open_within(folder, folder / "below/data.txt")


async def test_files_folders_and_links_are_copied_and_what_is_none_of_these_is_not(
    docker_engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below/data.txt").write_text("42")
    (tmp_path / "data.txt").hardlink_to(tmp_path / "below/data.txt")
    (tmp_path / "link").symlink_to("below/data.txt")
    (tmp_path / "round").symlink_to(".")
    (tmp_path / "outside").symlink_to("/etc/hostname")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))

    async with started(docker_engine, tmp_path, Limits(files="write")) as process:
        read = await evaluate(
            process, "[open(n).read() for n in ('data.txt', 'link', 'round/below/data.txt')]"
        )
        names = await evaluate(process, "sorted(__import__('os').listdir())")
        outside = await evaluate(process, "open('outside').read()")

    assert read == "['42', '42', '42']"
    assert names == "['below', 'data.txt', 'empty', 'link', 'outside', 'round']"
    assert outside == r"'sandbox\n'"  # that of the container


async def test_what_can_be_made_again_is_left_out_and_that_is_said(
    docker_engine: Engine, tmp_path: Path
) -> None:
    for name in (".git", "node_modules/x", "below/.venv"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()

    async with started(docker_engine, tmp_path, Limits()) as process:
        names = await evaluate(
            process, "sorted(__import__('os').listdir()), __import__('os').listdir('below')"
        )

    assert names == "(['below'], [])"
    assert "left out: .git, .venv, node_modules" in process.isolation.layers[0].detail


@pytest.mark.skipif(os.getuid() == 0, reason="root reads everything")
async def test_what_cannot_be_read_is_left_out_and_counted(docker_engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "open").write_text("42")
    (tmp_path / "closed").touch(mode=0)
    (tmp_path / "shut").mkdir(mode=0)

    async with started(docker_engine, tmp_path, Limits()) as process:
        names = await evaluate(process, "__import__('os').listdir()")

    assert names == "['open']"
    assert "left out: 2 that cannot be read" in process.isolation.layers[0].detail


async def test_a_folder_that_is_too_large_is_refused_with_its_size_and_where_that_is(
    docker_engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "small.txt").write_text("small")
    (tmp_path / "data").mkdir()
    with (tmp_path / "data/large").open("wb") as file:
        file.truncate(300 * MIB)

    with pytest.raises(
        SandboxUnavailable, match=r"300 MiB in 3 files, of that 300 MiB in data, .*smaller folder"
    ):
        async with started(docker_engine, tmp_path, Limits()):
            pass


async def test_a_folder_of_too_many_files_is_refused(
    docker_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "MOST_FILES", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()

    with pytest.raises(SandboxUnavailable, match=r"in 11 files, .* 256 MiB in 10 files is the most"):
        async with started(docker_engine, tmp_path, Limits()):
            pass
