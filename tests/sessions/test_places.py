"""Where things lie: for one account alone, counted, bounded, and gone when they shall be."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from rlm_sessions.locks import OwnerLock
from rlm_sessions.places import (
    PlaceError,
    Places,
    ProjectInUse,
    ProjectPlaces,
    default_root,
    folder_bytes,
    sweep,
    write_atomically,
)
from rlm_sessions.projects import Project, identify
from tests.sessions.small_files import files_up_to

BLOCK = 4096
DAY = 24 * 3600.0


def project(name: str) -> Project:
    return identify(named=name, home=Path("/nowhere"))


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(tmp_path / "below" / "root")


def filled(places: Places, name: str, size: int, *, days_ago: float = 0) -> ProjectPlaces:
    """Return the places of a project that holds so much and was last used so long ago."""
    made = places.project(project(name))
    (made.outputs / "big").write_bytes(b"x" * size)
    when = time.time() - days_ago * DAY
    for path in (made.outputs / "big", *made.folder.iterdir(), made.folder):
        os.utime(path, (when, when))
    return made


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- folders


def test_a_project_gets_its_folders_for_this_account_alone(places: Places) -> None:
    old = os.umask(0)
    try:
        made = places.project(project("notes"))
    finally:
        os.umask(old)

    for folder in (places.root, made.folder.parent, made.folder, made.journal, made.state, made.outputs):
        assert mode(folder) == 0o700
    assert mode(made.folder / "project.json") == 0o600


def test_folders_that_others_can_read_are_closed_to_them(places: Places) -> None:
    made = places.project(project("notes"))
    for folder in (places.root, made.folder, made.state):
        folder.chmod(0o777)

    places.project(project("notes"))

    assert [mode(folder) for folder in (places.root, made.folder, made.state)] == [0o700] * 3


def test_what_project_it_is_stands_beside_its_data(places: Places, tmp_path: Path) -> None:
    named = identify(named=str(tmp_path), home=Path("/nowhere"))

    made = places.project(named)

    facts = json.loads((made.folder / "project.json").read_bytes())
    assert {**facts, "created": None} == {
        "key": named.key,
        "name": tmp_path.name,
        "folder": str(tmp_path),
        "created": None,
    }


def test_opening_a_project_again_keeps_when_it_was_made(places: Places) -> None:
    path = places.project(project("notes")).folder / "project.json"
    path.write_text(path.read_text().replace('"created": "20', '"created": "19'))
    before = path.read_text()

    places.project(project("notes"))
    renamed = places.project(project("NOTES"))

    assert renamed.folder == path.parent
    assert json.loads(path.read_text()) == {**json.loads(before), "name": "NOTES"}


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"name": 1}', "[" * 100_000])
def test_a_damaged_note_is_written_anew(places: Places, content: str) -> None:
    path = places.project(project("notes")).folder / "project.json"
    path.write_text(content)

    named_before = places.kept()[0].name
    places.project(project("notes"))

    assert named_before == project("notes").key
    assert places.kept()[0].name == "notes"


@pytest.mark.parametrize("which", ["root", "project", "state"])
def test_a_folder_that_is_a_link_is_refused(places: Places, tmp_path: Path, which: str) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o755)
    path = {"root": places.root, "project": places.root / "projects" / project("notes").key}.get(which)
    if path is None:
        path = places.project(project("notes")).state
        path.rmdir()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(elsewhere)

    with pytest.raises(PlaceError, match="symbolic link"):
        places.project(project("notes"))
    assert (mode(elsewhere), list(elsewhere.iterdir())) == (0o755, [])


def test_a_folder_of_another_account_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        root = tmp_path / "root"
        root.mkdir()
        os.chown(root, 12345, 12345)
    else:
        root = Path("/usr")

    with pytest.raises(PlaceError, match="another account"):
        Places(root).project(project("notes"))


def test_a_file_in_the_way_is_refused(places: Places) -> None:
    places.root.parent.mkdir()
    places.root.write_text("a file")

    with pytest.raises(PlaceError, match="no folder"):
        places.project(project("notes"))


def test_the_default_root_is_a_folder_of_this_account() -> None:
    assert default_root().is_absolute()
    assert "rlm-mcp" in default_root().parts


# ---- what is kept


def test_what_is_kept_is_listed_by_kind_the_last_used_first(places: Places) -> None:
    filled(places, "old", 10, days_ago=2)
    made = filled(places, "new", BLOCK + 1)
    (made.journal / "000001.jsonl").write_bytes(b"x")
    (made.state / "deep").mkdir()
    (made.state / "deep" / "value").write_bytes(b"x" * 3 * BLOCK)
    (made.folder / "further").mkdir()
    (made.folder / "further" / "thing").write_bytes(b"x" * 4 * BLOCK)

    new, old = places.kept()

    assert (new.name, old.name) == ("new", "old")
    assert new.bytes_by_kind == {
        "journal": BLOCK,
        "state": 3 * BLOCK,
        "outputs": 2 * BLOCK,
        "other": 5 * BLOCK,
    }
    assert old.bytes == 2 * BLOCK
    assert abs(time.time() - 2 * DAY - old.last_used) < 60


def test_nothing_is_kept_where_nothing_is(places: Places) -> None:
    assert places.kept() == []
    assert folder_bytes(places.root) == 0


def test_what_is_no_project_of_ours_is_not_listed(places: Places, tmp_path: Path) -> None:
    places.project(project("notes"))
    (places.root / "projects" / "stray").mkdir()
    (places.root / "projects" / project("link").key).symlink_to(tmp_path)

    assert [kept.name for kept in places.kept()] == ["notes"]


def test_links_are_not_followed_when_measuring(tmp_path: Path) -> None:
    (tmp_path / "big").mkdir()
    (tmp_path / "big" / "file").write_bytes(b"x" * 10 * BLOCK)
    (tmp_path / "measured").mkdir()
    (tmp_path / "measured" / "link").symlink_to(tmp_path / "big")

    assert folder_bytes(tmp_path / "measured") == BLOCK


# ---- purging


def test_purging_removes_all_of_a_project_and_nothing_else(places: Places) -> None:
    filled(places, "other", 1)
    made = filled(places, "notes", 3 * BLOCK)

    freed = places.purge(made.key)

    assert freed == 4 * BLOCK + BLOCK  # the output, the note, and the lock that purging took
    assert [kept.name for kept in places.kept()] == ["other"]
    assert not list((places.root / "trash").iterdir())


def test_a_project_that_is_open_is_not_purged(places: Places) -> None:
    made = filled(places, "notes", 1)
    lock = OwnerLock(made.lock)
    lock.acquire()

    with pytest.raises(ProjectInUse, match=f"process {os.getpid()}") as caught:
        places.purge(made.key)
    lock.release()

    assert caught.value.owner
    assert (made.outputs / "big").exists()
    assert places.purge(made.key)


def test_purging_what_is_not_there_frees_nothing(places: Places) -> None:
    assert places.purge(project("notes").key) == 0


@pytest.mark.parametrize("key", ["", "..", "../..", "/", "notes", "a/../b-" + "0" * 20])
def test_a_key_that_is_none_is_not_purged(places: Places, key: str) -> None:
    with pytest.raises(ValueError, match="not the key"):
        places.purge(key)


def test_what_a_hostile_program_left_is_removed_and_nothing_outside(places: Places, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o755)
    (outside / "precious").touch()
    made = places.project(project("notes"))
    (made.state / "link").symlink_to(outside)
    (made.state / "fifo").unlink(missing_ok=True)
    os.mkfifo(made.state / "fifo")
    closed = made.state / "closed"
    (closed / "inner").mkdir(parents=True)
    (closed / "inner" / "file").touch()
    (closed / "inner").chmod(0)
    closed.chmod(0)
    dive(made.state, 1500)

    places.purge(made.key)

    assert places.kept() == []
    assert not list((places.root / "trash").iterdir())
    assert ((outside / "precious").exists(), mode(outside)) == (True, 0o755)


def dive(folder: Path, depth: int) -> None:
    """Make folders in folders, deeper than any path can say."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=here)
        below = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)


