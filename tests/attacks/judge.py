"""Carrying out an attack, and telling by its effects whether it was held."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

import anyio

from rlm_sandboxes import Limits, Sandbox
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Answer, CellResult, Policy, Session, SessionEnded, VariableError, open_session

from .attack import Attack, Effect
from .ground import Ground

Breaches: TypeAlias = dict[Effect, str]

HELD_UP_SECONDS = 0.75
GROWN_BYTES = 500 * 2**20
_SLACK_SECONDS = 4.0
_NEVER_SECONDS = 1.5  # longer than a cell may take
_GOES_ON_SECONDS = 0.15
_FORMS = ("text", "bytes", "json", "repr")


@dataclass
class Stage:
    """A sandbox to attack from, a session in it that must come to no harm, and what lies outside.

    Attacks may be carried out on several stages `at_once`. Nobody can tell then whose descriptors and processes
    there are more of, and what is left of all has to be looked for in the end.
    """

    run: str
    sandbox: Sandbox
    policy: Policy
    ground: Ground
    neighbour: Session
    at_once: int = 1

    async def carry_out(self, attack: Attack) -> Breaches:
        """Run an attack and return every effect it had."""
        breaches: Breaches = {}
        proof = secrets.token_hex(8)
        before = Belongings()
        held_up = _HeldUp()
        told = _Told()
        with anyio.move_on_after(_bound(attack, self.at_once)) as deadline:
            async with held_up.watch():
                await self._run(attack, proof, told, breaches)
        if deadline.cancelled_caught:
            breaches["host"] = "it did not end in time"
        self._judge_texts(attack, told, proof, breaches)
        await self._judge_outside(attack, before, held_up, breaches)
        return breaches

    # ---- running

    async def _run(self, attack: Attack, proof: str, told: _Told, breaches: Breaches) -> None:
        project = self.ground.project if attack.project else None
        try:
            async with open_session(
                self.sandbox,
                project=project,
                limits=_limits(attack, self.at_once),
                policy=self.policy,
                answer=_answerer(),
            ) as session:
                await session.set("at", {**self.ground.targets(), "proof": proof})
                await session.set("kept", "kept")
                await self._run_cells(session, attack, told)
                await self._look_back(session, attack, told, breaches)
        except Exception as problem:  # nothing but what a session says on purpose may come out of it
            breaches["host"] = f"{type(problem).__name__} was raised: {problem}, {_parts(problem)}"

    async def _run_cells(self, session: Session, attack: Attack, told: _Told) -> None:
        try:
            for cell in attack.cells:
                told.take(await session.run(cell))
        except SessionEnded as ended:
            told.end(ended)

    async def _look_back(self, session: Session, attack: Attack, told: _Told, breaches: Breaches) -> None:
        """Look at what the attack left in its session, as a host would."""
        try:
            if attack.rest_seconds:
                await anyio.sleep(attack.rest_seconds)
                await self._judge_going_on(breaches)
            told.texts += await _variables(session)
            await _take_loot(session, told)
            if attack.costs != "session":
                kept = await session.run("kept")
                told.lost = told.lost or kept.value != "'kept'"
        except SessionEnded as ended:
            told.end(ended)

    # ---- judging

    def _judge_texts(self, attack: Attack, told: _Told, proof: str, breaches: Breaches) -> None:
        text = "\n".join(told.texts)
        words = self.ground.words
        secret = [words.secret, words.private, words.named, words.environment, words.process, words.memory]
        if attack.project == "none":
            secret.append(words.project)
        if any(word in text for word in secret):
            breaches["secret"] = "a word came back"
        if proof in text:
            breaches["claimed"] = "the code proved it"
        if told.odd:
            breaches["host"] = told.odd
        if told.lost and attack.costs != "session":
            breaches["session"] = f"the session was lost: {text[-300:]}"
        elif attack.costs == "nothing" and self.policy == "off" and told.errors:
            breaches["session"] = f"the cell was lost: {told.errors}"

    async def _judge_outside(
        self, attack: Attack, before: Belongings, held_up: _HeldUp, breaches: Breaches
    ) -> None:
        await self._judge_going_on(breaches)
        found: Breaches = {
            "signalled": self.ground.signalled(),
            "reached": self.ground.reached(),
            "written": self.ground.written(project_may_change=attack.project == "write"),
            "neighbour": await self._harm_to_neighbour(),
            "host": held_up.complaint(self.at_once) or (before.complaint() if self.at_once == 1 else ""),
            "left": before.left() if self.at_once == 1 else "",
        }
        for effect, detail in found.items():
            if detail:
                breaches.setdefault(effect, detail)

    async def _judge_going_on(self, breaches: Breaches) -> None:
        beat = self.ground.beat()
        if not beat:
            return
        await anyio.sleep(_GOES_ON_SECONDS)
        while (again := self.ground.beat()) != beat:
            breaches["left"] = "it goes on"
            beat = again
            await anyio.sleep(_GOES_ON_SECONDS)

    async def _harm_to_neighbour(self) -> str:
        try:
            with anyio.fail_after(5):
                said = await self.neighbour.run("neighbour")
        except (SessionEnded, TimeoutError) as problem:
            return f"the neighbour does not answer: {problem!r}"
        return "" if said.value == "'well'" else f"the neighbour answers otherwise: {said}"


def _parts(problem: BaseException) -> list[str]:
    """Return what a group of exceptions consists of."""
    if isinstance(problem, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", problem)
        return [part for inner in group.exceptions for part in (repr(inner), *_parts(inner))]
    return []


@asynccontextmanager
async def open_stage(
    run: str,
    layers: frozenset[str],
    policy: Policy,
    ground: Ground,
    *,
    kinds: tuple[Limits, ...] = (Limits(),),
) -> AsyncGenerator[Stage, None]:
    """Open a sandbox with these layers and the neighbour; `kinds` are limits for which to get ready beforehand."""
    async with LocalSandbox(layers=layers) as sandbox, open_session(sandbox, policy="off") as neighbour:
        for kind in kinds:
            async with open_session(sandbox, limits=kind, policy="off"):
                pass
        await neighbour.run("neighbour = 'well'")
        yield Stage(run, sandbox, policy, ground, neighbour)


@dataclass
class _Told:
    """What came back from a session."""

    texts: list[str] = field(default_factory=list[str])
    errors: list[str] = field(default_factory=list[str])
    lost: bool = False
    odd: str = ""

    def take(self, result: CellResult) -> None:
        texts = [result.output, result.value or "", result.exit_code or "", *result.changed, *result.removed]
        if result.error is not None:
            self.errors.append(str(result.error))
            texts += [result.error.name, result.error.message, result.error.traceback]
        for text in texts:
            self._add(text)
        for shown in result.displays:
            self.texts.append(shown.data.decode("utf-8", "backslashreplace"))
        self.lost = self.lost or result.lost

    def end(self, ended: SessionEnded) -> None:
        self.lost = True
        self._add(str(ended))

    def _add(self, text: str) -> None:
        try:
            text.encode()
        except UnicodeEncodeError:
            self.odd = "a text came back that nothing can be done with"
        self.texts.append(text)


async def _variables(session: Session) -> list[str]:
    try:
        return [str(variable) for variable in await session.variables()]
    except VariableError as problem:
        return [str(problem)]


async def _take_loot(session: Session, told: _Told) -> None:
    try:
        loot = await session.get("loot", max_bytes=1_000_000)
    except VariableError as problem:
        told.texts.append(str(problem))
        return
    told.texts.append(loot.body.decode("utf-8", "backslashreplace"))
    if loot.form not in _FORMS:
        told.odd = f"a value of the form {loot.form!r} came back"
    elif len(loot.body) > 1_000_000:
        told.odd = f"{len(loot.body)} bytes came back where fewer were asked for"
    elif loot.form == "json":
        json.loads(loot.body)


class _HeldUp:
    """Watches how long the host's event loop is kept from its work, and how its memory grows."""

    def __init__(self) -> None:
        self._longest = 0.0
        self._first = self._most = _memory()

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[None, None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._watch)
            try:
                yield
            finally:
                tasks.cancel_scope.cancel()

    async def _watch(self) -> None:
        while True:
            began = time.monotonic()
            try:
                await anyio.sleep(0.01)
            finally:
                self._longest = max(self._longest, time.monotonic() - began - 0.01)
                self._most = max(self._most, _memory())

    def complaint(self, attacks: int) -> str:
        """Return what the host came to, through so many attacks at once, that it may not."""
        if self._longest > HELD_UP_SECONDS * attacks:
            return f"the host was held up for {self._longest:.2f} seconds"
        grown = self._most - self._first
        return f"the host grew by {grown / 2**20:.0f} MiB" if grown > GROWN_BYTES * attacks else ""


