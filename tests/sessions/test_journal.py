"""The journal: nothing that was answered for is lost, nothing that lies there can hurt, and it stays small."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_sessions.journal import Journal, JournalUnwritable
from tests.sessions.small_files import files_up_to

KILOBYTE = 1024
OWN_NAMES = ("n", "time", "kind", "cut", "cell", "durable")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    with Journal.open(folder) as opened:
        yield opened


linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a test cannot mount disks of its own"
)


def numbers(journal: Journal, **conditions: Any) -> list[int]:
    return [entry["n"] for entry in journal.entries(**conditions).entries]


def texts(journal: Journal, **conditions: Any) -> list[Any]:
    return [entry.get("text") for entry in journal.entries(**conditions).entries]


def segment(folder: Path, number: int = 1) -> Path:
    return folder / f"{number:06}.jsonl"


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.jsonl"))


def bytes_of(paths: list[Path]) -> int:
    return sum(path.stat().st_size for path in paths)


# ---- appending and reading


def test_an_entry_comes_back_with_its_facts(journal: Journal) -> None:
    n = journal.append("cell", cell=3, code="x = 1\r\n\0", more={"a": [1, None, 2.5, "ü"]})

    (entry,) = journal.entries().entries
    assert {**entry, "time": None} == {
        "n": n,
        "time": None,
        "kind": "cell",
        "cell": 3,
        "code": "x = 1\r\n\0",
        "more": {"a": [1, None, 2.5, "ü"]},
    }


def test_the_time_is_that_of_the_append(journal: Journal) -> None:
    before = datetime.now(UTC)
    journal.append("slept")
    after = datetime.now(UTC)

    assert before <= datetime.fromisoformat(journal.entries().entries[0]["time"]) <= after


def test_each_entry_is_a_line_of_json(journal: Journal, folder: Path) -> None:
    journal.append("slept")
    journal.append("cell", cell=1, code="a\nb\u2028")

    lines = segment(folder).read_text("utf-8").split("\n")
    assert [json.loads(line)["kind"] for line in lines[:-1]] == ["slept", "cell"]
    assert lines[-1] == ""


def test_nothing_has_been_recorded_at_first(journal: Journal) -> None:
    assert journal.entries().entries == ()
    assert journal.last("cell") is None


@pytest.mark.parametrize("kind", ["", "two words", 'a"b', "ü", "x" * 41])
def test_a_kind_is_a_plain_word(journal: Journal, kind: str) -> None:
    with pytest.raises(ValueError, match="not a kind"):
        journal.append(kind)


@pytest.mark.parametrize("name", ["n", "time", "kind", "cut"])
def test_facts_cannot_take_the_names_of_the_journal(journal: Journal, name: str) -> None:
    facts: dict[str, Any] = {name: 1}

    with pytest.raises(ValueError, match=name):
        journal.append("cell", **facts)


def test_a_cell_has_a_number_that_fits(journal: Journal) -> None:
    with pytest.raises(ValueError, match="number of a cell"):
        journal.append("cell", cell=2**70)


def deep(depth: int) -> Any:
    return [deep(depth - 1)] if depth else "bottom"


def circular() -> Any:
    items: list[Any] = []
    items += [items, items]
    return items


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (b"ab", "b'ab'"),
        (Path("/a"), "/a"),
        ((1, 2), [1, 2]),
        ({1: 2}, {"1": 2}),
        ([10**5000], [hex(10**5000)]),
        ("\ud800", "\ud800"),
        (circular(), ["<list>", "<list>"]),
    ],
)
def test_what_json_has_not_is_written_as_text(journal: Journal, value: Any, kept: Any) -> None:
    journal.append("answer", value=value)

    assert journal.entries().entries[0]["value"] == kept


def test_values_may_lie_deeper_than_python_can_follow(journal: Journal) -> None:
    value: Any = "bottom"
    for _ in range(100_000):
        value = [value]

    journal.append("answer", value=value)

    assert len(journal.entries().entries) == 1


def test_files_are_for_their_owner_alone(journal: Journal, folder: Path) -> None:
    journal.append("cell")
    journal.entries()

    assert {path.name for path in folder.iterdir()} >= {"000001.jsonl", "index.sqlite3"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in folder.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700


def test_many_threads_can_append_at_once(journal: Journal) -> None:
    def work(cell: int) -> None:
        for place in range(100):
            journal.append("cell", cell=cell, place=place)

    threads = [threading.Thread(target=work, args=(cell,)) for cell in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert numbers(journal, limit=1000) == list(range(1, 801))
    assert [entry["place"] for entry in journal.entries(cell=5, limit=1000).entries] == list(range(100))


# ---- asking


@pytest.fixture
def filled(journal: Journal) -> Journal:
    """A journal with 40 entries: four kinds in turn, four entries for each cell."""
    for n in range(40):
        kind = ("cell", "ran", "call", "answer")[n % 4]
        journal.append(kind, cell=n // 4, text=f"text {n} of {kind} ü", inner={"deep": [f"<{n}>"]})
    return journal


def test_entries_are_found_by_kind_and_cell(filled: Journal) -> None:
    assert numbers(filled, kind="ran", limit=3) == [2, 6, 10]
    assert numbers(filled, kind=["cell", "ran"], limit=4) == [1, 2, 5, 6]
    assert numbers(filled, cell=2) == [9, 10, 11, 12]
    assert numbers(filled, cell=2, kind={"call"}) == [11]
    assert numbers(filled, kind=[]) == numbers(filled, kind="other") == numbers(filled, cell=99) == []


def test_bounds_are_not_part_of_what_is_found(filled: Journal) -> None:
    assert numbers(filled, after=38) == [39, 40]
    assert numbers(filled, before=3) == [1, 2]
    assert numbers(filled, after=5, before=8, newest_first=True) == [7, 6]


def test_entries_are_found_by_time(filled: Journal) -> None:
    moment = datetime.fromisoformat(filled.entries().entries[10]["time"])
    elsewhere = moment.astimezone(datetime.now().astimezone().tzinfo)

    assert set(numbers(filled, since=elsewhere)) | set(numbers(filled, until=elsewhere)) == set(range(1, 41))
    assert 11 in numbers(filled, since=moment)
    assert numbers(filled, since=moment + timedelta(days=1)) == []


def test_a_time_without_a_zone_is_refused(journal: Journal) -> None:
    with pytest.raises(ValueError, match="time zone"):
        journal.entries(since=datetime(2026, 1, 1))


def test_entries_are_found_by_text_in_their_facts(filled: Journal) -> None:
    assert numbers(filled, text="text 17 ") == [18]
    assert numbers(filled, text="<17>") == [18]
    assert numbers(filled, text="call ü", limit=2) == [3, 7]
    assert numbers(filled, text="call ü", limit=2, newest_first=True) == [39, 35]
    assert numbers(filled, text="<1", kind="ran") == [2, 14, 18]
    assert numbers(filled, text="nowhere") == []


@pytest.mark.parametrize("text", ["deep", '"kind"', '","', "jsonl", "TEXT 17"])
def test_what_is_no_text_of_an_entry_is_not_found(filled: Journal, text: str) -> None:
    assert numbers(filled, text=text) == []


@given(st.lists(st.text(max_size=8), max_size=6), st.text(min_size=1, max_size=3))
def test_a_text_is_found_exactly_where_it_occurs(values: list[str], text: str) -> None:
    with tempfile.TemporaryDirectory() as name, Journal.open(Path(name)) as journal:
        for value in [*values, f"a{text}b"]:
            journal.append("cell", value=value)

        found = [entry["value"] for entry in journal.entries(text=text).entries]
    assert found == [value for value in [*values, f"a{text}b"] if text in value]


def test_a_common_text_is_found_in_all_of_many_entries(journal: Journal) -> None:
    for n in range(1500):
        journal.append("cell" if n % 3 else "ran", text="common")

    assert numbers(journal, text="common", limit=2000) == list(range(1, 1501))
    assert len(numbers(journal, text="common", kind="ran", limit=2000, newest_first=True)) == 500


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize(
    "conditions", [{}, {"kind": "call"}, {"text": "ü"}, {"kind": ["cell", "ran"], "text": "<"}]
)
def test_pages_follow_one_another_without_gap_or_overlap(
    filled: Journal, newest_first: bool, conditions: dict[str, Any]
) -> None:
    whole = numbers(filled, limit=1000, newest_first=newest_first, **conditions)
    found: list[int] = []
    bound: int | None = None
    while True:
        edge: dict[str, Any] = {"before" if newest_first else "after": bound}
        page = filled.entries(limit=3, newest_first=newest_first, **edge, **conditions)
        found += [entry["n"] for entry in page.entries]
        bound = page.next
        if bound is None:
            break

    assert found == whole
    assert len(whole) >= 10


def test_a_page_of_long_entries_ends_early_and_says_where_to_go_on(folder: Path) -> None:
    with Journal.open(folder, entry_bytes=8 * KILOBYTE * KILOBYTE) as journal:
        for _ in range(4):
            journal.append("cell", text="x" * 3 * KILOBYTE * KILOBYTE)
        page = journal.entries()

        assert ([entry["n"] for entry in page.entries], page.next) == ([1, 2], 2)
        assert numbers(journal, after=2) == [3, 4]


def test_the_last_of_a_kind_is_the_newest(filled: Journal) -> None:
    last = filled.last("ran")

    assert last is not None and last["n"] == 38


# ---- restarts and crashes


def test_numbers_grow_across_restarts(folder: Path) -> None:
    for expected in (1, 2, 3):
        with Journal.open(folder) as journal:
            assert journal.append("opened") == expected
    with Journal.open(folder) as journal:
        assert numbers(journal) == [1, 2, 3]


def test_numbers_and_not_the_clock_give_the_order(folder: Path) -> None:
    with Journal.open(folder) as journal:
        journal.append("cell")
    path = segment(folder)
    path.write_text(path.read_text().replace('"time":"20', '"time":"29'))
    with Journal.open(folder) as journal:
        journal.append("cell")
        first, second = journal.entries().entries

    assert (first["n"], second["n"]) == (1, 2)
    assert first["time"] > second["time"]


WRITER = """
import sys
from pathlib import Path
from rlm_sessions.journal import Journal
journal = Journal.open(Path(sys.argv[1]), segment_bytes=4096)
while True:
    print(journal.append("cell", text="x" * 100), flush=True)
