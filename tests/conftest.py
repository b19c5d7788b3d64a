"""What all tests share: one event loop kind, and no blocking call in it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest
from blockbuster import BlockBuster, blockbuster_ctx

if hasattr(signal, "SIGHUP"):  # nohup has it ignored, and what is started here would inherit that
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell has it for what it runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[BlockBuster]:
    """Fail a test in which one of our modules blocks the event loop."""
    with blockbuster_ctx(["rlm_mcp", "rlm_runtime", "rlm_sandboxes", "rlm_sessions"]) as detector:
        # half a millisecond at most, in place of two changes of threads that take half of that each time
        detector.functions["threading.Lock.acquire"].can_block_in("rlm_sessions/scribe.py", {"now"})
        yield detector
