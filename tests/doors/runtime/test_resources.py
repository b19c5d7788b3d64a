"""What runs leave behind can be read as resources, and is told of while it grows."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ..conftest import Caller
from .test_waiting import handle_in


@pytest.mark.parametrize("kind", ["text", "JSON"])
async def test_an_answer_of_a_megabyte_is_a_resource_and_is_shown_by_its_ends(
    call: Caller, kind: str
) -> None:
    made = "['x' * 99] * 10_000" if kind == "JSON" else "'x' * 1_000_000 + 'end'"
    await call.run("text = 'needle' + 'x' * 100_000")
    handle = handle_in(await call.said("rlm_complete", prompt="What?", variables=["text"]))
    said = await call.said("answer_calls", handle=handle, answers={"1": f"```python\nfinal({made})\n```"})

    found = re.search(r"is (\w+) of (\d+) characters. All of it: (\S+)\. It", said)
    assert found is not None and found[1] == kind and len(said) < 45_000
    [whole] = (await call.client.read_resource(found[3])).contents
    [part] = (await call.client.read_resource(f"{found[3]}?offset=3&limit=5")).contents
    answer: Any = getattr(whole, "text")  # noqa: B009 -- of a text resource
    assert len(answer) == int(found[2]) and answer[3:8] == getattr(part, "text")  # noqa: B009
    assert kind == "text" or (len(json.loads(answer)), whole.mime_type) == (10_000, "application/json")
    with pytest.raises(json.JSONDecodeError):
        json.loads(said)


async def test_the_trajectory_of_a_cell_can_be_read(call: Caller) -> None:
    handle = handle_in(await call.said("execute_python", code="print(llm_query('one?'))"))
    await call.said("answer_calls", handle=handle, answers={"1": "eins"})

    listed = await call.client.read_resource("rlm://trajectories")
    told: Any = listed.contents[0]
    ids = re.findall(r"\d{8}T\d+-[0-9a-f]+", told.text)
    one: Any = (await call.client.read_resource(f"rlm://trajectories/{ids[0]}")).contents[0]

    assert "one?" in one.text and "eins" in one.text and json.loads(one.text)
