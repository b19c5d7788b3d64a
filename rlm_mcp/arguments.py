"""What a client passes to a tool, checked, and described for a model in as few words as will do."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from .errors import ArgumentsWrong

MOST_CODE = 1_000_000
MOST_SHOWN, LEAST_SHOWN = 20_000, 100

_PROJECT = "Plain name, or folder. Default: this project."

A = TypeVar("A", bound="Arguments")


class Arguments(BaseModel):
    """The arguments of a tool. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    project: str | None = Field(default=None, max_length=4096, description=_PROJECT)


class ExecutePython(Arguments):
    """Arguments of `execute_python`."""

    code: str = Field(
        max_length=MOST_CODE, description="Python, as in a notebook cell; top-level await works."
    )
    timeout_s: float | None = Field(default=None, gt=0, description="Seconds until the cell is interrupted.")


class GetContext(Arguments):
    """Arguments of `get_repl_context`."""

    names: list[str] = Field(
        default_factory=list, max_length=50, description="Show the values of these, not the list."
    )
    max_chars: int = Field(
        default=2000, ge=LEAST_SHOWN, le=MOST_SHOWN, description="Characters shown of each value."
    )


class SetContext(Arguments):
    """Arguments of `set_repl_context`."""

    values: dict[str, JsonValue] = Field(default_factory=dict, description="Variable -> JSON value.")
    files: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="Variable -> path (gives its text), or pattern such as src/**/*.py or list of paths (give a "
        "dict of path -> text).",
    )
    append: bool = Field(default=False, description="Add files to what the variable holds.")


class ClearContext(Arguments):
    """Arguments of `clear_repl_context`."""

    names: list[str] | None = Field(
        default=None, max_length=1000, description="Only these; else everything, in a fresh interpreter."
    )


def parse(kind: type[A], given: dict[str, Any] | None, *, tool: str) -> A:
    """Return the arguments of a call. Raise `ArgumentsWrong`, which says what would be right."""
    try:
        return kind.model_validate(given or {})
    except ValidationError as wrong:
        raise ArgumentsWrong(
            tool, [_said(kind, error) for error in wrong.errors()[:5]], _taken(kind)
        ) from wrong


def schema_of(kind: type[Arguments], *, maximum: dict[str, float] | None = None) -> dict[str, Any]:
    """Return the JSON schema of the arguments, without what says nothing to a model."""
    schema = kind.model_json_schema()
    properties = {name: _plain(facts) for name, facts in schema["properties"].items() if name != "project"}
    properties["project"] = _plain(schema["properties"]["project"])
    for name, most in (maximum or {}).items():
        properties[name]["maximum"] = most
    return {
        "type": "object",
        "properties": properties,
        **({"required": schema["required"]} if "required" in schema else {}),
        "additionalProperties": False,
    }


def _plain(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of a property without titles, nulls and bounds on lengths."""
    facts = {key: value for key, value in facts.items() if key not in ("title", "maxLength", "maxItems")}
    kinds = [kind for kind in facts.pop("anyOf", []) if kind.get("type") != "null"]
    if len(kinds) == 1:
        facts |= _plain(kinds[0])
    elif kinds:
        facts["anyOf"] = [_plain(kind) for kind in kinds]
    if facts.get("default", 0) in (None, [], {}, False):
        facts.pop("default", None)
    if facts.get("additionalProperties") == {"$ref": "#/$defs/JsonValue"}:
        facts.pop("additionalProperties")
    for key in ("items", "additionalProperties"):
        if isinstance(facts.get(key), dict):
            facts[key] = _plain(facts[key])
    return facts


def _said(kind: type[Arguments], error: Any) -> str:
    path = ".".join(map(str, error["loc"]))
    if error["type"] != "extra_forbidden":
        return f"{path}: {error['msg']}" if path else str(error["msg"])
    near = difflib.get_close_matches(str(error["loc"][0]), list(kind.model_fields), 1, 0.5)
    return f"{path[:100]!r} is not an argument" + (f"; did you mean {near[0]!r}?" if near else "")


def _taken(kind: type[Arguments]) -> list[str]:
    fields = kind.model_fields.items()
    return sorted((f"{name} (required)" if field.is_required() else name for name, field in fields), key=str)
