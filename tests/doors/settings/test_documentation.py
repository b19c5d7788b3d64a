"""What docs/configuration.md says of each setting is what the model says."""

from __future__ import annotations

import re
from pathlib import Path

from rlm_mcp.keys import KEYS, Key
from rlm_mcp.toml_files import read_document

PAGE = Path(__file__).parents[3] / "docs" / "configuration.md"


def row(key: Key) -> str:
    nothing = key.secret or key.default is None or key.default == ""
    default = "none" if nothing else f"`{key.shown(key.default)}`"
    return f"| `{key.name}` | {default} | {key.allowed} | {key.meaning} |"


def test_the_tables_have_every_setting_in_its_section_and_no_other() -> None:
    tables = PAGE.read_text().partition("\n## All settings\n")[2]
    found = dict[str, list[str]]()
    section = ""
    for line in tables.splitlines():
        if line.startswith("### "):
            section = line.removeprefix("### ").strip("[]").replace("Outside of the sections", "")
        elif line.startswith("| `"):
            found.setdefault(section, []).append(line)

    expected = dict[str, list[str]]()
    for key in KEYS.values():
        expected.setdefault(key.section, []).append(row(key))
    assert found == expected


def test_every_setting_says_what_it_is_for_in_one_sentence() -> None:
    assert [key.dotted for key in KEYS.values() if not re.fullmatch(r"[A-Z][^|\n]+\.", key.meaning)] == []


def test_the_example_is_right(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert example is not None
    (tmp_path / "rlm.toml").write_text(example[1])

    document = read_document(tmp_path / "rlm.toml")

    assert document is not None
    for section, table in document.values.items():
        for name, value in table.items():
            KEYS[f"{section}.{name}"].read(value, tmp_path)


def test_every_variable_that_is_named_is_one() -> None:
    variables = set(re.findall(r"RLM_[A-Z_]*[A-Z]", PAGE.read_text()))
    ours = {"RLM_HTTP_TOKEN", "RLM_CONFIG_DIR", "RLM_LOG_LEVEL", "RLM_LOG_FORMAT"}

    assert variables - ours <= {key.variable for key in KEYS.values()}
