"""What is written down of what a guest tells, and what a guest that tells anything can do with that."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from rlm_sessions.guest import states
from rlm_sessions.keeping import files
from rlm_sessions.keeping.files import Damaged
from rlm_sessions.keeping.writing import StateWriter

MOST = 1_000_000


def writer_of(folder: Path, *, most_bytes: int = MOST) -> StateWriter:
    """Return a writer that reports only what the disk has."""
    return StateWriter(folder, most_bytes=most_bytes, durable=True)


def tell(writer: StateWriter, stream: bytes) -> list[dict[str, Any]]:
    """Have a writer take in what a guest sends, and return its reports."""
    reports = [writer.take(record) for record in states.StateDecoder().feed(stream)]
    return [report for report in reports if report is not None]


def snapshot(number: int, pickled: bytes, blobs: dict[str, bytes] | None = None, **facts: Any) -> bytes:
    """Return what a guest sends that tells the truth."""
    named = [["bytes", digest, len(data)] for digest, data in (blobs or {}).items()]
    manifest = states.manifest_bytes({"blobs": named, "hashed": [], "lost": [], **facts})
    sent = [states.begin(number)]
    for digest, data in (blobs or {}).items():
        pieces = [data[start : start + 1_000_000] for start in range(0, len(data), 1_000_000)]
        sent += [states.blob_start(digest, len(data)), *map(states.data_piece, pieces)]
    end = states.end(hashlib.sha256(pickled + manifest).digest())
    return b"".join([*sent, states.pickle_piece(pickled), states.manifest(manifest), end])


def large(text: str) -> dict[str, bytes]:
    """Return a large value under its hash."""
    data = text.encode() * 1000
    return {hashlib.sha256(data).hexdigest(): data}


def everything_in(folder: Path) -> list[str]:
    """Return the names of all files."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_what_was_told_is_read_back(tmp_path: Path) -> None:
    (report,) = tell(writer_of(tmp_path), snapshot(3, b"pickle", large("a"), names=["x"]))

    kept = files.read(tmp_path, 3)
    assert report["kept"] == 3
    assert b"".join(kept.pickled()) == b"pickle"
    assert kept.manifest["names"] == ["x"]
    assert all(
        files.blob_is_whole(tmp_path, digest, size) for digest, size in files.blobs_of(kept.manifest).items()
    )


