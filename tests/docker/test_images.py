"""Images as they are found: unusual ones work, and what is wrong with one is said with what to do."""

from __future__ import annotations

import io
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from rlm_sandboxes import ImageUnavailable, ImageUnusable, Limits, SandboxError
from rlm_sandboxes.docker import DockerSandbox
from tests.contracts.asking import ask, evaluate
from tests.contracts.conftest import PROBE
from tests.docker.engine import Engine
from tests.docker.registry import Registry, docker, open_registry

UNUSUAL = """
ENTRYPOINT ["/bin/false"]
USER nobody
VOLUME /data
HEALTHCHECK CMD false
ENV PYTHONPATH=/none PYTHONSTARTUP=/none.py PYTHONHOME=/none PYTHONWARNINGS=error PYTHONINSPECT=1 HOME=/none TMPDIR=/none
WORKDIR /gone
"""
FOR_ARM = (
    b"\x7fELF\x02\x01\x01"
    + bytes(9)
    + struct.pack("<HHIQQQIHHHHHH", 2, 183, 1, 1 << 22, 64, 0, 0, 64, 56, 0, 0, 0, 0)
)
TOO_OLD = b"#!/bin/sh\necho 'it is Python 3.6, and 3.9 is the oldest that works' >&2\nexit 72\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with open_registry(tmp_path_factory.mktemp("registry")) as opened:
        yield opened


@pytest.fixture
def logged_in(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(registry.settings))


@pytest.fixture
def pushed(docker_engine: Engine, registry: Registry) -> Iterator[str]:
    """Return the name of an image that is in the registry and not on the engine. It has nothing that runs."""
    make(docker_engine, "rlm-test-small:latest", {"data": bytes(1000)})
    image = registry.push(docker_engine, "rlm-test-small:latest")
    yield image
    if docker(docker_engine, "images", "-q", image):
        docker(docker_engine, "rmi", image)


@pytest.fixture
def made(docker_engine: Engine) -> Iterator[list[str]]:
    """Return a list of images that are removed in the end."""
    images: list[str] = []
    yield images
    for image in images:
        docker(docker_engine, "rmi", image)


def make(engine: Engine, name: str, files: dict[str, bytes], *options: str) -> str:
    """Make an image of files that can be run."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path, content in files.items():
            for folder in reversed(Path(path).parents[:-1]):
                above = tarfile.TarInfo(str(folder))
                above.type, above.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(above)
            entry = tarfile.TarInfo(path)
            entry.mode, entry.size = 0o755, len(content)
            tar.addfile(entry, io.BytesIO(content))
    docker(engine, "import", *options, "-", name, given=archive.getvalue())
    return name


def derive(engine: Engine, name: str, command: str, changes: str) -> str:
    """Make an image of the tests' own by a command that is run in it."""
    container = f"{name}-made"
    docker(engine, "run", "--name", container, "--network", "none", engine.image, "sh", "-c", command)
    options = [word for change in changes.strip().splitlines() for word in ("--change", change)]
    docker(engine, "commit", *options, container, name)
    docker(engine, "rm", container)
    return name


async def start(sandbox: DockerSandbox) -> str:
    with anyio.fail_after(60):
        async with sandbox, sandbox.start(PROBE, None, Limits()) as process:
            answer: str = await ask(process, "echo", text="up")
            return answer


# ---- fetched


@pytest.mark.usefixtures("logged_in")
async def test_a_missing_image_is_fetched_with_dockers_own_password_and_is_heard_of(
    docker_engine: Engine, pushed: str
) -> None:
    heard: list[str] = []

    with pytest.raises(ImageUnusable):  # it is there now, and has no Python
        await start(DockerSandbox(pushed, engine=docker_engine.host, on_progress=heard.append))

    assert any("Pulling from" in line for line in heard)
    assert any("Downloaded newer image" in line for line in heard)


async def test_an_image_behind_a_password_says_how_to_give_it(docker_engine: Engine, pushed: str) -> None:
    with pytest.raises(ImageUnavailable, match=r"could not be fetched: .*(auth|denied).*`docker login 127"):
        await start(DockerSandbox(pushed, engine=docker_engine.host))


