"""What is wrong is said all at once, each with its place and what would be right."""

from __future__ import annotations

from typing import Any

import pytest

from rlm_mcp.errors import DoorError
from rlm_mcp.keys import KEYS
from rlm_mcp.settings import bytes_of
from rlm_mcp.sources import SettingsError

from .conftest import Desk

WRONG = [
    ("[sandbox]\nnetwrok = true", '2: [sandbox] netwrok is not a setting; did you mean network?'),
    ('[rlm]\nmax_depth = "five"', '2: [rlm] max_depth = "five": it must be a whole number from 0 to 100.'),
    ('[rlm]\nmax_depth = "5"', '2: [rlm] max_depth = "5": it must be a whole number from 0 to 100.'),
    ("[rlm]\nmax_depth = true", "2: [rlm] max_depth = true: it must be a whole number from 0 to 100."),
    ("[rlm]\nmax_depth = 101", "2: [rlm] max_depth = 101: it must be a whole number from 0 to 100."),
    ("[rlm]\nmax_depth = 4.0", "2: [rlm] max_depth = 4.0: it must be a whole number from 0 to 100."),
    ("[rlm]\ndocker_cpus = 0", "2: [rlm] docker_cpus = 0: it must be a number from 0.01 to 1024."),
    ("[rlm]\nverbose = 1", "2: [rlm] verbose = 1: it must be true or false."),
    ('[sandbox]\nnetwork = "yes"', '2: [sandbox] network = "yes": it must be true or false.'),
    ('[sandbox]\nfiles = "Read"', '2: [sandbox] files = "Read": it must be "none", "read" or "write".'),
    ("[sandbox]\nwall_seconds = nan", "2: [sandbox] wall_seconds = NaN: it must be a number from 0.1 to 86400."),
    ("[sandbox]\nwall_seconds = inf", "2: [sandbox] wall_seconds = Infinity: it must be a number from 0.1 to 86400."),
    ('[sandbox]\nmemory_bytes = "many"', '2: [sandbox] memory_bytes = "many": it must be a size such as "512m" or "2g", from 32m to 8192t.'),
    ('[sandbox]\nfolders = "a"', '2: [sandbox] folders = "a": it must be a list of at most 100 paths.'),
    ('[sandbox]\nfolders = ["a", 1]', '2: [sandbox] folders = ["a", 1]: it must be a list of at most 100 paths.'),
    ('[sandbox]\nfolders = [""]', '2: [sandbox] folders = [""]: it must be a list of at most 100 paths.'),
    ('[sandbox]\npython = 3', "2: [sandbox] python = 3: it must be a path."),
    ('[sandbox]\npython = "a\\u0000b"', '2: [sandbox] python = "a\\u0000b": it holds a character that no path should have.'),
    ('[sandbox]\npython = "~nobody-at-all/x"', '2: [sandbox] python = "~nobody-at-all/x": it begins with ~, and that home folder is not known.'),
    ("[rlm]\nmodel = 1979-05-27", '2: [rlm] model = "1979-05-27": it must be a text of at most 200 characters.'),
    ("[rlm]\nnetwork = true", "2: [rlm] network is not a setting; did you mean network in [sandbox]?"),
    ("[sandbox]\nmodle = 1", "2: [sandbox] modle is not a setting; did you mean model in [rlm]?"),
    ("[sandbox]\nproject = 'x'", "2: [sandbox] project is not a setting; did you mean project, outside of the sections?"),
    ("[sandbox.limits]\nx = 1", "1: [sandbox] limits is not a setting. `rlm-mcp config show --all` lists those that are."),
    ("[sanbox]\nnetwork = true", "1: [sanbox] is not a section; did you mean [sandbox]?"),
    ("[snipara]\nkey = 1", "1: [snipara] is not a section; did you mean snipara_api_key or snipara_project_slug or snipara_api_url in [rlm]?"),
    ("[zzz]\nkey = 1", "1: [zzz] is not a section. The sections are [rlm], [sandbox], [sessions], [http]."),
    ("[[sandbox]]\nnetwork = true", "1: [sandbox] must be a table."),
    ("[[rlm]]\napi_key = 'sk-secret'", "1: [rlm] must be a table."),
    ("rlm = 5", "1: [rlm] must be a table."),
    ("network = true", "1: network is not a setting outside of the sections; did you mean network in [sandbox]?"),
    ("zzz = 1", "1: zzz is not a setting outside of the sections. `rlm-mcp config show --all` lists those that are."),
    ('"a\\nb\\u001b" = 1', '1: "a\\nb\\u001b" is not a setting outside of the sections. `rlm-mcp config show --all` lists those that are.'),
    ("project = 5", "1: project = 5: it must be a text of at most 4096 characters."),
    ("sandbox.network = 5", "1: [sandbox] network = 5: it must be true or false."),
    ("[http]\ntokens = 'x'", "2: [http] tokens: it must be a table of texts by name."),
    ("[http.tokens]\na = 1", "1: [http] tokens: it must be a table of texts by name."),
    ("[http.folders]\na = 'x'", '1: [http] folders = {"a": "x"}: it must be a table of lists of paths by name.'),
    ("[http]\nhost = ''", '2: [http] host = "": it must be a text of 1 to 255 characters.'),
    ("[rlm]\napi_key = 5", "2: [rlm] api_key: it must be a text of at most 4000 characters."),
    ("a = 1\n[b", "2: this is not TOML: Expected ']' at the end of a table declaration. Mend that line."),
    ("a = \n", "1:5: this is not TOML: Invalid value. Mend that line."),
    ("a = 1\na = 2\n", "2:6: this is not TOML: Cannot overwrite a value. Mend that line."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "problem"), WRONG)
