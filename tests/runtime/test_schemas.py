"""A text is the value that it clearly means and nothing else; no schema and no text can do harm."""

from __future__ import annotations

import json
import re
import socket
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlm_runtime import schemas
from rlm_runtime.schemas import SchemaRefused, shape_of, values_in

ANY: dict[str, Any] = {}
LIST = {"type": "array"}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
ANN = {"name": "Ann", "age": 7}
ANN_TEXT = json.dumps(ANN)


@pytest.mark.parametrize(
    "text",
    [
        ANN_TEXT,
        f"\n  {ANN_TEXT}\n",
        f"```json\n{ANN_TEXT}\n```",
        f"```\n{ANN_TEXT}\n```",
        f"~~~~JSON5\n{ANN_TEXT}\n~~~~",
        f"Here you are:\n\n```json\n{ANN_TEXT}\n```\n\nAnything else?",
        f"Here you are: {ANN_TEXT}. Anything else?",
        f"The set {{a, b}} aside, it is {ANN_TEXT}",
        '{"name": "Ann", "age": 7,}',
        'It is {"name": "Ann", "age": 7, } I think.',
        f"```json\n{ANN_TEXT}\n```\nAgain:\n```json\n{ANN_TEXT}\n```",
        f'```json\n{{"name": "Ann"}}\n```\nor rather\n```json\n{ANN_TEXT}\n```',
    ],
)
async def test_a_value_is_found_where_models_put_it(text: str) -> None:
    found = await (await shape_of(PERSON)).fit(text)

    assert found.value == ANN and not found.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "it is empty"),
        ("I do not know.", "there is no JSON"),
        ('{"name": "Ann"}', "'age' is a required property"),
        ('{"name": "Ann", "age": -1}', r"at \$.age: -1 is less than"),
        ('{"name": "Ann", "age": "7"}', r"at \$.age: '7' is not of type 'integer'"),
        ('{"name": "Ann", "age": 7, "x": 1}', "Additional properties"),
        ('{"name": "Ann", "age": NaN}', "there is no JSON"),
        ('{"name": "Ann", "age": 7', "there is no JSON"),
        (f"[{ANN_TEXT}]", "is not of type 'object'"),
        (f'```\n{ANN_TEXT}\n```\n```\n{{"name": "Bob", "age": 7}}\n```', "several values"),
        ('Either {"name": "Ann", "age": 7} or {"name": "Ann", "age": 8}.', "several values"),
    ],
)
async def test_what_is_not_clearly_the_value_is_a_problem_that_a_model_can_mend(
    text: str, problem: str
) -> None:
    found = await (await shape_of(PERSON)).fit(text)

    assert found.value is None and found.problems
    assert re.search(problem, "; ".join(found.problems))


async def test_a_word_is_an_answer_where_a_string_is_asked_for() -> None:
    shape = await shape_of({"enum": ["yes", "no"]})

    assert [(await shape.fit(text)).value for text in ("yes", '"no"', " yes\n", "maybe")] == [
        "yes",
        "no",
        "yes",
        None,
    ]


async def test_a_comma_in_a_string_stays() -> None:
    assert (await (await shape_of(ANY)).fit('{"a": "x,]", "b": ["\\",}"],}')).value == {
        "a": "x,]",
        "b": ['",}'],
    }


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_any_json_is_read_as_what_it_is(value: Any) -> None:
    assert values_in(json.dumps(value)) == [[value]]
    assert values_in(f"```json\n{json.dumps(value, indent=2)}\n```")[0] == [value]


@settings(max_examples=200)
@given(st.text(alphabet='[]{}",:`\n~a1\\ '))
def test_no_text_breaks_the_reader(text: str) -> None:
    for values in values_in(text):
        json.dumps(values)


@pytest.mark.parametrize(
    "piece", ["[", "{", '{"a":', "[1,", "```\n", "`" * 3 + "\n[\n", ",", '"\\', "]" * 3, " ,"]
)
async def test_a_megabyte_of_anything_is_read_in_time(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))

    with anyio.fail_after(10):
        found = await (await shape_of(PERSON)).fit(text)

    assert found.problems


