"""The names, arguments, defaults and attributes by which people know `RLM`: programs that use them run here unchanged."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from rlm import RLM
from rlm.core import exceptions
from rlm.tools import Tool
from tests.fakes.models import Reply, Request, ScriptedModel, ToolCall, Turn
from tests.runtime.runs import code

_GIVEN = inspect.signature(RLM).parameters
_ASKED = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("rlm", "RLM RLMError Tool RLMResult"),
        ("rlm_runtime", "RLM Tool RLMError"),
        ("rlm.tools", "Tool file_read"),
        ("rlm.backends.base", "Tool"),
        ("rlm.core.types", "RLMResult"),
        (
            "rlm.core.exceptions",
            "RLMError MaxDepthExceeded TokenBudgetExhausted REPLExecutionError ToolNotFoundError",
        ),
    ],
)
def test_what_people_import_is_where_they_look_for_it(module: str, names: str) -> None:
    found = importlib.import_module(module)

    assert [name for name in names.split() if not hasattr(found, name)] == []
    assert set(names.split()) <= set(found.__all__)


def test_a_name_is_the_same_thing_wherever_it_is_looked_for() -> None:
    import rlm
    import rlm.backends.base
    import rlm_runtime

    assert rlm.RLM is rlm_runtime.RLM
    assert rlm.Tool is rlm.tools.Tool is rlm.backends.base.Tool is rlm_runtime.Tool
    assert rlm.RLMError is exceptions.RLMError


@pytest.mark.parametrize(
    ("name", "default"),
    [
        ("backend", None),  # which is "litellm" where a model is named
        ("api_key", None),
        ("environment", "local"),
        ("max_depth", 4),
        ("max_subcalls", 12),
        ("token_budget", 8000),
        ("docker_image", "python:3.11-slim"),
        ("docker_cpus", 1.0),
        ("docker_memory", "512m"),
        ("docker_network_disabled", True),
        ("tools", ()),
        ("snipara_api_key", None),
        ("snipara_project_slug", None),
        ("snipara_api_url", None),
        ("verbose", False),
        ("log_dir", "./logs"),
    ],
)
def test_an_argument_has_the_name_and_the_default_that_people_know(name: str, default: object) -> None:
    assert _GIVEN[name].default == default


def test_the_model_may_be_named_by_its_place() -> None:
    assert next(iter(_GIVEN)) == "model"
    assert RLM("gpt-4o") is not None


@pytest.mark.parametrize("backend", ["litellm", "openai", "anthropic"])
def test_each_backend_is_taken(backend: Any) -> None:
    assert RLM(model="gpt-4o", backend=backend, api_key="sk-mine") is not None


@pytest.mark.parametrize(
    ("problem", "attribute", "value"),
    [
        (exceptions.MaxDepthExceeded(5, 4), "depth", 5),
        (exceptions.TokenBudgetExhausted(9000, 8000), "tokens_used", 9000),
        (exceptions.TokenBudgetExhausted(9000, 8000), "budget", 8000),
        (exceptions.REPLExecutionError("It failed.", "Traceback"), "stderr", "Traceback"),
        (exceptions.ToolNotFoundError("weather"), "name", "weather"),
    ],
)
def test_an_error_has_the_attribute_that_people_read(problem: Any, attribute: str, value: object) -> None:
    assert isinstance(problem, exceptions.RLMError)
    assert getattr(problem, attribute) == value


def test_a_tool_is_made_by_places_and_by_names() -> None:
    def handler(city: str) -> str:
        return city

    by_place = Tool("weather", "The weather.", _ASKED, handler)

    assert by_place == Tool(name="weather", description="The weather.", parameters=_ASKED, handler=handler)


@pytest.mark.parametrize(
    "attribute",
    "response trajectory_id total_calls total_tokens depth_reached tool_calls duration_ms cost_usd finish".split(),
)
async def test_a_result_has_the_attribute_that_people_read(attribute: str) -> None:
    async with ScriptedModel([Reply("Four.")]) as server:
        with anyio.fail_after(30):
            result = await RLM("m", "openai", environ=_at(server), log_dir=None).completion("Two and two?")

    assert hasattr(result, attribute)


async def test_a_program_of_somebody_else_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def weather(city: str) -> dict[str, Any]:
        return {"city": city, "degrees": 21}

    def model(request: Request) -> Turn:
        if not request.results:
            return Reply(calls=(ToolCall("weather", {"city": "Rome"}),))
        if len(request.results) == 1:
            return code("print(weather(city='Oslo')['degrees'])", wire="openai")
        return Reply("21 in both.")

    monkeypatch.chdir(tmp_path)
    async with ScriptedModel(model) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")

        def made() -> RLM:
            return RLM(
                model="gpt-4o-mini",
                backend="openai",
                api_key="sk-mine",
                environment="local",
                max_depth=4,
                max_subcalls=12,
                token_budget=80_000,
                docker_image="python:3.11-slim",
                docker_cpus=1.0,
                docker_memory="512m",
                docker_network_disabled=True,
                tools=[Tool(name="weather", description="The weather.", parameters=_ASKED, handler=weather)],
                verbose=True,
                log_dir="./logs",
            )

        rlm = await anyio.to_thread.run_sync(made)
        with anyio.fail_after(60):
            result = await rlm.completion("How warm is it in Rome and Oslo?")

    assert result.response == "21 in both."
    assert [each["arguments"] for each in result.tool_calls] == [{"city": "Rome"}, {"city": "Oslo"}]
    assert (tmp_path / "logs" / f"{result.trajectory_id}.jsonl").exists()
    assert "run_ended" in capsys.readouterr().err
    assert server.requests[0].headers["authorization"] == "Bearer sk-mine"


def _at(server: ScriptedModel) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"{server.url}/v1"}
