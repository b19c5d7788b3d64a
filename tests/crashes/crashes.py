"""Runs cells in a server, kills something at a random moment, and compares what comes back with what was answered.

Each cell counts up, in several variables that must agree, so a state that is torn, old or of a step that
was never answered is seen at once. What may be killed, and what must hold afterwards:

    server, zygote, keeper     the state is that of the last cell that was answered
    guest, guard, and with     the same, or that before it (with values that take long to tell, the one before
    docker container           that), and then the session says which cell was lost; never with `durable`
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.docker.engine import engine_of

VICTIMS = ("server", "zygote", "keeper", "guest", "guard")
DOCKER_VICTIMS = ("server", "keeper", "guest", "guard", "container")
_LAST_SECONDS = 20
_MAY_COST = ("guest", "guard", "container")
FIRST = "n = 0; log = []; alias = log; table = {}"
STEP = "n += 1; log.append(n); table[n % 7] = n; n"
HEAVY = "import array; bulk = array.array('q', [n]) * 400_000; big = str(n) * 300_000; n"
LOOK = "(n, len(log), log[-1] if log else 0, alias is log, max(table.values(), default=0))"
_ANOTHER_KEEPER_SECONDS = 0.7


class Wrong(AssertionError):
    """What came back is not what it must be."""


@dataclass
class Crashes:
    """One project, and how often what was killed. `round` is one kill and one look."""

    root: Path
    durable: bool
    seed: int
    heavy: bool = False
    sandbox: str = "local"
    kills: Counter[str] = field(default_factory=Counter[str])
    lost: int = 0
    _answered: int = 0
    _server: subprocess.Popen[str] | None = None
    _before: object = None

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def begin(self) -> None:
        """Start with fresh variables."""
        self._start()
        self._ask(FIRST)

    def end(self) -> None:
        """End the server as its user would."""
        if self._server is not None:
            assert self._server.stdin is not None
            self._server.stdin.close()
            self._server.wait(60)
            self._close()

    def round(self, victim: str) -> None:
        """Run some cells, kill `victim` at a random moment, and look at what is there."""
        for _ in range(self._chance.randrange(4)):
            self._count()
        if self.heavy and self._chance.random() < 0.3:
            self._ask(HEAVY)
        in_flight = self._chance.random() < 0.6
        self._aim(victim)
        if in_flight:
            self._send(STEP)
        time.sleep(self._chance.choice((0, 0, 0.0003, 0.001, 0.003, 0.01, 0.05)) * self._chance.random())
        self._kill(victim)
        self.kills[victim] += 1
        answered_late = self._settle(victim) if in_flight else False
        self._look(victim, in_flight=in_flight, answered_late=answered_late)
        if victim == "keeper":
            time.sleep(_ANOTHER_KEEPER_SECONDS)  # with nobody to write, the next kill may cost a state

    # ---- the server

    def _start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "tests.crashes.server",
            str(self.root),
            "durable" if self.durable else "-",
            self.sandbox,
        ]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._server = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def _close(self) -> None:
        assert self._server is not None
        for end in (self._server.stdin, self._server.stdout):
            if end is not None:
                try:
                    end.close()
                except BrokenPipeError:
                    pass
        self._server = None

    def _send(self, code: str) -> None:
        assert self._server is not None
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(code) + "\n")
        self._server.stdin.flush()

    def _hear(self) -> dict[str, Any] | None:
        assert self._server is not None
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line.endswith("\n"):
            return None
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _ask(self, code: str) -> dict[str, Any]:
        self._send(code)
        answer = self._hear()
        if answer is None or answer["error"]:
            raise Wrong(f"{code!r} was answered {answer}, and before that {self._before}")
        return answer

    def _ask_again_if_killed(self, code: str) -> dict[str, Any]:
        """Ask; a guest that was killed a moment ago may take the first try along."""
        self._send(code)
        answer = self._hear()
        self._before = answer
        return answer if answer is not None and not answer["error"] else self._ask(code)

    def _count(self) -> None:
        answer = self._ask(STEP)
        self._answered += 1
        if answer["value"] != str(self._answered):
            raise Wrong(f"the count is {answer['value']} after {self._answered} answers")

    # ---- killing

    def _aim(self, victim: str) -> None:
        """Look ahead for what is to be killed, where that takes a while."""

    def _kill(self, victim: str) -> None:
        assert self._server is not None
        pid = self._server.pid if victim == "server" else self._find(victim)
        guest = self._find("guest") if victim in _MAY_COST else None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        while guest is not None and _runs(guest):
            time.sleep(0.0005)

    def _find(self, victim: str) -> int | None:
        """Return the newest process of that kind, told apart by how many process namespaces it is in."""
        assert self._server is not None
        below = _descendants(self._server.pid)
        if victim == "keeper":
            found = [pid for pid in below if b"rlm_sessions.keeping" in _command(pid)]
        else:
            found = [pid for pid in below if _kind(pid) == victim]
        return max(found, default=None)

    def _settle(self, victim: str) -> bool:
        """Hear what became of the cell that was at work; return whether it was answered as done."""
        answer = self._hear()
        if answer is None:
            return False
        if answer["error"]:
            if victim in ("zygote", "keeper"):
                raise Wrong(f"killing the {victim} cost a cell: {answer}")
            return False
        missing = self._answered + 1 - int(answer["value"])
        if 0 < missing <= self._most_lost() and self._may_lose(victim) and _says_so(answer):
            self.lost += (
                missing  # its guest was gone before it began, with the step before; it ran in another one
            )
            self._answered = int(answer["value"])
            return True
        self._answered += 1
        if answer["value"] != str(self._answered):
            raise Wrong(f"the count is {answer['value']} after {self._answered} answers: {answer}")
        return True

    def _may_lose(self, victim: str) -> bool:
        return victim in _MAY_COST and not self.durable

    def _most_lost(self) -> int:
        """Return how many steps a guest may take along: of states that take long to tell it may be two."""
        return 2 if self.heavy else 1

    # ---- looking

    def _look(self, victim: str, *, in_flight: bool, answered_late: bool) -> None:
        assert self._server is not None
        if victim == "server":
            self._server.wait()
            self._close()
            self._start()
        answer = self._ask_again_if_killed(LOOK) if victim in _MAY_COST else self._ask(LOOK)
        n, length, last, same, highest = json.loads(
            str(answer["value"])
            .replace("(", "[")
            .replace(")", "]")
            .replace("True", "1")
            .replace("False", "0")
        )
        if not n == length == last or not same or (n and highest != n):
            raise Wrong(f"the state is torn: {answer}")
        if victim == "server" and in_flight and not answered_late and n == self._answered + 1:
            # It was written down as answered in the very moment in which the server was killed.
            if self._last_recorded() != n:
                raise Wrong(f"the state is {n}, which was never answered: {answer}")
            self._answered = n
        if n == self._answered:
            return
        if not self._may_lose(victim) or n < self._answered - self._most_lost():
            raise Wrong(
                f"after killing the {victim} the state is {n}, and {self._answered} was answered: {answer}"
            )
        if not _says_so(answer):
            raise Wrong(f"a cell was lost and nothing says so: {answer}")
        self.lost += 1
        self._answered = n

    def _last_recorded(self) -> int:
        """Return the last count that the journal has as answered."""
        found = 0
        for path in sorted(self.root.glob("projects/crashes-*/journal/*.jsonl")):
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                if entry["kind"] == "ran" and str(entry.get("value", "")).isdigit():
                    found = int(entry["value"])
        return found


class DockerCrashes(Crashes):
    """The same with a session in a container. Which engine, the environment says."""

    _first: dict[str, int]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sandbox, self._first = "docker", {}

    def left(self) -> list[str]:
        """Return the containers that are there, running or not."""
        return _docker("ps", "-aq", "--filter", f"label=rlm-mcp.state={self.root}").split()

    def _aim(self, victim: str) -> None:
        if victim not in ("guest", "guard", "container"):
            return
        facts = [_docker("inspect", "-f", "{{.State.Pid}}", name) for name in self.left()]
        guards = [int(pid) for pid in facts if pid.isdigit() and int(pid)]
        self._first = {"guard": self._chance.choice(guards)} if guards else {}

    def _kill(self, victim: str) -> None:
        ordinary = os.getuid() != 0  # what is in the container belongs to another user then
        if victim == "container" or (victim == "guard" and ordinary):
            self._kill_container()
        elif victim == "guest" and ordinary:
            self._kill_from_within()
        else:
            super()._kill(victim)

    def _kill_container(self) -> None:
        """Have the engine kill it, which takes a while: no more than that it does is waited for."""
        for name in self._names():
            _docker("kill", name)

    def _kill_from_within(self) -> None:
        guest = self._find("guest")
        numbers = _numbers(guest) if guest is not None else []
        for name in self._names() if numbers else []:
            _docker("exec", name, "sh", "-c", f"kill -KILL {numbers[-1]}")
        end = time.monotonic() + _LAST_SECONDS
        while guest is not None and _runs(guest):
            assert time.monotonic() < end, "the guest could not be killed"
            time.sleep(0.0005)

    def _names(self) -> list[str]:
        """Return what the container is called in which the guest is, if it still runs."""
        guard = self._find("guard")
        words = Path(f"/proc/{guard}/cmdline").read_text().split("\0") if guard and _runs(guard) else []
        return [word for word in words if word.startswith("rlm-")]

    def _find(self, victim: str) -> int | None:
        if victim == "keeper":
            return super()._find(victim)
        guard = self._first.get("guard")
        return guard if victim == "guard" or guard is None else next(iter(_children(guard)), None)


def _docker(*words: str) -> str:
    ran = subprocess.run(
        ["docker", "--host", engine_of(os.environ).host, *words], capture_output=True, text=True, check=False
    )
    return ran.stdout.strip()


def _says_so(answer: dict[str, Any]) -> bool:
    return any("is lost" in note for note in answer["notes"])


def _children(pid: int) -> list[int]:
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except OSError:
        pass
    return found


def _descendants(pid: int) -> list[int]:
    children = _children(pid)
    return [*children, *(below for child in children for below in _descendants(child))]


def _numbers(pid: int) -> list[str]:
    """Return the numbers of a process, from our namespace to its own; none if it is gone."""
    try:
        return Path(f"/proc/{pid}/status").read_text().partition("NSpid:")[2].partition("\n")[0].split()
    except OSError:
        return []


def _kind(pid: int) -> str:
    numbers = _numbers(pid)[-3:]
    if len(numbers) == 3:
        return "guest" if numbers[2] == "1" else "copy"
    return "guard" if len(numbers) == 2 and numbers[1] == "1" else "zygote" if len(numbers) == 2 else ""


def _runs(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