"""


def test_every_entry_that_was_answered_for_survives_a_kill(folder: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    answered = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(folder)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert writer.stdout
        answered = max(answered, *(int(writer.stdout.readline()) for _ in range(50)))
        writer.send_signal(signal.SIGKILL)
        rest = writer.communicate()[0].split("\n")
        answered = max([answered, *(int(line) for line in rest[:-1])])

        with Journal.open(folder) as journal:
            page = journal.entries(limit=100_000)
            assert [entry["n"] for entry in page.entries][:answered] == list(range(1, answered + 1))
            assert page.damaged == 0


facts = st.dictionaries(
    st.sampled_from(["code", "text", "items"]), st.text(max_size=30) | st.integers() | st.booleans()
)


@settings(max_examples=25)
@given(st.lists(facts, min_size=1, max_size=4), st.integers(0, 2), st.data())
def test_cut_off_at_any_byte_a_journal_keeps_all_entries_before(
    items: list[dict[str, Any]], looked: int, data: st.DataObject
) -> None:
    """At `looked` an index was made before: it must not stand in the way of the truth."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Journal.open(folder) as journal:
            for item in items:
                journal.append("cell", **item)
            if looked:
                journal.entries()
        whole = segment(folder).read_bytes()
        for size in data.draw(st.sets(st.integers(0, len(whole)), max_size=6)) | {len(whole) - 1}:
            segment(folder).write_bytes(whole[:size])
            kept = whole[:size].count(b"\n") + (whole[size : size + 1] == b"\n")
            with Journal.open(folder) as journal:
                new = journal.append("after")
                found = journal.entries().entries

            assert [{**entry, "time": None} for entry in found[:-1]] == [
                {"n": n, "time": None, "kind": "cell", **item} for n, item in enumerate(items[:kept], 1)
            ]
            assert found[-1]["n"] == new > kept


