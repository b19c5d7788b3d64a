"""What becomes of a session when its disk is full, read-only or damaged, or the clock is wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import anyio
import anyio.to_thread
import pytest

from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care
from tests.sessions.homes import LIMITS, Home, notes_of, settled, value

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere a test cannot mount disks of its own"
)
Damage: TypeAlias = Callable[[Path], object]

BIG = "import os; big = os.urandom(5_000_000)"
FUTURE = time.time() + 10 * 365 * 24 * 3600


@pytest.fixture
def home(sandbox: LocalSandbox, tmp_path: Path) -> Home:
    return Home(sandbox, tmp_path / "home")


# ---- disks that refuse

SCRIPT = """
import json, subprocess, sys, time
from pathlib import Path
import anyio
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Care, identify
from tests.sessions.homes import NOTES, OPEN, Home, settled

async def main():
    told = []
    async with LocalSandbox() as sandbox:
        home = Home(sandbox, Path(sys.argv[1]) / "home")
        with anyio.fail_after(50):
            {body}
    print(json.dumps(told))

async def run(session, code):
    result = await session.run(code)
    return [result.value or str(result.error or ""), " ".join(result.notes)]

async def tried(session):
    while session._session.keeping.tried < session.info().step and not session.info().problem:
        await anyio.sleep(0.01)

def mount(*arguments):
    subprocess.run(["mount", *map(str, arguments)], check=True)

anyio.run(main)
"""


async def told_by(body: str, folder: Path, prepare: str) -> list[list[Any]]:
    """Run the body of a script in a process that mounts what it likes, and return what it tells."""
    indented = body.strip().replace("\n", "\n            ")
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    shell = f'{prepare}; exec "$2" -W ignore -c "$3" "$1"'
    command = ["unshare", *user, "--mount", "sh", "-ec", shell, "sh", str(folder), sys.executable]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with anyio.fail_after(60):
        done = await anyio.run_process(
            [*command, SCRIPT.replace("{body}", indented)],
            env=environment,
            check=False,
            stderr=subprocess.PIPE,
        )
    assert done.returncode == 0, done.stderr.decode()
    told: list[list[Any]] = json.loads(done.stdout)
    return told


FULL = """
disk = Path(sys.argv[1])
async with home.session() as session:
    told.append(await run(session, "x = [1]"))
    await settled(session)
    (disk / "ballast").write_bytes(b"x" * 11_000_000)
    told.append(await run(session, "import os; y = os.urandom(5_000_000); x.append(2)"))
    await tried(session)
    told.append(await run(session, "x.append(3); x"))
    await tried(session)
    told.append(await run(session, "x"))
    (disk / "ballast").unlink()
    told.append(await run(session, "x.append(4)"))
    await settled(session)
    told.append(await run(session, "x"))
    told.append(await run(session, "x"))
async with home.session() as session:
    told.append(await run(session, "x, len(y)"))
"""


@linux_only
async def test_on_a_full_disk_the_session_goes_on_in_memory_and_says_so_until_there_is_room(
    tmp_path: Path,
) -> None:
    told = await told_by(FULL, tmp_path, 'mount -t tmpfs -o size=14m none "$1"')

    before, filled, during, still, room, after, later, restarted = told
    assert before[1] == ""
    assert [during[0], still[0], after[0]] == ["[1, 2, 3]", "[1, 2, 3]", "[1, 2, 3, 4]"]
    assert (filled[1] + during[1] + still[1]).count(
        "The state could not be written down: the disk is full"
    ) == 1
    assert (
        "in memory" in filled[1] + during[1] + still[1] and "after step 1" in filled[1] + during[1] + still[1]
    )
    assert (room[1] + after[1]).count("The state is written down again") == 1
    assert later[1] == ""
    assert restarted[0] == "([1, 2, 3, 4], 5000000)"


TO_THE_LAST_BYTE = """
disk = Path(sys.argv[1])
async with home.session() as session:
    told.append(await run(session, "x = [1]"))
    await settled(session)
    with (disk / "ballast").open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(b"x" * 4096)
        except OSError:
            pass
    for number in range(2, 8):
        told.append(await run(session, f"x.append({number}); x  # {'-' * 3000}"))
    (disk / "ballast").unlink()
    told.append(await run(session, "x.append(8)"))
    await settled(session)
    told.append([await session.sleep(), ""])
    told.append(await run(session, "x"))
