"""What the runtime is measured with: a model in a process of its own, `RLM` with all that it usually has, peers."""

from __future__ import annotations

import json
import secrets
import subprocess
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from rlm import RLM

from .drivers import Driver, Peer, PeerFailed

OURS, RLMS, DSPY = "ours", "rlms 0.1.3", "dspy 3.4.1"
KINDS = {RLMS: "rlms", DSPY: "dspy"}


class Model:
    """A model in a process of its own, at `url`, and with its bytes counted at `counted_url`."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "scripts.bench.runtime_model"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.url, self.counted_url = cast("list[str]", self._hear())

    def said(self) -> tuple[int, int]:
        """Return how many bytes went over the wire that is counted until now, and those of the texts in all."""
        assert self._process.stdin is not None
        self._process.stdin.write("said\n")
        self._process.stdin.flush()
        wire, texts = cast("list[int]", self._hear())
        return wire, texts

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.wait()

    def _hear(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


@contextmanager
def serving() -> Generator[Model, None, None]:
    """Keep a model for the length of a block."""
    model = Model()
    try:
        yield model
    finally:
        model.close()


@dataclass(frozen=True)
class Bench:
    """What a measurement gets: the model, a folder for logs, the peers, a Python that has LiteLLM."""

    model: Model
    folder: Path
    environments: tuple[tuple[str, Path], ...] = ()
    litellm: Path | None = None

    @property
    def peers(self) -> tuple[Peer, ...]:
        """Those that can be measured."""
        return tuple(self._peer(name, folder) for name, folder in self.environments)

    def _peer(self, name: str, folder: Path) -> Peer:
        driver = str(Path(__file__).with_name("runtime_peer.py"))
        return Peer(name, (str(python_of(folder)), "-I", driver, KINDS[name], self.model.url))

    def without(self, name: str) -> Bench:
        """Return the same without one of the peers."""
        return replace(self, environments=tuple(each for each in self.environments if each[0] != name))

    @contextmanager
    def drivers(self) -> Generator[dict[str, Driver], None, None]:
        """Keep a driver of each peer for the length of a block."""
        with ExitStack() as stack:
            yield {peer.name: stack.enter_context(peer.driven()) for peer in self.peers}

    def ours(self, what: str, *, url: str = "", **options: Any) -> RLM:
        """Return a runtime with a new log and a new store, whose root has the program `what`."""
        usual: dict[str, Any] = {"token_budget": None, "max_subcalls": 10_000, "at_once": 100}
        return RLM(
            f"ours-{what}",
            "openai",
            api_key="none",
            api_base=f"{url or self.model.url}/v1",
            sub_model="leaf",
            recursive=True,
            log_dir=self.folder / secrets.token_hex(4),
            **(usual | options),
        )


def python_of(environment: Path) -> Path:
    """Return the Python of a virtual environment."""
    return environment.absolute() / "bin" / "python"


def context(characters: int = 60_000) -> str:
    """Return a text that no run had before, too long for a child that could do without a REPL."""
    return f"{secrets.token_hex(8)} ".ljust(characters, "x")


async def measured(rlm: RLM, text: str) -> list[float]:
    """Do a run whose program measures seconds; return them."""
    outcome = await rlm.completion("Do as you do.", context=text)
    return [float(each) for each in cast("list[float]", outcome.value)]


def measured_of(
    driver: Driver, name: str, what: str, text: str, *, at_once: int | None = None
) -> list[float]:
    """Do the same with a peer. Raise `PeerFailed`."""
    raised = {} if at_once is None else {"at_once": at_once}
    answer = driver.ask("run", model=f"{KINDS[name]}-{what}", context=text, **raised)
    try:
        return [float(each) for each in json.loads(answer["output"])]
    except ValueError:
        raise PeerFailed(name, f"it answered {answer['output'][:200]!r}") from None
