"""What the docker sandbox promises beside what every sandbox does. Everything here happens on a real engine."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import (
    EngineUnavailable,
    Files,
    ImageUnavailable,
    ImageUnusable,
    Limits,
    ProcessEnded,
    SandboxUnavailable,
)
from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.docker.canaries import make_canary
from rlm_sandboxes.docker.owners import OWNER, own_label
from rlm_sessions import open_session
from tests.contracts.asking import ask, evaluate, hear, tell
from tests.contracts.conftest import PROBE
from tests.docker.engine import Engine, engine_of

MIB = 1024 * 1024
OWN = own_label()
DESCRIPTORS = Path("/proc/self/fd")
FILL_SHARED = f"(lambda m: [m.__setitem__(slice(i, i + 4096), bytes(4096)) for i in range(0, 400 * {MIB}, 4096)])(__import__('mmap').mmap(-1, 400 * {MIB}))"


@pytest.fixture(scope="module")
def engine() -> Engine:
    return engine_of()


@pytest.fixture
async def sandbox(engine: Engine) -> AsyncIterator[DockerSandbox]:
    async with DockerSandbox(engine.image, engine=engine.host, pull="never") as opened:
        yield opened


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "data.txt").write_text("42")
    return folder


async def docker(engine: Engine, *words: str) -> str:
    """Run Docker's own command, to look from outside."""
    ran = await anyio.run_process(["docker", "--host", engine.host, *words])
    return ran.stdout.decode().strip()


async def containers_of(engine: Engine, owner: str) -> list[str]:
    return (await docker(engine, "ps", "-aq", "--filter", f"label={OWNER}={owner}")).split()


# ---- limits


async def test_who_needs_more_memory_than_there_is_hears_which_limit_it_was(sandbox: DockerSandbox) -> None:
    with anyio.fail_after(30):
        async with sandbox.start(PROBE, None, Limits(memory_bytes=64 * MIB, scratch_bytes=MIB)) as process:
            with pytest.raises(ProcessEnded) as ended:
                await evaluate(process, FILL_SHARED)

    assert ended.value.status == -signal.SIGKILL
    assert f"memory_bytes = {64 * MIB}" in str(ended.value)


async def test_a_bomb_of_processes_ends_at_its_limit_and_the_neighbour_answers(
    sandbox: DockerSandbox,
) -> None:
    bomb = "[__import__('os').fork() for _ in range(12)]"

    with anyio.fail_after(60):
        async with (
            sandbox.start(PROBE, None, Limits(processes=20)) as one,
            sandbox.start(PROBE, None, Limits()) as other,
        ):
            await tell(one, "evaluate", code=bomb)
            answers = [await ask(other, "echo", text=str(n)) for n in range(20)]

    assert answers == [str(n) for n in range(20)]


async def test_a_session_lives_in_a_container_as_it_does_elsewhere(
    sandbox: DockerSandbox, project: Path
) -> None:
    with anyio.fail_after(60):
        async with open_session(
            sandbox, project=project, limits=Limits(wall_seconds=1), policy="off"
        ) as session:
            first = await session.run(
                "text = open('data.txt').read()\nimport os; os.write(1, b'past Python')"
            )
            endless = await session.run("while True: pass")
            hungry = await session.run("len(bytearray(3 * 1024**3))")
            after = await session.run("text")

    assert "past Python" in first.output
    assert endless.error is not None and endless.error.limit == "wall_seconds"
    assert hungry.error is not None and hungry.error.name == "MemoryError"
    assert after.value == "'42'"


async def test_usage_counts_what_was_started_too(sandbox: DockerSandbox) -> None:
    spin = "__import__('subprocess').Popen(['python3', '-c', 'while 1: pass']).pid"

    with anyio.fail_after(30):
        async with sandbox.start(PROBE, None, Limits(processes=4)) as process:
            before = await process.usage()
            await evaluate(process, spin)
            while (await process.usage()).cpu_seconds < before.cpu_seconds + 0.2:
                await anyio.sleep(0.05)


# ---- the project


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
@pytest.mark.parametrize("files", ["read", "write"])
async def test_a_program_is_the_owner_of_its_project_and_no_other(
    sandbox: DockerSandbox, project: Path, files: Files
) -> None:
    for path in (project, project / "data.txt"):
        os.chown(path, 12_345, 12_346)
        path.chmod(0o700)

    async with sandbox.start(PROBE, project, Limits(files=files)) as process:
        read = await evaluate(process, "open('data.txt').read()")
        await evaluate(process, "open('new.txt', 'w').close()")
        layers = {layer.name: layer.holds for layer in process.isolation.layers}

    assert read == "'42'"
    assert layers["uid"]
    if files == "write":
        assert ((project / "new.txt").stat().st_uid, (project / "new.txt").stat().st_gid) == (12_345, 12_346)


