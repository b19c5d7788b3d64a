"""A key goes to the provider and to the address for which it was given, and nowhere else."""

from __future__ import annotations

from typing import Any

from rlm_mcp.models import choices_of
from rlm_mcp.settings import RlmSection

KEYS = {
    "OPENAI_API_KEY": "sk-openai",
    "ANTHROPIC_API_KEY": "sk-anthropic",
    "GROQ_API_KEY": "sk-groq",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "RLM_API_KEY": "ours",
    "PATH": "/bin",
}


def chosen(own: dict[str, Any], **theirs: Any) -> Any:
    return choices_of(RlmSection(**(own | theirs)), RlmSection(**own), KEYS)


def test_a_model_sees_the_keys_of_its_own_provider_only() -> None:
    [lite] = chosen({"model": "groq/llama"})
    [direct] = chosen({"backend": "anthropic", "model": "claude"})

    assert dict(lite.environment) == {"GROQ_API_KEY": "sk-groq", "PATH": "/bin"}
    assert direct.api_key == "sk-anthropic" and direct.environment == ()


def test_the_users_key_does_not_follow_a_project_to_another_provider() -> None:
    own = {"model": "anthropic/claude", "api_key": "mine"}

    [same] = chosen(own, model="anthropic/another")
    [other] = chosen(own, model="groq/llama")

    assert same.api_key == "mine"
    assert other.api_key == "" and dict(other.environment)["GROQ_API_KEY"] == "sk-groq"


def test_no_key_follows_a_project_to_another_address() -> None:
    own = {"backend": "openai", "model": "m", "api_key": "mine"}

    [other] = chosen(own, api_base="https://elsewhere.example/v1")
    [lite] = chosen({"model": "openai/m"}, api_base="https://elsewhere.example/v1")

    assert other.api_key == "" and other.environment == ()
    assert lite.api_key == "" and lite.environment == ()


def test_no_choice_shows_its_key() -> None:
    assert "mine" not in repr(chosen({"backend": "openai", "model": "m", "api_key": "mine"}))
    assert "sk-groq" not in repr(chosen({"model": "groq/llama"}))


def test_a_command_comes_after_the_model_and_alone_where_it_is_the_backend() -> None:
    both = chosen({"backend": "openai", "model": "m", "command": ("claude", "-p")})
    alone = chosen({"backend": "command", "model": "m", "command": ("claude", "-p")})
    nobody = chosen({"backend": "none", "model": "m", "command": ("claude", "-p")})

    assert [each.client for each in both] == ["openai", "command"]
    assert [each.client for each in alone] == ["command"] and nobody == []
    assert "RLM_API_KEY" not in dict(alone[0].environment)


def test_a_key_of_the_environment_goes_to_the_address_that_stands_beside_it() -> None:
    gateway = {"OPENAI_BASE_URL": "https://gateway.example/v1", "ANTHROPIC_BASE_URL": "https://other.example"}

    def asked(own: dict[str, Any], **theirs: Any) -> tuple[str, str]:
        [model] = choices_of(RlmSection(**(own | theirs)), RlmSection(**own), KEYS | gateway)
        return model.api_base, model.api_key

    plain = {"backend": "openai", "model": "m"}

    assert asked(plain) == ("https://gateway.example/v1", "sk-openai")
    assert asked(plain, backend="anthropic") == ("https://other.example", "sk-anthropic")
    assert asked(plain | {"api_base": "https://mine.example/v1"}) == ("https://mine.example/v1", "sk-openai")
    assert asked(plain, api_base="https://theirs.example/v1") == ("https://theirs.example/v1", "")
