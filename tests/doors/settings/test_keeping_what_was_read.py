"""What was read is kept while the files stay as they are, and never a moment longer."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.sources import SettingsError, Sources
from rlm_mcp.trust import distrust, trust

from .conftest import LONG_AGO, Desk

_opened: list[str] | None = None


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _opened is not None:
        _opened.append(str(arguments[0]))


sys.addaudithook(_hear)


@contextmanager
def what_is_opened() -> Generator[list[str]]:
    """Tell which files are opened meanwhile."""
    global _opened
    _opened = []
    try:
        yield _opened
    finally:
        _opened = None


def settle(*paths: Path) -> None:
    for path in paths:
        os.utime(path, LONG_AGO)


def test_files_that_stay_as_they_are_are_read_once(desk: Desk) -> None:
    desk.user("[sandbox]\nthreads = 9\n")
    desk.theirs("[sandbox]\nthreads = 8\n")
    sources = desk.sources()
    first = sources.load(desk.project)

    with what_is_opened() as opened:
        again = sources.load(desk.project)

    assert opened == []
    assert again is first


def test_what_is_wrong_is_kept_too(desk: Desk) -> None:
    desk.theirs("[sandbox]\nx = 9\n")
    sources = desk.sources()
    with pytest.raises(SettingsError, match="x is not a setting"):
        sources.load(desk.project)

    with what_is_opened() as opened, pytest.raises(SettingsError, match="x is not a setting"):
        sources.load(desk.project)

    assert opened == []


@pytest.mark.parametrize("whose", ["config", "project"])
def test_a_file_that_comes_changes_or_goes_is_seen_at_once(desk: Desk, whose: str) -> None:
    path: Path = getattr(desk, whose) / "rlm.toml"
    sources = desk.sources()
    seen = [sources.load(desk.project).settings.sandbox.threads]
    for threads in (8, 9, 7):
        path.write_text(f"[sandbox]\nthreads = {threads}\n")
        seen.append(sources.load(desk.project).settings.sandbox.threads)
    path.unlink()
    seen.append(sources.load(desk.project).settings.sandbox.threads)

    assert seen == [64, 8, 9, 7, 64]


def test_a_file_of_the_same_size_and_time_is_another_one_nevertheless(desk: Desk) -> None:
    desk.theirs("[sandbox]\nthreads = 8\n")
    sources = desk.sources()
    before = sources.load(desk.project).settings.sandbox.threads
    other = desk.project / "other"
    other.write_text("[sandbox]\nthreads = 9\n")
    settle(other)
    other.replace(desk.project / "rlm.toml")

    assert (before, sources.load(desk.project).settings.sandbox.threads) == (8, 9)


def test_a_file_that_hides_its_change_is_seen_nevertheless(desk: Desk) -> None:
    path = desk.theirs("[sandbox]\nthreads = 8\n")
    sources = desk.sources()
    before = sources.load(desk.project).settings.sandbox.threads
    desk.theirs("[sandbox]\nthreads = 9\n")

    assert path.stat().st_mtime == LONG_AGO[1]
    assert (before, sources.load(desk.project).settings.sandbox.threads) == (8, 9)


def test_a_file_that_may_change_again_within_the_same_moment_is_read_again(desk: Desk) -> None:
    path = desk.theirs("[sandbox]\nthreads = 8\n")
    moment = path.stat().st_ctime + 3600
    os.utime(path, (moment, moment))
    sources = desk.sources()
    sources.load(desk.project)

    with what_is_opened() as opened:
        sources.load(desk.project)

    assert str(path) in opened


def test_trust_that_is_given_and_taken_back_is_seen_at_once(desk: Desk) -> None:
    desk.theirs("[sandbox]\nnetwork = true\n")
    sources = desk.sources()
    asked = sources.asked(desk.project)
    assert asked is not None

    seen = [sources.load(desk.project).settings.sandbox.network]
    trust(desk.config, desk.project, asked.document.digest)
    settle(desk.config / "trusted.json")
    seen.append(sources.load(desk.project).settings.sandbox.network)
    distrust(desk.config, desk.project)
    seen.append(sources.load(desk.project).settings.sandbox.network)

    assert seen == [False, True, False]


def test_each_project_has_its_own(desk: Desk) -> None:
    desk.theirs("[sandbox]\nthreads = 8\n")
    sources = desk.sources()

    seen = [
        sources.load(folder).settings.sandbox.threads
        for folder in (desk.project, None, desk.project, desk.config)
    ]

    assert seen == [8, 64, 8, 64]


def test_a_thousand_projects_are_not_all_kept(desk: Desk) -> None:
    sources: Sources = desk.sources()

    for number in range(1000):
        sources.load(desk.project / str(number))

    assert len(sources._kept) <= 256  # pyright: ignore[reportPrivateUsage]