# ---- room


def test_the_least_recently_used_make_room_until_the_rest_fits(places: Places) -> None:
    for days_ago in (1, 2, 3, 4):
        filled(places, f"used {days_ago} days ago", 10 * BLOCK, days_ago=days_ago)

    removed = places.make_room(25 * BLOCK)

    assert [kept.name for kept in removed] == ["used 4 days ago", "used 3 days ago"]
    assert [kept.name for kept in places.kept()] == ["used 1 days ago", "used 2 days ago"]


def test_what_was_not_used_for_long_goes_even_if_there_is_room(places: Places) -> None:
    filled(places, "old", 1, days_ago=11)
    filled(places, "not so old", 1, days_ago=9)
    filled(places, "new", 1)

    removed = places.make_room(10**9, unused_seconds=10 * DAY)

    assert [kept.name for kept in removed] == ["old"]


def test_a_clock_that_is_far_ahead_costs_nothing(places: Places) -> None:
    filled(places, "one", 1, days_ago=1000)
    filled(places, "other", 1, days_ago=1001)

    removed = places.make_room(10**9, unused_seconds=10 * DAY)

    assert removed == []


def test_a_project_that_is_being_made_is_not_old(places: Places) -> None:
    filled(places, "used", 1)
    (places.root / "projects" / "new-0123456789abcdef0123").mkdir()

    removed = places.make_room(10**9, unused_seconds=10 * DAY)

    assert removed == []


def test_projects_that_are_open_or_to_be_kept_stay_whatever_room_is_needed(places: Places) -> None:
    open_one, kept_one = (filled(places, name, BLOCK, days_ago=1000) for name in ("open", "keep"))
    filled(places, "other", BLOCK)
    lock = OwnerLock(open_one.lock)
    lock.acquire()

    removed = places.make_room(0, keep={kept_one.key})
    lock.release()

    assert [kept.name for kept in removed] == ["other"]


# ---- writing


def test_a_file_is_replaced_whole_and_for_this_account_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)

    write_atomically(path, b"new", durable=True)

    assert (path.read_bytes(), mode(path), list(tmp_path.iterdir())) == (b"new", 0o600, [path])


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    with files_up_to(1000), pytest.raises(OSError, match="large"):
        write_atomically(path, b"x" * 2000)

    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_a_link_at_the_name_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("kept")
    path = tmp_path / "file"
    path.symlink_to(tmp_path / "precious")

    write_atomically(path, b"new")

    assert ((tmp_path / "precious").read_text(), path.is_symlink()) == ("kept", False)


def test_a_disk_without_room_is_told_as_such(places: Places) -> None:
    with files_up_to(10), pytest.raises(PlaceError, match="Nothing of this project can be kept"):
        places.project(project("notes"))


def test_sweeping_removes_old_leftovers_only(tmp_path: Path) -> None:
    for name in (".tmp-old", ".tmp-new", "other"):
        (tmp_path / name).touch()
    os.utime(tmp_path / ".tmp-old", (1, 1))
    os.utime(tmp_path / "other", (1, 1))

    sweep(tmp_path)

    assert sorted(path.name for path in tmp_path.iterdir()) == [".tmp-new", "other"]
