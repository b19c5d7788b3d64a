"""Ctrl-C for commands that have something to end well."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any, NoReturn


async def heed_interrupts(running: Any, *, task_status: Any) -> None:
    """Cancel the scope `running` at the first Ctrl-C; leave at the second."""
    import anyio

    if sys.platform == "win32":
        task_status.started()
        return
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as received:
        task_status.started()
        async for number in received:
            if running.cancel_called:
                _leave(128 + number)
            running.cancel()


def _leave(code: int) -> NoReturn:
    """End the process at once. A line that is overwritten as it goes stays, and what comes next has its own."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\n")
    os._exit(code)