def test_what_is_wrong_in_a_file_is_said_with_its_line_and_what_would_be_right(
    desk: Desk, text: str, problem: str
) -> None:
    desk.user(text)

    assert desk.problems() == [f"CONFIG/rlm.toml:{problem}"]


@pytest.mark.parametrize(
    ("text", "problem"), [each for each in WRONG if not any(w in each[0] for w in ("http", "key", "project"))]
)
def test_it_is_the_same_in_a_projects_file(desk: Desk, text: str, problem: str) -> None:
    desk.theirs(text)

    assert desk.problems() == [f"PROJECT/rlm.toml:{problem}"]


def test_all_that_is_wrong_is_said_at_once_in_the_order_of_the_sources(desk: Desk) -> None:
    desk.user("[sandbox]\nnetwrok = 1\nthreads = 0\n")
    desk.theirs("[rlm]\n\n\nmax_depht = 1\n")

    problems = desk.problems({"rlm.modle": "x", "http.port": "x"}, {"RLM_VERBOSE": "perhaps"})

    assert problems == [
        "CONFIG/rlm.toml:2: [sandbox] netwrok is not a setting; did you mean network?",
        "CONFIG/rlm.toml:3: [sandbox] threads = 0: it must be a whole number from 4 to 100000.",
        'RLM_VERBOSE = "perhaps": it must be true or false.',
        "--set: rlm.modle is not a setting; did you mean rlm.model?",
        '--port = "x": it must be a whole number from 0 to 65535.',
        "PROJECT/rlm.toml:4: [rlm] max_depht is not a setting; did you mean max_depth?",
    ]


def test_secrets_are_never_in_an_error(desk: Desk) -> None:
    desk.user('[http]\ntokens = ["hush"]\n[rlm]\napi_key = ["hush"]\n')

    problems = desk.problems(
        {"rlm.snipara_api_key": ["hush"]}, {"RLM_API_KEY": "hush" * 2000, "RLM_HTTP_TOKENS": "hush"}
    )

    assert len(problems) == 5
    assert not any("hush" in each for each in problems)


def test_secrets_are_not_in_what_a_log_or_a_traceback_shows_of_the_values(desk: Desk) -> None:
    desk.user('[rlm]\napi_key = "hush"\n[http.tokens]\nann = "hush"\n')
    desk.theirs("[sandbox]\nnetwork = true\n")

    sources = desk.sources({"rlm.snipara_api_key": "hush"}, {"RLM_HTTP_OAUTH_CLIENT_SECRET": "hush"})

    assert "hush" not in repr((sources, sources.load(desk.project), sources.asked(desk.project)))


def test_no_more_than_twenty_problems_are_told(desk: Desk) -> None:
    desk.theirs("[sandbox]\n" + "".join(f"x{number} = 1\n" for number in range(50_000)))

    with pytest.raises(SettingsError) as caught:
        desk.load()

    lines = str(caught.value).splitlines()
    assert len(lines) == 21 and lines[-1] == "... and more."


def test_a_long_value_is_shortened(desk: Desk) -> None:
    desk.theirs(f'[sandbox]\nfiles = "{"x" * 10_000}"\n')

    assert len(desk.problems()[0]) < 200


def test_it_is_an_error_of_the_doors(desk: Desk) -> None:
    desk.user("[x]")

    with pytest.raises(DoorError):
        desk.sources().load(None)


@pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
def test_what_is_said_to_be_allowed_is_true_at_both_ends(desk: Desk, key: Any) -> None:
    """The words are read as a person would read them."""
    words = key.allowed.replace(",", "").split()
    if "from" not in words:
        return
    low, high = words[words.index("from") + 1], words[-1]

    for end, beyond in ((low, -1), (high, 1)):
        number = bytes_of(end) if key.kind == "size" else float(end)
        number = int(number) if key.kind != "fraction" else number
        assert key.read(number, desk.config) == number
        with pytest.raises(ValueError, match="must be"):
            key.read(number + beyond, desk.config)
