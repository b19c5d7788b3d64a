"""What to say of a name that is no setting: the nearest one that is."""

from __future__ import annotations

from collections.abc import Iterable

from .keys import KEYS, SECTIONS, Key, show_name

_LIST = "`rlm-mcp config show --all` lists those that are"


def no_such_key(section: str, name: str) -> str:
    """Return what to say of a key that the section does not have."""
    said = f"[{section}] {show_name(name)} is not a setting"
    keys = [key for key in KEYS.values() if key.section == section]
    found = _named(name) or _like(name, keys) or _like(name, KEYS.values())
    return f"{said}; did you mean {_from(section, found)}?" if found else f"{said}. {_LIST}."


def no_such_section(name: str) -> str:
    """Return what to say of a table that means nothing."""
    said = f"[{show_name(name)}] is not a section"
    like = nearest(name, SECTIONS)
    if like:
        return f"{said}; did you mean [{like}]?"
    family = [key for key in KEYS.values() if key.name.startswith(f"{name}_")]
    if family:
        names = " or ".join(key.name for key in family if key.section == family[0].section)
        return f"{said}; did you mean {names} in [{family[0].section}]?"
    return f"{said}. The sections are {', '.join(f'[{each}]' for each in SECTIONS)}."


def outside_of_sections(name: str) -> str:
    """Return what to say of a key that stands before all tables and does not belong there."""
    said = f"{show_name(name)} is not a setting outside of the sections"
    found = _named(name) or _like(name, KEYS.values())
    return f"{said}; did you mean {_from('', found)}?" if found else f"{said}. {_LIST}."


def no_such_flag(name: str) -> str:
    """Return what to say of a flag that sets nothing."""
    said = f"{show_name(name)} is not a setting"
    like = nearest(name, KEYS)
    found = _named(name.rpartition(".")[2])
    like = like or (found.dotted if found else None)
    return f"{said}; did you mean {like}?" if like else f"{said}. {_LIST}."


def no_such_variable(variable: str, known: Iterable[str]) -> str:
    """Return what to say of an environment variable that sets nothing."""
    said = f"{show_name(variable)} in the environment is not a setting and does nothing"
    rest = variable.removeprefix("RLM_").lower()
    by_variable = {each.lower(): each for each in known}
    found = _named(rest) or _like(rest, KEYS.values())
    like = nearest(variable, by_variable, cutoff=0.85)
    name = by_variable[like] if like else found.variable if found else None
    return f"{said}; did you mean {name}?" if name else f"{said}. {_LIST}."


def nearest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return which of `known` a mistyped name is most like."""
    import difflib

    matches = difflib.get_close_matches(name[:100].lower(), list(known), n=1, cutoff=cutoff)
    return matches[0] if matches else None


def _named(name: str) -> Key | None:
    return next((key for key in KEYS.values() if key.name == name.lower()), None)


def _like(name: str, keys: Iterable[Key]) -> Key | None:
    by_name = {key.name: key for key in reversed(list(keys))}
    like = nearest(name, by_name)
    return by_name[like] if like else None


def _from(section: str, key: Key) -> str:
    if key.section == section:
        return key.name
    return f"{key.name} in [{key.section}]" if key.section else f"{key.name}, outside of the sections"
