"""Whole outputs: exact, readable in parts by their ids, for a while and within a quota."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_sessions.outputs import Chunk, OutputNotFound, Outputs, OutputsFull
from tests.sessions.small_files import files_up_to

KILOBYTE = 1024


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "outputs"


@pytest.fixture
def outputs(folder: Path) -> Outputs:
    return Outputs(folder)


def keep(outputs: Outputs, *texts: str, cell: int = 1, memory_bytes: int = 100) -> str:
    writer = outputs.begin(cell, memory_bytes=memory_bytes)
    for text in texts:
        writer.write(text)
    return writer.keep()


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.exists() else []


# ---- keeping and reading


@pytest.mark.parametrize("memory_bytes", [0, 5, 1000])
def test_what_was_written_can_be_read(outputs: Outputs, memory_bytes: int) -> None:
    id_ = keep(outputs, "Grüße\r\n", "", "\0 und\n", "mehr", memory_bytes=memory_bytes)

    assert outputs.read(id_) == Chunk(id_, "text/plain", 17, text="Grüße\r\n\0 und\nmehr")


def test_an_empty_output_can_be_kept(outputs: Outputs) -> None:
    assert outputs.read(keep(outputs)).text == ""


def test_reading_goes_on_where_the_part_before_ended(outputs: Outputs) -> None:
    id_ = keep(outputs, "0123456789")

    first = outputs.read(id_, limit=4)
    last = outputs.read(id_, offset=8, limit=4)

    assert (first.text, first.next_offset, first.total) == ("0123", 4, 10)
    assert (last.text, last.next_offset) == ("89", None)
    assert outputs.read(id_, offset=99).text == ""


characters = st.text(
    st.characters() | st.characters(categories=["Cs"]) | st.sampled_from("a\r\n\0ü漢😀"), max_size=50
)


@given(
    st.lists(characters, max_size=5), st.integers(0, 60), st.integers(0, 60), st.sampled_from([0, 10, 10**6])
)
def test_any_part_of_any_text_is_read_exactly(
    texts: list[str], offset: int, limit: int, memory_bytes: int
) -> None:
    whole = "".join(texts)
    with tempfile.TemporaryDirectory() as name:
        outputs = Outputs(Path(name))
        chunk = outputs.read(keep(outputs, *texts, memory_bytes=memory_bytes), offset=offset, limit=limit)

    assert (chunk.text, chunk.total) == (whole[offset : offset + limit], len(whole))
    assert chunk.next_offset == (offset + limit if offset + limit < len(whole) else None)


@pytest.mark.parametrize("text", ["x", "ü", "\udc80"])
def test_a_part_far_into_a_long_text_is_read_exactly(outputs: Outputs, text: str) -> None:
    whole = "".join(f"{text}{n}," for n in range(500_000))
    id_ = keep(outputs, whole)

    assert outputs.read(id_, offset=3_000_001, limit=20).text == whole[3_000_001:3_000_021]


def test_an_image_is_read_byte_for_byte(outputs: Outputs) -> None:
    data = bytes(range(256))
    id_ = outputs.keep_image(2, "image/png", data)

    assert outputs.read(id_) == Chunk(id_, "image/png", 256, data=data)
    assert outputs.read(id_, offset=250, limit=3) == Chunk(
        id_, "image/png", 256, data=data[250:253], next_offset=253
    )


def test_data_of_an_unknown_type_is_kept_as_bytes(outputs: Outputs) -> None:
    id_ = outputs.keep_image(2, "../../etc", b"x")

    assert outputs.read(id_).mime == "application/octet-stream"


def test_outputs_stay_readable_after_a_restart(outputs: Outputs, folder: Path) -> None:
    id_ = keep(outputs, "kept ü")

    assert Outputs(folder).read(id_).text == "kept ü"


def test_what_can_be_read_is_listed_the_newest_first(outputs: Outputs) -> None:
    ids = [
        keep(outputs, "one", cell=1),
        outputs.keep_image(7, "image/png", b"four"),
        keep(outputs, "é", cell=9),
    ]

    found = outputs.kept()

    assert [kept.id for kept in found] == ids[::-1]
    assert [(kept.cell, kept.mime, kept.total, kept.size_bytes) for kept in found] == [
        (9, "text/plain", 1, 2),
        (7, "image/png", 4, 4),
        (1, "text/plain", 3, 3),
    ]
    assert [kept.id for kept in outputs.kept(1)] == ids[2:]


def test_ids_cannot_be_guessed_from_one_another(outputs: Outputs) -> None:
    tokens = {keep(outputs, "x", cell=3).removeprefix("c3-") for _ in range(20)}

    assert len(tokens) == 20
    assert all(len(token) == 16 for token in tokens)


# ---- ids that are none


@pytest.mark.parametrize(
    "id_",
    [
        "",
        ".",
        "..",
        "../precious",
        "c1-",
        "c1-" + "0" * 16,
        "c1-" + "0" * 16 + "\n",
        "c1-" + "g" * 16,
        "/etc/passwd",
        "a\0b",
        "x" * 10**6,
    ],
)
def test_an_id_that_is_none_reads_nothing(outputs: Outputs, folder: Path, id_: str) -> None:
    keep(outputs, "other")
    (folder.parent / "precious").write_text("secret")

    with pytest.raises(OutputNotFound, match="Run the cell again"):
        outputs.read(id_)


def test_files_that_are_no_outputs_are_not_read(outputs: Outputs, folder: Path) -> None:
    id_ = keep(outputs, "text")
    (path,) = files(folder)
    (folder / "notes.txt").write_text("not ours")
    path.unlink()
    path.symlink_to(folder / "notes.txt")

    assert outputs.kept() == []
    with pytest.raises(OutputNotFound):
        outputs.read(id_)


def test_an_output_that_was_damaged_is_read_as_far_as_it_can_be(outputs: Outputs, folder: Path) -> None:
    id_ = keep(outputs, "abc" * 10)
    (path,) = files(folder)
    path.write_bytes(b"abc\xff\xfe" + b"abc" * 5)

    text = outputs.read(id_).text

    assert text is not None and text.startswith("abc\ufffd")


# ---- what is on the disk


def test_a_short_output_is_not_on_the_disk_before_it_is_kept(outputs: Outputs, folder: Path) -> None:
    writer = outputs.begin(1, memory_bytes=100)
    writer.write("x" * 100)
    before = files(folder)
    writer.write("x")

    assert (before, len(files(folder))) == ([], 1)
    writer.discard()


@pytest.mark.parametrize("size", [1, 1000])
def test_nothing_is_left_of_an_output_that_is_discarded(outputs: Outputs, folder: Path, size: int) -> None:
    writer = outputs.begin(1, memory_bytes=100)
    writer.write("x" * size)
    writer.discard()

    writer.discard()
    writer.write("late")
    with pytest.raises(ValueError, match="discarded before"):
        writer.keep()
    assert files(folder) == []


def test_an_output_that_is_not_whole_is_not_listed(outputs: Outputs) -> None:
    writer = outputs.begin(1, memory_bytes=0)
    writer.write("half")

    assert outputs.kept() == []
    writer.discard()


def test_discarding_after_keeping_takes_nothing_back(outputs: Outputs) -> None:
    writer = outputs.begin(1)
    writer.write("kept")
    id_ = writer.keep()
    writer.discard()

    assert outputs.read(id_).text == "kept"


def test_files_are_for_their_owner_alone(outputs: Outputs, folder: Path) -> None:
    keep(outputs, "x" * 1000)
    outputs.keep_image(1, "image/png", b"x")

    assert {path.stat().st_mode & 0o777 for path in files(folder)} == {0o600}
    assert folder.stat().st_mode & 0o777 == 0o700


def test_many_threads_can_keep_at_once(folder: Path) -> None:
    outputs = Outputs(folder, most_bytes=20 * KILOBYTE)
    kept: list[str] = []

    def work() -> None:
        for _ in range(20):
            kept.append(keep(outputs, "x" * KILOBYTE))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert (len(set(kept)), len(outputs.kept()), len(files(folder))) == (80, 20, 20)


# ---- bounds


def test_the_oldest_make_room_for_new_ones(folder: Path) -> None:
    outputs = Outputs(folder, most_bytes=10 * KILOBYTE)
    ids = [keep(outputs, "x" * 3 * KILOBYTE) for _ in range(5)]
    image = outputs.keep_image(1, "image/png", b"x" * 4 * KILOBYTE)

    assert [kept.id for kept in outputs.kept()] == [image, ids[4], ids[3]]


def test_old_ones_go_although_there_is_room(folder: Path) -> None:
    outputs = Outputs(folder, most_seconds=100)
    old = keep(outputs, "old")
    os.utime(files(folder)[0], (time.time() - 101, time.time() - 101))
    new = keep(outputs, "new")

    assert [kept.id for kept in outputs.kept()] == [new]
    with pytest.raises(OutputNotFound):
        outputs.read(old)


def test_a_clock_that_was_set_back_does_not_make_the_newest_the_oldest(folder: Path) -> None:
    outputs = Outputs(folder, most_bytes=2)
    keep(outputs, "1")
    os.utime(files(folder)[0], (time.time() + 1000, time.time() + 1000))
    ids = [keep(outputs, "2"), keep(outputs, "3")]

    assert [kept.id for kept in outputs.kept()] == ids[::-1]


def test_what_a_crash_left_is_removed_after_a_while(outputs: Outputs, folder: Path) -> None:
    keep(outputs, "x")
    for name in (".tmp-old", ".tmp-new"):
        (folder / name).touch()
    os.utime(folder / ".tmp-old", (1, 1))
    keep(outputs, "x")

    assert [path.name for path in files(folder) if path.name.startswith(".")] == [".tmp-new"]


def test_an_output_longer_than_the_quota_costs_only_itself(folder: Path) -> None:
    outputs = Outputs(folder, most_bytes=KILOBYTE)
    other = keep(outputs, "other")
    writer = outputs.begin(1, memory_bytes=100)
    writer.write("x" * KILOBYTE)

    with pytest.raises(OutputsFull, match="1024 bytes"):
        writer.write("x" * 101)
    writer.write("more, which nobody needs to know of")
    with pytest.raises(OutputsFull, match="1024 bytes"):
        writer.keep()
    with pytest.raises(OutputsFull, match="2000 bytes"):
        outputs.keep_image(1, "image/png", b"x" * 2000)
    assert (outputs.read(other).text, len(files(folder))) == ("other", 1)


def test_a_full_disk_costs_only_the_output_that_does_not_fit(outputs: Outputs, folder: Path) -> None:
    other = keep(outputs, "other")
    writer = outputs.begin(1, memory_bytes=100)
    with files_up_to(KILOBYTE):
        with pytest.raises(OutputsFull, match="cannot be kept: File too large"):
            writer.write("x" * 2 * KILOBYTE)
        with pytest.raises(OutputsFull):
            outputs.keep_image(1, "image/png", b"x" * 2 * KILOBYTE)
        with pytest.raises(OutputsFull):
            keep(outputs, "x" * 2 * KILOBYTE, memory_bytes=10**6)
    with pytest.raises(OutputsFull):
        writer.keep()

    assert (outputs.read(other).text, len(files(folder))) == ("other", 1)
    assert outputs.read(keep(outputs, "x" * 2 * KILOBYTE)).total == 2 * KILOBYTE


def test_a_folder_that_is_a_link_is_not_written_to(outputs: Outputs, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    folder.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OutputsFull, match="symbolic link"):
        keep(outputs, "x")
    assert files(tmp_path / "elsewhere") == []