async def test_copies_are_there_and_stay_there(engine: Engine, project: Path) -> None:
    (project / "below").mkdir()
    (project / "below" / "more.txt").write_text("more")
    (project / "link").symlink_to("data.txt")

    async with DockerSandbox(engine.image, engine=engine.host, copy_files=True) as sandbox:
        async with sandbox.start(PROBE, project, Limits()) as process:
            read = await evaluate(
                process, "[open(name).read() for name in ('data.txt', 'below/more.txt', 'link')]"
            )
            written = await evaluate(process, "open('data.txt', 'w').write('x')")
            isolation = process.isolation
        async with sandbox.start(PROBE, project, Limits(files="write")) as process:
            changed = await evaluate(process, "open('data.txt', 'w').write('changed')")

    assert read == "['42', 'more', '42']"
    assert "Error" in written
    assert isolation.strong
    assert "copies" in isolation.layers[0].detail
    assert changed == "7"
    assert (project / "data.txt").read_text() == "42"


async def test_what_is_too_large_to_copy_is_refused(engine: Engine, project: Path) -> None:
    with (project / "large").open("wb") as file:
        file.truncate(300 * MIB)

    async with DockerSandbox(engine.image, engine=engine.host, copy_files=True) as sandbox:
        with pytest.raises(SandboxUnavailable, match="cannot be copied"):
            async with sandbox.start(PROBE, project, Limits()):
                pass


async def test_a_folder_in_place_of_the_systems_own_is_refused(sandbox: DockerSandbox) -> None:
    with pytest.raises(SandboxUnavailable, match="has one of its own there"):
        async with sandbox.start(PROBE, Path("/usr"), Limits()):
            pass


# ---- nothing is left


async def test_leaving_removes_the_container_whatever_it_does(engine: Engine) -> None:
    async with DockerSandbox(engine.image, engine=engine.host, pull="never", warm=1) as sandbox:
        async with sandbox.start(PROBE, None, Limits()) as process:
            await tell(process, "spin")
            assert await hear(process) == "spinning"
            during = await containers_of(engine, OWN)

    assert during
    assert await containers_of(engine, OWN) == []


async def test_descriptors_are_given_back(engine: Engine) -> None:
    async with DockerSandbox(engine.image, engine=engine.host, pull="never") as sandbox:
        counts: list[int] = []
        for _ in range(12):
            async with sandbox.start(PROBE, None, Limits()):
                pass
            counts.append(len(list(DESCRIPTORS.iterdir())))  # noqa: ASYNC240 -- it is no disk

    assert counts[-1] <= counts[5] + 2  # the SDK keeps some connections at first, up to a number


HOST = """
import anyio, sys
from rlm_sandboxes import Limits
from rlm_sandboxes.docker import DockerSandbox
from rlm_sandboxes.docker.canaries import make_canary
from rlm_sandboxes.docker.owners import own_label
from tests.contracts.asking import evaluate, hear, tell
from tests.contracts.conftest import PROBE

async def main():
    async with DockerSandbox(sys.argv[2], engine=sys.argv[1]) as sandbox:
        async with sandbox.start(PROBE, None, Limits()) as process:
            await evaluate(process, sys.argv[3])
            await tell(process, "spin")
            await hear(process)
            print(own_label(), flush=True)
            await anyio.sleep_forever()

anyio.run(main)
"""


HOLD_EVERY_PIPE = """(lambda os: [
    os.open(f"/proc/self/fd/{number}", how) for number in range(9) for how in (os.O_RDONLY, os.O_WRONLY)
    if os.path.exists(f"/proc/self/fd/{number}") and os.readlink(f"/proc/self/fd/{number}").startswith("pipe:")
])(__import__("os"))"""


