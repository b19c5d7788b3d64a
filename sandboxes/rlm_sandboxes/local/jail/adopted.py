"""The first code of ours in an interpreter that was executed inside the jail.

That interpreter lies in the project, so it may be anything. The jail was closed
before it got its first instruction, and nothing here is relied on for safety.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import site
from typing import Any, NoReturn

from .worker import CRASHES, EXIT_PROGRAM_FAILED, channel_for, tell
from .zygote import load_package

#: Runs in whatever Python it is, so it must be valid in all of them.
BOOTSTRAP = """
import os, sys
if sys.version_info < (3, 9):
    os.write(4, ("it is Python %d.%d, and 3.9 is the oldest that works" % sys.version_info[:2]).encode())
    os._exit(72)
import json
config = json.loads(os.read(0, 65536))
null = os.open("/dev/null", os.O_RDWR)
os.dup2(null, 0)

import importlib.util
spec = importlib.util.spec_from_file_location(
    "rlm_jail", config["jail"] + "/__init__.py", submodule_search_locations=[config["jail"]])
module = importlib.util.module_from_spec(spec)
sys.modules["rlm_jail"] = module
spec.loader.exec_module(module)
from rlm_jail import adopted
adopted.main(config)
"""


def main(config: dict[str, Any]) -> NoReturn:
    """Load the program and run it."""
    status = EXIT_PROGRAM_FAILED
    try:
        faulthandler.enable(file=CRASHES)
        channel = channel_for(config["secret"], copies=config["copies"])
        for name, folder in config["packages"]:
            load_package(name, folder)
        for folder in config["site"]:
            site.addsitedir(folder)
        module, function = config["entry"]
        entry = getattr(importlib.import_module(module), function)
        channel.send(b'{"up": true}\n')
        entry(channel)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException as problem:
        tell(problem)
    finally:
        os._exit(status)
