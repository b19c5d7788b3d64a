"""What a `str.format` template would read: the attribute names in its fields."""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator
from typing import Any

_parse = string.Formatter().parse
_split: Any = vars(string)["_string"].formatter_field_name_split


def guarded_formatter(read: Callable[[Any, str], Any]) -> Any:
    """Return a class like `string.Formatter` that reads attributes by `read`.

    It is a copy: a subclass would hand out the original as its base.
    """

    def get_field(formatter: Any, field_name: str, args: Any, kwargs: Any) -> tuple[Any, Any]:
        first, steps = _split(field_name)
        obj = formatter.get_value(first, args, kwargs)
        for is_attribute, name in steps:
            obj = read(obj, name) if is_attribute else obj[name]
        return obj, first

    return copy_of_class(string.Formatter, get_field=get_field)


def copy_of_class(kind: Any, **changed: Any) -> Any:
    """Return a class like `kind`, with the same bases and other methods of these names."""
    body = {name: value for name, value in vars(kind).items() if name not in ("__dict__", "__weakref__")}
    return type(kind)(kind.__name__, kind.__bases__, {**body, **changed})


def attributes_of(template: str) -> Iterator[str]:
    """Yield the attribute names in a template, as far as it can be parsed: formatting reads them up to the error."""
    if "." not in template:
        return
    try:
        for _, field, spec, _ in _parse(template):
            if field is not None:
                yield from (name for is_attribute, name in _split(field)[1] if is_attribute)
                yield from attributes_of(spec or "")
    except ValueError:
        return
