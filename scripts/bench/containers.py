"""What the docker sandbox is measured beside: Docker's own command, and peers that run code in containers.

How the peers are driven is in `docker_peer.py`, which runs in their environments.
"""

from __future__ import annotations

import json
import secrets
import subprocess
import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

RLMS, RUNTIME = "rlms 0.1.3", "rlm-runtime 2.1.3"
DOCKER_RUN, DOCKER_EXEC = "docker run", "docker exec"
CELL, PRINTED = "1+1", "print(1+1)"

_STAND = "import sys; print('up', flush=True); sys.stdin.read()"  # ends with who attached to it
_PATIENCE_SECONDS = 180.0
_END_SECONDS = 60.0


class PeerFailed(Exception):
    """A peer cannot do what is measured."""

    def __init__(self, peer: str, what: str) -> None:
        self.peer = peer
        super().__init__(f"{peer}: {what}")


@dataclass(frozen=True)
class Peer:
    """A peer that is installed, and how its driver is started."""

    name: str
    command: tuple[str, ...]

    @contextmanager
    def driven(self) -> Generator[Driver, None, None]:
        """Keep a driver for the length of a block; the containers that it made go with it."""
        driver = Driver(self)
        try:
            yield driver
        finally:
            driver.close()


class Driver:
    """The process in which the REPL of a peer runs. Its methods block."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._process = subprocess.Popen(
            peer.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that Ctrl-C leaves it time to remove its containers
        )

    def ask(self, do: str, **facts: Any) -> dict[str, Any]:
        """Have something done; return what came of it."""
        assert self._process.stdin is not None and self._process.stdout is not None
        deadline = threading.Timer(_PATIENCE_SECONDS, self._process.terminate)
        deadline.start()
        try:
            self._process.stdin.write(json.dumps({"do": do, **facts}).encode() + b"\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = b""
        finally:
            deadline.cancel()
        if not line:
            raise PeerFailed(self._peer.name, f"it ended, or did not answer within {_PATIENCE_SECONDS:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerFailed(self._peer.name, answer["error"])
        return answer

    def seconds(self, do: str, *, printed: str = "", **facts: Any) -> float:
        """Have something done that must print this; return how long it took by a clock in the driver."""
        answer = self.ask(do, **facts)
        if answer["output"].strip() != printed:
            raise PeerFailed(
                self._peer.name, f"it answered {answer['output'][:80]!r} in place of {printed!r}"
            )
        return float(answer["seconds"])

    def opened(self, code: str = PRINTED, printed: str = "2") -> float:
        """Open a REPL, have it answer, close it; return how long it took until the answer."""
        try:
            return self.seconds("open", code=code, printed=printed)
        finally:
            self.ask("close")

    def close(self) -> None:
        """End it, when it has removed its containers."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()


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
        driver.opened()
