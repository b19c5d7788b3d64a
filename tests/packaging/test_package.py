"""What is published is whole, holds nothing else, and works where it is all there is."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.buffered import BufferedByteReceiveStream

from tests.packaging.conftest import ROOT, Archives, Installed, build

PACKAGES = {"rlm", "rlm_mcp", "rlm_runtime", "rlm_sandboxes", "rlm_sessions"}


def test_the_wheel_holds_our_packages_and_nothing_else(archives: Archives) -> None:
    names = zipfile.ZipFile(archives.wheel).namelist()

    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == PACKAGES
    assert not [name for name in names if "test" in name or "__pycache__" in name or name.endswith(".pyc")]
    assert {name for name in names if name.endswith("py.typed")} == {
        f"{package}/py.typed" for package in PACKAGES
    }


def test_every_module_of_the_sources_is_in_the_wheel(archives: Archives) -> None:
    names = set(zipfile.ZipFile(archives.wheel).namelist())

    for package in (
        "sandboxes/rlm_sandboxes",
        "sessions/rlm_sessions",
        "runtime/rlm_runtime",
        "runtime/rlm",
        "rlm_mcp",
    ):
        folder = ROOT / package
        modules = {str(path.relative_to(folder.parent)) for path in folder.rglob("*.py")}
        assert modules <= names


def test_the_wheel_says_what_it_is_and_under_which_licence(archives: Archives) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wheel = zipfile.ZipFile(archives.wheel)
    [facts] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(facts).decode())
    folder = facts.rpartition("/")[0]

    assert (metadata["Name"], metadata["Version"]) == ("rlm-mcp", project["version"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["Requires-Python"] == ">=3.11"
    assert all("<" in each for each in metadata.get_all("Requires-Dist", []))
    assert metadata.get_payload() == (ROOT / "README.md").read_text()
    scripts = wheel.read(f"{folder}/entry_points.txt").decode().split()
    assert {"rlm-mcp", "rlm"} <= set(scripts)


def test_the_source_archive_is_enough_to_build_the_same_wheel(archives: Archives, tmp_path: Path) -> None:
    with tarfile.open(archives.sdist) as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # early releases of 3.11 have none
        archive.extractall(tmp_path / "source")
    [source] = (tmp_path / "source").iterdir()

    again = build("wheel", source, tmp_path / "wheel")

    assert again.name == archives.wheel.name
    assert _contents(again) == _contents(archives.wheel)


def _contents(wheel: Path) -> dict[str, int]:
    return {info.filename: info.CRC for info in zipfile.ZipFile(wheel).infolist()}


def test_the_images_can_be_built_from_the_source_archive(archives: Archives) -> None:
    with tarfile.open(archives.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}

    files = {str(path.relative_to(ROOT)) for path in (ROOT / "docker").rglob("*") if path.is_file()}
    taken_by_the_server = {"pyproject.toml", "README.md", "LICENSE", "runtime/rlm_runtime/__init__.py"}
    assert {"docker/server/Dockerfile", "docker/science/Dockerfile", "docker/compose.yaml"} <= files
    assert files | taken_by_the_server | {".dockerignore"} <= names


def test_extras_name_what_can_be_left_out(archives: Archives) -> None:
    wheel = zipfile.ZipFile(archives.wheel)
    [facts] = [name for name in wheel.namelist() if name.endswith(".dist-info/METADATA")]
    metadata = Parser().parsestr(wheel.read(facts).decode())

    assert set(metadata.get_all("Provides-Extra", [])) == {"docker", "llm", "science"}
    needed = [each for each in metadata.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert not [
        each for each in needed if each.startswith(("docker", "litellm", "numpy", "pandas", "matplotlib"))
    ]


def test_both_commands_are_there_and_tell_the_version(installed: Installed) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]

    for name in ("rlm-mcp", "rlm"):
        assert _output(installed, name, "--version").split()[-1] == version


def test_the_doctor_finds_the_installation_well(installed: Installed) -> None:
    found = json.loads(_output(installed, "rlm-mcp", "doctor", "--json"))["data"]

    states = {check["name"]: check["state"] for check in found["checks"]}
    assert (found["failed"], states["Packages"], states["Cell"]) == ([], "ok", "ok")


def test_what_is_sent_into_containers_is_read_from_the_installation(installed: Installed) -> None:
    code = """
from rlm_sandboxes.docker.bundle import boot_text, pack
from rlm_sessions.session import guest_program
compile(boot_text(), "boot", "exec")
print(len(pack(guest_program())))
"""

    assert int(_output(installed, "python", "-I", "-c", code)) > 100_000


def test_containers_without_their_extra_are_refused_with_the_command_that_installs_it(
    installed: Installed,
) -> None:
    ran = _run(installed, "rlm-mcp", "exec", "--set", "rlm.environment=docker", "1")

    assert ran.returncode != 0
    assert "rlm-mcp[docker]" in ran.stderr
    assert "Traceback" not in ran.stderr


def _output(installed: Installed, *command: str) -> str:
    ran = _run(installed, *command)
    assert ran.returncode == 0, ran.stderr + ran.stdout
    return ran.stdout


def _run(installed: Installed, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(installed.programs / command[0]), *command[1:]],
        cwd=installed.folder.parent,
        env=installed.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_a_client_runs_a_cell_in_what_was_installed(installed: Installed, tmp_path: Path) -> None:
    command = [str(installed.programs / "rlm-mcp"), "serve", "--project", str(tmp_path)]
    with anyio.fail_after(60):
        async with await anyio.open_process(
            command, env=installed.environment, cwd=tmp_path, stderr=None
        ) as server:
            client = _Client(server)
            greeting = await client.ask(
                "initialize",
                protocolVersion="2025-11-25",
                capabilities={},
                clientInfo={"name": "test", "version": "1"},
            )
            await client.tell("notifications/initialized")
            answer = await client.ask("tools/call", name="execute_python", arguments={"code": "1+1"})
            await client.leave()
            code = await server.wait()

    assert greeting["protocolVersion"] == "2025-11-25"
    assert not answer.get("isError")
    assert "2" in answer["content"][0]["text"]
    assert code == 0


class _Client:
    """Speaks to a server in lines of JSON, with no library between."""

    def __init__(self, server: anyio.abc.Process) -> None:
        assert server.stdin and server.stdout
        self._to = server.stdin
        self._from = BufferedByteReceiveStream(server.stdout)
        self._number = 0

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        await self._send({"id": self._number, "method": method, "params": params})
        while True:
            message = json.loads(await self._from.receive_until(b"\n", 1024 * 1024))
            if message.get("id") == self._number and "method" not in message:
                result: dict[str, Any] = message["result"]
                return result

    async def tell(self, method: str) -> None:
        await self._send({"method": method})

    async def leave(self) -> None:
        await self._to.aclose()

    async def _send(self, message: dict[str, Any]) -> None:
        await self._to.send(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
