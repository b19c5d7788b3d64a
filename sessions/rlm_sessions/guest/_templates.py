"""What a `str.format` template would read: the attribute names in its fields."""

from __future__ import annotations

import string
from collections.abc import Iterator
from typing import Any

_parse = string.Formatter().parse
_split: Any = vars(string)["_string"].formatter_field_name_split


def attributes_of(template: str) -> Iterator[str]:
    """Yield the attribute names in a template, as far as it can be parsed: formatting reads them up to the error."""
    if "." not in template:
        return
    try:
        for _, field, spec, _ in _parse(template):
            if field is not None:
                yield from _attributes_in(field)
                yield from attributes_of(spec or "")
    except ValueError:
        return


def _attributes_in(field: str) -> Iterator[str]:
    for is_attribute, name in _split(field)[1]:
        if is_attribute:
            yield name
