"""The local sandbox: no daemon, quick to start, as many walls as the system has."""

import sys

if sys.platform == "darwin":
    from .macos import LAYERS
    from .macos import MacSandbox as LocalSandbox
elif sys.platform == "win32":
    from .windows import LAYERS
    from .windows import WindowsSandbox as LocalSandbox
else:
    from .linux import LAYERS
    from .linux import LinuxSandbox as LocalSandbox

__all__ = ["LAYERS", "LocalSandbox"]
