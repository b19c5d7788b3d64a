"""Flags beat the environment, that beats the project's file, that beats the user's, and that the defaults."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import pytest

from rlm_mcp.keys import KEYS
from rlm_mcp.settings import Settings
from rlm_mcp.sources import Origin, Sources

from .conftest import Desk

RANKS = ("flag", "environment", "project", "user")


@pytest.mark.parametrize("there", [s for n in range(5) for s in itertools.combinations(RANKS, n)])
def test_the_highest_source_that_says_something_decides(desk: Desk, there: tuple[str, ...]) -> None:
    if "user" in there:
        desk.user('[rlm]\nsnipara_project_slug = "user"\n')
    if "project" in there:
        desk.theirs('\n[rlm]\nsnipara_project_slug = "project"\n')
    flags = {"rlm.snipara_project_slug": "flag"} if "flag" in there else {}
    environment = {"RLM_SNIPARA_PROJECT_SLUG": "environment"} if "environment" in there else {}

    loaded = desk.load(flags, environment)

    winner = there[0] if there else "default"
    where = {
        "flag": "--set rlm.snipara_project_slug",
        "environment": "RLM_SNIPARA_PROJECT_SLUG",
        "project": f"{desk.project}/rlm.toml:3",
        "user": f"{desk.config}/rlm.toml:2",
        "default": "",
    }
    assert loaded.settings.rlm.snipara_project_slug == (winner if there else "")
    assert loaded.origins["rlm.snipara_project_slug"] == Origin(winner, where[winner])  # type: ignore[arg-type]
    assert loaded.notes == ()


def test_without_any_source_everything_is_as_by_default(desk: Desk) -> None:
    loaded = desk.load()

    assert loaded.settings == Settings()
    assert set(loaded.origins) == set(KEYS)
    assert set(loaded.origins.values()) == {Origin("default")}


def test_sources_are_merged_key_by_key(desk: Desk) -> None:
    desk.user("[sandbox]\nthreads = 32\nopen_files = 100\n")
    desk.theirs("[sandbox]\nthreads = 16\n")

    sandbox = desk.load({"sandbox.processes": "3"}, {"RLM_SANDBOX_NETWORK": "on"}).settings.sandbox

    assert (sandbox.threads, sandbox.open_files, sandbox.processes, sandbox.network) == (16, 100, 3, True)


def test_without_a_folder_no_project_has_a_part_in_it(desk: Desk) -> None:
    desk.theirs("[rlm]\nmax_depth = 1\n")

    assert desk.sources().load(None).settings == Settings()


def test_the_users_own_file_is_not_a_projects_where_the_project_is_its_folder(desk: Desk) -> None:
    desk.user("[sandbox]\nnetwork = true\n[http]\nport = 1\n")

    loaded = desk.sources().load(desk.config)

    assert loaded.settings.sandbox.network and loaded.settings.http.port == 1
    assert loaded.origins["sandbox.network"].source == "user"


VALUES: dict[str, Any] = {
    "switch": ("yes", True),
    "number": ("77", 77),
    "fraction": ("33.5", 33.5),
    "size": ("128m", 128 * 1024**2),
    "text": ("some", "some"),
    "path": ("/a b/c", Path("/a b/c")),
    "paths": (f"/a{os.pathsep}/b,c", (Path("/a"), Path("/b,c"))),
    "texts": ("a:1, b", ("a:1", "b")),
    "text table": ("a=1=,b=2", {"a": "1=", "b": "2"}),
    "price table": ('{"m": [1, 2.5]}', {"m": (1.0, 2.5)}),
    "paths table": (f"a=/x{os.pathsep}/y,b=/z", {"a": (Path("/x"), Path("/y")), "b": (Path("/z"),)}),
}


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_every_key_has_a_variable_and_a_flag(desk: Desk, key: Any) -> None:
    text, value = (key.choices[-1],) * 2 if key.kind == "choice" else VALUES[key.kind]
    if key.dotted == "sessions.shown_characters":
        text, value = "777", 777

    for loaded in (desk.load({}, {key.variable: text}), desk.load({key.dotted: text})):
        section = getattr(loaded.settings, key.section) if key.section else loaded.settings
        assert getattr(section, key.name) == value
        assert loaded.origins[key.dotted].source != "default"
        assert loaded.notes == ()


@pytest.mark.parametrize("text", ["", "  ", "${RLM_MODEL}", "${X:-y}"])
def test_a_variable_that_a_host_could_not_fill_counts_as_unset(desk: Desk, text: str) -> None:
    desk.user('[rlm]\nmodel = "mine"\n')

    names = ("RLM_MODEL", "SNIPARA_API_KEY", "RLM_HTTP_TOKEN", "RLM_NO_SUCH_THING")
    loaded = desk.load({}, dict.fromkeys(names, text))

    assert loaded.settings.rlm.model == "mine"
    assert loaded.settings.http.tokens == {}
    assert loaded.notes == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [*((t, True) for t in ("true", "1", "YES", "On")), *((t, False) for t in ("false", "0", "No", "off"))],
)
def test_switches_are_said_in_many_words(desk: Desk, text: str, value: bool) -> None:
    desk.user(f"[sandbox]\nnetwork = {str(not value).lower()}\n")

    assert desk.load({}, {"RLM_SANDBOX_NETWORK": text}).settings.sandbox.network is value


@pytest.mark.parametrize("name", ["API_KEY", "PROJECT_SLUG", "API_URL"])
def test_snipara_has_its_own_variables_and_ours_win(desk: Desk, name: str) -> None:
    key = f"snipara_{name.lower()}"

    alone = desk.load({}, {f"SNIPARA_{name}": "theirs"})
    both = desk.load({}, {f"SNIPARA_{name}": "theirs", f"RLM_SNIPARA_{name}": "ours"})

    assert getattr(alone.settings.rlm, key) == "theirs"
    assert alone.origins[f"rlm.{key}"] == Origin("environment", f"SNIPARA_{name}")
    assert getattr(both.settings.rlm, key) == "ours"


def test_a_single_token_is_that_of_the_owner_beside_the_others(desk: Desk) -> None:
    desk.user('[http.tokens]\nann = "a"\nowner = "old"\n')

    loaded = desk.load({}, {"RLM_HTTP_TOKEN": "new"})
    replaced = desk.load({}, {"RLM_HTTP_TOKEN": "new", "RLM_HTTP_TOKENS": "bob=b"})

    assert loaded.settings.http.tokens == {"ann": "a", "owner": "new"}
    assert loaded.origins["http.tokens"] == Origin("environment", "RLM_HTTP_TOKEN")
    assert replaced.settings.http.tokens == {"bob": "b", "owner": "new"}


@pytest.mark.parametrize("name", ["rlm.model", "RLM.Model", "model", "--model"])
def test_flags_are_known_in_every_spelling(desk: Desk, name: str) -> None:
    assert desk.load({name: "x"}).settings.rlm.model == "x"


def test_flags_may_be_typed_already_and_none_is_not_given(desk: Desk) -> None:
    flags = {
        "sandbox.network": True,
        "http.port": 9,
        "sandbox.folders": ["/a", Path("/b")],
        "rlm.model": None,
    }

    settings = desk.load(flags, {"RLM_MODEL": "x"}).settings

    assert (settings.sandbox.network, settings.http.port, settings.rlm.model) == (True, 9, "x")
    assert settings.sandbox.folders == (Path("/a"), Path("/b"))


def test_relative_paths_start_at_the_file_and_elsewhere_at_the_working_directory(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(desk.project)
    desk.user('[sandbox]\nfolders = ["a", "/b"]\npython = ""\n[sessions]\nstate_dir = "~/s"\n')

    file, text = desk.load().settings, desk.load({}, {"RLM_SANDBOX_FOLDERS": "a"}).settings

    assert file.sandbox.folders == (desk.config / "a", Path("/b"))
    assert file.sandbox.python is None
    assert file.sessions.state_dir == Path.home() / "s"
    assert text.sandbox.folders == (desk.project / "a",)


def test_the_process_has_its_environment_and_the_place_that_is_usual(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RLM_MODEL", "x")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(desk.config))
    monkeypatch.delenv("RLM_CONFIG_DIR", raising=False)
    usual = Sources.of_process()
    monkeypatch.setenv("RLM_CONFIG_DIR", str(desk.project))
    named = Sources.of_process({"max_depth": "1"})

    assert usual.config_dir.name == "rlm-mcp"
    assert named.config_dir == desk.project
    assert (named.load(None).settings.rlm.model, named.load(None).settings.rlm.max_depth) == ("x", 1)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("RLM_NETWROK", "RLM_SANDBOX_NETWORK"),
        ("RLM_FILES", "RLM_SANDBOX_FILES"),
        ("RLM_RLM_MODEL", "RLM_MODEL"),
        ("RLM_SANDBOX_NETWROK", "RLM_SANDBOX_NETWORK"),
        ("RLM_MODELL", "RLM_MODEL"),
    ],
)
def test_a_variable_that_means_nothing_is_noted_with_the_nearest_one(
    desk: Desk, variable: str, meant: str
) -> None:
    assert desk.load({}, {variable: "1"}).notes == (
        f"{variable} in the environment is not a setting and does nothing; did you mean {meant}?",
    )


def test_variables_of_others_and_of_the_log_are_not_noted(desk: Desk) -> None:
    names = (
        "RLM_CONFIG_DIR",
        "RLM_DEV_VENV",
        "RLM_LOG_LEVEL",
        "RLM_LOG_FORMAT",
        "PATH",
        "NETWROK",
        "MY_RLM_X",
    )

    assert desk.load({}, dict.fromkeys(names, "x")).notes == ()