@settings(max_examples=25)
@given(st.lists(st.tuples(st.sampled_from(["append", "look", "reopen"]), st.text(max_size=400)), max_size=25))
def test_all_that_was_appended_is_there_whatever_happens_between(steps: list[tuple[str, str]]) -> None:
    expected: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        journal = Journal.open(Path(name), segment_bytes=1000)
        for step, text in steps:
            if step == "append":
                journal.append("cell", text=text)
                expected.append(text)
            elif step == "look":
                assert texts(journal) == expected
            else:
                journal.close()
                journal = Journal.open(Path(name), segment_bytes=1000)
        assert texts(journal) == expected
        journal.close()


def test_an_unfinished_line_is_sealed_on_opening(folder: Path) -> None:
    with Journal.open(folder) as journal:
        journal.append("cell", text="whole")
        journal.append("cell", text="half")
    os.truncate(segment(folder), segment(folder).stat().st_size - 3)

    with Journal.open(folder) as journal:
        sealed = segment(folder).read_bytes().endswith(b"\n")
        n = journal.append("cell", text="new")

        assert sealed
        assert texts(journal) == ["whole", "new"]
        assert (n, journal.entries().damaged) == (3, 1)


def test_an_index_that_knows_what_a_power_cut_took_does_not_hide_what_came_after(folder: Path) -> None:
    with Journal.open(folder) as journal:
        for text in "abc":
            journal.append("cell", text=text)
        journal.entries()
    lines = segment(folder).read_bytes().split(b"\n")
    os.truncate(segment(folder), len(lines[0]) + 1)

    with Journal.open(folder) as journal:
        for text in ("a text that reaches farther than what was there before" * 5, "e", "f"):
            journal.append("ran", text=text[:200])

        assert [text[:1] for text in texts(journal, kind="ran")] == ["a", "e", "f"]
        assert journal.entries().damaged == 0


