"""What waits for the client outlives the server, however that ends: the real program over stdio."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import pytest

from tests.doors.cli.programs import Server, Shell

CODE = """\
count = globals().get("count", 0) + 1
answers = llm_map(["red?", "green?", "blue?"])
print(count, list(answers))
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def tool(server: Server, name: str, **arguments: object) -> str:
    result = server.ask("tools/call", name=name, arguments=arguments)["result"]
    return "\n".join(block["text"] for block in result["content"] if block["type"] == "text")


def handle_in(said: str) -> str:
    found = re.search(r'handle="(w-[0-9a-f]{16})"', said)
    assert found is not None, said
    return found[1]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_cell_goes_on_in_the_next_server_with_the_answers_that_it_had(
    shell: Shell, number: signal.Signals
) -> None:
    with shell.serving() as server:
        server.run("count = 41")
        handle = handle_in(tool(server, "execute_python", code=CODE))
        tool(server, "answer_calls", handle=handle, answers={"2": "yes"})
        server.process.send_signal(number)
        server.process.wait(60)

    with shell.serving() as server:
        still = tool(server, "answer_calls", handle=handle)
        done = tool(server, "answer_calls", handle=handle, answers={"1": "no", "3": "perhaps"})
        late = tool(server, "answer_calls", handle=handle, answers={"3": "perhaps"})
        after = server.run("count")

    assert "red?" in still and "blue?" in still and "green?" not in still
    assert done.startswith("42 ['no', 'yes', 'perhaps']")
    assert late == done and after.startswith("42")
    assert not [path for path in shell.state.rglob("*") if path.parent.name == "waiting"]
