"""What else the runtime costs: the size of its log, the time of its import, and that of an answer by LiteLLM."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rlm_runtime.model import Message, Request
from rlm_runtime.models.litellm import LiteLLMModel
from rlm_runtime.models.openai import OpenAIModel
from rlm_runtime.models.prices import Prices

from .common import clocked
from .measuring import Bar, Contender, Row, Table, in_turns
from .runtime_places import DSPY, RLMS, Bench, context, python_of

_LOG_BAR = Bar(3.0, "<= 3 x")
_LENGTHS = (60, 600, 6000)
_IMPORTS = {RLMS: "import rlm", DSPY: "import dspy"}
_OURS_IMPORTED, _NOTHING = "ours: from rlm import RLM", "python -c pass"
_PRICES = Prices({})


# ---- the log


async def measure_log(bench: Bench, rounds: int) -> list[Table]:
    """Measure how many times the log holds what was said, over the wire and as texts, of a run with 100 questions."""
    rows: list[Row] = []
    for length in _LENGTHS:
        found = [await _log_of(bench, length) for _ in range(rounds)]
        wire, texts = ([each[n] for each in found] for n in (0, 1))
        rows.append(Row(f"questions of {length:,} characters, to the bytes on the wire", wire, "x", _LOG_BAR))
        rows.append(Row(f"questions of {length:,} characters, to the texts alone", texts, "x"))
    return [Table("The log of a run that asks 100 questions", rows)]


async def _log_of(bench: Bench, length: int) -> tuple[float, float]:
    wire, texts = bench.model.said()
    async with bench.ours("said", url=bench.model.counted_url) as rlm:
        outcome = await rlm.completion("Do as you do.", context=context(length))
    wire_after, texts_after = bench.model.said()
    size = next(bench.folder.glob(f"*/{outcome.trajectory_id}.jsonl")).stat().st_size
    return size / (wire_after - wire), size / (texts_after - texts)


# ---- the import


async def measure_imports(bench: Bench, rounds: int) -> list[Table]:
    """Measure a Python that imports the runtime and ends, beside one that imports nothing."""
    contenders: dict[str, Contender] = {
        _NOTHING: clocked(partial(_python, Path(sys.executable), "pass")),
        _OURS_IMPORTED: clocked(partial(_python, Path(sys.executable), "from rlm import RLM")),
    }
    for name, environment in bench.environments:
        code = _IMPORTS[name]
        contenders[f"{name}: {code}"] = clocked(partial(_python, python_of(environment), code))
    found = await in_turns(contenders, rounds=rounds)
    return [Table("A Python that imports and ends", [Row(*each) for each in found.items()], _NOTHING)]


def _python(python: Path, code: str) -> None:
    environment = {**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True"}  # else it asks the network, for long
    own = python == Path(sys.executable)
    if not own:
        environment.pop("PYTHONPATH", None)
    subprocess.run([python, "-c", code], check=True, capture_output=True, env=environment)


# ---- LiteLLM


async def measure_litellm(bench: Bench, rounds: int) -> list[Table]:
    """Measure answers of a model that answers at once, by a client of ours and by LiteLLM in its process."""
    direct: list[list[float]] = []
    worker: list[list[float]] = []
    for _ in range(rounds):
        async with OpenAIModel(
            "ready", api_key="none", api_base=f"{bench.model.url}/v1", prices=_PRICES
        ) as model:
            direct.append(await _answers(model))
        if bench.litellm is not None:
            async with LiteLLMModel(
                "openai/ready",
                api_key="none",
                api_base=f"{bench.model.url}/v1",
                prices=_PRICES,
                python=str(bench.litellm),
            ) as model:
                worker.append(await _answers(model))
    rows = [
        *_answer_rows("direct", direct),
        *(_answer_rows("LiteLLM in its process", worker) if worker else ()),
    ]
    notes = [] if worker else ["LiteLLM: not measured, because no Python that has it was named"]
    return [Table("An answer of a model that answers at once", rows, "direct, later", notes)]


def _answer_rows(name: str, found: Sequence[Sequence[float]]) -> list[Row]:
    return [
        Row(f"{name}, first", [each[0] for each in found]),
        Row(f"{name}, later", [statistics.median(each[1:]) for each in found]),
    ]


async def _answers(model: OpenAIModel | LiteLLMModel, often: int = 20) -> list[float]:
    seconds: list[float] = []
    for _ in range(often + 1):
        began = time.perf_counter()
        await model.complete(Request((Message("user", "Is it so?"),)))
        seconds.append(time.perf_counter() - began)
    return seconds
