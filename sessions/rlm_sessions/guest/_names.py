"""What each attribute and variable name means to the language policy: data, and nothing else.

A *door* is a name that leads out of the cell's own objects and into the interpreter. Names are judged in the source
where they can be. The few that depend on the object (`format`, and private names in strict mode) are rewritten to
a guard, whose own name cannot be written in Python source and looks like no other, so that no error suggests it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import NamedTuple

GUARD_READ = "<policy: read this attribute>"
GUARD_STORE = "<policy: store this attribute>"
GUARD_TARGET = "<policy: attribute as a target>"
GUARD_IMPORT = "<policy: import by function>"
GUARD_STAR = "<policy: import every name>"
GUARD_MATCH = "<policy: class patterns>"


class Door(NamedTuple):
    """Why a name is refused, and what to write instead."""

    why: str
    instead: str


_FRAMES = Door(
    "it opens the interpreter's running frames",
    "Pass the values you need as arguments; traceback.format_exc() tells where an error came from.",
)
_INSIDES = Door(
    "it opens a function's code and globals, and through them every module of the interpreter",
    "Pass the values you need as arguments.",
)
_CLASSES = Door(
    "it lists the classes of the whole interpreter",
    "Keep a list of your own classes, for example in __init_subclass__.",
)
_LOADERS = Door("it opens the import machinery", "Use an import statement.")
_BUILTINS = Door("it opens the interpreter's builtins", "Use each builtin by its own name.")
_PROGRAMS = Door("it starts another program", "Do the work in Python, in this cell.")
_MACHINE_CODE = Door("it loads machine code", "Do the work in Python, in this cell.")
_TRACING = Door("it watches the interpreter's own code", "Use print, or time.perf_counter() around a call.")
_COPYING = Door("it hands out the interpreter's copying functions", "Use copy.copy() or copy.deepcopy().")
_EVENT_LOOP = Door("it opens the event loop's system calls", "Use asyncio.create_task or asyncio.gather.")
_MANAGED = Door("library code trusts it", "Write it as a literal in the class body.")


def _doors(door: Door, names: str) -> dict[str, Door]:
    return dict.fromkeys(names.split(), door)


REFUSED_ATTRIBUTES: Mapping[str, Door] = {
    **_doors(
        _FRAMES, "tb_frame f_back f_builtins f_code f_generator f_globals f_locals f_trace f_trace_lines"
    ),
    **_doors(_FRAMES, "f_trace_opcodes gi_frame gi_code cr_frame cr_code ag_frame ag_code"),
    **_doors(_FRAMES, "_getframe _getframemodulename _current_frames _current_exceptions"),
    **_doors(_INSIDES, "__globals__ co_code _co_code_adaptive"),
    **_doors(_CLASSES, "__subclasses__"),
    **_doors(_LOADERS, "__loader__ __spec__"),
    **_doors(_BUILTINS, "__builtins__"),
    **_doors(_PROGRAMS, "subprocess_exec subprocess_shell create_subprocess_exec create_subprocess_shell"),
    **_doors(_MACHINE_CODE, "load_extension enable_load_extension"),
    **_doors(_TRACING, "_settraceallthreads _setprofileallthreads"),
}
"""Refused in every mode, on every object."""

STRICT_REFUSED_ATTRIBUTES: Mapping[str, Door] = {
    **REFUSED_ATTRIBUTES,
    **_doors(_FRAMES, "tb_next gi_yieldfrom cr_await cr_origin ag_await get_stack print_stack"),
    **_doors(_INSIDES, "__code__ __closure__"),
    **_doors(_COPYING, "__reduce__ __reduce_ex__"),
    **_doors(_EVENT_LOOP, "get_loop"),
}
"""Refused in strict mode, on every object."""

GUARDED_ATTRIBUTES = frozenset(
    {"format", "format_map", "__self__", "__getattribute__", "__code__", "__closure__"}
)
"""Harmless on most objects: the guard looks at the object when the attribute is read."""

STRICT_GUARDED_ATTRIBUTES = (
    GUARDED_ATTRIBUTES
    | {"__getattr__", "__setattr__", "__delattr__", "__dict__", "__getstate__", "obj"}
    | ({"evaluate"} if sys.version_info >= (3, 14) else set())
)
"""The same for strict mode, where the guard looks at every private name as well."""

REFUSED_VARIABLES: Mapping[str, Door] = {
    **_doors(_BUILTINS, "__builtins__ __build_class__"),
    **_doors(_LOADERS, "__loader__ __spec__"),
}
"""Variables that a cell may neither read nor bind."""

UNSEEN_NAMES = GUARDED_ATTRIBUTES - {"format", "format_map"}
"""Guarded names that may not stand where no guard can: in patterns, imports and templates."""

UNSEEN = Door("no guard can look at the object there", "Read the attribute first.")

STRICT_MANAGED: Mapping[str, Door] = _doors(
    _MANAGED,
    "__match_args__ __dataclass_fields__ __dataclass_params__ __annotate__ __annotate_func__ __bases__",
)
"""What nobody may assign to an attribute in strict mode."""

_METHODS = """
    abs add aenter aexit aiter and anext await bool bytes call ceil class_getitem complex contains copy deepcopy del
    delete delitem dir divmod enter eq exit float floor floordiv format fspath ge get getitem getnewargs
    getnewargs_ex gt hash iadd iand ifloordiv ilshift imatmul imod imul index init init_subclass instancecheck int
    invert ior ipow irshift isub iter itruediv ixor le len length_hint lshift lt matmul missing mod mul ne neg new
    next or pos post_init pow prepare radd rand rdivmod repr reversed rfloordiv rlshift rmatmul rmod rmul ror round
    rpow rrshift rshift rsub rtruediv rxor set set_name setitem sizeof str sub subclasscheck subclasshook truediv
    trunc xor
"""
_FACTS = """
    abstractmethods all annotations args author base bases bound cause class constraints context contravariant
    covariant date default doc file forward_arg func isabstractmethod kwdefaults match_args members metadata module
    mro mutable_keys name notes objclass optional_keys origin orig_bases parameters qualname readonly_keys
    required_keys slots supertype suppress_context text_signature total traceback type_params unpacked value version
    wrapped
"""
STRICT_PLAIN_DUNDERS = frozenset(f"__{name}__" for name in (_METHODS + _FACTS).split()) - {"__kwdefaults__"}
"""Names with two underscores at both ends that strict mode reads without a guard, on every object."""

STRICT_STORED_DUNDERS = frozenset(
    "__doc__ __name__ __qualname__ __module__ __class__ __cause__ __context__ __suppress_context__ __notes__".split()
) | frozenset("__traceback__ __wrapped__ __annotations__ __signature__ __text_signature__ __hash__".split())
"""Names with two underscores at both ends that strict mode lets a cell assign, on its own objects."""

TUPLE_INTERFACE = frozenset({"_asdict", "_replace", "_fields", "_make", "_field_defaults"})
ENUM_INTERFACE = frozenset(
    "_value_ _name_ _missing_ _generate_next_value_ _ignore_ _order_ _member_map_ _member_names_".split()
) | {"_value2member_map_", "_sort_order_", "_add_alias_", "_add_value_alias_"}


def is_private(name: str) -> bool:
    """Return whether a name begins with an underscore and is not one of Python's own `__names__`."""
    return name.startswith("_") and not is_dunder(name)


def is_dunder(name: str) -> bool:
    """Return whether a name has two underscores at both ends."""
    return len(name) > 4 and name.startswith("__") and name.endswith("__")
