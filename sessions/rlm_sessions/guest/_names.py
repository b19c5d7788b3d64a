"""What each attribute and variable name means to the language policy: data, and nothing else.

A *door* is a name that leads out of the cell's own objects and into the interpreter. Names are judged in the
source where they can be; the few that depend on the object (`format`, and in strict mode private names) are
rewritten to a guard, whose own name cannot be written in Python source.
"""

from __future__ import annotations

import sys
from typing import Dict, FrozenSet, Mapping, NamedTuple


class Door(NamedTuple):
    """Why a name is refused, and what to write instead."""

    why: str
    instead: str


_FRAMES = Door(
    "it opens the interpreter's running frames",
    "Pass the values you need as arguments; traceback.format_exc() shows where an error came from.",
)
_INSIDES = Door(
    "it opens a function's code and globals, and through them every module of the interpreter",
    "Pass the values you need as arguments.",
)
_CLASSES = Door(
    "it lists classes of the whole interpreter",
    "Keep a list of your own classes, for example in __init_subclass__.",
)
_LOADERS = Door("it opens the import machinery", "Use an import statement.")
_BUILTINS = Door("it opens the interpreter's builtins", "Use the builtin by its own name.")
_PROGRAMS = Door("it starts another program", "Do the work in Python in this cell.")
_MACHINE_CODE = Door("it loads machine code", "Do the work in Python in this cell.")
_TRACING = Door("it watches the interpreter's own code", "Use print, or time.perf_counter() around a call.")
_COPYING = Door("it hands out the interpreter's copying functions", "Use copy.copy() or copy.deepcopy().")
_EVENT_LOOP = Door("it opens the event loop's system calls", "Use asyncio.create_task or asyncio.gather.")
_MANAGED = Door("the interpreter itself reads it", "Write it out as a literal in the class body.")


def _doors(door: Door, names: str) -> Dict[str, Door]:
    return dict.fromkeys(names.split(), door)


REFUSED_ATTRIBUTES: Mapping[str, Door] = {
    **_doors(_FRAMES, "tb_frame f_back f_builtins f_code f_generator f_globals f_locals f_trace f_trace_lines"),
    **_doors(_FRAMES, "f_trace_opcodes gi_frame gi_code cr_frame cr_code ag_frame ag_code _getframe"),
    **_doors(_FRAMES, "_getframemodulename _current_frames _current_exceptions"),
    **_doors(_INSIDES, "__globals__ __closure__ __code__ co_code cell_contents"),
    **_doors(_CLASSES, "__subclasses__"),
    **_doors(_LOADERS, "__loader__ __spec__ __import__ exec_module load_module"),
    **_doors(_BUILTINS, "__builtins__"),
    **_doors(_PROGRAMS, "subprocess_exec subprocess_shell create_subprocess_exec create_subprocess_shell"),
    **_doors(_MACHINE_CODE, "load_extension enable_load_extension"),
    **_doors(_TRACING, "settrace setprofile _settraceallthreads _setprofileallthreads"),
}
"""Refused in every mode, whatever the object is."""

STRICT_REFUSED_ATTRIBUTES: Mapping[str, Door] = {
    **REFUSED_ATTRIBUTES,
    **_doors(_FRAMES, "tb_next gi_yieldfrom cr_await cr_origin ag_await get_stack print_stack"),
    **_doors(_COPYING, "__reduce__ __reduce_ex__"),
    **_doors(_EVENT_LOOP, "get_loop loop_factory"),
}
"""Refused in strict mode, whatever the object is."""

OWN_NAMES_OF_THE_USER: FrozenSet[str] = frozenset({"exec_module", "load_module", "cell_contents", "loop_factory"})
"""Names that a cell may bind or define although reading them as an attribute is refused."""

GUARDED_ATTRIBUTES: FrozenSet[str] = frozenset({"format", "format_map", "__self__", "__getattribute__"})
"""Harmless on most objects: the guard looks at the object when the attribute is read."""

STRICT_GUARDED_ATTRIBUTES: FrozenSet[str] = GUARDED_ATTRIBUTES | {
    *("__getattr__", "__setattr__", "__delattr__", "__dict__", "__getstate__", "obj"),
    *(("evaluate",) if sys.version_info >= (3, 14) else ()),
}

REFUSED_VARIABLES: Mapping[str, Door] = _doors(_BUILTINS, "__builtins__ __build_class__") | _doors(
    _LOADERS, "__loader__ __spec__"
) if sys.version_info >= (3, 9) else {}
"""Variables that a cell may neither read nor bind."""

STRICT_MANAGED_NAMES: Mapping[str, Door] = _doors(
    _MANAGED, "__match_args__ __dataclass_fields__ __dataclass_params__ __annotate__ __annotate_func__ __bases__"
)
"""Names that strict mode lets nobody assign at run time, because library code trusts them."""
