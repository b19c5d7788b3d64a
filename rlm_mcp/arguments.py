"""What a client passes to a tool, checked, and described for a model in as few words as will do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from keyword import iskeyword
from typing import Annotated, Any, ClassVar, Literal, TypeAlias, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from .errors import ArgumentsWrong

MOST_CODE = 1_000_000
MOST_SHOWN, LEAST_SHOWN = 20_000, 100
MOST_VARIABLES, MOST_PATHS, MOST_ANSWERS = 1000, 10_000, 10_000
MOST_NAME, MOST_SAID = 200, 200
LEAST_SECONDS, MOST_WAIT = 0.1, 60.0

_MOST_GIVEN = 100
_NUMBERS = re.compile(r"\s*\d{1,9}(\s*-\s*\d{1,9})?(\s*,\s*\d{1,9}(\s*-\s*\d{1,9})?)*\s*", re.ASCII)
_PROJECT = "Name or folder; default: this project."
_LEFT_OUT = ("title", "maxLength", "maxItems", "maxProperties")

Budget: TypeAlias = Literal["max_depth", "max_subcalls", "token_budget", "cost_budget_usd", "wall_seconds"]
Name: TypeAlias = Annotated[str, Field(max_length=MOST_NAME)]
A = TypeVar("A", bound="Arguments")


class Arguments(BaseModel):
    """The arguments of a tool. Unknown ones are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    needs_project: ClassVar[bool] = True  # where a handle says which, it need not be told of

    project: str | None = Field(default=None, max_length=4096, description=_PROJECT)


class ExecutePython(Arguments):
    """Arguments of `execute_python`."""

    code: str = Field(max_length=MOST_CODE, description="Python, as in a notebook; top-level await works.")
    timeout_s: float | None = Field(
        default=None, ge=LEAST_SECONDS, description="Seconds until the cell is interrupted."
    )


class GetContext(Arguments):
    """Arguments of `get_repl_context`."""

    names: list[Name] = Field(
        default_factory=list, max_length=50, description="Show the values of these, not the list."
    )
    max_chars: int = Field(
        default=2000, ge=LEAST_SHOWN, le=MOST_SHOWN, description="Characters of each value."
    )