"""


@linux_only
async def test_a_disk_that_is_full_to_the_last_byte_costs_nothing_once_there_is_room(tmp_path: Path) -> None:
    told = await told_by(TO_THE_LAST_BYTE, tmp_path, 'mount -t tmpfs -o size=3m none "$1"')

    assert told[6][0] == "[1, 2, 3, 4, 5, 6, 7]"
    assert "cannot be written" in "".join(notes for _, notes in told[1:7])
    assert told[-2][0] is True
    assert told[-1][0] == "[1, 2, 3, 4, 5, 6, 7, 8]", told[-1]


READ_ONLY_LATER = """
place = home.place() / "state"
async with home.session() as session:
    told.append(await run(session, "x = [1]"))
    await settled(session)
    mount("--bind", place, place)
    mount("-o", "remount,bind,ro", place)
    told.append(await run(session, "x.append(2)"))
    await tried(session)
    told.append(await run(session, "x"))
    told.append([await session.sleep(), ""])
    subprocess.run(["umount", str(place)], check=True)
    told.append(await run(session, "x.append(3)"))
    await settled(session)
    told.append(await run(session, "x"))
    told.append([await session.sleep(), ""])
    told.append(await run(session, "x"))
"""


@linux_only
async def test_when_a_disk_becomes_read_only_the_session_goes_on_and_says_so(tmp_path: Path) -> None:
    told = await told_by(READ_ONLY_LATER, tmp_path, "true")

    _, _, during, sleeps, room, after, later, woken = told
    assert during[0] == "[1, 2]" and after[0] == woken[0] == "[1, 2, 3]"
    assert "could not be written down: the disk cannot be written to" in told[1][1] + during[1]
    assert sleeps[0] is False  # it would lose what it has
    assert "written down again" in room[1] + after[1]
    assert later[0] is True


READ_ONLY_FROM_THE_START = """
async with home.session() as session:
    told.append(await run(session, "x = [1]"))
mount("--bind", sys.argv[1], sys.argv[1])
mount("-o", "remount,bind,ro", sys.argv[1])
async with home.session() as session:
    told.append(await run(session, "y = 1"))
    told.append(await run(session, "y"))
subprocess.run(["umount", sys.argv[1]], check=True)
async with home.session() as session:
    told.append(await run(session, "x"))
"""


@linux_only
async def test_on_a_read_only_disk_a_session_is_in_memory_says_so_and_leaves_what_is_kept(
    tmp_path: Path,
) -> None:
    told = await told_by(READ_ONLY_FROM_THE_START, tmp_path, "true")

    _, first, second, after = told
    assert "Nothing of this session is kept" in first[1] and "Read-only" in first[1]
    assert second == ["1", ""]
    assert after[0] == "[1]"


NOTHING_CAN_BE_DELETED = """
place = home.place() / "state"
async with home.session() as session:
    told.append(await run(session, "x = [1]"))
(place / "blobs" / "ab").mkdir(parents=True)
(place / "blobs" / "ab" / "stray").touch()  # what a crash leaves
mount("--bind", place, place)
mount("-o", "remount,bind,ro", place)
async with home.session() as session:
    told.append(await run(session, "x.append(2)"))
    told.append(await run(session, "x.append(3)"))
    await anyio.sleep(0.3)
    told.append(await run(session, "x"))
    began = time.process_time()
    await anyio.sleep(1)
    told.append([time.process_time() - began, ""])
