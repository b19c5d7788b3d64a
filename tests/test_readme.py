"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_first_example_in_the_readme_prints_what_it_says() -> None:
    value, error, kept, isolation = _printed_by(example=0)

    assert (value, kept) == ("42", "41")
    assert "wall_seconds" in error and "Limits(wall_seconds=" in error
    assert "seccomp" in isolation


def test_the_session_of_the_second_example_is_there_on_the_next_day() -> None:
    today, tomorrow = _printed_by(example=1)

    assert today == "today 1"
    assert tomorrow.startswith("tomorrow 2 The session is back from disk")


def _printed_by(*, example: int) -> list[str]:
    code = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)[example]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr
    return ran.stdout.splitlines()