# ---- damage


def test_damaged_lines_are_left_out_and_counted(folder: Path) -> None:
    with Journal.open(folder) as journal:
        for text in "abc":
            journal.append("cell", text=text)
        journal.entries()
    lines = segment(folder).read_bytes().split(b"\n")
    lines[1] = (
        lines[1][:20]
        + b"\0\xff\n"
        + b"[" * 200_000
        + b'\n{"n": "x"}\n\n[]\n{"n":1,"time":"","kind":"\\ud800"}'
    )
    segment(folder).write_bytes(b"\n".join(lines))

    with Journal.open(folder) as journal:
        journal.append("cell", text="d")
        page = journal.entries()

    assert [entry["text"] for entry in page.entries] == ["a", "c", "d"]
    assert page.damaged == 5


def test_damage_while_the_journal_is_open_costs_only_what_was_damaged(journal: Journal, folder: Path) -> None:
    for text in "abc":
        journal.append("cell", text=text)
    assert texts(journal) == ["a", "b", "c"]
    facts = segment(folder).stat()
    with segment(folder).open("r+b") as file:
        file.write(b"#")
    os.utime(segment(folder), ns=(facts.st_atime_ns, facts.st_mtime_ns))  # so that the index cannot know

    assert texts(journal) == ["b", "c"]


def test_an_entry_that_moved_is_found_where_it_is_now(journal: Journal, folder: Path) -> None:
    for text in "abc":
        journal.append("cell", text=text)
    journal.entries()
    facts, whole = segment(folder).stat(), segment(folder).read_bytes()
    lines = whole.split(b"\n")
    with segment(folder).open("r+b") as file:
        file.write(b"\n".join([lines[2], lines[0], lines[1], b""]))
    os.utime(segment(folder), ns=(facts.st_atime_ns, facts.st_mtime_ns))

    assert texts(journal) == ["a", "b", "c"]


