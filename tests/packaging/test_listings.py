"""What tells others of this server: the registry's listing, the bundle and the example, and what they promise is so."""

from __future__ import annotations

import json
import os
import re
import tomllib
from pathlib import PurePosixPath
from typing import Any

from rlm_mcp.clients import DESKTOP_FILE
from rlm_mcp.keys import KEYS
from tests.packaging.conftest import ROOT

BUNDLE = ROOT / "packaging" / "mcpb"


def listing() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((ROOT / "server.json").read_text())
    return found


def manifest() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((BUNDLE / "manifest.json").read_text())
    return found


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return found


def released() -> str:
    """Return the version that the sources are or, while they are in development, that they will become."""
    return re.sub(r"\.dev\d+$", "", project()["version"])


def test_all_listings_name_the_version_that_the_sources_become() -> None:
    bundle = tomllib.loads((BUNDLE / "pyproject.toml").read_text())["project"]

    assert re.fullmatch(r"\d+\.\d+\.\d+", released())
    assert [listing()["version"], listing()["packages"][0]["version"]] == [released()] * 2
    assert [manifest()["version"], bundle["version"]] == [released()] * 2
    assert bundle["dependencies"] == [f"rlm-mcp=={released()}"]


def test_the_listing_is_as_the_registry_wants_it() -> None:
    [package] = listing()["packages"]

    assert listing()["$schema"].endswith("/2025-12-11/server.schema.json")
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", listing()["name"])
    assert 1 <= len(listing()["description"]) <= 100
    assert 1 <= len(listing()["title"]) <= 100
    assert (package["registryType"], package["identifier"]) == ("pypi", project()["name"])
    assert (package["runtimeHint"], package["transport"]) == ("uvx", {"type": "stdio"})
    assert [argument["type"] for argument in package["packageArguments"]] == ["positional"]


def test_the_readme_proves_to_the_registry_that_the_package_is_ours() -> None:
    assert f"<!-- mcp-name: {listing()['name']} -->" in (ROOT / "README.md").read_text()


def test_variables_that_are_listed_exist_and_secret_ones_are_marked() -> None:
    variables = {key.variable for key in KEYS.values()}
    listed = {each["name"]: each for each in listing()["packages"][0]["environmentVariables"]}
    of_bundle = manifest()["server"]["mcp_config"]["env"]

    for name in [*listed, *of_bundle]:
        assert name in variables or name.endswith("_API_KEY")
    assert {name for name, each in listed.items() if each["isSecret"]} == {
        n for n in listed if n.endswith("_KEY")
    }


def test_the_bundle_is_what_claude_desktop_opens() -> None:
    server, asked = manifest()["server"], manifest()["user_config"]

    assert (manifest()["manifest_version"], server["type"]) == ("0.4", "uv")
    assert (BUNDLE / server["entry_point"]).is_file()
    assert {"name", "version", "description", "author"} <= set(manifest())
    named = set(re.findall(r"\$\{user_config\.(\w+)\}", json.dumps(server)))
    assert named == set(asked)
    assert all({"type", "title", "description"} <= set(each) for each in asked.values())
    assert all(each["sensitive"] for name, each in asked.items() if name.endswith("_key"))
    assert os.access(BUNDLE / "build", os.X_OK)


def test_the_example_for_claude_desktop_starts_us_by_an_absolute_path() -> None:
    example = json.loads((ROOT / DESKTOP_FILE.replace(".json", ".example.json")).read_text())

    entry = example["mcpServers"]["rlm"]
    assert PurePosixPath(entry["command"]).is_absolute()
    assert entry["args"][:2] == [project()["name"], "serve"]
