"""Uses the real server as many clients would and checks every answer; see `scripts/soak`."""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import anyio
import anyio.abc
import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

Era = Literal["legacy", "auto"]
ERAS: tuple[Era, ...] = ("legacy", "auto")
ROOT = Path(__file__).resolve().parents[1]
BIG_CHARACTERS = 5_000_000
MODERN = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": {"name": "soak", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
HANDSHAKE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "soak", "version": "1"},
}
GARBAGE = (
    b"hello\n",
    b"[]\n",
    b"\xff\xfe\0\n",
    b"\n\r\n",
    b"[" * 50_000 + b"\n",
    b'{"jsonrpc":"2.0","id":{}}\n',
)


class Wrong(Exception):
    """The server did what it must not do."""


@dataclass
class Record:
    """What happened."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    wrong: Counter[str] = field(default_factory=Counter[str])
    examples: dict[str, str] = field(default_factory=dict[str, str])

    def note(self, what: str, problem: str) -> None:
        """Keep what was wrong, and how it looked the first time."""
        kind = f"{what}: {re.sub('[0-9]+', '#', problem.strip().splitlines()[-1] if problem.strip() else '')[:90]}"
        self.wrong[kind] += 1
        self.examples.setdefault(kind, problem[:2000])


@dataclass(frozen=True)
class Answer:
    """What a tool answered."""

    text: str
    is_error: bool
    images: int


class Caller(Protocol):
    """A client, whatever way it goes."""

    async def call(self, tool: str, **arguments: Any) -> Answer: ...
    async def resource(self, uri: str) -> str: ...
    async def garbage(self, chance: random.Random) -> None:
        """Send what no server should get, and see that it is refused."""
        ...


# ---- clients


class Lines:
    """A client over stdio that writes what it likes."""

    def __init__(self, process: anyio.abc.Process, era: Era) -> None:
        self.process = process
        self._modern = era == "auto"
        self._ids = 0
        self._waiting: dict[int, tuple[anyio.Event, list[dict[str, Any]]]] = {}
        self._refused = 0
        self._heard = anyio.Event()

    async def listen(self) -> None:
        """Take what the server says, until it is gone."""
        assert self.process.stdout is not None
        begun = b""
        async for data in self.process.stdout:
            *lines, begun = (begun + data).split(b"\n") if b"\n" in data else ([begun + data])
            for line in lines:
                self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "method" in message:
            return
        if message["id"] is None:
            self._refused += 1
            self._heard.set()
        elif message["id"] in self._waiting:
            event, answers = self._waiting[message["id"]]
            answers.append(message)
            event.set()

    async def begin(self) -> None:
        """Do what the era asks for at first."""
        if not self._modern:
            await self.ask("initialize", **HANDSHAKE)
            await self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})

    async def send(self, message: dict[str, Any] | bytes) -> None:
        assert self.process.stdin is not None
        await self.process.stdin.send(
            message if isinstance(message, bytes) else json.dumps(message).encode() + b"\n"
        )

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._ids += 1
        number, meta = self._ids, {"_meta": MODERN} if self._modern else {}
        event, answers = self._waiting[number] = anyio.Event(), []
        try:
            await self.send({"jsonrpc": "2.0", "id": number, "method": method, "params": {**params, **meta}})
            await event.wait()
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                params = {"requestId": number, "reason": "soak"}
                await self.send({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params})
            raise
        finally:
            del self._waiting[number]
        if "error" in answers[0]:
            raise MCPError(**answers[0]["error"])
        result: dict[str, Any] = answers[0]["result"]
        return result

    async def call(self, tool: str, **arguments: Any) -> Answer:
        return _answer(await self.ask("tools/call", name=tool, arguments=arguments))

    async def resource(self, uri: str) -> str:
        contents = (await self.ask("resources/read", uri=uri))["contents"]
        return str(contents[0]["text"])

    async def garbage(self, chance: random.Random) -> None:
        line = chance.choice(GARBAGE)
        expected = self._refused + (1 if line.strip() else 0)
        await self.send(line)
        while self._refused < expected:
            self._heard = anyio.Event()
            await self._heard.wait()


class Web:
    """A client over HTTP."""

    def __init__(self, client: Client, url: str) -> None:
        self._client = client
        self._url = url

    async def call(self, tool: str, **arguments: Any) -> Answer:
        result = await self._client.call_tool(tool, arguments)
        return _answer(result.model_dump(by_alias=True, mode="json"))

    async def resource(self, uri: str) -> str:
        contents = (await self._client.read_resource(uri)).contents[0]
        assert isinstance(contents, types.TextResourceContents)
        return contents.text

    async def garbage(self, chance: random.Random) -> None:
        body = chance.choice(GARBAGE)
        async with httpx2.AsyncClient() as web:
            answer = await web.post(self._url, content=body, headers={"Authorization": "Bearer wrong"})
        if answer.status_code not in (401, 429):
            raise Wrong(f"a wrong token was answered with {answer.status_code}")


def _answer(result: dict[str, Any]) -> Answer:
    texts = [each["text"] for each in result["content"] if each["type"] == "text"]
    images = sum(each["type"] == "image" for each in result["content"])
    return Answer("\n".join(texts), bool(result.get("isError")), images)


# ---- what a client does


class Player:
    """A client with a project of its own, and what must be true of its variables."""

    def __init__(self, caller: Caller, project: Path, record: Record, chance: random.Random) -> None:
        self._caller = caller
        self._project = str(project)
        self._record = record
        self._chance = chance
        self._count = 0
        self.acts: list[Callable[[], Awaitable[None]]] = [
            self.count,
            self.print_much,
            self.fail,
            self.loop_forever,
            self.give_up,
            self.load_a_file,
            self.look,
            self.read_resources,
            self.send_garbage,
            self.misspell,
            self.forget,
            *([self.draw] if find_spec("matplotlib") else []),
        ]

    async def play(self, act: Callable[[], Awaitable[None]]) -> None:
        """Do one thing, and write down how long it took or what was wrong."""
        name, began = act.__name__, time.perf_counter()
        try:
            with anyio.fail_after(60):
                await act()
        except Exception as problem:  # noqa: BLE001 -- whatever it is, it is what is looked for
            self._record.note(name, f"{type(problem).__name__}: {problem}")
        self._record.seconds[name].append(time.perf_counter() - began)

    async def _run(self, code: str, **more: Any) -> Answer:
        return await self._caller.call("execute_python", code=code, project=self._project, **more)

    async def count(self) -> None:
        self._count += 1
        code = "try:\n    count += 1\nexcept NameError:\n    count = 1\nprint('count is', count)"
        _expect(await self._run(code), f"count is {self._count}\n")

    async def print_much(self) -> None:
        size = self._chance.choice([10, 10_000, 300_000])
        answer = await self._run(f"print('begin', 'x' * {size}, 'end')")
        _expect(answer, "begin", "x end", *(["rlm://outputs/"] if size > 100_000 else []))

    async def fail(self) -> None:
        answer = await self._run("print('before')\nraise ValueError('on purpose')")
        _expect(answer, "before", "ValueError: on purpose", error=True)

    async def loop_forever(self) -> None:
        answer = await self._run("print('begun')\nwhile True:\n    pass", timeout_s=0.3)
        _expect(answer, "begun", "timeout_s", error=True)

    async def give_up(self) -> None:
        with anyio.move_on_after(self._chance.choice([0.01, 0.1, 0.5])):
            await self._run("import time\ntime.sleep(50)")
        await self.count()

    async def load_a_file(self) -> None:
        await self._caller.call("set_repl_context", files={"big": "big.txt"}, project=self._project)
        _expect(await self._run("print(len(big), big[-4:])\ndel big"), f"{BIG_CHARACTERS} last")

    async def draw(self) -> None:
        code = "import matplotlib.pyplot as plt\nplt.plot([1, 4, 2])\nplt.show()"
        answer = await self._run(code)
        if answer.images != 1:
            raise Wrong(f"{answer.images} images: {answer.text}")

    async def look(self) -> None:
        await self.count()
        answer = await self._caller.call("get_repl_context", names=["count"], project=self._project)
        _expect(answer, f"count = {self._count}")

    async def read_resources(self) -> None:
        listed = await self._caller.resource("rlm://sessions")
        if Path(self._project).name not in listed:
            raise Wrong(f"the session is not listed: {listed}")

    async def send_garbage(self) -> None:
        await self._caller.garbage(self._chance)
        await self.count()

    async def misspell(self) -> None:
        answer = await self._caller.call("execute_python", kode="1", project=self._project)
        _expect(answer, "code", error=True)
        try:
            await self._caller.call("no_such_tool")
        except MCPError as error:
            if error.code == types.INVALID_PARAMS:
                return
        raise Wrong("a tool that does not exist was not refused")

    async def forget(self) -> None:
        await self._caller.call("clear_repl_context", project=self._project)
        self._count = 0
        await self.count()


def _expect(answer: Answer, *parts: str, error: bool = False) -> None:
    missing = [each for each in parts if each not in f"{answer.text}\n"]
    if missing or answer.is_error != error:
        raise Wrong(f"answer without {missing}, is_error={answer.is_error}: {answer.text[:500]}")


# ---- servers


@dataclass(frozen=True)
class Ground:
    """Where everything happens."""

    folder: Path
    token: str

    @property
    def environment(self) -> dict[str, str]:
        """What servers are started with."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith("RLM_")}
        paths = (ROOT, ROOT / "sandboxes", ROOT / "sessions")
        return ours | {
            "CLAUDE_PROJECT_DIR": str(self.folder / "projects"),
            "PYTHONPATH": os.pathsep.join(map(str, paths)),
            "RLM_CONFIG_DIR": str(self.folder / "config"),
            "RLM_SESSIONS_STATE_DIR": str(self.folder / "state"),
            "RLM_HTTP_TOKEN": self.token,
            "RLM_HTTP_PORT": "0",
            "RLM_HTTP_REQUESTS_PER_MINUTE": "1000000",
        }

    def project(self, name: str) -> Path:
        """Return the folder of a project, with a large file in it."""
        folder = self.folder / "projects" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "big.txt").write_text("x" * (BIG_CHARACTERS - 4) + "last")
        return folder