def garble(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)


def garble_inside(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:100] + b"\xff" * (len(data) - 100))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_version(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 999")
    database.close()


def other_tables(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE entries (x)")
        database.execute("PRAGMA user_version = 1")
    database.close()


@pytest.mark.parametrize("damage", [garble, garble_inside, empty, other_version, other_tables, Path.unlink])
@pytest.mark.parametrize("writes", [True, False])
def test_a_damaged_index_is_made_anew_and_nobody_notices(folder: Path, damage: Any, writes: bool) -> None:
    with Journal.open(folder) as journal:
        for n in range(300):
            journal.append("cell", text=str(n))
        journal.entries()
    damage(folder / "index.sqlite3")

    with Journal.open(folder, writes=writes) as journal:
        assert texts(journal, limit=1000) == [str(n) for n in range(300)]
        assert numbers(journal, text="299") == [300]


def test_an_index_damaged_under_an_open_journal_is_made_anew(journal: Journal, folder: Path) -> None:
    for n in range(300):
        journal.append("cell", text=str(n))
    journal.entries()
    for path in folder.glob("index.sqlite3*"):
        path.unlink()
    (folder / "index.sqlite3").mkdir()
    journal.append("cell", text="300")

    assert texts(journal, limit=1000) == [str(n) for n in range(301)]


def test_a_link_in_the_place_of_the_index_is_not_followed(folder: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    with Journal.open(folder) as journal:
        journal.append("cell")
        (folder / "index.sqlite3").symlink_to(precious)

        assert numbers(journal) == [1]
    assert precious.read_text() == "kept"


def test_segments_that_somebody_removed_are_forgotten(folder: Path) -> None:
    with Journal.open(folder, segment_bytes=1000) as journal:
        for n in range(40):
            journal.append("cell", text=str(n).rjust(200))
        with segment(folder, 2).open("ab") as file:
            file.write(b"damage\n")
        damaged = journal.entries().damaged
        segment(folder, 2).unlink()

        found = numbers(journal)
        assert (damaged, journal.entries().damaged) == (1, 0)
        assert found == numbers(journal, text=" ")
        assert len(found) < 40 and found[0] == 1 and found[-1] == 40


# ---- bounds


def test_the_oldest_segments_make_room_and_numbers_go_on(folder: Path) -> None:
    with Journal.open(folder, segment_bytes=4 * KILOBYTE, most_bytes=20 * KILOBYTE) as journal:
        for _ in range(1000):
            journal.append("cell", text="x" * 100)
            assert bytes_of(segments(folder)) <= 20 * KILOBYTE
        found = numbers(journal, limit=2000)

    assert found == list(range(found[0], 1001))
    assert bytes_of(segments(folder)) > 12 * KILOBYTE


def test_segments_go_when_they_are_old_but_the_newest_stays(folder: Path) -> None:
    with Journal.open(folder, segment_bytes=1000) as journal:
        for _ in range(20):
            journal.append("cell", text="x" * 300)
    for path in segments(folder):
        os.utime(path, (time.time() - 100, time.time() - 100))

    with Journal.open(folder, most_seconds=50) as journal:
        assert len(segments(folder)) == 1
        assert journal.append("cell") == 21


def test_a_smaller_cap_holds_as_soon_as_the_journal_is_opened(folder: Path) -> None:
    with Journal.open(folder, segment_bytes=1000) as journal:
        for _ in range(20):
            journal.append("cell", text="x" * 300)
    Journal.open(folder, most_bytes=3000).close()

    assert bytes_of(segments(folder)) <= 3000


def test_a_long_text_is_cut_to_head_and_tail_with_the_hash_of_the_whole(folder: Path) -> None:
    with Journal.open(folder, entry_bytes=8 * KILOBYTE) as journal:
        journal.append(
            "ran", cell=1, output="a" * 50_000 + "b" * 50_000, inner=[{"x": "c" * 50_000}], short="kept"
        )
        (entry,) = journal.entries().entries

    assert len(segment(folder).read_bytes()) <= 8 * KILOBYTE
    assert entry["output"].startswith("aaa") and entry["output"].endswith("bbb") and entry["short"] == "kept"
    assert entry["cut"].keys() == {"/output", "/inner/0/x"}
    assert 90_000 < entry["cut"]["/output"]["cut"] < 100_000
    assert len(entry["cut"]["/output"]["sha256"]) == 64


json_values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text() | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=60) | st.dictionaries(st.text(), inner, max_size=8),
    max_leaves=80,
)


@settings(max_examples=30, deadline=None)
@given(st.dictionaries(st.text().filter(lambda name: name not in OWN_NAMES), json_values))
def test_no_facts_make_an_entry_longer_than_its_cap_or_unreadable(facts: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name, Journal.open(Path(name), entry_bytes=4 * KILOBYTE) as journal:
        journal.append("answer", cell=1, **facts)
        page = journal.entries()

        assert len(segment(Path(name)).read_bytes()) <= 4 * KILOBYTE
        assert (len(page.entries), page.damaged, page.entries[0]["cell"]) == (1, 0, 1)


def test_a_million_small_facts_are_cut_too(folder: Path) -> None:
    with Journal.open(folder, entry_bytes=8 * KILOBYTE) as journal:
        journal.append("answer", cell=7, items=list(range(1_000_000)))
        (entry,) = journal.entries().entries

    assert entry["cell"] == 7
    assert entry["facts"].startswith('{"items":[0,1,2')
    assert entry["cut"][""]["cut"] > 1_000_000


# ---- disks that refuse


def test_without_room_appending_says_so_and_all_stays_readable(folder: Path) -> None:
    with Journal.open(folder) as journal:
        journal.append("cell", text="before")
        size = segment(folder).stat().st_size
        with files_up_to(size + 50):  # room for a part of the next
            with pytest.raises(JournalUnwritable, match="not recorded"):
                journal.append("cell", text="x" * 500)
            with pytest.raises(JournalUnwritable):
                journal.append("cell", text="x" * 500)
            during = texts(journal)
        n = journal.append("cell", text="after", durable=True)
        page = journal.entries()

    assert during == ["before"]
    assert [entry["text"] for entry in page.entries] == ["before", "after"]
    assert (page.damaged, n > 2) == (1, True)


def test_without_room_for_a_new_segment_the_old_ones_stay(folder: Path) -> None:
    with Journal.open(folder, segment_bytes=1000) as journal:
        for _ in range(3):
            journal.append("cell", text="x" * 800)
        with files_up_to(0), pytest.raises(JournalUnwritable):
            journal.append("cell", text="x" * 800)
        journal.append("cell", text="after")

        assert len(texts(journal)) == 4


def test_a_folder_that_cannot_be_made_is_told_by_appending(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with (
        Journal.open(tmp_path / "file" / "journal") as journal,
        pytest.raises(JournalUnwritable, match="directory"),
    ):
        journal.append("cell")


def in_own_mounts(script: str, *arguments: str) -> str:
    """Run a shell script that may mount what it likes, and return what it printed."""
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = ["unshare", *user, "--mount", "sh", "-ec", script, "sh", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


READ_ONLY = """
import sys
from pathlib import Path
from rlm_sessions.journal import Journal, JournalUnwritable
with Journal.open(Path(sys.argv[1])) as journal:
    try:
        journal.append("cell")
    except JournalUnwritable as problem:
        print(problem.why)
    print([entry["n"] for entry in journal.entries().entries])
"""


@linux_only
def test_on_a_read_only_disk_the_journal_is_readable(folder: Path) -> None:
    with Journal.open(folder) as journal:
        journal.append("cell")
        journal.append("cell")
    script = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"; exec "$2" -c "$3" "$1"'

    assert in_own_mounts(script, str(folder), sys.executable, READ_ONLY) == "Read-only file system\n[1, 2]\n"


FULL_DISK = """
import sys
from pathlib import Path
from rlm_sessions.journal import Journal, JournalUnwritable
disk = Path(sys.argv[1])
(disk / "ballast").write_bytes(b"x" * 200_000)
with Journal.open(disk / "journal") as journal:
    written = []
    try:
        while True:
            written.append(journal.append("cell", text="x" * 900))
    except JournalUnwritable as problem:
        print(problem.why)
    print([entry["n"] for entry in journal.entries(limit=10_000).entries] == written)
    (disk / "ballast").unlink()
    written.append(journal.append("cell"))
    page = journal.entries(limit=10_000)
    print([entry["n"] for entry in page.entries] == written, page.damaged <= 1)
"""


@linux_only
def test_a_full_disk_costs_only_what_is_appended_while_it_is_full(tmp_path: Path) -> None:
    script = 'mount -t tmpfs -o size=400k none "$1"; exec "$2" -c "$3" "$1"'

    printed = in_own_mounts(script, str(tmp_path), sys.executable, FULL_DISK)

    assert printed == "No space left on device\nTrue\nTrue True\n"


def test_a_journal_is_not_written_through_a_link(folder: Path, tmp_path: Path) -> None:
    with Journal.open(tmp_path / "elsewhere") as journal:
        journal.append("cell")
    before = segment(tmp_path / "elsewhere").read_bytes()
    folder.symlink_to(tmp_path / "elsewhere")

    with Journal.open(folder) as journal, pytest.raises(JournalUnwritable, match="symbolic link"):
        journal.append("cell")
    assert segment(tmp_path / "elsewhere").read_bytes() == before


def test_a_closed_journal_cannot_be_written(journal: Journal) -> None:
    journal.close()

    with pytest.raises(JournalUnwritable, match="closed"):
        journal.append("cell")


# ---- readers beside the writer


READER = """
import sys
from pathlib import Path
from rlm_sessions.journal import Journal
with Journal.open(Path(sys.argv[1]), writes=False) as journal:
    for line in sys.stdin:
        found = [entry["n"] for entry in journal.entries(limit=100_000).entries]
        assert found == list(range(1, len(found) + 1))
        print(len(found), len(journal.entries(text="needle").entries), flush=True)
"""


def test_two_readers_in_other_processes_see_all_that_is_written_meanwhile(
    journal: Journal, folder: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", READER, str(folder)]
    readers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(2)
    ]
    seen: list[list[str]] = []
    for turn in range(1, 6):
        for n in range(200):
            journal.append("cell", text="needle" if n == 0 else "hay")
        if turn % 2:
            journal.entries()
        for reader in readers:
            assert reader.stdin and reader.stdout
            reader.stdin.write("\n")
            reader.stdin.flush()
        seen.append([reader.stdout.readline() for reader in readers if reader.stdout])
    for reader in readers:
        reader.communicate()

    assert seen == [[f"{turn * 200} {turn}\n"] * 2 for turn in range(1, 6)]


def test_a_reader_does_not_write(folder: Path) -> None:
    with Journal.open(folder) as journal:
        journal.append("cell")
        journal.append("cell")
    os.truncate(segment(folder), segment(folder).stat().st_size - 3)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}

    with Journal.open(folder, writes=False) as reader:
        with pytest.raises(JournalUnwritable, match="read only"):
            reader.append("cell")
        assert numbers(reader) == [1]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_reading_goes_on_while_segments_are_written_and_removed(folder: Path) -> None:
    problems: list[BaseException] = []
    done = threading.Event()

    def read(newest_first: bool) -> None:
        try:
            with Journal.open(folder, writes=False) as reader:
                while not done.is_set():
                    found = numbers(reader, limit=1000, newest_first=newest_first)
                    assert found == sorted(found, reverse=newest_first)
                    reader.entries(text="x" * 50)
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=read, args=(newest_first,)) for newest_first in (True, False)]
    with Journal.open(folder, segment_bytes=4 * KILOBYTE, most_bytes=20 * KILOBYTE) as journal:
        for thread in threads:
            thread.start()
        for n in range(2000):
            journal.append("cell", text="x" * 100)
            if n % 100 == 0:
                journal.entries()
        done.set()
        for thread in threads:
            thread.join()

    assert not problems