class SetContext(Arguments):
    """Arguments of `set_repl_context`."""

    values: dict[str, Any] = Field(
        default_factory=dict, max_length=MOST_VARIABLES, description="Variable -> JSON value."
    )
    files: dict[str, str | list[str]] = Field(
        default_factory=dict,
        description="Variable -> path (its text), or pattern such as src/**/*.py or list of paths (a "
        "dict of path -> text).",
    )
    append: bool = Field(default=False, description="Add files to what the variable holds.")

    @field_validator("files", mode="before")
    @classmethod
    def _few_enough(cls, given: Any) -> Any:
        """Refuse what names so much that to say of each part what is wrong with it would take long."""
        files = list(cast("dict[str, object]", given).values()) if isinstance(given, dict) else []
        lists = (cast("list[object]", each) for each in files if isinstance(each, list))
        if len(files) > MOST_VARIABLES or sum(map(len, lists)) > MOST_PATHS:
            raise ValueError(f"at most {MOST_VARIABLES} variables and {MOST_PATHS} paths; give a pattern")
        return cast("object", given)

    @field_validator("values", "files")
    @classmethod
    def _names_of_variables(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in given:
            if not name.isidentifier() or iskeyword(name) or len(name) > MOST_NAME:
                raise ValueError(f"{name[:50]!r} cannot be the name of a variable; give one such as 'data'")
        return given


class ClearContext(Arguments):
    """Arguments of `clear_repl_context`."""

    names: list[Name] | None = Field(
        default=None, max_length=1000, description="Only these; else everything, in a fresh interpreter."
    )


class RlmComplete(Arguments):
    """Arguments of `rlm_complete`."""

    prompt: str = Field(max_length=MOST_CODE, description="The task.")
    variables: list[Name] = Field(
        default_factory=list, max_length=50, description="Session variables it gets."
    )
    files: dict[str, str] = Field(default_factory=dict, max_length=50, description="Variable -> path.")
    output_schema: dict[str, Any] | None = Field(default=None, description="JSON schema for the answer.")
    model: str | None = Field(default=None, max_length=MOST_NAME, description="In place of the usual.")
    budgets: dict[Budget, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict[Budget, float],
        description="Below the usual: max_depth, max_subcalls, token_budget, cost_budget_usd, wall_seconds.",
    )
    background: bool = Field(default=False, description="Return a handle at once.")


class RlmStatus(Arguments):
    """Arguments of `rlm_status`."""

    needs_project = False

    handle: str | None = Field(default=None, max_length=MOST_NAME, description="From rlm_complete.")
    wait_s: float = Field(default=10, ge=0, le=MOST_WAIT, description="Seconds to wait for it.")
    after: int = Field(default=0, ge=0, le=10**6, description="Only events after this.")
    cancel: bool = Field(default=False, description="End the run.")


class AnswerCalls(Arguments):
    """Arguments of `answer_calls`."""

    needs_project = False

    handle: Annotated[str, Field(max_length=MOST_NAME)] = Field(description="From the waiting result.")
    answers: dict[str, Any] = Field(
        default_factory=dict,
        max_length=MOST_ANSWERS,
        description="Call number -> answer: text, or JSON where asked for.",
    )
    show: str | None = Field(default=None, max_length=MOST_SAID, description="Show these prompts: 3, 7-20.")
    cancel: bool = Field(default=False, description="End it instead.")

    @field_validator("show", mode="before")
    @classmethod
    def _in_one_text(cls, given: Any) -> Any:
        """Take numbers in whatever form they come."""
        listed = cast("list[object]", given if isinstance(given, list) else [given])
        if given is None or len(listed) > MOST_SAID:
            return cast("object", given)
        return ", ".join(map(str, listed))

    @field_validator("show")
    @classmethod
    def _numbers(cls, given: str | None) -> str | None:
        if given and given.strip() and not _NUMBERS.fullmatch(given):
            raise ValueError("it names calls by their numbers, such as 3, 7-20")
        return given and given.strip()


def parse(kind: type[A], given: dict[str, Any] | None, *, tool: str) -> A:
    """Return the arguments of a call. Raise `ArgumentsWrong`, which says what would be right."""
    if given and len(given) > _MOST_GIVEN:
        raise ArgumentsWrong(tool, [f"{len(given)} arguments were given"], _taken(kind))
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
    if kind.needs_project:
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
    facts = {key: value for key, value in facts.items() if key not in _LEFT_OUT}
    kinds = [kind for kind in facts.pop("anyOf", []) if kind.get("type") != "null"]
    if len(kinds) == 1:
        facts |= _plain(kinds[0])
    elif kinds:
        facts["anyOf"] = [_plain(kind) for kind in kinds]
    if facts.get("default", 0) in (None, [], {}, False, ""):
        facts.pop("default", None)
    if facts.get("additionalProperties") is True:
        facts.pop("additionalProperties")
    facts.pop("propertyNames", None)
    for key in ("items", "additionalProperties"):
        if isinstance(facts.get(key), dict):
            facts[key] = _plain(facts[key])
    return facts


def _said(kind: type[Arguments], error: Any) -> str:
    path = ".".join(map(str, error["loc"]))[:MOST_SAID]
    if error["type"] != "extra_forbidden":
        said = str(error["msg"]).removeprefix("Value error, ")
        return f"{path}: {said}" if path else said
    near = difflib.get_close_matches(str(error["loc"][0]), list(kind.model_fields), 1, 0.5)
    return f"{path[:100]!r} is not an argument" + (f"; did you mean {near[0]!r}?" if near else "")


def _taken(kind: type[Arguments]) -> list[str]:
    fields = kind.model_fields.items()
    return sorted((f"{name} (required)" if field.is_required() else name for name, field in fields), key=str)
