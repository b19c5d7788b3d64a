"""What a recursive model is for: contexts that no window holds, read by code and by many small questions."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import anyio
import pytest

from rlm_runtime.cache import AnswerStore
from rlm_runtime.contexts import ContextFile
from rlm_sandboxes.local import LocalSandbox
from tests.fakes.models import Oracle, Refusal, Reply, Request, by_model, conversation, failing_first
from tests.runtime.runs import WIRES, Wire, code, nothing_left_behind, scene


def hay(characters: int, needle: str) -> str:
    """Return lines of hay with a needle in one of them."""
    chance = random.Random(6)
    lines = [f"{chance.getrandbits(200):060x}" for _ in range(characters // 61)]
    lines[len(lines) * 2 // 3] = needle
    return "\n".join(lines)


@pytest.mark.parametrize("as_file", [False, True], ids=["text", "file"])
@WIRES
async def test_a_needle_in_ten_million_characters_is_found_and_the_hay_is_sent_to_nobody(
    sandbox: LocalSandbox, tmp_path: Path, wire: Wire, as_file: bool
) -> None:
    needle = "the needle is called Esmeralda"
    text = hay(10_000_000, needle)
    file = anyio.Path(tmp_path / "hay.txt")
    await file.write_text(text)
    oracle = Oracle("hidden")
    root = conversation(
        code("at = context.find('needle')\nline = context[at - 4:].splitlines()[0]\nprint(line)", wire=wire),
        code("final(llm_query('What is it called? ' + line))", wire=wire),
    )

    async with scene(sandbox, by_model({"root": root, "leaf": oracle}), wire=wire) as made:
        with anyio.fail_after(60):
            async with nothing_left_behind():
                content: Any = ContextFile(tmp_path / "hay.txt") if as_file else text
                outcome = await made.run("What is the needle called?", contexts={"context": content})

    assert outcome.response == oracle.says("What is it called? " + needle)
    assert (outcome.total_calls, outcome.depth_reached, outcome.finish) == (3, 1, "answered")
    assert sum(len(json.dumps(each.body)) for each in made.server.requests) < 20_000


class Labels:
    """A leaf that says for each line of its prompt what only it can know."""

    def __init__(self) -> None:
        self.oracle = Oracle("labels", among=("spam", "ham"))

    def __call__(self, request: Request) -> Reply:
        return Reply(json.dumps([self.oracle.says(line) for line in request.prompt.splitlines()[1:-3]]))


COUNT = """
parts = ["\\n".join(lines[n:n + 30]) for n in range(0, len(lines), 30)]
answers = llm_map("Label each line:\\n{item}", parts, schema={"type": "array", "items": {"enum": ["spam", "ham"]}})
print(len(answers.failed))
final(sum(answer.count("spam") for answer in answers))
"""


async def test_lines_are_counted_right_though_every_leaf_fails_first(sandbox: LocalSandbox) -> None:
    lines = [f"line {n}" for n in range(3_000)]
    labels = Labels()
    leaf = failing_first(Refusal(429), failing_first(Refusal(500), labels))
    root = conversation(code(f"lines = context.splitlines()\n{COUNT}", wire="openai"))

    async with scene(sandbox, by_model({"root": root, "leaf": leaf})) as made:
        with anyio.fail_after(120):
            async with nothing_left_behind():
                outcome = await made.run("How much is spam?", contexts={"context": "\n".join(lines)})

    leaves = {prompt: times for prompt, times in made.server.asked.items() if prompt.startswith("Label")}
    assert outcome.value == sum(labels.oracle.says(line) == "spam" for line in lines)
    assert made.outputs() == ["0\n"]
    assert (len(leaves), set(leaves.values())) == (100, {3})
    assert made.server.most_at_once <= 16


async def test_an_answer_of_a_megabyte_passes_exactly(sandbox: LocalSandbox) -> None:
    part = "line\r\n\0 caf\xe9 \ud800 \U0001f600"
    root = conversation(code("final((context * 100_000)[:1_000_000])", wire="openai"))

    async with scene(sandbox, root) as made:
        with anyio.fail_after(60):
            outcome = await made.run(contexts={"context": part})

    assert outcome.response == (part * 100_000)[:1_000_000]
    assert sum(len(json.dumps(each.body)) for each in made.server.requests) < 10_000


async def test_what_was_paid_for_before_an_exception_is_not_paid_again(
    sandbox: LocalSandbox, tmp_path: Path
) -> None:
    oracle = Oracle("paid")
    ask = "answers = []\nfor n in range(100):\n    answers.append(llm_query(f'question {n}'))\n"
    root = conversation(
        code(ask + "    if n == 79: raise ValueError('after most of it')", wire="openai"),
        code(ask + "final(answers)", wire="openai"),
    )

    async with scene(sandbox, by_model({"root": root, "leaf": oracle}), store=AnswerStore(tmp_path)) as made:
        with anyio.fail_after(60):
            outcome = await made.run()

    asked = {prompt: times for prompt, times in made.server.asked.items() if prompt.startswith("question")}
    assert outcome.value == [oracle.says(f"question {n}") for n in range(100)]
    assert (len(asked), set(asked.values())) == (100, {1})
    assert len(made.of("call_ended", answered_by="store")) == 80
