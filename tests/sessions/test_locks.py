"""The owner lock: one holder at a time, and never a dead one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from rlm_sessions.locks import LockUnusable, OwnerLock

HOLDER = """
import sys
from pathlib import Path
from rlm_sessions.locks import OwnerLock
lock = OwnerLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


def other_process(path: Path) -> subprocess.Popen[str]:
    """Start a process that takes the lock and keeps it until its input ends."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", HOLDER, str(path)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )
    assert process.stdout and process.stdout.readline() == "True\n"
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def test_a_lock_that_is_held_is_not_given_to_another(path: Path) -> None:
    first, second = OwnerLock(path), OwnerLock(path)

    assert (first.acquire(), second.acquire()) == (True, False)
    assert (first.held, second.held) == (True, False)


def test_taking_a_lock_twice_is_taking_it_once(path: Path) -> None:
    lock, other = OwnerLock(path), OwnerLock(path)

    assert lock.acquire() and lock.acquire()
    lock.release()
    assert other.acquire()


def test_a_killed_owner_holds_nothing(path: Path) -> None:
    lock, process = OwnerLock(path), other_process(path)
    taken_before = lock.acquire()

    end(process)

    assert (taken_before, lock.acquire()) == (False, True)


def test_the_owner_is_known_with_its_process(path: Path) -> None:
    process = other_process(path)

    owner = OwnerLock(path).owner()
    end(process)
    later = OwnerLock(path).owner()

    assert owner is not None and later is not None
    assert (owner.pid, owner.alive, later.alive) == (process.pid, True, False)


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"pid": "1"}', b'{"pid": -1}', b"\xff" * 600])
def test_a_file_that_names_no_owner_has_none_and_can_be_locked(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    lock = OwnerLock(path)

    assert lock.owner() is None
    assert lock.acquire()


def test_a_process_that_the_file_is_passed_to_holds_the_lock_too(path: Path) -> None:
    lock, other = OwnerLock(path), OwnerLock(path)
    assert lock.acquire()
    heir = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[lock.fileno()]
    )

    lock.release()
    taken_from_heir = other.acquire()
    heir.communicate(b"\n")

    assert (taken_from_heir, other.acquire()) == (False, True)


def test_a_program_started_otherwise_does_not_hold_it(path: Path) -> None:
    lock, other = OwnerLock(path), OwnerLock(path)
    assert lock.acquire()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)

    lock.release()
    end = time.monotonic() + 5  # it is on its way to being another program, and lets go on that way
    while not (taken := other.acquire()) and time.monotonic() < end:
        time.sleep(0.001)
    child.communicate(b"\n")

    assert taken


def test_a_lock_that_is_not_held_has_no_file_to_pass_on(path: Path) -> None:
    with pytest.raises(ValueError, match="not held"):
        OwnerLock(path).fileno()


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("kept")
    path.symlink_to(precious)

    with pytest.raises(LockUnusable):
        OwnerLock(path).acquire()
    assert precious.read_text() == "kept"


def test_a_link_to_nowhere_makes_no_file_there(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "nowhere")

    with pytest.raises(LockUnusable):
        OwnerLock(path).acquire()
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_refused(path: Path, make: object) -> None:
    assert callable(make)
    make(path)

    with pytest.raises(LockUnusable):
        OwnerLock(path).acquire()


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    OwnerLock(path).acquire()

    assert path.stat().st_mode & 0o777 == 0o600


def test_there_is_one_holder_even_while_the_file_is_removed_again_and_again(path: Path) -> None:
    """A removal after locking gives two holders of two files; each must have held the file that had the name."""
    wrong: list[str] = []
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            path.unlink(missing_ok=True)

    remover = threading.Thread(target=remove)
    remover.start()
    for _ in range(300):
        lock = OwnerLock(path)
        try:
            if lock.acquire() and os.fstat(lock.fileno()).st_size == 0:
                wrong.append("a lock was given without noting the owner")
        except LockUnusable as problem:
            assert "keeps removing" in problem.why
        lock.release()
    done.set()
    remover.join()

    assert not wrong


def test_of_many_threads_one_gets_the_lock(path: Path) -> None:
    locks = [OwnerLock(path) for _ in range(20)]
    start = threading.Barrier(len(locks))

    def take(lock: OwnerLock) -> None:
        start.wait()
        lock.acquire()

    threads = [threading.Thread(target=take, args=(lock,)) for lock in locks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sum(lock.held for lock in locks) == 1


def test_a_file_removed_and_made_anew_is_locked_anew(path: Path) -> None:
    first, second = OwnerLock(path), OwnerLock(path)
    assert first.acquire()
    path.unlink()

    assert second.acquire()
    assert os.path.samestat(os.fstat(second.fileno()), path.stat())
