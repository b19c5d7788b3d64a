"""What is wanted as an answer: any value, or one by a schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .schemas import Fit, Shape, shape_of
from .tree import as_text


class Wanted:
    """The form of an answer. `wanted` makes one."""

    def __init__(self, shape: Shape | None) -> None:
        self.shape = shape

    @property
    def instruction(self) -> str:
        """What a model is told about the form, after a prompt."""
        return "" if self.shape is None else self.shape.instruction

    async def fit(self, text: str) -> Fit:
        """Return the value that a text is."""
        return Fit(text) if self.shape is None else await self.shape.fit(text)

    async def problems(self, value: Any, *, not_json: str = "") -> tuple[str, ...]:
        """Return what is wrong with a value; `not_json` is the type of one that came as its repr."""
        if self.shape is None:
            return ()
        if not_json:
            return (f"it is a {not_json}, which is no JSON",)
        return await self.shape.problems(value)

    async def valid(self, value: Any) -> Any:
        """Return a value as it is wanted; None if it is not."""
        if self.shape is None or not await self.shape.problems(value):
            return value
        fit = await self.shape.fit(as_text(value))
        return None if fit.problems else fit.value


async def wanted(schema: Mapping[str, Any] | None) -> Wanted:
    """Return what is wanted by a schema, or by none."""
    return Wanted(None if schema is None else await shape_of(schema))
