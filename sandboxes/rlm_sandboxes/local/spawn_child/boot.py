"""Loads this folder as `rlm_spawned`. It may meet any Python, so it must be valid in all of them."""

import os
import sys

if sys.version_info < (3, 9):  # noqa: UP036
    sys.stderr.write("it is Python %d.%d, and 3.9 is the oldest that works" % sys.version_info[:2])  # noqa: UP031
    sys.exit(72)

import importlib.util

_folder = os.path.dirname(os.path.abspath(__file__))
_spec = importlib.util.spec_from_file_location(
    "rlm_spawned", os.path.join(_folder, "__init__.py"), submodule_search_locations=[_folder]
)
assert _spec is not None
assert _spec.loader is not None
_package = importlib.util.module_from_spec(_spec)
sys.modules["rlm_spawned"] = _package
_spec.loader.exec_module(_package)

importlib.import_module("rlm_spawned.child").main()