@pytest.mark.usefixtures("logged_in")
async def test_an_image_that_the_registry_does_not_know_says_so(
    docker_engine: Engine, registry: Registry
) -> None:
    with pytest.raises(ImageUnavailable, match=r"could not be fetched: .*(not found|unknown)"):
        await start(DockerSandbox(f"{registry.name}/nothing:here", engine=docker_engine.host))


@pytest.mark.usefixtures("logged_in")
async def test_an_image_that_stops_half_way_is_an_error(
    docker_engine: Engine, registry: Registry, pushed: str
) -> None:
    await anyio.to_thread.run_sync(registry.lose_layers)

    with pytest.raises(ImageUnavailable, match=r"could not be fetched: .*unknown blob"):
        await start(DockerSandbox(pushed, engine=docker_engine.host))


# ---- unusual


async def test_an_unusual_image_works_unmodified_and_its_volumes_are_closed(
    docker_engine: Engine, made: list[str]
) -> None:
    command = "rm -rf /tmp; mkdir -m 777 /data; echo 42 > /data/answer"
    made.append(derive(docker_engine, "rlm-test-unusual", command, UNUSUAL))
    volumes = docker(docker_engine, "volume", "ls", "-q")

    with anyio.fail_after(60):
        async with (
            DockerSandbox(made[0], engine=docker_engine.host, pull="never") as sandbox,
            sandbox.start(PROBE, None, Limits()) as process,
        ):
            read = await evaluate(process, "__import__('os').listdir('/data')")
            written = await evaluate(process, "open('/data/more', 'w').write('x')")
            scratch = await evaluate(process, "open('/tmp/more', 'w').write('x')")
            isolation = process.isolation

    assert (read, scratch) == ("[]", "1")
    assert "Errno 30" in written
    assert isolation.strong
    assert docker(docker_engine, "volume", "ls", "-q") == volumes


# ---- unusable


@pytest.mark.parametrize(
    ("files", "options", "said"),
    [
        ({"nothing": b""}, (), r"it has no 'python3' that can be run\. It needs Python 3\.9"),
        (
            {"usr/bin/python3": FOR_ARM},
            ("--platform", "linux/arm64", "--change", "ENV PATH=/usr/bin"),
            r"another kind of processor\. Fetch or build one",
        ),
    ],
    ids=["without Python", "for another processor"],
)
async def test_an_image_that_cannot_be_used_says_why(
    docker_engine: Engine, made: list[str], files: dict[str, bytes], options: tuple[str, ...], said: str
) -> None:
    made.append(make(docker_engine, "rlm-test-unusable", files, *options))

    with pytest.raises(ImageUnusable, match=said):
        await start(DockerSandbox(made[0], engine=docker_engine.host, pull="never"))


async def test_an_image_whose_python_is_too_old_says_which_it_is(
    docker_engine: Engine, made: list[str], tmp_path: Path
) -> None:
    command = f"printf '%s' \"{TOO_OLD.decode()}\" > /usr/bin/python-old; chmod 755 /usr/bin/python-old"
    made.append(derive(docker_engine, "rlm-test-old", command, ""))

    with pytest.raises(
        ImageUnusable, match=r"it is Python 3\.6, and 3\.9 is the oldest.*It needs Python 3\.9"
    ):
        await start(DockerSandbox(made[0], engine=docker_engine.host, python="python-old", pull="never"))


async def test_a_file_that_is_no_program_is_no_python(docker_engine: Engine) -> None:
    with pytest.raises(ImageUnusable, match="it has no '/etc/passwd' that can be run"):
        await start(DockerSandbox(docker_engine.image, engine=docker_engine.host, python="/etc/passwd"))


async def test_what_is_no_name_of_an_image_is_an_error(docker_engine: Engine) -> None:
    with pytest.raises(SandboxError, match="reference"):
        await start(DockerSandbox("Not/A Name", engine=docker_engine.host))
