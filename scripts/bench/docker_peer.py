"""Runs the REPL of a peer in the peer's own environment, so that it can be measured. It knows nothing of ours.

    python docker_peer.py rlms|rlm-runtime IMAGE FOLDER

Each line that comes in is a request, each line that goes out its answer: what was printed and how many seconds
that took by a clock around it, or why it failed.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

_TEXT = "0123456789abcdef"
_SECONDS, _MEMORY = 300, "2g"


class Rlms:
    """The Docker REPL of rlms: a container for each REPL, and in it a Python for each cell."""

    def __init__(self, image: str, folder: Path) -> None:
        self._image = image
        self._module: Any = importlib.import_module("rlm.environments.docker_repl")
        self._repl: Any = None

    def open(self) -> None:
        self._repl = self._module.DockerREPL(image=self._image)

    def cell(self, code: str) -> str:
        result = self._repl.execute_code(code)
        if result.stderr:
            raise RuntimeError(result.stderr)
        return str(result.stdout)

    def hold(self, size: int) -> None:
        """Put a text into `context`, which it does by a file in a mounted folder."""
        self._repl.add_context(_TEXT * (size // len(_TEXT)), 0)

    def close(self) -> None:
        if self._repl is not None:
            self._repl.cleanup()


class Runtime:
    """The Docker REPL of rlm-runtime: a container for each cell."""

    def __init__(self, image: str, folder: Path) -> None:
        module: Any = importlib.import_module("rlm.repl.docker")
        self._repl = module.DockerREPL(
            image=image, timeout=_SECONDS, memory=_MEMORY, workdir_mount=folder if folder.is_dir() else None
        )
        self._loop = asyncio.new_event_loop()

    def open(self) -> None:
        """Do nothing: there is a container only while a cell runs."""

    def cell(self, code: str) -> str:
        result = self._loop.run_until_complete(self._repl.execute(code))
        if result.error:
            raise RuntimeError(result.error)
        return str(result.output)

    def hold(self, size: int) -> None:
        """Put a text into `context`, which goes along with each cell."""
        self._repl.set_context("text", _TEXT * (size // len(_TEXT)))

    def close(self) -> None:
        self._repl.cleanup()
        self._loop.close()


Repl = Rlms | Runtime
KINDS: dict[str, Callable[[str, Path], Repl]] = {"rlms": Rlms, "rlm-runtime": Runtime}


class _Driver:
    def __init__(self, kind: str, image: str, folder: str) -> None:
        self._make: Callable[[], Repl] = lambda: KINDS[kind](image, Path(folder))
        self._open: list[Repl] = []

    def open(self, asked: dict[str, Any]) -> str:
        repl = self._make()
        self._open.append(repl)
        repl.open()
        return repl.cell(asked["code"]) if asked.get("code") else ""

    def cell(self, asked: dict[str, Any]) -> str:
        return self._open[-1].cell(asked["code"])

    def hold(self, asked: dict[str, Any]) -> str:
        self._open[-1].hold(asked["size"])
        return self._open[-1].cell(asked["code"])

    def crowd(self, asked: dict[str, Any]) -> str:
        with ThreadPoolExecutor(asked["count"]) as threads:
            return "".join(threads.map(self.open, [asked] * asked["count"]))

    def close(self, asked: dict[str, Any]) -> str:
        open_, self._open = self._open, []
        for repl in open_:
            repl.close()
        return ""


def main() -> None:
    """Answer requests until there are no more, and leave no container behind."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    signal.signal(signal.SIGTERM, _end)
    driver = _Driver(*sys.argv[1:4])
    try:
        for line in sys.stdin:
            print(json.dumps(_answer(driver, json.loads(line))), file=answers, flush=True)
    finally:
        driver.close({})


def _end(number: int, frame: object) -> NoReturn:
    sys.exit(1)


def _answer(driver: _Driver, asked: dict[str, Any]) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        output = getattr(driver, asked["do"])(asked)
    except Exception as problem:  # noqa: BLE001 - of a peer, whose errors can be any
        return {"error": f"{type(problem).__name__}: {problem}"}
    return {"seconds": time.perf_counter() - began, "output": output}


if __name__ == "__main__":
    main()