class Belongings:
    """What the host has: descriptors, processes, folders. Afterwards there must not be more."""

    def __init__(self) -> None:
        self._descriptors = _descriptors()
        self._processes = _descendants()
        self._folders = _scratch_folders()

    def complaint(self, *, most: int = 0) -> str:
        more = _descriptors() - self._descriptors
        return f"{more} descriptors were left open" if more > most else ""

    def left(self) -> str:
        processes = _descendants() - self._processes
        folders = _scratch_folders() - self._folders
        return f"processes {processes} and folders {folders} were left" if processes or folders else ""


def _memory() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def _scratch_folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob("rlm-scratch-*"))


def _descendants() -> set[int]:
    """Return the processes below this one."""
    found: set[int] = set()
    waiting = [os.getpid()]
    while waiting:
        for path in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            try:
                children = {int(word) for word in path.read_text().split()}
            except OSError:
                continue
            waiting += children - found
            found |= children
    return found


def _limits(attack: Attack, at_once: int) -> Limits:
    grace = 0.3 if at_once == 1 else 2 * at_once
    asked: dict[str, Any] = {"wall_seconds": 1, "grace_seconds": grace, **attack.limits}
    if attack.project:
        asked["files"] = attack.project
    return Limits(**asked)


def _bound(attack: Attack, at_once: int) -> float:
    limits = _limits(attack, at_once)
    steps = len(attack.cells) + 2
    return (
        (limits.wall_seconds + limits.grace_seconds) * steps + attack.rest_seconds + _SLACK_SECONDS * at_once
    )


def _answerer() -> Answer:
    """Return what answers the calls of one session. The clock of a cell stands still for it, so it has one itself."""
    asked_at = list[float]()

    async def answer(name: str, payload: Any) -> Any:
        if name == "never":
            asked_at.append(anyio.current_time())
            await anyio.sleep_until(asked_at[0] + _NEVER_SECONDS)
            raise TimeoutError("nobody answered")
        if name == "large":
            return "x" * 20_000_000
        if name == "echo":
            return payload
        raise ValueError(f"nobody knows {name}")

    return answer