"""


@linux_only
async def test_where_not_even_the_writer_can_begin_the_session_says_so_and_rests(tmp_path: Path) -> None:
    told = await told_by(NOTHING_CAN_BE_DELETED, tmp_path, "true")

    assert told[3][0] == "[1, 2, 3]"
    assert "could not be written down" in "".join(notes for _, notes in told[1:4])
    assert told[4][0] < 0.2, "it is busy with itself"


async def test_beyond_its_quota_a_state_is_not_kept_and_the_session_says_so(home: Home) -> None:
    care = Care(limits=LIMITS, policy="off", durable=True, state_bytes=1_000_000)
    with anyio.fail_after(30):
        async with home.session(care=care) as session:
            await session.run("x = 1")
            beyond = await session.run(f"x = 2; {BIG}")
            again = await session.run("x")
            within = await session.run("x = 3; del big")
            await session.sleep()
            result = await session.run("x")

    assert "larger than the 1000000 bytes that are allowed" in notes_of(beyond)
    assert "after step 1" in notes_of(beyond)
    assert (again.value, again.notes) == ("2", ())
    assert "written down again" in notes_of(within)
    assert result.value == "3"


async def test_when_its_folder_is_removed_the_session_goes_on_and_says_so(home: Home) -> None:
    care = Care(limits=LIMITS, policy="off", durable=True)
    with anyio.fail_after(30):
        async with home.session(care=care) as session:
            await session.run("x = 1")
            shutil.rmtree(home.folder)
            told = [await session.run("x += 1") for _ in range(3)]
            shown = await session.run("x")

    assert shown.value == "4"
    assert "could not be written down" in "\n".join(map(notes_of, told))


async def test_a_session_that_cannot_be_written_down_is_not_put_to_sleep(home: Home) -> None:
    care = Care(limits=LIMITS, policy="off", state_bytes=1_000_000)
    with anyio.fail_after(30):
        async with home.session(care=care) as session:
            await session.run(f"x = 1; {BIG}")
            slept = await session.sleep()
            shown = await value(session, "x, len(big)")

    assert (slept, shown) == (False, "(1, 5000000)")


# ---- damage


async def kept_twice(home: Home, *, big: str = "") -> None:
    """Leave two snapshots: of x = 1, and of x = 2."""
    async with home.session() as session:
        await session.run(f"x = 1\n{big}")
        await settled(session)
        await session.run("x = 2")
    assert home.steps_kept()[-1] == 2


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        path.unlink()


def append(path: Path, data: bytes) -> None:
    path.write_bytes(path.read_bytes() + data)


DAMAGES: dict[str, Damage] = {
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "its header flipped": lambda path: flip(path, 5),
    "its list flipped": lambda path: flip(path, 200),
    "its end flipped": lambda path: flip(path, -3),
    "garbage": lambda path: path.write_bytes(os.urandom(5000)),
    "a folder": replace_by_folder,
}


@pytest.mark.parametrize("how", DAMAGES)
async def test_a_damaged_state_gives_way_to_the_one_before_and_is_told_of(home: Home, how: str) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        before = home.steps_kept()
        DAMAGES[how](home.states()[-1])
        async with home.session() as session:
            result = await session.run("x")
            again = await session.run("x = 3")
        async with home.session() as session:
            shown = await value(session, "x")

    assert before == [1, 2]
    assert result.value == "1"
    assert "The state after step 2 is damaged" in notes_of(result) and "put aside" in notes_of(result)
    assert "state after step 1" in notes_of(result)
    assert again.notes == () and shown == "3"


async def test_where_all_states_are_damaged_the_session_is_empty_and_says_so(home: Home) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        for path in home.states():
            os.truncate(path, 10)
        async with home.session() as session:
            result = await session.run("'x' in globals()")

    assert result.value == "False" and result.cell == 3
    assert "step 2 is damaged" in notes_of(result) and "step 1, 2 did is lost" in notes_of(result)


@pytest.mark.parametrize("how", ["cut short", "its end flipped", "removed"])
async def test_a_damaged_large_value_costs_only_that_one(home: Home, how: str) -> None:
    damages: dict[str, Damage] = {**DAMAGES, "removed": Path.unlink}
    with anyio.fail_after(30):
        await kept_twice(home, big=BIG + "; other = bytes(reversed(big)); alias = big")
        async with home.session() as session:
            stays = await session.run("import zlib; zlib.crc32(other)")
            at = max(0, home.steps_kept()[-1])
        damaged = home.blobs()[0]
        damages[how](damaged)
        async with home.session() as session:
            result = await session.run("x, 'big' in globals(), 'other' in globals()")

    assert at and stays.error is None
    assert result.value in ("(2, False, True)", "(2, True, False)")
    assert ("big" in notes_of(result)) != ("other" in notes_of(result)) and "Not kept" in notes_of(result)


JOURNAL_DAMAGES: dict[str, Damage] = {
    "the index deleted": lambda folder: remove(folder.glob("index*")),
    "the index garbage": lambda folder: [
        path.write_bytes(os.urandom(9000)) for path in folder.glob("index*")
    ],
    "all deleted": lambda folder: remove(folder.iterdir()),
    "a line flipped": lambda folder: flip(folder / "000001.jsonl", 20),
    "half a line at the end": lambda folder: append(folder / "000001.jsonl", b'{"n":9,"ti'),
    "garbage at the end": lambda folder: append(folder / "000001.jsonl", os.urandom(5000)),
    "a segment of garbage": lambda folder: (folder / "000002.jsonl").write_bytes(os.urandom(5000)),
    "files of others": lambda folder: (folder / "notes.txt").write_text("not ours"),
}


@pytest.mark.parametrize("how", JOURNAL_DAMAGES)
async def test_whatever_becomes_of_the_journal_the_variables_are_there(home: Home, how: str) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        await anyio.to_thread.run_sync(JOURNAL_DAMAGES[how], home.place() / "journal")
        async with home.session() as session:
            result = await session.run("x")
            assert session.claimed is not None
            entries = session.claimed.journal.entries
            found = await anyio.to_thread.run_sync(lambda: entries(kind="ran", newest_first=True).entries)

    assert result.value == "2", result.notes
    assert found[0]["value"] == "2"


async def test_a_journal_that_lost_its_last_line_costs_at_most_that_step_and_says_so(home: Home) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        path = home.place() / "journal" / "000001.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[: max(n for n, line in enumerate(lines) if b'"ran"' in line)]))
        async with home.session() as session:
            result = await session.run("x")

    assert result.value == "2" or (result.value == "1" and "Step 2" in notes_of(result))


async def test_what_a_journal_could_not_take_in_is_not_lost_with_the_next_sleep(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            await settled(session)
            assert session.claimed is not None
            session.claimed.journal.close()  # nothing can be written any more
            unrecorded = await session.run("x = 2")
            slept = await session.sleep()
            result = await session.run("x")

    assert "cannot be written" in notes_of(unrecorded)
    assert slept and result.value == "2", result.notes


GARBAGE = ["²", "5", "999999999999", "999999999999999999999", "000000000009", "-1", "x"]


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage_among_the_states_harms_nothing(home: Home, name: str) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        (home.place() / "state" / f"{name}.state").write_bytes(b"garbage")
        async with home.session() as session:
            result = await session.run("x")
            again = await session.run("x = 3")
        async with home.session() as session:
            shown = await value(session, "x")

    assert result.value == "2" and again.error is None
    assert shown == "3"


async def test_garbage_everywhere_harms_nothing(home: Home) -> None:
    with anyio.fail_after(30):
        await kept_twice(home, big=BIG)
        for folder in ("", "state", "state/blobs", "state/blobs/00", "journal", "outputs"):
            (home.place() / folder).mkdir(exist_ok=True)
            (home.place() / folder / "garbage").write_bytes(os.urandom(1000))
            (home.place() / folder / "nothing").symlink_to("/nonexistent")
        async with home.session() as session:
            result = await session.run("x, len(big)")
            await session.run("print('y' * 100_000)")

    assert result.value == "(2, 5000000)"


async def test_a_project_note_that_is_garbage_harms_nothing(home: Home) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        (home.place() / "project.json").write_bytes(os.urandom(100))
        (home.place() / "lock").write_bytes(os.urandom(100))
        async with home.session() as session:
            shown = await value(session, "x")

    assert shown == "2"


# ---- clocks


async def test_a_clock_that_was_set_back_changes_nothing(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1; print('y' * 100_000)")
            await session.run("x = 2")
        path = home.place() / "journal" / "000001.jsonl"
        path.write_text(path.read_text().replace('"time":"20', '"time":"21'))
        for below in home.folder.rglob("*"):
            os.utime(below, (FUTURE, FUTURE))
        async with home.session() as session:
            result = await session.run("x")
            await session.run("x = 3")
            long = await session.run("print('z' * 100_000)")
            assert session.claimed is not None and long.output_id is not None
            chunk = await anyio.to_thread.run_sync(session.claimed.outputs.read, long.output_id)
        async with home.session() as session:
            shown = await value(session, "x")

    assert (result.value, result.cell) == ("2", 3)
    assert chunk.total == 100_001
    assert shown == "3"
    numbers = [entry["n"] for entry in home.journal()]
    assert numbers == sorted(set(numbers))


async def test_what_was_used_long_ago_by_a_wrong_clock_is_not_removed_while_it_is_open(home: Home) -> None:
    with anyio.fail_after(30):
        await kept_twice(home)
        for below in home.folder.rglob("*"):
            os.utime(below, (0, 0))
        async with home.session() as session:
            shown = await value(session, "x")

    assert shown == "2"
