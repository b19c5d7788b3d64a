"""Variables: named without waiting, moved in and out exactly."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_sandboxes import Limits
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import Session, VariableError, VariableNotFound, open_session

TEXTS = ["", "plain", "CR\r\nLF\n", "NUL\0", "lone \ud800 surrogate", "emoji 😀", "\ufeffBOM", "é" * 70_000]


@pytest.mark.parametrize("text", TEXTS)
async def test_text_goes_in_and_out_exactly(session: Session, text: str) -> None:
    await session.set("x", text)
    value = await session.get("x")

    assert (value.form, value.text()) == ("text", text)
    assert (await session.run("len(x)")).value == str(len(text))


async def test_bytes_go_in_and_out_exactly(session: Session) -> None:
    data = bytes(range(256)) * 4096
    await session.set("x", data)
    value = await session.get("x")

    assert (value.form, value.body) == ("bytes", data)


def random_json(chance: random.Random, depth: int) -> Any:
    kind = chance.randrange(9 if depth else 6)
    if kind > 5:
        items = [random_json(chance, depth - 1) for _ in range(chance.randrange(5))]
        return items if kind < 8 else {f"k{n}\n": item for n, item in enumerate(items)}
    return [
        None,
        True,
        chance.getrandbits(chance.randrange(1, 200)),
        -chance.random() * 1e300,
        "é\ud800",
        "",
    ][kind]


async def test_plain_data_goes_in_and_out_exactly(session: Session) -> None:
    chance = random.Random(5)
    values = [random_json(chance, 4) for _ in range(300)]

    for value in values:
        await session.set("x", value)
        returned = await session.get("x")
        assert returned.form in ("json", "text")
        assert (json.loads(returned.body) if returned.form == "json" else returned.text()) == value


INEXACT = [
    "(1, 2)",
    "{1: 2}",
    "float('nan')",
    "{1, 2}",
    "object",
    "[1, (2,)]",
    "1j",
    "b''.__class__",
    "True.__class__",
]


@pytest.mark.parametrize("code", INEXACT)
async def test_what_json_cannot_carry_exactly_is_only_described(session: Session, code: str) -> None:
    await session.run(f"x = {code}")

    assert (await session.get("x")).form == "repr"


async def test_a_value_larger_than_asked_for_is_refused(session: Session) -> None:
    await session.run("x = 'x' * 1000")

    with pytest.raises(VariableError, match="1000 bytes"):
        await session.get("x", max_bytes=999)


async def test_a_variable_that_is_not_there_is_its_own_error(session: Session) -> None:
    with pytest.raises(VariableNotFound):
        await session.get("nothing")
    with pytest.raises(VariableNotFound):
        await session.delete("nothing")


@pytest.mark.parametrize("name", ["", "a b", "1a", "a.b", "a\n"])
async def test_a_name_that_is_no_name_is_refused(session: Session, name: str) -> None:
    with pytest.raises(VariableError, match="identifier"):
        await session.set(name, 1)


async def test_a_deleted_variable_is_gone(session: Session) -> None:
    await session.set("x", 1)
    await session.delete("x")

    assert [variable.name for variable in await session.variables()] == []


async def test_variables_are_listed_with_type_size_and_preview(session: Session) -> None:
    await session.run(
        "number = 5\ntext = 'x' * 10_000\ntable = {'a': [1, 2]}\ndef f(): pass\nclass C: pass\nc = C()"
    )

    listed = {variable.name: variable for variable in await session.variables()}

    assert [(v.name, v.type) for v in listed.values()] == [
        ("C", "type"),
        ("c", "C"),
        ("f", "function"),
        ("number", "int"),
        ("table", "dict"),
        ("text", "str"),
    ]
    assert listed["number"].preview == "5"
    assert listed["text"].size_bytes > 10_000 and len(listed["text"].preview) < 100
    assert listed["table"].preview == "{'a': <list>}  # 1 items"


async def test_arrays_and_frames_are_listed_with_shape_and_true_size(session: Session) -> None:
    await session.run(
        "import numpy as np, pandas as pd\na = np.zeros((100, 200))\nd = pd.DataFrame({'x': range(1000)})"
    )

    listed = {variable.name: variable for variable in await session.variables()}

    assert (listed["a"].type, listed["a"].size_bytes) == ("numpy.ndarray", 160_000)
    assert listed["a"].preview == "ndarray 100 x 200 float64"
    assert listed["d"].preview == "DataFrame 1000 x 1"


async def test_listing_runs_no_code_of_a_value(session: Session) -> None:
    code = """
