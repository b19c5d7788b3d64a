"""What the README shows is what happens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def test_the_example_in_the_readme_prints_what_it_says() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}

    command = [sys.executable, "-c", code]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ran.returncode == 0, ran.stderr
    value, error, kept, isolation = ran.stdout.splitlines()
    assert (value, kept) == ("42", "41")
    assert "wall_seconds" in error and "Limits(wall_seconds=" in error
    assert "seccomp" in isolation
