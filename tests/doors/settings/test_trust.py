"""Trust is for one file as it is, and only what nobody else can write says that there is any."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from rlm_mcp.trust import distrust, read_trusted, trust, trust_file

from .conftest import Desk

OPEN = "[sandbox]\nnetwork = true\n"


def trusted(desk: Desk, folder: Path | None = None) -> None:
    asked = desk.sources().asked(folder or desk.project)
    assert asked is not None
    trust(desk.config, folder or desk.project, asked.document.digest)


def test_a_trusted_project_has_what_it_asks_for(desk: Desk) -> None:
    desk.theirs(OPEN)
    trusted(desk)

    loaded = desk.load()

    assert loaded.settings.sandbox.network and loaded.notes == ()


@pytest.mark.parametrize("change", [OPEN + "\n", OPEN + "#", OPEN.replace("network = true", "network=true")])
def test_a_file_that_changed_in_one_byte_is_no_longer_trusted(desk: Desk, change: str) -> None:
    desk.theirs(OPEN)
    trusted(desk)
    desk.theirs(change)

    loaded = desk.load()

    assert not loaded.settings.sandbox.network
    assert "the file has changed since it was trusted. The user can allow it with" in loaded.notes[0]


def test_a_file_that_is_again_as_it_was_is_trusted_again(desk: Desk) -> None:
    desk.theirs(OPEN)
    trusted(desk)
    desk.theirs("")
    desk.theirs(OPEN)

    assert desk.load().settings.sandbox.network


def test_the_same_file_in_another_folder_is_not_trusted(desk: Desk) -> None:
    desk.theirs(OPEN)
    trusted(desk)
    (desk.project / "copy").mkdir()
    (desk.project / "copy" / "rlm.toml").write_text(OPEN)

    assert not desk.sources().load(desk.project / "copy").settings.sandbox.network


def test_trust_that_is_taken_back_is_gone_and_that_of_others_stays(desk: Desk) -> None:
    desk.theirs(OPEN)
    other = desk.project / "other"
    other.mkdir()
    (other / "rlm.toml").write_text(OPEN)
    trusted(desk)
    trusted(desk, other)

    assert distrust(desk.config, desk.project)
    assert not distrust(desk.config, desk.project)
    assert not desk.load().settings.sandbox.network
    assert desk.sources().load(other).settings.sandbox.network


def test_the_file_is_for_this_account_alone_and_nothing_is_left_beside_it(desk: Desk) -> None:
    config = desk.config / "deeper" / "still"

    trust(config, desk.project, "0" * 64)

    assert stat.S_IMODE(trust_file(config).stat().st_mode) == 0o600
    assert stat.S_IMODE(config.stat().st_mode) == 0o700
    assert [each.name for each in config.iterdir()] == ["trusted.json"]


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_a_file_that_others_may_write_to_counts_for_nothing(desk: Desk, mode: int) -> None:
    desk.theirs(OPEN)
    trusted(desk)
    trust_file(desk.config).chmod(mode)

    loaded = desk.load()

    assert not loaded.settings.sandbox.network
    assert "others may write to it, so no project is trusted" in loaded.notes[1]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"projects": []}', '{"projects": 5}', "null", "[" * 100_000, "\x00", '{"projects"'],
)
def test_a_file_that_makes_no_sense_counts_for_nothing_and_is_said_to(desk: Desk, content: str) -> None:
    desk.theirs(OPEN)
    trust_file(desk.config).write_text(content)
    trust_file(desk.config).chmod(0o600)

    loaded = desk.load()

    assert not loaded.settings.sandbox.network
    assert len(loaded.notes) == 2 and "trusted.json" in loaded.notes[1]


def test_it_is_written_anew_over_one_that_makes_no_sense(desk: Desk) -> None:
    desk.theirs(OPEN)
    trust_file(desk.config).write_text("{")
    trusted(desk)

    assert desk.load().settings.sandbox.network
    assert set(json.loads(trust_file(desk.config).read_text())["projects"]) == {str(desk.project)}


def test_a_pipe_in_its_place_is_no_reason_to_wait(desk: Desk) -> None:
    desk.theirs(OPEN)
    os.mkfifo(trust_file(desk.config))

    assert "no ordinary file" in desk.load().notes[1]
    assert read_trusted(desk.config).digests == {}


def test_what_is_asked_is_measured_by_the_users_file_and_not_by_flags(desk: Desk) -> None:
    desk.user('[sandbox]\nfiles = "write"\n')
    desk.theirs('[sandbox]\nfiles = "read"\nnetwork = true\nthreads = 100\n')

    asked = desk.sources({"sandbox.files": "none"}, {"RLM_SANDBOX_NETWORK": "1"}).asked(desk.project)

    assert asked is not None
    assert [str(each) for each in asked.wider] == ["sandbox.network = true", "sandbox.threads = 100"]
    assert asked.standing == "never"


def test_nothing_is_asked_where_there_is_no_file(desk: Desk) -> None:
    assert desk.sources().asked(desk.project) is None