@pytest.mark.parametrize("before", ["1", HOLD_EVERY_PIPE], ids=["at work", "holding both ends of its pipes"])
async def test_nothing_outlives_a_host_that_is_killed(engine: Engine, before: str) -> None:
    with anyio.fail_after(60):
        path = os.pathsep.join(path for path in sys.path if path)
        command = [sys.executable, "-c", HOST, engine.host, engine.image, before]
        async with await anyio.open_process(
            command, env={**os.environ, "PYTHONPATH": path}, stderr=None
        ) as host:
            assert host.stdout is not None
            owner = (await host.stdout.receive()).decode().strip()
            during = await containers_of(engine, owner)
            host.kill()
            await host.wait()
            with anyio.move_on_after(10) as waiting:
                while await containers_of(engine, owner):
                    await anyio.sleep(0.1)

    assert during
    assert not waiting.cancelled_caught


async def test_a_paused_program_with_processes_can_be_killed(sandbox: DockerSandbox) -> None:
    with anyio.fail_after(30):
        async with sandbox.start(PROBE, None, Limits(processes=2)) as process:
            await evaluate(process, "1")
            await process.pause()
            await process.kill()
            with pytest.raises(ProcessEnded) as caught:
                await process.receive()

    assert caught.value.status == -9


async def test_the_containers_of_the_dead_are_removed_and_no_others(engine: Engine) -> None:
    gone = await anyio.open_process(["true"])
    place, _, _ = OWN.rpartition(":")[0].rpartition(":")
    dead, elsewhere = f"{place}:{gone.pid}:1", "another.machine/1:1:1"
    nonsense = f"{place}:\N{SUPERSCRIPT TWO}:1"
    await gone.aclose()
    for owner in (dead, elsewhere, nonsense, OWN):
        await docker(engine, "create", "--label", f"{OWNER}={owner}", engine.image, "true")

    try:
        async with DockerSandbox(engine.image, engine=engine.host):
            left = {
                owner: len(await containers_of(engine, owner)) for owner in (dead, elsewhere, nonsense, OWN)
            }
    finally:
        for owner in (elsewhere, nonsense, OWN):
            await docker(engine, "rm", "-f", *await containers_of(engine, owner))

    assert left == {dead: 0, elsewhere: 1, nonsense: 1, OWN: 1}


# ---- warm containers


async def test_a_warm_container_is_used_once(engine: Engine) -> None:
    inside = "__import__('os').getuid(), __import__('os').listdir('/tmp')"

    with anyio.fail_after(60):
        async with DockerSandbox(engine.image, engine=engine.host, pull="never", warm=1) as sandbox:
            await sandbox.warm_up(PROBE)
            (waiting,) = await containers_of(engine, OWN)
            async with sandbox.start(PROBE, None, Limits()) as process:
                await evaluate(process, "open('/tmp/mine', 'w').close()")
                first = await docker(engine, "inspect", waiting, "--format", "{{.State.Running}}")
            async with sandbox.start(PROBE, None, Limits()) as process:
                _, found = await ask(process, "evaluate", code=inside), await containers_of(engine, OWN)
                left = await evaluate(process, "__import__('os').listdir('/tmp')")

    assert first == "true"
    assert waiting not in found
    assert left == "[]"


async def test_a_warm_container_that_died_is_not_used(engine: Engine) -> None:
    with anyio.fail_after(60):
        async with DockerSandbox(engine.image, engine=engine.host, pull="never", warm=1) as sandbox:
            await sandbox.warm_up(PROBE)
            await docker(engine, "kill", *await containers_of(engine, OWN))
            async with sandbox.start(PROBE, None, Limits()) as process:
                answer = await ask(process, "echo", text="fine")

    assert answer == "fine"


# ---- what can be wrong


async def test_an_engine_that_is_not_there_is_named_with_what_to_do() -> None:
    with pytest.raises(
        EngineUnavailable, match=r"unix:///nowhere/docker\.sock: none answers there\. Start Docker"
    ):
        async with DockerSandbox(engine="unix:///nowhere/docker.sock"):
            pass


