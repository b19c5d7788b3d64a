"""Podman is an engine too: one is started for these tests by whoever runs them, with root's rights or without."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import ImageUnusable, Limits, SandboxUnavailable
from rlm_sandboxes.docker import DockerSandbox
from rlm_sessions import open_session
from tests.contracts.asking import evaluate
from tests.contracts.conftest import PROBE
from tests.docker.engine import Engine


@pytest.fixture(scope="module")
def podman(docker_engine: Engine) -> Iterator[Engine]:
    with tempfile.TemporaryDirectory(prefix="rlm-podman-", ignore_cleanup_errors=True) as folder:
        environment = {**os.environ, "XDG_RUNTIME_DIR": folder}
        command = ["podman", "--root", f"{folder}/root", "--runroot", f"{folder}/run"]
        address = f"unix://{folder}/podman.sock"
        save = ["docker", "--host", docker_engine.host, "save", docker_engine.image]
        with subprocess.Popen(save, stdout=subprocess.PIPE) as saving:
            load = [*command, "load", "--quiet"]
            loaded = subprocess.run(
                load, stdin=saving.stdout, env=environment, capture_output=True, text=True, check=False
            )
        assert not loaded.returncode, loaded.stderr
        with subprocess.Popen(
            [*command, "system", "service", "--time=0", address], env=environment, stderr=subprocess.DEVNULL
        ) as service:
            try:
                _wait_for(Path(folder, "podman.sock"), service)
                yield Engine(address, loaded.stdout.split()[-1])
            finally:
                service.terminate()
        subprocess.run(
            [*command, "rm", "--all", "--force"], env=environment, capture_output=True, check=False
        )
        if os.getuid():
            remove = ["podman", "unshare", "rm", "-rf", f"{folder}/root", f"{folder}/run"]
        else:
            remove = ["umount", f"{folder}/root/overlay"]
        subprocess.run(remove, env=environment, capture_output=True, check=False)
        if os.getuid():  # one process of Podman stays for the next command, until it is told to go
            os.kill(int(Path(folder, "libpod", "tmp", "pause.pid").read_text()), signal.SIGTERM)


def _wait_for(path: Path, service: subprocess.Popen[bytes]) -> None:
    """Wait until the service listens, which it tells nobody."""
    while not path.exists():
        assert service.poll() is None, "podman has ended"
        time.sleep(0.05)


async def test_a_session_lives_with_podman_as_with_docker(podman: Engine) -> None:
    with anyio.fail_after(60):
        async with (
            DockerSandbox(podman.image, engine=podman.host, pull="never") as sandbox,
            open_session(sandbox, limits=Limits(wall_seconds=2)) as session,
        ):
            await session.run("kept = 6 * 7")
            endless = await session.run("while True: pass")
            after = await session.run("kept")
            isolation = session.isolation

    assert endless.error is not None and endless.error.limit == "wall_seconds"
    assert after.value == "42"
    assert isolation.strong, isolation


@pytest.mark.parametrize("copied", [False, True])
async def test_what_podman_would_read_more_into_is_no_folder_for_it(
    podman: Engine, tmp_path: Path, copied: bool
) -> None:
    folder = tmp_path / ("below:" if copied else "below,source=") / "etc"
    folder.mkdir(parents=True)

    with anyio.fail_after(60):
        async with DockerSandbox(
            podman.image, engine=podman.host, pull="never", copy_files=copied
        ) as sandbox:
            with pytest.raises(SandboxUnavailable, match="Podman, which reads more into"):
                await sandbox.start(PROBE, folder, Limits()).__aenter__()


async def test_copies_in_podman_cannot_be_written_to_where_they_must_not(
    podman: Engine, tmp_path: Path
) -> None:
    (tmp_path / "data.txt").write_text("42")

    with anyio.fail_after(60):
        async with (
            DockerSandbox(podman.image, engine=podman.host, pull="never", copy_files=True) as sandbox,
            sandbox.start(PROBE, tmp_path, Limits()) as process,
        ):
            read = await evaluate(process, "open('data.txt').read()")
            written = await evaluate(process, "open('new.txt', 'w').write('x')")
            isolation = process.isolation

    assert read == "'42'"
    assert "PermissionError" in written
    assert isolation.strong, isolation


async def test_what_podman_refuses_is_explained(podman: Engine) -> None:
    with anyio.fail_after(60), pytest.raises(ImageUnusable, match=r"it has no 'python2\.1' that can be run"):
        async with (
            DockerSandbox(podman.image, engine=podman.host, python="python2.1") as sandbox,
            sandbox.start(PROBE, None, Limits()),
        ):
            pass