def test_a_snapshot_that_breaks_off_leaves_the_one_before_and_nothing_else(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    tell(writer, snapshot(1, b"first"))
    before = everything_in(tmp_path)
    whole = snapshot(2, b"second", large("b"))

    for end in range(0, len(whole), 97):
        tell(writer, whole[:end])
        writer.take(states.GivenUp(2, "broken off"))

    assert everything_in(tmp_path) == before
    assert files.numbers(tmp_path) == [1]


def test_large_values_that_never_become_part_of_a_snapshot_take_no_room(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)

    for text in "abcdefgh":
        whole = snapshot(1, b"never", large(text))
        tell(writer, whole[: len(whole) - 40])
    writer.close()

    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("blobs", [large("x" * 2000), {}])
def test_what_is_larger_than_its_quota_is_refused_and_the_last_one_stays(
    tmp_path: Path, blobs: dict[str, bytes]
) -> None:
    writer = writer_of(tmp_path, most_bytes=10_000)
    tell(writer, snapshot(1, b"small"))

    (report,) = tell(writer, snapshot(2, b"p" * 20_000, blobs))

    assert report["failed"] == 2 and "10000 bytes" in report["reason"]
    assert files.numbers(tmp_path) == [1]
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 2000


def test_a_value_that_is_not_what_its_hash_says_is_refused(tmp_path: Path) -> None:
    (data,) = large("a").values()

    (report,) = tell(writer_of(tmp_path), snapshot(1, b"pickle", {"0" * 64: data}))

    assert report["failed"] == 1
    assert everything_in(tmp_path) == []


@pytest.mark.parametrize("number", [0, 10**12])
def test_a_number_that_makes_no_sense_is_refused(tmp_path: Path, number: int) -> None:
    (report,) = tell(writer_of(tmp_path), snapshot(number, b"pickle"))

    assert report["failed"] == number
    assert everything_in(tmp_path) == []


def test_nothing_changed_is_believed_of_the_state_that_is_there_and_of_no_other(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    (first,) = tell(writer, snapshot(1, b"first"))

    same = tell(writer, states.same(2, bytes.fromhex(first["digest"])))
    other = tell(writer, states.same(3, bytes(32)))

    assert [report.get("kept") for report in same] == [2]
    assert other == [{"again": 3}]
    assert b"".join(files.read(tmp_path, 2).pickled()) == b"first"
    assert 3 not in files.numbers(tmp_path)


def test_a_state_whose_large_value_is_gone_is_asked_for_once_more(tmp_path: Path) -> None:
    (digest,) = large("a")
    manifest = states.manifest_bytes({"blobs": [["bytes", digest, 1000]]})
    told = states.begin(1) + states.pickle_piece(b"p") + states.manifest(manifest)

    reports = tell(writer_of(tmp_path), told + states.end(hashlib.sha256(b"p" + manifest).digest()))

    assert reports == [{"again": 1}]


def test_the_last_two_stay_and_the_older_ones_go(tmp_path: Path) -> None:
    writer = writer_of(tmp_path)
    for number in (1, 2, 3):
        tell(writer, snapshot(number, b"p%d" % number, large("abc"[number - 1])))

    writer.tidy(answered=True)

    assert files.numbers(tmp_path) == [3, 2]
    assert len(list(tmp_path.glob("blobs/*/*"))) == 2


def test_an_older_one_that_costs_much_goes_once_the_newer_one_is_answered_for(tmp_path: Path) -> None:
    writer = writer_of(tmp_path, most_bytes=100_000_000)
    data = bytes(20_000_000)
    tell(writer, snapshot(1, b"with it", {hashlib.sha256(data).hexdigest(): data}))
    tell(writer, snapshot(2, b"without it"))
    before = files.numbers(tmp_path)

    writer.tidy(answered=True)

    assert before == [2, 1]
    assert files.numbers(tmp_path) == [2]
    assert not list(tmp_path.glob("blobs/*/*"))


def test_whatever_a_manifest_says_the_report_of_it_is_small(tmp_path: Path) -> None:
    lost = [["x" * 10_000, "type", "reason"]] * 5_000
    hashed = [[{"deep": ["x" * 1000]}, "no", None]]

    (report,) = tell(writer_of(tmp_path), snapshot(1, b"p", lost=lost, hashed=hashed))

    assert report["kept"] == 1
    assert report["hashed"] == []
    assert len(json.dumps(report)) < 1_000_000


@pytest.mark.parametrize(
    "facts",
    [{"blobs": 1}, {"blobs": [[1]]}, {"blobs": [["bytes", "..", 1]] * 3}, {"lost": 1}, {"hashed": [1]}],
    ids=str,
)
def test_a_manifest_that_makes_no_sense_costs_its_snapshot_at_most(
    tmp_path: Path, facts: dict[str, Any]
) -> None:
    writer = writer_of(tmp_path)
    manifest = states.manifest_bytes(facts)
    end = states.end(hashlib.sha256(b"p" + manifest).digest())

    tell(writer, states.begin(1) + states.pickle_piece(b"p") + states.manifest(manifest) + end)
    (report,) = tell(writer, snapshot(2, b"well"))

    assert report["kept"] == 2
    assert {Path(name).name for name in everything_in(tmp_path)} <= {
        "000000000001.state",
        "000000000002.state",
    }


def test_a_file_that_was_touched_is_not_read(tmp_path: Path) -> None:
    tell(writer_of(tmp_path), snapshot(1, b"pickle" * 100, names=["x"]))
    path = files.state_file(tmp_path, 1)
    whole = path.read_bytes()

    for place in range(0, len(whole), 13):
        if place < files.HEAD_BYTES and whole[place : place + 1] == b" ":
            continue  # what only fills the head up
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Damaged):
            files.read(tmp_path, 1)
        path.write_bytes(whole[:place])
        with pytest.raises(Damaged):
            files.read(tmp_path, 1)
