"""The session of a project is always there, and says what became of it meanwhile."""

from __future__ import annotations

import gc
import hashlib
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import (
    AllBusy,
    Care,
    FilesNotFound,
    Household,
    OutputNotFound,
    Policy,
    Project,
    ProjectError,
    ProjectSession,
    SessionError,
    VariableNotFound,
    identify,
)
from tests.sessions.homes import (
    KILLED,
    LIMITS,
    NOTES,
    OPEN,
    OTHER,
    Home,
    at_work,
    notes_of,
    settled,
    value,
    well,
)

RICH = """
import dataclasses, numpy as np
factor = 3
def scaled(x): return factor * x
@dataclasses.dataclass
class Point:
    x: int
    def double(self): return Point(scaled(self.x))
one = two = []
holder = {"list": one}
def counter():
    count = 0
    def up():
        nonlocal count
        count += 1
        return count
    return up
up = counter(); up()
table = np.arange(200_000.0).reshape(2, -1)
view = table[0]
point = Point(5)
"""
CHECKED = """
one.append("shared"); factor = 10; table[0, 1] = 99
(two, holder["list"] is one, scaled(2), point.double().x, isinstance(point, Point), up(), view[1] == table[0, 1], table.shape)
"""
AS_EXPECTED = "(['shared'], True, 20, 50, True, 2, np.True_, (2, 100000))"
ENDS = {
    "os._exit": KILLED,
    "os.abort": "import os; os.abort()",
    "a crash in C": "import ctypes; ctypes.string_at(0)",
    "a cell that does not stop": "sum(range(10**13))",
}