async def test_a_large_value_is_a_value() -> None:
    value = ["x" * 1_000_000]

    assert (await (await shape_of(LIST)).fit(json.dumps(value))).value == value


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ("integer", "is an object"),
        ({"type": "nothing"}, "no JSON schema"),
        ({"type": 5}, "no JSON schema"),
        ({"properties": []}, "no JSON schema"),
        ({"$schema": []}, "no JSON schema"),
        ({"$ref": "http://127.0.0.1/schema"}, "its own parts only"),
        ({"items": [{"$ref": "file:///etc/passwd"}]}, "its own parts only"),
        ({"$defs": {"a": {"$dynamicRef": "other.json"}}}, "its own parts only"),
        ({"description": "x" * 300_000}, "characters"),
        ({"maximum": float("nan")}, "is JSON"),
        ({"const": {1, 2}}, "is JSON"),
    ],
)
async def test_a_schema_that_cannot_be_used_is_refused(schema: Any, why: str) -> None:
    with pytest.raises(SchemaRefused, match=why):
        await shape_of(schema)


async def test_a_pattern_that_is_none_is_a_problem_and_breaks_nothing() -> None:
    assert "cannot be used" in (await (await shape_of({"pattern": "("})).problems("a"))[0]


async def test_a_schema_nested_deep_is_refused_and_breaks_nothing() -> None:
    schema: dict[str, Any] = {}
    for _ in range(100_000):
        schema = {"not": schema}

    with pytest.raises(SchemaRefused, match="nested"):
        await shape_of(schema)
    while schema:
        schema = schema.pop("not", {})


async def test_an_answer_nested_deep_is_a_problem_and_breaks_nothing() -> None:
    found = await (await shape_of(ANY)).fit("[" * 900 + "]" * 900)

    assert "nested" in found.problems[0]


async def test_nothing_is_fetched_for_a_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        pytest.fail("somebody opened a connection")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    shape = await shape_of(
        {"$id": "http://127.0.0.1:9/a", "items": {"$ref": "#nowhere"}, "$schema": "http://127.0.0.1:9/b"}
    )

    assert "cannot be used" in (await shape.problems([1]))[0]


async def test_parts_may_refer_to_one_another_also_in_a_circle() -> None:
    tree = {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            }
        },
        "$ref": "#/$defs/tree",
    }
    shape = await shape_of(tree)

    assert await shape.problems({"of": [{"of": []}]}) == ()
    assert await shape.problems({"of": [{"of": [1]}]}) == ("at $.of[0].of[0]: 1 is not of type 'object'",)


DOUBLING = {
    "$defs": {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(60)} | {"d60": {}},
    "$ref": "#/$defs/d0",
}


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"pattern": "^(a+)+$"}, "a" * 60 + "!"),
        ({"patternProperties": {"^(a|a)*$": {}}}, {"a" * 60 + "!": 1}),
        (DOUBLING, 1),
        ({"uniqueItems": True}, [{"a": n} for n in range(30_000)]),
    ],
)
async def test_a_check_that_takes_long_is_ended_and_holds_up_nobody(
    schema: dict[str, Any], value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schemas, "CHECK_SECONDS", 1.5)

    with anyio.fail_after(20):
        problems = await (await shape_of(schema)).problems(value)

    assert "takes longer" in problems[0]


async def test_a_check_that_waits_for_slow_ones_has_its_whole_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "CHECK_SECONDS", 2.0)
    slow, quick = await shape_of({"pattern": "^(a+)+$"}), await shape_of({"pattern": "^b+$"})
    limiter = anyio.to_process.current_default_process_limiter()
    before, limiter.total_tokens = limiter.total_tokens, 1
    found = list[tuple[str, ...]]()

    async def check(shape: schemas.Shape, value: str) -> None:
        found.append(await shape.problems(value))

    try:
        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(check, slow, "a" * 60 + "!")
                await anyio.wait_all_tasks_blocked()
                tasks.start_soon(check, quick, "b" * 60)
    finally:
        limiter.total_tokens = before

    assert found == [(schemas.TOO_SLOW,), ()]


async def test_a_schema_that_goes_round_without_end_is_a_problem() -> None:
    shape = await shape_of({"$ref": "#"})

    assert "without end" in (await shape.problems(1))[0]


async def test_an_ordinary_schema_with_parts_is_checked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(anyio.to_process, "run_sync", lambda *_, **__: pytest.fail("a process was asked"))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    shape = await shape_of({"$defs": {"p": PERSON}, "type": "array", "items": {"$ref": "#/$defs/p"}})

    assert (await shape.fit(f"[{ANN_TEXT}]")).value == [ANN]