ran = []
class Loud(str):
    def __repr__(self): ran.append('repr'); return ''
    def __sizeof__(self): ran.append('sizeof'); return 0
    def __len__(self): ran.append('len'); return 0
    def __getattribute__(self, name): ran.append(name); return str.__getattribute__(self, name)
class Meta(type):
    def __getattribute__(cls, name): ran.append(name); return type.__getattribute__(cls, name)
class Strange(metaclass=Meta): pass
loud, strange, many = Loud('x'), Strange(), [Loud('y')]
ran.clear()
"""
    await session.run(code)
    await session.variables()

    assert (await session.run("ran")).value == "[]"


async def test_names_are_read_while_a_cell_runs(session: Session) -> None:
    names: list[str] = []
    async with anyio.create_task_group() as tasks:
        running = anyio.Event()

        async def on_output(stream: str, text: str) -> None:
            running.set()

        async def run() -> None:
            await session.run("early = 1\nprint('go')\nwhile True: pass", on_output=on_output)

        tasks.start_soon(run)
        with anyio.fail_after(10):
            await running.wait()
            names = [variable.name for variable in await session.variables()]
            await session.interrupt()

    assert names == ["early"]


async def test_names_known_last_are_given_while_a_cell_keeps_the_interpreter(sandbox: LocalSandbox) -> None:
    names: list[str] = []
    async with open_session(sandbox, limits=Limits(wall_seconds=4, grace_seconds=0.2)) as session:
        await session.run("early = 1")
        await session.variables()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(session.run, "sum(range(10**13))")
            await anyio.sleep(0.3)
            with anyio.fail_after(3):
                names = [variable.name for variable in await session.variables()]

    assert names == ["early"]


async def test_a_file_is_loaded_by_the_guest_with_every_byte_kept(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    data = b"line\r\n\0\xff\xfe caf\xc3\xa9" * 1000
    (tmp_path / "data.txt").write_bytes(data)

    async with open_session(sandbox, project=tmp_path) as session:
        length = (await session.load("text", tmp_path / "data.txt")).length
        await session.load("raw", tmp_path / "data.txt", form="bytes")
        same = await session.run("text.encode('utf-8', 'surrogateescape') == raw")
        raw = await session.get("raw")

    assert (length, same.value) == (len(data.decode("utf-8", "surrogateescape")), "True")
    assert raw.body == data


async def test_an_empty_file_and_a_missing_one_are_told_apart(sandbox: LocalSandbox, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()

    async with open_session(sandbox, project=tmp_path) as session:
        assert (await session.load("x", tmp_path / "empty")).length == 0
        with pytest.raises(VariableError, match="FileNotFoundError"):
            await session.load("y", tmp_path / "missing")


async def test_a_file_outside_cannot_be_loaded(sandbox: LocalSandbox, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").write_text("canary")
    (tmp_path / "project").mkdir()

    async with open_session(sandbox, project=tmp_path / "project") as session:
        with pytest.raises(VariableError):
            await session.load("x", tmp_path / "outside.txt")


async def test_special_numbers_survive(session: Session) -> None:
    await session.set("x", [1e-320, 5e300, -0.0, 2**200])

    returned = json.loads((await session.get("x")).body)

    assert returned == [1e-320, 5e300, -0.0, 2**200] and math.copysign(1, returned[2]) == -1