@pytest.fixture
def home(sandbox: LocalSandbox, tmp_path: Path) -> Home:
    return Home(sandbox, tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.fixture
def project(folder: Path) -> Project:
    """A project with a folder of files, as most are."""
    return identify(named=str(folder))


# ---- coming back


async def test_after_sleep_everything_is_as_it_was(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await value(session, RICH)
            asleep = await session.sleep()
            state = session.info().state
            shown = await value(session, CHECKED)

    assert asleep and state == "asleep"
    assert shown == AS_EXPECTED


async def test_after_a_restart_everything_is_as_it_was_and_says_so(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await value(session, RICH)
        async with home.session() as session:
            result = await session.run(CHECKED)
            again = await session.run("1")

    assert result.value == AS_EXPECTED
    assert "is back from disk with its state after step 1" in notes_of(result)
    assert again.notes == ()


async def test_steps_are_counted_on_after_a_restart(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("1")
            await session.set("x", 1)
        async with home.session() as session:
            result = await session.run("x")

    assert result.cell == 3


async def test_what_could_not_be_kept_is_named_with_its_reason_once(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("kept = 1; words = (word for word in 'abc')")
            await session.sleep()
            back = await session.run("kept")
            again = await session.run("'words' in globals()")
            await session.sleep()
            later = await session.run("kept")

    assert "words (generator)" in notes_of(back) and "under way" in notes_of(back)
    assert (back.value, again.value) == ("1", "False")
    assert again.notes == later.notes == ()


async def test_what_could_not_be_kept_a_second_time_is_named_a_second_time(home: Home) -> None:
    told: list[str] = []
    with anyio.fail_after(30):
        async with home.session() as session:
            for _ in range(3):
                await session.run("words = (word for word in 'abc')")
                await session.sleep()
                told.append(notes_of(await session.run("1")))

    assert ["words (generator)" in each for each in told] == [True, True, True]


async def test_a_project_that_nobody_used_says_nothing(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            first = await session.run("1 + 1")

    assert (first.value, first.cell, first.notes) == ("2", 1, ())


async def test_a_link_in_the_place_of_a_project_is_not_followed(home: Home, tmp_path: Path) -> None:
    folder, other = tmp_path / "above" / "project", tmp_path / "other"
    folder.mkdir(parents=True)
    other.mkdir()
    project = await anyio.to_thread.run_sync(lambda: identify(named=str(folder)))

    async with home.session(project) as session:
        well(await session.run("x = 1"))
        await session.run(KILLED)
        folder.rename(tmp_path / "moved")
        folder.symlink_to(other)
        with pytest.raises(ProjectError, match="a link has taken the place"):
            await session.run("import os; os.listdir()")
        folder.unlink()
        (tmp_path / "moved").rename(folder)
        assert await value(session, "x") == "1"


async def test_two_projects_have_nothing_in_common(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            one, other = await manager.session(NOTES), await manager.session(OTHER)
            await one.run("x = 'one'")
            seen = await value(other, "'x' in globals()")
            same = await manager.session(identify(named="Notes"))

    assert seen == "False"
    assert same is one


# ---- killed guests


@pytest.mark.parametrize("how", ENDS)
async def test_after_a_killed_guest_the_state_before_that_cell_is_there(home: Home, how: str) -> None:
    care = Care(limits=Limits(wall_seconds=1, grace_seconds=0.2), policy="off")
    with anyio.fail_after(30):
        async with home.session(care=care) as session:
            await session.run("x = [1]")
            killed = await session.run(f"x.append('half done')\n{ENDS[how]}")
            after = await session.run("x")
            later = await session.run("x")

    assert killed.error is not None and killed.error.name == "CellKilled"
    assert "comes back with the next one" in killed.error.message
    assert "variables are lost" not in killed.error.message
    assert after.value == "[1]" and "is back with its state after step 1" in notes_of(after)
    assert later.notes == ()


async def test_a_memory_bomb_costs_at_most_its_own_cell(home: Home) -> None:
    care = Care(limits=Limits(wall_seconds=20, memory_bytes=256 * 1024**2), policy="off")
    bomb = "x.append(2)\nhoard = []\nwhile True: hoard.append(bytearray(10_000_000))"
    with anyio.fail_after(30):
        async with home.session(care=care) as session:
            await session.run("x = [1]")
            bombed = await session.run(bomb)
            after = await session.run("x")

    assert bombed.error is not None
    assert after.error is None and after.value == ("[1]" if bombed.lost else "[1, 2]")


async def test_a_killed_guest_is_counted_and_the_next_cell_has_the_next_number(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            killed = await session.run(KILLED)
            after = await session.run("x")

    assert (killed.cell, after.cell) == (2, 3)


async def test_a_guest_that_dies_between_two_steps_costs_nothing(home: Home) -> None:
    later = "import os, threading; kept = 1; threading.Timer(0.05, os._exit, [3]).start()"
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run(later)
            await settled(session)
            while (await session.usage()) is not None:
                await anyio.sleep(0.01)
            result = await session.run("kept")

    assert result.value == "1", result.error
    assert "The session ended and is back" in notes_of(result)


async def test_a_cell_that_raises_keeps_what_it_did_before(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            raised = await session.run("x = 1\nraise ValueError('later lines never ran')\nx = 2")
            await session.sleep()
            shown = await value(session, "x")

    assert raised.error is not None and raised.error.name == "ValueError"
    assert shown == "1"


async def test_a_cell_that_its_caller_gave_up_keeps_what_it_did_before(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            with anyio.move_on_after(0.5):
                await session.run("x = 2\nwhile True: pass")
            in_memory = [variable.preview for variable in await session.variables()]
            await session.sleep()
            result = await session.run("x")

    assert in_memory == ["2"]
    assert result.value == "2", result.notes


# ---- variables from outside


async def test_what_is_set_loaded_and_deleted_is_kept_like_what_cells_do(
    home: Home, project: Project, folder: Path
) -> None:
    (folder / "a.txt").write_text("from a file")
    with anyio.fail_after(30):
        async with home.session(project) as session:
            await session.set("given", {"some": [1, None, "ü"]})
            await session.set("gone", b"bytes")
            length = await session.load("text", folder / "a.txt")
            await session.delete("gone")
        async with home.session(project) as session:
            shown = await value(session, "given, text, 'gone' in globals()")
            kinds = [entry["kind"] for entry in home.journal(project)]

    assert length.length == len("from a file")
    assert shown == "({'some': [1, None, 'ü']}, 'from a file', False)"
    assert kinds[:4] == ["set", "set", "load", "delete"]


async def test_several_files_become_one_context_with_parts_that_can_grow(
    home: Home, project: Project, folder: Path
) -> None:
    (folder / "deep").mkdir()
    files = [folder / "a.txt", folder / "deep" / "b.txt", folder / "c.txt"]
    for path in files:
        path.write_text(f"in {path.name}")
    with anyio.fail_after(30):
        async with home.session(project) as session:
            length = await session.load("context", files[:2])
            longer = await session.load("context", files[2:], append=True)
            await session.sleep()
            shown = await value(session, "context")

    assert (length.length, longer.length) == (16, 24)
    assert shown == "{'a.txt': 'in a.txt', 'deep/b.txt': 'in b.txt', 'c.txt': 'in c.txt'}"


async def test_who_gives_up_while_a_session_wakes_leaves_it_as_it_was(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            await session.run("x = [1]; text = 'abc' * 3_000_000")
            for milliseconds in (0, 1, 2, 4, 6, 8, 10, 12, 15, 20, 30):
                assert await session.sleep()
                with anyio.move_on_after(milliseconds / 1000):
                    await session.run("x.append(2); x.pop()")
                assert await value(session, "x, len(text)") == "([1], 9000000)"


async def test_who_gives_up_at_any_moment_of_a_cell_costs_nothing(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            await session.run("n = 0")
            for tenths in range(0, 30, 2):
                before = await value(session, "n")
                with anyio.move_on_after(tenths / 10_000):
                    await session.run("n += 1")
                after = await value(session, "n")
                await session.sleep()
                assert await value(session, "n") == after
                assert int(after or 0) - int(before or 0) in (0, 1)


async def test_a_pattern_means_the_files_of_the_project_and_none_that_a_link_leads_to(
    home: Home, project: Project, folder: Path, tmp_path: Path
) -> None:
    (folder / "deep").mkdir()
    for name in ("a.md", "deep/b.md", "c.txt"):
        (folder / name).write_text(f"in {name}")
    (tmp_path / "outside.md").write_text("secret")
    (folder / "link.md").symlink_to(tmp_path / "outside.md")
    said: list[str] = []
    with anyio.fail_after(30):
        async with home.session(project) as session:
            loaded = await session.load("context", "**/*.md")
            shown = await value(session, "context")
            for pattern in ("*.none", "/etc/*", "../*"):
                try:
                    await session.load("more", pattern)
                except FilesNotFound as problem:
                    said.append(str(problem))
            entry = home.told("load", project)[-1]

    assert [file.name for file in loaded.files] == ["a.md", "deep/b.md"]
    assert shown == "{'a.md': 'in a.md', 'deep/b.md': 'in deep/b.md'}"
    assert len(said) == 3 and all("Nothing was changed" in each for each in said)
    assert entry["files"] == [
        [name, hashlib.sha256(f"in {name}".encode()).hexdigest()] for name in ("a.md", "deep/b.md")
    ]


async def test_a_picture_stays_readable_by_its_id(home: Home) -> None:
    draw = "import matplotlib.pyplot as plt\nplt.plot([1, 2]); None"
    with anyio.fail_after(60):
        async with home.session() as session:
            (shown,) = well(await session.run(draw)).displays
            assert session.claimed is not None and shown.id is not None
            chunk = await anyio.to_thread.run_sync(session.claimed.outputs.read, shown.id)

    assert (chunk.mime, chunk.total) == ("image/png", len(shown.data))


async def test_a_deleted_context_frees_its_memory_and_its_disk(
    home: Home, project: Project, folder: Path
) -> None:
    size = 50_000_000
    (folder / "big.txt").write_bytes(b"0123456789" * (size // 10))
    with anyio.fail_after(60):
        async with home.session(project) as session:
            await session.run("x = 1")
            await session.load("context", folder / "big.txt")
            await settled(session)
            full, on_disk = await session.usage(), sum(path.stat().st_size for path in home.blobs(project))
            await session.delete("context")
            while home.blobs(project):
                await anyio.sleep(0.05)
            free = await session.usage()
            shown = await value(session, "x")

    assert on_disk >= size
    assert full is not None and free is not None and full.memory_bytes - free.memory_bytes > 0.8 * size
    assert shown == "1"


async def test_what_fails_outside_a_cell_changes_nothing_and_says_why(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            try:
                await session.delete("nothing")
            except VariableNotFound as problem:
                said = str(problem)
            else:
                said = ""
            await session.sleep()
            result = await session.run("x")

    assert "no variable of this name" in said
    assert (result.value, result.notes) == ("1", ())


# ---- outputs and records


async def test_an_output_beyond_the_cap_is_readable_whole(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            long = await session.run("for n in range(20_000): print('line', n)")
            short = await session.run("print('short')")
            claimed = session.claimed
            assert claimed is not None and long.output_id is not None
            chunk = await anyio.to_thread.run_sync(claimed.outputs.read, long.output_id)
            id_, total = long.output_id, long.output_characters
        async with home.session() as session:
            claimed = session.claimed
            assert claimed is not None
            read = claimed.outputs.read
            last = await anyio.to_thread.run_sync(lambda: read(id_, offset=total - 11))

    assert long.left_out > 0 and short.output_id is None
    assert chunk.total == total and chunk.text is not None and chunk.text.startswith("line 0\nline 1\n")
    assert last.text == "line 19999\n"


async def test_an_output_that_was_never_kept_is_no_output(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            assert session.claimed is not None
            read = session.claimed.outputs.read
            try:
                await anyio.to_thread.run_sync(read, "c1-0123456789abcdef")
            except OutputNotFound:
                return
    raise AssertionError("it was found")


async def test_the_journal_holds_cells_results_calls_and_answers(home: Home) -> None:
    async def answer(name: str, payload: Any) -> Any:
        if name == "wrong":
            raise ValueError("nobody knows")
        return payload * 2

    code = "x = call('double', 21)\ntry: call('wrong', None)\nexcept Exception as e: print(e)\nx"
    with anyio.fail_after(30):
        async with home.session(answer=answer) as session:
            result = await session.run(code)

    assert result.value == "42"
    facts = [(entry["kind"], entry["cell"]) for entry in home.journal() if "cell" in entry]
    assert facts == [(kind, 1) for kind in ("cell", "call", "answer", "call", "answer", "ran")]
    (cell,), (ran,) = home.told("cell"), home.told("ran")
    assert cell["code"] == code
    assert ran["value"] == "42" and ran["changed"] and "nobody knows" in ran["output"]
    assert [entry.get("answer") for entry in home.told("answer")] == [42, None]
    assert "nobody knows" in home.told("answer")[1]["problem"]


async def test_calls_are_recorded_under_the_cell_that_made_them(home: Home) -> None:
    async def answer(name: str, payload: Any) -> Any:
        return payload

    with anyio.fail_after(30):
        async with home.session(answer=answer) as session:
            try:
                await session.delete("nothing")  # a step that fails is a step
            except VariableNotFound:
                pass
            result = await session.run("call('echo', 1)")

    assert [entry["cell"] for entry in home.told("call") + home.told("answer")] == [result.cell] * 2


async def test_a_cell_can_have_an_answerer_of_its_own_and_is_recorded_like_any_other(home: Home) -> None:
    async def usual(name: str, payload: Any) -> Any:
        return {"text": "usual"}

    async def own(name: str, payload: Any) -> Any:
        return {"text": "own"}

    with anyio.fail_after(30):
        async with home.session(answer=usual) as session:
            first = await session.run("llm_query('a')", answer=own)
            second = await session.run("final(llm_query('b' * 100_000))")
        async with home.session() as session:
            third = await session.run("llm_query('c')")

    assert (first.value, second.value) == ("'own'", "'usual'")
    assert third.error is not None and third.error.name == "ModelUnavailable"
    asked = [(entry["cell"], entry["name"]) for entry in home.told("call")]
    assert asked == [(1, "llm_query"), (2, "llm_query"), (2, "final")]
    assert [entry["answer"]["text"] for entry in home.told("answer")] == ["own", "usual", "usual"]
    assert [entry["kind"] for entry in home.journal() if "cell" in entry][:4] == [
        "cell",
        "call",
        "answer",
        "ran",
    ]
    assert home.told("ran")[1]["final"] is True


async def test_answers_and_functions_stay_when_a_session_comes_back(home: Home) -> None:
    async def answer(name: str, payload: Any) -> Any:
        if payload["prompt"] == "spent":
            raise AssertionError("no more of this")
        return {"text": payload["prompt"].upper()}

    code = """
answers = llm_map(["a", "spent"])
ask, kind = llm_query, BudgetExhausted
one = CallFailed("ModelBusy", "later")
llm_map = "mine"
"""
    seen = "type(answers) is Answers, answers.ok, [(n, str(e), e.kind) for n, e in answers.failed], ask('b'), kind is BudgetExhausted, str(one), one.kind, llm_map"
    policies: list[Policy] = ["off", "permissive", "strict"]
    values: list[str | None] = []
    for policy in policies:
        care, project = Care(limits=LIMITS, policy=policy), identify(named=policy)
        with anyio.fail_after(30):
            async with home.session(project, care=care, answer=answer) as session:
                well(await session.run(code))
            async with home.session(project, care=care, answer=answer) as session:
                result = well(await session.run(seen))
                assert "Not kept" not in notes_of(result)
                values += [result.value, await value(session, "del llm_map\nllm_map(['c'])[0]")]

    came_back = ["A"], [(1, "no more of this", "AssertionError")], "B", True, "later", "ModelBusy", "mine"
    assert values == [str((True, *came_back)), "'C'"] * 3


async def test_with_durable_on_the_state_is_on_disk_when_the_answer_comes(home: Home) -> None:
    care = Care(limits=LIMITS, policy="off", durable=True)
    newest: list[int] = []
    with anyio.fail_after(30):
        async with home.session(care=care) as session:
            for code in ("x = 1", "y = bytearray(10_000_000)", "z = x"):
                result = await session.run(code)
                newest.append(home.steps_kept()[-1] - result.cell)
            await session.set("w", "set")
            newest.append(home.steps_kept()[-1] - 4)

    assert newest == [0, 0, 0, 0]


# ---- busy sessions


async def test_a_busy_session_says_what_runs_and_since_when(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            async with at_work(session) as results:
                info = session.info()
                interrupted = await session.interrupt()
            idle = session.info()

    assert info.state == "busy" and "while True: pass" in info.code and info.since_seconds > 0
    assert "can be interrupted" in str(info) and "while True" in str(info)
    assert interrupted and results[0].error is not None and results[0].error.name == "KeyboardInterrupt"
    assert idle.state == "idle" and not idle.code


async def test_an_interrupted_cell_keeps_its_variables(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            async with at_work(session, "x = 2\nprint(x, flush=True)\nwhile True: pass"):
                while not any(variable.preview == "2" for variable in await session.variables()):
                    await anyio.sleep(0.01)
                await session.interrupt()
            await session.sleep()
            shown = await value(session, "x")

    assert shown == "2"


async def test_nothing_is_interrupted_where_nothing_runs(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            asleep = await session.interrupt()
            await session.run("x = 1")
            idle = await session.interrupt()
            shown = await value(session, "x")

    assert (asleep, idle, shown) == (False, False, "1")


async def test_variables_are_listed_while_a_cell_runs(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            async with at_work(session, "import time\nwhile True: time.sleep(0.01)"):
                listed = {variable.name for variable in await session.variables()}
                still = session.info().state
                await session.interrupt()

    assert "x" in listed and still == "busy"


async def test_variables_of_a_sleeping_session_are_listed(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1; text = 'abc'")
        async with home.session() as session:
            listed = {variable.name: variable.preview for variable in await session.variables()}

    assert listed == {"x": "1", "text": "'abc'"}


async def test_steps_of_one_session_are_taken_in_the_order_in_which_they_came(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("seen = []")
            waiting = 0
            async with at_work(session):
                async with anyio.create_task_group() as tasks:
                    for number in range(5):
                        tasks.start_soon(session.run, f"seen.append({number})")
                        await anyio.wait_all_tasks_blocked()
                    waiting = session.info().waiting
                    await session.interrupt()
            shown = await value(session, "seen")

    assert waiting == 5
    assert shown == "[0, 1, 2, 3, 4]"


async def test_different_sessions_run_at_the_same_time(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            one, other = await manager.session(NOTES), await manager.session(OTHER)
            async with at_work(one):
                shown = await value(other, "1 + 1")
                states = {info.project.name: info.state for info in manager.sessions()}
                await one.interrupt()

    assert shown == "2"
    assert states == {"notes": "busy", "other": "idle"}


# ---- the household


async def test_an_idle_session_goes_to_sleep_and_wakes_when_it_is_used(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed(household=Household(idle_seconds=0.2)) as manager:
            session = await manager.session(NOTES)
            await session.run("x = [1]")
            while session.awake:
                await anyio.sleep(0.01)
            result = await session.run("x")

    assert result.value == "[1]" and result.notes == ()


async def test_a_busy_session_does_not_go_to_sleep(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed(household=Household(idle_seconds=0.05)) as manager:
            session = await manager.session(NOTES)
            result = await session.run("import time\ntime.sleep(0.6)\n'woke up'")

    assert result.value == "'woke up'"


async def test_beyond_so_many_the_least_recently_used_goes_to_sleep(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed(household=Household(awake=2)) as manager:
            first, second, third = [await manager.session(identify(named=name)) for name in "abc"]
            await first.run("x = 'first'")
            await second.run("x = 'second'")
            await first.run("x")
            await third.run("x = 'third'")
            awake = [session.awake for session in (first, second, third)]
            shown = [await value(session, "x") for session in (first, second, third)]

    assert awake == [True, False, True]
    assert shown == ["'first'", "'second'", "'third'"]


async def test_no_more_are_awake_than_may_be_when_all_wake_at_once(home: Home) -> None:
    most = 0
    with anyio.fail_after(60):
        async with home.managed(household=Household(awake=2)) as manager:
            sessions = [await manager.session(identify(named=name)) for name in "abcdef"]

            async def use(session: ProjectSession) -> None:
                nonlocal most
                for _ in range(3):
                    try:
                        await session.run("1")
                    except AllBusy:
                        await anyio.sleep(0.01)
                    most = max(most, sum(each.awake for each in sessions))

            async with anyio.create_task_group() as tasks:
                for session in sessions:
                    tasks.start_soon(use, session)

    assert most <= 2


async def test_when_all_are_at_work_another_is_told_what_they_do(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed(household=Household(awake=1)) as manager:
            one, other = await manager.session(NOTES), await manager.session(OTHER)
            async with at_work(one):
                try:
                    await other.run("1")
                except AllBusy as problem:
                    said = str(problem)
                else:
                    said = ""
                await one.interrupt()
            shown = await value(other, "1")

    assert "notes: busy" in said and "while True" in said
    assert shown == "1"


async def test_beyond_so_much_memory_the_least_recently_used_goes_to_sleep(home: Home) -> None:
    household = Household(memory_bytes=150_000_000, idle_seconds=8)  # looked at every two seconds
    with anyio.fail_after(60):
        async with home.managed(household=household) as manager:
            one, other = await manager.session(NOTES), await manager.session(OTHER)
            await one.run("x = bytearray(b'1') * 100_000_000")
            await other.run("x = bytearray(b'1') * 100_000_000")
            while one.awake:
                await anyio.sleep(0.02)
            awake = other.awake
            shown = await value(one, "len(x), x[-1]")

    assert awake
    assert shown == "(100000000, 49)"


# ---- letting go, forgetting, removing


async def test_reset_forgets_all_variables_for_good(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = bytearray(5_000_000)")
            await session.reset()
            at_once = await session.run("'x' in globals()")
        async with home.session() as session:
            later = await session.run("'x' in globals()")

    assert (at_once.value, later.value) == ("False", "False")
    assert "lost" not in notes_of(at_once) + notes_of(later)  # it is what was asked for
    assert home.blobs() == []
    assert len(home.told("cell")) == 3  # the journal stays


async def test_a_session_that_is_reset_before_it_was_woken_has_nothing_else_to_tell(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.session() as session:
            await session.run("x = 1")
            await session.set("y", 2)
        async with home.session() as session:
            await session.reset()
            result = await session.run("'x' in globals(), 'y' in globals()")

    assert (result.value, result.notes) == ("(False, False)", ())
    assert result.cell == 3  # a number is never given twice


async def test_purge_leaves_nothing_of_a_project(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            one, other = await manager.session(NOTES), await manager.session(OTHER)
            await one.run("x = 1")
            await other.run("x = 2")
            freed = await manager.purge(NOTES)
            gone = not home.place().exists()
            again = await (await manager.session(NOTES)).run("'x' in globals()")
            shown = await value(other, "x")
            keys = {kept.key for kept in await manager.kept()}

    assert freed > 0 and gone
    assert (again.value, again.cell, again.notes) == ("False", 1, ())
    assert shown == "2"
    assert keys == {NOTES.key, OTHER.key}


async def test_a_session_that_was_closed_is_there_when_it_is_opened_again(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            session = await manager.session(NOTES)
            await session.run("x = 1")
            closed = await manager.close(NOTES)
            twice = await manager.close(NOTES)
            again = await manager.session(NOTES)
            result = await again.run("x")

    assert (closed, twice) == (True, False)
    assert result.value == "1" and again.project == NOTES


async def test_a_session_that_is_opened_while_it_is_closed_is_no_copy(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            session = await manager.session(NOTES)
            await session.run("x = 1")
            again = session
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(manager.close, NOTES)
                await anyio.lowlevel.checkpoint()
                again = await manager.session(NOTES)
            result = await again.run("x")

    assert result.value == "1" and again.project.name == "notes"


async def test_a_session_that_was_closed_does_not_go_on_secretly_without_its_variables(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            session = await manager.session(NOTES)
            await session.run("x = 1")
            await manager.close(NOTES)
            try:
                result = await session.run("x")
            except SessionError:
                return

    assert result.value == "1" or result.notes  # it is there again, or says that it is not


async def test_closing_waits_for_the_cell_that_runs(home: Home) -> None:
    with anyio.fail_after(30):
        async with home.managed() as manager:
            session = await manager.session(NOTES)
            async with at_work(session, "import time\ntime.sleep(0.3)\nx = 'to the end'") as results:
                await manager.close(NOTES)
        async with home.session() as session:
            shown = await value(session, "x")

    assert well(results[0]).lost is False
    assert shown == "'to the end'"


async def test_many_sleeps_leave_nothing_behind(home: Home) -> None:
    with anyio.fail_after(60):
        async with home.session() as session:
            for number in range(30):
                await session.run(f"x = {number}; y = bytearray(2_000_000); y[0] = {number}")
                await session.sleep()
            shown = await value(session, "x, y[0]")
            gc.collect()

    assert shown == "(29, 29)"
    assert len(home.states()) <= 2 and len(home.blobs()) <= 2


async def test_memory_only_sessions_say_so_once(sandbox: LocalSandbox, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    home = Home(sandbox, tmp_path / "file" / "home")
    with anyio.fail_after(30):
        async with home.session(care=OPEN) as session:
            first = await session.run("x = 1")
            second = await session.run("x")
            slept = await session.sleep()

    assert "Nothing of this session is kept" in notes_of(first)
    assert (second.value, second.notes, slept) == ("1", (), False)