@asynccontextmanager
async def lines(ground: Ground, era: Era, errors: IO[bytes]) -> AsyncGenerator[Lines]:
    """Start a server over stdio, and be its client."""
    command = [sys.executable, "-m", "rlm_mcp", "serve"]
    process = await anyio.open_process(
        command, env=ground.environment, cwd=ground.folder / "projects", stderr=errors
    )
    async with process, anyio.create_task_group() as tasks:
        client = Lines(process, era)
        tasks.start_soon(client.listen)
        with anyio.fail_after(30):
            await client.begin()
        yield client
        assert process.stdin is not None
        await process.stdin.aclose()
        await _gone(process, 0)
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def web_server(ground: Ground, errors: IO[bytes]) -> AsyncGenerator[tuple[int, str]]:
    """Start a server over HTTP; the pair is its process and its address."""
    command = [sys.executable, "-m", "rlm_mcp", "serve", "--transport", "http"]
    log = ground.folder / "http.log"
    with log.open("wb") as stderr:
        process = await anyio.open_process(
            command,
            env=ground.environment,
            cwd=ground.folder / "projects",
            stdin=subprocess.DEVNULL,
            stderr=stderr,
        )
    async with process:
        with anyio.fail_after(30):
            while (found := re.search(r"http://\S+/mcp", log.read_text())) is None:  # noqa: ASYNC110
                await anyio.sleep(0.05)
        yield process.pid, found[0]
        process.terminate()
        await _gone(process, 128 + signal.SIGTERM)
    errors.write(b"".join(line for line in log.read_bytes().splitlines(True) if b"Traceback" in line))


