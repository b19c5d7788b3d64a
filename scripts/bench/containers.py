"""What the docker sandbox is measured beside: Docker's own command, and peers that run code in containers.

How the peers are driven is in `docker_peer.py`, which runs in their environments.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from .drivers import Driver, Peer

RLMS, RUNTIME = "rlms 0.1.3", "rlm-runtime 2.1.3"
DOCKER_RUN, DOCKER_EXEC = "docker run", "docker exec"
CELL, PRINTED = "1+1", "print(1+1)"

_STAND = "import sys; print('up', flush=True); sys.stdin.read()"  # ends with who attached to it


@dataclass(frozen=True)
class Bench:
    """What a measurement gets: the image, the peers, a folder for what is written, and whether to be brief."""

    image: str
    folder: Path
    peers: tuple[Peer, ...] = ()
    quick: bool = False

    def without(self, name: str) -> Bench:
        """Return the same without one of the peers."""
        return replace(self, peers=tuple(peer for peer in self.peers if peer.name != name))

    @contextmanager
    def drivers(self) -> Generator[dict[str, Driver], None, None]:
        """Keep a driver of each peer for the length of a block."""
        with ExitStack() as stack:
            yield {peer.name: stack.enter_context(peer.driven()) for peer in self.peers}

    def run(self, code: str) -> str:
        """Run Python code in a container of its own, by Docker's command; return what it printed."""
        return docker("run", "--rm", "--network=none", self.image, "python3", "-c", code)

    @contextmanager
    def standing(self, *, code: str = _STAND, project: Path | None = None) -> Generator[str, None, None]:
        """Keep a container that runs `code`, which prints something first; give its name."""
        shown = [f"--volume={project}:{project}:ro"] if project else []
        name = f"rlm-bench-{secrets.token_hex(4)}"
        command = ["docker", "run", "--rm", "--interactive", "--init", "--network=none", "--name", name]
        with subprocess.Popen(
            [*command, *shown, self.image, "python3", "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdout.readline()
                yield name
            finally:
                process.stdin.close()
                remove = ["docker", "rm", "--force", name]
                subprocess.run(remove, check=False, capture_output=True)  # it may be about to go by itself


def execute(container: str, code: str) -> str:
    """Run Python code in a container that is there, by Docker's command; return what it printed."""
    return docker("exec", container, "python3", "-c", code)


def docker(*words: str) -> str:
    """Run Docker's command; return what it printed."""
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


def runtime(environment: Path, image: str, folder: Path) -> Peer:
    """Return rlm-runtime as it is installed in an environment. It shows `folder` to its cells."""
    return _peer(RUNTIME, "rlm-runtime", environment, image, folder)


def rlms(environment: Path, image: str, folder: Path) -> Peer:
    """Return rlms as it is installed in an environment, with an image that has what it wants."""
    return _peer(RLMS, "rlms", environment, image, folder)


def _peer(name: str, kind: str, environment: Path, image: str, folder: Path) -> Peer:
    driver = Path(__file__).with_name("docker_peer.py")
    python = environment.absolute() / "bin" / "python"
    return Peer(name, (str(python), "-I", str(driver), kind, image, str(folder)))


def attempt(peer: Peer) -> None:
    """Have a peer answer once. Raise `PeerFailed` if it does not run here."""
    with peer.driven() as driver:
        opened(driver)


def opened(driver: Driver, code: str = PRINTED, printed: str = "2") -> float:
    """Open a REPL, have it answer, close it; return how long it took until the answer."""
    try:
        return driver.seconds("open", code=code, printed=printed)
    finally:
        driver.ask("close")
