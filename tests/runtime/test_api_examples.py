"""What docs/python.md shows is what happens: each example runs as it stands there, with a model that follows a script."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from tests.fakes.models import Reply, Request, ScriptedModel, ToolCall, Turn
from tests.runtime.runs import code

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
EXAMPLES = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)

_LEAF = """\
from collections import Counter
about = Counter(llm_map('What is this about? One word. {item}', context.splitlines()))
print(about.most_common(1)[0][0])
"""
_ANSWERS = {
    "Which sea is the saltiest? One name.": "The Dead Sea",
    "Translate into French: sea": "mer",
    "Translate into French: sky": "ciel",
    "Translate into French: sand": "sable",
    "Say something long.": "Something long.",
}


def _model(request: Request) -> Turn:
    prompt = request.prompt
    if "What is this about?" in prompt:
        return Reply("delivery" if "late" in prompt else "price")
    if "complain" in prompt or "output" in prompt:
        return Reply(f"Mostly about: {_seen(request)}") if request.results else code(_LEAF, wire="openai")
    if "apple" in prompt and "cost" in prompt:
        return _shopping(request)
    if "missing" in prompt:
        return _ordering(request)
    if "Channel" in prompt:
        return Reply('{"name": "Blériot", "year": 1909}')
    return Reply(_ANSWERS[prompt])


_ASK = "print(rlm_query('Which of these are missing?', context=['apple', 'pear']))"
_LOOK = "assert 'order' not in globals()\nfinal([each for each in context if stock_of(item=each) == 0][0])"


def _ordering(request: Request) -> Turn:
    if "Which of these" in request.prompt:
        return code(_LOOK, wire="openai")
    steps = [code(_ASK, wire="openai"), Reply(calls=(ToolCall("order", {"item": "pear"}),))]
    return [*steps, Reply("The pear is ordered.")][len(request.results)]


def _seen(request: Request) -> str:
    return request.results[-1].text.splitlines()[1]


def _shopping(request: Request) -> Turn:
    if len(request.results) == 0:
        return Reply(calls=(ToolCall("price_of", {"item": "apple"}),))
    if len(request.results) == 1:
        return code("print(price_of(item='pear') + 0.4)", wire="openai")
    return Reply(f"They cost {_seen(request)} together.")


def test_all_examples_of_the_page_say_what_they_print() -> None:
    assert len(EXAMPLES) == PAGE.read_text("utf-8").count("```python") == 7


@pytest.mark.parametrize("number", range(7))
async def test_an_example_prints_what_it_says(number: int, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lines = [f"Order {n} came late" if n % 3 else f"Order {n} is dear" for n in range(30)]
    (tmp_path / "tickets.txt").write_text("\n".join(line + "." * 1500 for line in lines), "utf-8")
    program, printed = EXAMPLES[number]
    async with ScriptedModel(_model) as model:
        with anyio.fail_after(90):
            ran = await anyio.to_thread.run_sync(_run, program, model.url, tmp_path)

    assert (ran.returncode, ran.stdout) == (0, printed), ran.stderr
    assert ran.stderr == ""


def _run(program: str, url: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path)
    environment = {"OPENAI_API_KEY": "key", "OPENAI_BASE_URL": f"{url}/v1", "PYTHONPATH": path}
    return subprocess.run(
        [sys.executable, "-X", "utf8", "-W", "error", "-W", "always::ResourceWarning", "-c", program],
        env=os.environ | environment,
        cwd=folder,
        capture_output=True,
        encoding="utf-8",
        timeout=80,
        check=False,
    )
