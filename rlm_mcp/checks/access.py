"""Which model and which services are set up. Keys are looked for by name, and their values never shown."""

from __future__ import annotations

from .results import Case, Check

KEYS_OF_MODELS = (
    "ANTHROPIC_API_KEY",
    "OPENAI_API_KEY",
    "AZURE_API_KEY",
    "DEEPSEEK_API_KEY",
    "GEMINI_API_KEY",
    "GROQ_API_KEY",
    "MISTRAL_API_KEY",
    "OPENROUTER_API_KEY",
    "TOGETHERAI_API_KEY",
    "XAI_API_KEY",
)
_NEEDED = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}


def model(case: Case) -> list[Check]:
    """Say which model answers calls from code, and which keys there are for it."""
    rlm, keys = case.settings.rlm, _keys(case)
    there = f"keys in the environment: {', '.join(keys) or 'none'}"
    more = {"backend": rlm.backend, "model": rlm.model, "keys": keys, "api_key_set": bool(rlm.api_key)}
    if not rlm.model:
        fix = "Nothing needs one but calls to models; set model in [rlm] for those."
        return [Check("Model", "info", f"none is set; {there}", fix, more)]
    found = f"{rlm.model} by {rlm.backend}" + (f" at {_host(rlm.api_base)}" if rlm.api_base else "")
    found += "; api_key is set" if rlm.api_key else f"; {there}"
    needed = _NEEDED.get(rlm.backend)
    has_key = bool(rlm.api_key or rlm.api_base or (needed in keys if needed else keys))
    if has_key:
        return [Check("Model", "ok", found, "", more)]
    fix = f"Set {needed or 'the key of its provider'} where the server is started, or RLM_API_KEY."
    return [Check("Model", "warn", found, fix, more)]


def snipara(case: Case) -> list[Check]:
    """Say whether Snipara is set up."""
    key, slug = bool(case.settings.rlm.snipara_api_key), bool(case.settings.rlm.snipara_project_slug)
    more = {"key_set": key, "slug_set": slug}
    if key and slug:
        return [Check("Snipara", "ok", "key and project are set", "", more)]
    if not key and not slug:
        return [Check("Snipara", "info", "not set up", "Nothing needs it.", more)]
    missing = "SNIPARA_PROJECT_SLUG" if key else "SNIPARA_API_KEY"
    return [Check("Snipara", "warn", f"{missing} is missing", f"Set {missing}, or remove the other.", more)]


def _keys(case: Case) -> list[str]:
    """Return the names of keys that have a value; a "${NAME}" that a client did not replace is none."""
    environment = case.sources.environment
    values = {name: environment.get(name, "").strip() for name in KEYS_OF_MODELS}
    return [name for name, value in values.items() if value and not value.startswith("${")]


def _host(address: str) -> str:
    """Return an address without what may be secret in it."""
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}"
    except ValueError:
        return "an address that cannot be read"