NOT_LET_IN = """
import anyio, os, sys
import docker.errors, requests.exceptions, anyio._backends._asyncio  # which this user may not be able to read
from rlm_sandboxes import EngineUnavailable
from rlm_sandboxes.docker import DockerSandbox

async def main():
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    try:
        async with DockerSandbox(engine=sys.argv[1]):
            pass
    except EngineUnavailable as problem:
        print(problem)

anyio.run(main)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root becomes another user")
async def test_an_engine_that_does_not_let_us_in_is_told_from_one_that_is_not_there(engine: Engine) -> None:
    path = os.pathsep.join(path for path in sys.path if path)
    command = [sys.executable, "-c", NOT_LET_IN, engine.host]

    ran = await anyio.run_process(command, env={**os.environ, "PYTHONPATH": path}, stderr=None)

    assert "this user may not use it. Let this user use it" in ran.stdout.decode()


async def test_without_its_library_the_sandbox_says_how_to_install_it() -> None:
    code = "import sys; sys.modules['docker'] = None; import anyio; from rlm_sandboxes.docker import DockerSandbox; anyio.run(DockerSandbox().__aenter__)"
    path = os.pathsep.join(path for path in sys.path if path)

    ran = await anyio.run_process(
        [sys.executable, "-c", code], check=False, env={**os.environ, "PYTHONPATH": path}
    )

    assert "LibraryMissing" in ran.stderr.decode()
    assert "pip install 'rlm-mcp[docker]'" in ran.stderr.decode()


async def test_an_image_that_is_not_there_is_named(engine: Engine) -> None:
    async with DockerSandbox("rlm-nothing:here", engine=engine.host, pull="never") as sandbox:
        with pytest.raises(ImageUnavailable, match="rlm-nothing:here"):
            async with sandbox.start(PROBE, None, Limits()):
                pass


async def test_an_image_that_cannot_be_fetched_says_why(engine: Engine) -> None:
    async with DockerSandbox("127.0.0.1:9/nothing:here", engine=engine.host) as sandbox:
        with pytest.raises(ImageUnavailable, match=r"could not be fetched: .*127"):
            async with sandbox.start(PROBE, None, Limits()):
                pass


async def test_an_image_without_python_is_named(engine: Engine) -> None:
    async with DockerSandbox(engine.image, engine=engine.host, python="python2.1") as sandbox:
        with pytest.raises(ImageUnusable, match=r"has no 'python2\.1'"):
            async with sandbox.start(PROBE, None, Limits()):
                pass


async def test_a_module_that_the_image_lacks_is_named(engine: Engine) -> None:
    async with DockerSandbox(engine.image, engine=engine.host, preload=("nothing_of_the_kind",)) as sandbox:
        with pytest.raises(ImageUnusable, match="nothing_of_the_kind"):
            async with sandbox.start(PROBE, None, Limits()):
                pass


async def test_a_runtime_that_the_engine_lacks_is_named(engine: Engine) -> None:
    with pytest.raises(SandboxUnavailable, match="no runtime 'nothing'"):
        async with DockerSandbox(engine.image, engine=engine.host, runtime="nothing"):
            pass


# ---- what the engine was asked for


async def test_the_container_is_hardened_as_seen_from_outside(engine: Engine, sandbox: DockerSandbox) -> None:
    async with sandbox.start(PROBE, None, Limits()):
        (name,) = await containers_of(engine, OWN)
        found = json.loads(await docker(engine, "inspect", name))[0]
        host = found["HostConfig"]

    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["PidsLimit"] > 0
    assert host["AutoRemove"]
    assert not host["Privileged"]
    assert 0 < found["Config"]["StopTimeout"] <= 2  # seconds, in place of ten by which an engine stops later


async def test_a_container_gets_the_runtime_that_is_named_and_a_part_of_a_processor(engine: Engine) -> None:
    runtime = "io.containerd.runc.v2"  # each engine of Docker's knows it, and uses "runc" unless asked
    throttled = "open('/sys/fs/cgroup/cpu/cpu.stat').read() if __import__('os').path.exists('/sys/fs/cgroup/cpu') else open('/sys/fs/cgroup/cpu.stat').read()"
    with anyio.fail_after(60):
        async with (
            DockerSandbox(
                engine.image, engine=engine.host, pull="never", runtime=runtime, cpus=0.25
            ) as asked,
            asked.start(PROBE, None, Limits()) as process,
        ):
            (name,) = await containers_of(engine, OWN)
            host = json.loads(await docker(engine, "inspect", name))[0]["HostConfig"]
            await evaluate(process, "sum(range(10**7))")
            told = await evaluate(process, throttled)

    assert (host["Runtime"], host["NanoCpus"]) == (runtime, 250_000_000)
    assert "nr_throttled" in told and "nr_throttled 0\\n" not in told


def test_canaries_of_processes_that_were_killed_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with subprocess.Popen(["sleep", "0"]) as ended:
        ended.wait()
    (tmp_path / f"rlm-canary-{ended.pid}-1-abc").touch()
    (tmp_path / "rlm-canary-of-somebody").touch()

    made = make_canary()

    assert {path.name for path in tmp_path.iterdir()} == {made.name, "rlm-canary-of-somebody"}
