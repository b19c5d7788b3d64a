"""Whose a model is, and what its client may see of an environment: the keys of that provider, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

KEY_OF = {"openai": "OPENAI_API_KEY", "anthropic": "ANTHROPIC_API_KEY"}
ADDRESS_OF = {"openai": "OPENAI_BASE_URL", "anthropic": "ANTHROPIC_BASE_URL"}
WITHIN_COMMAND = "WITHIN_RLM_COMMAND"
"""Set for a program that is asked as a model: what it starts must not ask it again."""

_OF_PROVIDERS: Mapping[str, tuple[str, ...]] = {
    "azure_ai": ("AZURE_",),
    "bedrock": ("AWS_",),
    "gemini": ("GEMINI_", "GOOGLE_"),
    "huggingface": ("HUGGINGFACE_", "HF_"),
    "sagemaker": ("AWS_",),
    "together_ai": ("TOGETHERAI_", "TOGETHER_"),
    "vertex_ai": ("VERTEX", "GOOGLE_"),
    "watsonx": ("WATSONX_", "WX_"),
}
_OF_THE_SYSTEM = frozenset(
    "PATH HOME LANG LC_ALL TMPDIR TEMP TMP SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE HTTP_PROXY HTTPS_PROXY "
    "ALL_PROXY NO_PROXY http_proxy https_proxy all_proxy no_proxy".split()
)


def provider_of(backend: str, model: str) -> str:
    """Return whose model it is, as LiteLLM names providers."""
    if backend in KEY_OF:
        return backend
    if "/" in model:
        return model.partition("/")[0]
    known = {"claude": "anthropic", "gemini": "gemini"}
    return next((provider for begins, provider in known.items() if model.startswith(begins)), "openai")


def seen_by(providers: Iterable[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the process of a model sees of an environment."""
    begins = tuple(
        each
        for name in providers
        for each in _OF_PROVIDERS.get(name, (f"{name.upper().replace('-', '_')}_",))
    )
    return {
        name: value
        for name, value in environment.items()
        if name in _OF_THE_SYSTEM or name.startswith(begins)
    }
