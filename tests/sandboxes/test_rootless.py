"""The root of a container without privileges, which is nobody outside and may know no other user."""

from __future__ import annotations

import os
import subprocess
import sys

SERVER = """
import anyio
from rlm_sandboxes.local import LocalSandbox
from rlm_sessions import open_session

async def main():
    async with LocalSandbox() as sandbox, open_session(sandbox) as session:
        print(session.isolation)
        print((await session.run("open('file', 'w').write('fine')")).value)

anyio.run(main)
"""


def test_root_that_knows_no_other_user_gets_every_layer_but_that_one() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-c", SERVER]

    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr
    isolation, written = ran.stdout.splitlines()
    held, _, missing = isolation.partition("; ")
    assert {"mountns", "pidns", "netns", "landlock", "seccomp", "capabilities"} <= set(held.split("+"))
    assert missing.startswith("no uid")
    assert written == "4"