async def _gone(process: anyio.abc.Process, *codes: int) -> None:
    with anyio.move_on_after(20):
        await process.wait()
    if process.returncode not in codes:
        raise Wrong(f"a server ended with {process.returncode} and not {codes}")


@asynccontextmanager
async def web(url: str, token: str, era: Era) -> AsyncGenerator[Web]:
    """Be a client of a server over HTTP."""
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=era) as client,
    ):
        yield Web(client, url)


async def visit(
    ground: Ground, record: Record, chance: random.Random, errors: IO[bytes], until: float
) -> None:
    """Come and go, each time to a new server that ends in another way; what was kept must be there again."""
    project, kept = ground.project("visited"), 0
    while time.monotonic() < until:
        began = time.perf_counter()
        try:
            with anyio.fail_after(60):
                kept = await _one_visit(ground, record, chance, errors, project, kept)
        except Exception as problem:  # noqa: BLE001 -- as above
            record.note("visit", f"{type(problem).__name__}: {problem}")
        record.seconds["visit"].append(time.perf_counter() - began)


async def _one_visit(
    ground: Ground, record: Record, chance: random.Random, errors: IO[bytes], project: Path, kept: int
) -> int:
    began = time.perf_counter()

    def part(name: str) -> None:
        nonlocal began
        record.seconds[f"- {name}"].append(time.perf_counter() - began)
        began = time.perf_counter()

    how = chance.choice([None, signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
    process = await anyio.open_process(
        [sys.executable, "-m", "rlm_mcp", "serve"], env=ground.environment, cwd=project, stderr=errors
    )
    async with process, anyio.create_task_group() as tasks:
        client = Lines(process, chance.choice(ERAS))
        tasks.start_soon(client.listen)
        await client.begin()
        await client.ask("tools/list")
        part("start")
        code = f"print('kept', globals().get('kept', 0))\nkept = {kept + 1}"
        answer = await client.call("execute_python", code=code, project=str(project))
        part("first cell")
        _expect(answer, f"kept {kept}\n")
        assert process.stdin is not None
        if how is None:
            await process.stdin.aclose()
        else:
            process.send_signal(how)
        await _gone(process, 0 if how is None else -how if how is signal.SIGKILL else 128 + how)
        part("end")
        tasks.cancel_scope.cancel()
    return kept + 1


# ---- what servers use


@dataclass(frozen=True)
class Use:
    """What a server and what it started use."""

    rss_bytes: int
    descriptors: int
    threads: int
    processes: int

    @staticmethod
    def of(pid: int) -> Use:
        """Measure it; the processes are all below it."""
        status = Path(f"/proc/{pid}/status").read_text()
        rss, threads = (int(status.partition(f"{name}:")[2].split()[0]) for name in ("VmRSS", "Threads"))
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
        return Use(rss * 1024, descriptors, threads, len(descendants(pid)))

    def leaks_to(self, later: Use) -> list[str]:
        """Return what has grown more than it may."""
        leaks = {
            "memory": later.rss_bytes > self.rss_bytes * 1.3 + 64 * 1024 * 1024,
            "descriptors": later.descriptors > self.descriptors + 16,
            "threads": later.threads > self.threads + 8,
            "processes": later.processes > self.processes + 2,
        }
        return [name for name, grown in leaks.items() if grown]


def descendants(pid: int) -> list[int]:
    """Return all processes below one."""
    children = defaultdict[int, list[int]](list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            facts = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if facts[0] != "Z":
            children[int(facts[1])].append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children[each]
    return found[1:]


def adopt_orphans() -> None:
    """Become the parent of whoever a server leaves behind."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER


async def left_behind() -> list[str]:
    """Return the commands of processes that are still there some time after all servers ended."""
    until = time.monotonic() + 15
    while (pids := descendants(os.getpid())) and time.monotonic() < until:  # noqa: ASYNC110
        await anyio.sleep(0.1)
    return [_command(pid) for pid in pids]


def _command(pid: int) -> str:
    return f"{pid} {Path(f'/proc/{pid}/cmdline').read_text().replace(chr(0), ' ')[:120]}"


# ---- all of it


@dataclass
class Soak:
    """One run."""

    ground: Ground
    seconds: float
    seed: int
    clients: int
    record: Record = field(default_factory=Record)
    uses: dict[str, list[Use]] = field(default_factory=dict[str, list[Use]])

    async def run(self) -> list[str]:
        """Let everybody play, and return what was left behind."""
        adopt_orphans()
        with (self.ground.folder / "stderr").open("wb") as errors:
            async with web_server(self.ground, errors) as (pid, url):
                half = max(1, self.clients // 2)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._web_clients, pid, url, half)
                    for number in range(self.clients - half):
                        tasks.start_soon(self._stdio_client, number, errors)
                    until = time.monotonic() + self.seconds
                    chance = random.Random(self.seed)
                    tasks.start_soon(visit, self.ground, self.record, chance, errors, until)
            return await left_behind()

    async def _web_clients(self, pid: int, url: str, count: int) -> None:
        """Let clients over HTTP play, which all have the same server."""
        ready = [anyio.Event() for _ in range(count)]
        go, until = anyio.Event(), time.monotonic() + self.seconds
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(self._web_client, number, url, ready[number], go, until)
            for each in ready:
                await each.wait()
            self._measure("http", pid)
            go.set()
        await anyio.sleep(1)
        self._measure("http", pid)

    async def _web_client(
        self, number: int, url: str, ready: anyio.Event, go: anyio.Event, until: float
    ) -> None:
        chance, project = random.Random(self.seed * 1000 + number), self.ground.project(f"web-{number}")
        async with web(url, self.ground.token, ERAS[number % 2]) as caller:
            player = Player(caller, project, self.record, chance)
            await _warm(player)
            ready.set()
            await go.wait()
            await _play(player, chance, min(until, time.monotonic() + self.seconds / 2))
        while time.monotonic() < until:  # and from here on it reconnects again and again
            async with web(url, self.ground.token, chance.choice(ERAS)) as caller:
                player = Player(caller, project, self.record, chance)
                await player.play(player.forget)
                await _play(player, chance, min(until, time.monotonic() + 5))

    async def _stdio_client(self, number: int, errors: IO[bytes]) -> None:
        name, until = f"stdio-{number}", time.monotonic() + self.seconds
        chance = random.Random(self.seed * 2000 + number)
        async with lines(self.ground, ERAS[number % 2], errors) as caller:
            player = Player(caller, self.ground.project(name), self.record, chance)
            await _warm(player)
            self._measure(name, caller.process.pid)
            await _play(player, chance, until)
            await anyio.sleep(1)
            self._measure(name, caller.process.pid)

    def _measure(self, name: str, pid: int) -> None:
        self.uses.setdefault(name, []).append(Use.of(pid))


async def _warm(player: Player) -> None:
    for act in player.acts * 2:
        await player.play(act)


async def _play(player: Player, chance: random.Random, until: float) -> None:
    while time.monotonic() < until:
        await player.play(chance.choice(player.acts))


def report(soak: Soak, left: Sequence[str]) -> bool:
    """Print what happened, and return whether all was well."""
    record, total = soak.record, sum(map(len, soak.record.seconds.values()))
    print(f"\n{'call':<16}{'times':>8}{'p50 ms':>10}{'p95 ms':>10}")
    for name, values in sorted(record.seconds.items()):
        p95 = statistics.quantiles(values, n=20)[-1] if len(values) > 1 else values[0]
        print(f"{name:<16}{len(values):>8}{statistics.median(values) * 1e3:>10.1f}{p95 * 1e3:>10.1f}")
    print(f"\n{'server':<10}{'RSS MiB':>16}{'descriptors':>16}{'threads':>12}{'processes':>12}")
    leaks = [line for name, (first, last) in soak.uses.items() for line in _used(name, first, last)]
    for kind, times in record.wrong.most_common():
        print(f"\nWRONG {times} times: {kind}\n{record.examples[kind]}")
    for each in [*(f"LEAK: {leak}" for leak in leaks), *(f"LEFT BEHIND: {each}" for each in left)]:
        print(each)
    wrong = sum(record.wrong.values())
    print(
        f"\n{total} calls, {wrong} wrong, {len(leaks)} leaks, {len(left)} processes left behind (seed {soak.seed})"
    )
    return not (wrong or leaks or left)


def _used(name: str, first: Use, last: Use) -> list[str]:
    rss = f"{first.rss_bytes / 2**20:.0f} -> {last.rss_bytes / 2**20:.0f}"
    pairs = (
        f"{getattr(first, each)} -> {getattr(last, each)}" for each in ("descriptors", "threads", "processes")
    )
    descriptors, threads, processes = pairs
    print(f"{name:<10}{rss:>16}{descriptors:>16}{threads:>12}{processes:>12}")
    return [f"{name}: {what}" for what in first.leaks_to(last)]


def main() -> int:
    """Run what the command line asks for; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long (default: 60)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed makes the same choices")
    parser.add_argument("--clients", type=int, default=4, help="how many clients at once (default: 4)")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rlm-soak-") as folder:
        ground = Ground(Path(folder).resolve(), secrets.token_urlsafe(32))
        (ground.folder / "projects").mkdir()
        soak = Soak(ground, asked.seconds, asked.seed, asked.clients)
        left = anyio.run(soak.run)
        well = report(soak, left)
        said = (ground.folder / "stderr").read_text(errors="replace")
        if "Traceback" in said:
            print(f"A server said:\n{said[-4000:]}")
            well = False
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
