"""Whose a model is, and what its client sees of an environment."""

from __future__ import annotations

import pytest

from rlm_runtime import provider_of, seen_by

_ENVIRONMENT = {
    "OPENAI_API_KEY": "o",
    "ANTHROPIC_API_KEY": "a",
    "AWS_SECRET_ACCESS_KEY": "w",
    "GEMINI_API_KEY": "g",
    "DATABASE_PASSWORD": "d",
    "HOME": "/home/me",
}


@pytest.mark.parametrize(
    ("backend", "model", "provider"),
    [
        ("openai", "anything/at-all", "openai"),
        ("anthropic", "claude-sonnet-4-5", "anthropic"),
        ("litellm", "bedrock/anthropic.claude", "bedrock"),
        ("litellm", "claude-sonnet-4-5", "anthropic"),
        ("litellm", "gpt-4o", "openai"),
    ],
)
def test_a_model_is_of_the_provider_that_its_name_says(backend: str, model: str, provider: str) -> None:
    assert provider_of(backend, model) == provider


@pytest.mark.parametrize(
    ("provider", "seen"),
    [
        ("openai", {"OPENAI_API_KEY", "HOME"}),
        ("bedrock", {"AWS_SECRET_ACCESS_KEY", "HOME"}),
        ("gemini", {"GEMINI_API_KEY", "HOME"}),
        ("unheard-of", {"HOME"}),
    ],
)
def test_a_provider_sees_its_own_keys_and_no_others(provider: str, seen: set[str]) -> None:
    assert seen_by([provider], _ENVIRONMENT).keys() == seen
