"""A file of another program is replaced without losing anything that was in it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from rlm_mcp.client_files import FileTrouble, read, replace


def test_what_was_there_is_kept_beside_it_each_time(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("one")

    first = replace(read(path), "two")
    second = replace(read(path), "three")

    assert first and second
    assert (path.read_text(), first.read_text(), second.read_text()) == ("three", "one", "two")
    assert (first.name, second.name) == ("c.json.bak-1", "c.json.bak-2")
    assert len(list(tmp_path.iterdir())) == 3


def test_the_mode_stays_and_the_copy_has_it_too(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    path.chmod(0o640)

    copy = replace(read(path), "{ }")

    assert copy
    assert [stat.S_IMODE(each.stat().st_mode) for each in (path, copy)] == [0o640, 0o640]


def test_a_link_stays_a_link_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    target, path = tmp_path / "dotfiles" / "real.json", tmp_path / "c.json"
    target.write_text("{}")
    path.symlink_to(target)

    replace(read(path), "new")

    assert path.is_symlink()
    assert target.read_text() == "new"


def test_a_new_file_and_its_folder_are_made_for_this_account_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "c.json"

    copy = replace(read(path), "{}")

    assert copy is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_change_by_another_program_since_it_was_read_is_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("{}")
    file = read(path)
    path.write_text('{"theirs": 1}')

    with pytest.raises(FileTrouble, match="changed by another program"):
        replace(file, "ours")

    assert path.read_text() == '{"theirs": 1}'
    assert list(tmp_path.iterdir()) == [path]


def test_of_many_who_replace_it_at_once_one_does_and_the_others_are_told(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text("0")
    files = [read(path) for _ in range(8)]
    refused = list[int]()

    def one(number: int) -> None:
        try:
            replace(files[number], str(number + 1))
        except FileTrouble:
            refused.append(number)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)

    assert len(refused) == 7
    assert int(path.read_text()) - 1 not in refused
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_ordinary_file_is_refused(tmp_path: Path) -> None:
    fifo, loop = tmp_path / "fifo", tmp_path / "loop"
    os.mkfifo(fifo)
    loop.symlink_to(loop)

    for path in (fifo, loop, tmp_path):
        with pytest.raises(FileTrouble, match="cannot be read"):
            read(path)


def test_a_mark_of_byte_order_goes_and_other_encodings_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_bytes(b"\xef\xbb\xbf{}")

    assert read(path).text == "{}"
    path.write_bytes("{}".encode("utf-16"))
    with pytest.raises(FileTrouble, match="UTF-8"):
        _ = read(path).text
