"""The local sandbox: no daemon, milliseconds to start, as many walls as the system has."""

import sys

from .linux import LAYERS, LinuxSandbox

LocalSandbox = LinuxSandbox

__all__ = ["LAYERS", "LocalSandbox"]
