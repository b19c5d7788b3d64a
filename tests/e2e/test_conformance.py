"""The conformance suite of the protocol finds nothing in our server but what the baselines say and explain."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import DEVNULL

import anyio
import pytest

from rlm_mcp.app import Surroundings, open_app
from rlm_mcp.http import open_http
from rlm_mcp.server import make_server
from rlm_mcp.sources import Sources
from tests.e2e.conformance.fixtures import with_fixtures
from tests.e2e.grounds import Grounds, node_program, with_node
from tests.e2e.ways import TOKEN

SUITE = Path(__file__).parent / "conformance"


@pytest.mark.parametrize("revision", ["2025-11-25", "2026-07-28"])
async def test_the_server_meets_all_that_a_revision_requires(revision: str, grounds: Grounds) -> None:
    environment = {**grounds.environment, "RLM_HTTP_TOKEN": TOKEN, "RLM_HTTP_PORT": "0"}
    sources = Sources({}, environment, grounds.folder / "config")
    async with open_app(sources, Surroundings(None, grounds.project)) as app:
        async with open_http(app, with_fixtures(make_server(app))) as door:
            with anyio.fail_after(120):
                ran = await anyio.run_process(
                    [
                        *(node_program("conformance"), "server", "--url", door.url),
                        *("--requirements", revision, "--expected-failures", str(SUITE / f"{revision}.yml")),
                        *("--output-dir", str(grounds.folder / "results")),
                    ],
                    stdin=DEVNULL,
                    cwd=grounds.folder,
                    env=with_node(grounds.environment)
                    | {"NODE_OPTIONS": f"--import={SUITE / 'token.mjs'}", "CONFORMANCE_TOKEN": TOKEN},
                    check=False,
                )

    assert ran.returncode == 0, _failures(grounds.folder / "results") + ran.stdout.decode()[-3000:]


def _failures(results: Path) -> str:
    """Return what failed of each scenario."""
    lines: list[str] = []
    for file in sorted(results.glob("*/checks.json")):
        for check in json.loads(file.read_text()):
            if check["status"] in ("FAILURE", "WARNING"):
                lines.append(f"{file.parent.name}: {check['id']}: {check.get('errorMessage')}")
    return "\n".join([*lines, ""])
