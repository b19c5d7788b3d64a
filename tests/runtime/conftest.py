"""A sandbox for all tests of this folder that need one, and a folder for temporary things that nobody else has."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator

import pytest

from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import open_session


@pytest.fixture(scope="package")
async def sandbox(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalSandbox]:
    with pytest.MonkeyPatch.context() as patched:
        own = str(tmp_path_factory.mktemp("temporary"))
        patched.setattr(tempfile, "tempdir", own)
        patched.setenv("TMPDIR", own)
        async with LocalSandbox() as opened:
            async with open_session(opened):  # which starts what is there for all sessions
                pass
            yield opened
