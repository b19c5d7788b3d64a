"""What every sandbox with walls promises beyond the common contract: what the program cannot reach, and what it may use."""

from __future__ import annotations

import os
from pathlib import Path

import anyio
import anyio.abc
import pytest

from rlm_sandboxes import Files, Limits, Sandbox
from tests.contracts.asking import ask, evaluate
from tests.contracts.conftest import PROBE

MIB = 1024 * 1024


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a file and a folder in it, beside a file that is not in it."""
    (tmp_path / "secret.txt").write_text("canary")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data.txt").write_text("42")
    (folder / "outward").symlink_to(tmp_path / "secret.txt")
    return folder


async def test_the_walls_are_strong_and_every_layer_holds(walls: Sandbox) -> None:
    async with walls.start(PROBE, None, Limits()) as process:
        isolation = process.isolation

    assert isolation.strong
    assert [str(layer) for layer in isolation.layers if not layer.holds] == []


async def test_nothing_of_the_hosts_environment_is_inside(
    walls: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_SECRET_KEY", "canary")

    async with walls.start(PROBE, None, Limits()) as process:
        environment = await evaluate(process, "dict(__import__('os').environ)")
        native = await evaluate(process, "__import__('ctypes').CDLL(None).getenv(b'RLM_SECRET_KEY')")

    assert "canary" not in environment
    assert native == "0"


@pytest.mark.parametrize(
    ("files", "content", "written"),
    [("none", "FileNotFoundError", False), ("read", "'42'", False), ("write", "'42'", True)],
)
async def test_the_project_is_open_as_far_as_files_says(
    walls: Sandbox, project: Path, files: Files, content: str, written: bool
) -> None:
    async with walls.start(PROBE, project, Limits(files=files)) as process:
        read = await evaluate(process, f"open({str(project / 'data.txt')!r}).read()")
        await evaluate(process, f"open({str(project / 'new.txt')!r}, 'w').write('x')")
        await evaluate(process, f"__import__('os').remove({str(project / 'data.txt')!r})")

    assert read.startswith(content)
    assert (project / "new.txt").exists() is written
    assert (project / "data.txt").exists() is not written


async def test_the_program_starts_in_its_project(walls: Sandbox, project: Path) -> None:
    async with walls.start(PROBE, project, Limits()) as process:
        relative = await evaluate(process, "open('data.txt').read()")

    assert relative == "'42'"


async def test_what_is_written_into_a_project_belongs_to_its_owner(walls: Sandbox, project: Path) -> None:
    async with walls.start(PROBE, project, Limits(files="write")) as process:
        await evaluate(process, "open('new.txt', 'w').write('x')")

    assert (project / "new.txt").stat().st_uid == os.getuid()


@pytest.mark.parametrize("files", ["read", "write"])
async def test_links_do_not_lead_out_of_the_project(walls: Sandbox, project: Path, files: Files) -> None:
    async with walls.start(PROBE, project, Limits(files=files)) as process:
        through_link = await evaluate(process, "open('outward').read()")
        upwards = await evaluate(process, "open('../secret.txt').read()")
        linked = await evaluate(process, "__import__('os').link('../secret.txt', 'mine')")

    assert "canary" not in through_link + upwards
    assert "Error" in linked


async def test_further_folders_can_be_read_and_not_written(
    walls: Sandbox, project: Path, tmp_path: Path
) -> None:
    library = tmp_path / "library"
    library.mkdir()
    (library / "book.txt").write_text("text")

    async with walls.start(PROBE, project, Limits(readable=(library,), files="write")) as process:
        read = await evaluate(process, f"open({str(library / 'book.txt')!r}).read()")
        written = await evaluate(process, f"open({str(library / 'book.txt')!r}, 'w').write('x')")

    assert read == "'text'"
    assert "Error" in written
    assert (library / "book.txt").read_text() == "text"


async def test_the_scratch_folder_is_private_and_empty(walls: Sandbox) -> None:
    async with walls.start(PROBE, None, Limits()) as one, walls.start(PROBE, None, Limits()) as other:
        kept = await evaluate(one, "open(__import__('tempfile').gettempdir() + '/mine', 'w').write('mine')")
        mine = await evaluate(one, "__import__('os').listdir(__import__('tempfile').gettempdir())")
        others = await evaluate(other, "__import__('os').listdir(__import__('tempfile').gettempdir())")

    assert (kept, mine, others) == ("4", "['mine']", "[]")


async def test_a_host_that_keeps_its_new_files_to_itself_has_the_same_sandbox(walls: Sandbox) -> None:
    usual = os.umask(0o077)
    try:
        async with walls.start(PROBE, None, Limits()) as process:
            answer = await evaluate(
                process, "open('/dev/null').read(), __import__('tempfile').gettempdir() > ''"
            )
    finally:
        os.umask(usual)

    assert answer == "('', True)"


async def test_the_network_is_out_of_reach(walls: Sandbox) -> None:
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(anyio.abc.SocketAttribute.local_port)
        code = f"__import__('socket').create_connection(('127.0.0.1', {port}), 2).close()"
        async with walls.start(PROBE, None, Limits()) as process:
            answer = await evaluate(process, code)

    assert "Error" in answer


async def test_the_network_can_be_switched_on(walls: Sandbox) -> None:
    reached = anyio.Event()

    async def note(stream: anyio.abc.ByteStream) -> None:
        reached.set()
        await stream.aclose()

    answer = ""
    with anyio.fail_after(20):
        async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            code = f"__import__('socket').create_connection(('127.0.0.1', {port}), 2).close()"
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(listener.serve, note)
                async with walls.start(PROBE, None, Limits(network=True)) as process:
                    answer = await evaluate(process, code)
                    await reached.wait()
                tasks.cancel_scope.cancel()

    assert answer == "None"


async def test_processes_cannot_be_started_unless_allowed(walls: Sandbox) -> None:
    async with walls.start(PROBE, None, Limits()) as process:
        forked = await evaluate(process, "__import__('os').fork()")
        executed = await evaluate(process, "__import__('subprocess').run(['/bin/true']).returncode")

    assert "Error" in forked
    assert "Error" in executed


async def test_processes_can_be_allowed_and_are_counted(walls: Sandbox) -> None:
    start_many = "[__import__('subprocess').Popen(['/bin/sleep', '60']).pid for _ in range(50)]"

    async with walls.start(PROBE, None, Limits(processes=4, threads=4)) as process:
        executed = await evaluate(process, "__import__('subprocess').run(['/bin/true']).returncode")
        too_many = await evaluate(process, start_many)

    assert executed == "0"
    assert "BlockingIOError" in too_many


async def test_memory_ends_at_its_limit_and_the_program_lives(walls: Sandbox) -> None:
    async with walls.start(PROBE, None, Limits(memory_bytes=64 * MIB)) as process:
        within = await evaluate(process, f"len(bytearray({32 * MIB}))")
        beyond = await evaluate(process, f"len(bytearray({80 * MIB}))")
        shared = await evaluate(process, f"len(bytearray(__import__('mmap').mmap(-1, {4096 * MIB})))")

    assert within == str(32 * MIB)
    assert beyond.startswith("MemoryError")
    assert "Error" in shared


async def test_files_end_at_their_limit(walls: Sandbox) -> None:
    path = "__import__('tempfile').gettempdir() + '/big'"

    async with walls.start(PROBE, None, Limits(file_bytes=1 * MIB)) as process:
        answer = await evaluate(process, f"open({path}, 'wb').write(bytes({2 * MIB}))")

    assert answer.startswith("OSError: [Errno 27]")


async def test_the_scratch_folder_ends_at_its_quota(walls: Sandbox) -> None:
    write = "open(__import__('tempfile').gettempdir() + f'/{n}', 'wb').write(bytes(2**20))"

    async with walls.start(PROBE, None, Limits(scratch_bytes=4 * MIB)) as process:
        bytes_of = await evaluate(process, f"[{write} for n in range(9)]")
        names = "open(__import__('tempfile').gettempdir() + f'/n{n}', 'w').close()"
        inodes_of = await evaluate(process, f"[{names} for n in range(100_000)]")

    assert bytes_of.startswith("OSError: [Errno 28]")
    assert inodes_of.startswith("OSError: [Errno 28]")


async def test_open_files_end_at_their_limit(walls: Sandbox) -> None:
    async with walls.start(PROBE, None, Limits(open_files=16)) as process:
        answer = await evaluate(process, "[open('/dev/null') for _ in range(100)]")

    assert answer.startswith("OSError: [Errno 24]")


async def test_threads_end_at_their_limit(walls: Sandbox) -> None:
    code = "[__import__('threading').Thread(target=__import__('time').sleep, args=(9,), daemon=True).start() for _ in range(99)]"

    async with walls.start(PROBE, None, Limits(threads=8)) as process:
        answer = await evaluate(process, code)

    assert answer == "RuntimeError: can't start new thread"


async def test_everything_that_was_started_ends_with_the_process(walls: Sandbox, tmp_path: Path) -> None:
    beat = tmp_path / "project" / "beat"
    beat.parent.mkdir()
    shell = "while :; do date +%N > beat; sleep 0.05; done"
    code = f"__import__('subprocess').Popen(['/bin/sh', '-c', {shell!r}], start_new_session=True).pid"

    with anyio.fail_after(20):
        async with walls.start(PROBE, beat.parent, Limits(processes=8, files="write")) as process:
            await evaluate(process, code)
            while not await anyio.Path(beat).exists():
                await anyio.sleep(0.02)
    last = beat.read_text()
    await anyio.sleep(0.3)

    assert beat.read_text() == last


async def test_neighbours_cannot_see_or_signal_one_another(walls: Sandbox) -> None:
    async with walls.start(PROBE, None, Limits()) as one, walls.start(PROBE, None, Limits()) as other:
        for pid in range(2, 40):
            await evaluate(one, f"__import__('os').getpid() == {pid} or __import__('os').kill({pid}, 9)")
        await evaluate(one, "__import__('os').kill(-1, 9)")
        alive = await evaluate(other, "'alive'")

    assert alive == "'alive'"


async def test_no_descriptor_leads_anywhere(guarded: Sandbox) -> None:
    async with guarded.start(PROBE, None, Limits()) as process:
        answers = [await evaluate(process, f"__import__('os').fstat({fd})") for fd in range(6, 64)]
        used = [
            await evaluate(process, f"__import__('os').{use}")
            for use in ("write(5, b'.')", "read(5, 1)", "dup(5)", "close(5)")
        ]

    assert {answer.partition(":")[0] for answer in answers} == {"OSError"}
    assert {answer.partition(":")[0] for answer in used} == {"OSError"}


COPY = "__import__('os').fork() or __import__('os')._exit(0)"


async def test_a_program_copies_itself_with_leave_and_once(copying: Sandbox) -> None:
    async with copying.start(PROBE, None, Limits()) as process:
        before = await evaluate(process, COPY)
        process.let_copy()
        number = await evaluate(process, COPY)
        beside = await evaluate(process, COPY)
        await evaluate(process, f"__import__('os').waitpid({number}, 0)")
        after = await evaluate(process, COPY)

    assert process.copies
    assert number.isdigit()
    assert {answer.partition("]")[0] for answer in (before, beside, after)} == {"PermissionError: [Errno 1"}


async def test_there_is_never_more_than_one_copy(copying: Sandbox) -> None:
    staying = "__import__('os').fork() or __import__('time').sleep(60)"

    async with copying.start(PROBE, None, Limits()) as process:
        process.let_copy()
        number = await evaluate(process, staying)
        process.let_copy()
        second = await evaluate(process, staying)

    assert number.isdigit()
    assert second.startswith("PermissionError")


async def test_a_copy_makes_no_copies(copying: Sandbox) -> None:
    tried = "__import__('os').fork() or __import__('os')._exit(__import__('rlm_probe.main').main.exit_code_of_a_fork())"

    async with copying.start(PROBE, None, Limits()) as process:
        process.let_copy()
        number = await evaluate(process, tried)
        process.let_copy()
        status = await evaluate(process, f"__import__('os').waitpid({number}, 0)[1] >> 8")

    assert status == "77"


async def test_what_goes_by_the_side_channel_arrives_there(copying: Sandbox) -> None:
    async with copying.start(PROBE, None, Limits()) as process:
        assert process.side_channel is not None
        process.side_channel.setblocking(False)
        await ask(process, "aside", text="beside")
        await anyio.wait_readable(process.side_channel)
        arrived = process.side_channel.recv(100)

    assert arrived == b"beside"
