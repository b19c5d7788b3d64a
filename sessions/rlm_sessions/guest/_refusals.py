"""The errors of the policy at run time. Each is the kind of error that code already catches at that place."""

from __future__ import annotations

from ._names import Door


class Refused(PermissionError):
    """A call that the policy refuses."""

    def __init__(self, what: str, door: Door) -> None:
        super().__init__(f"{what} is refused: {door.why}. {door.instead}")


class AttributeRefused(AttributeError):
    """An attribute that the policy refuses to read, set or delete."""

    def __init__(self, name: str, door: Door) -> None:
        shown = name if "." in name else f".{name}"
        super().__init__(f"`{shown}` is refused: {door.why}. {door.instead}")


class ModuleRefused(ModuleNotFoundError):
    """A module, or a name in one, that the policy does not hand out."""

    def __init__(self, module: str, door: Door, *, attribute: str = "") -> None:
        what = f"importing {attribute} from {module}" if attribute else f"importing {module}"
        super().__init__(f"{what} is refused: {door.why}. {door.instead}", name=module)
