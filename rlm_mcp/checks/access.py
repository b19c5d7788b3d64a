"""Which model and which services are set up. Keys are looked for by name, and their values never shown."""

from __future__ import annotations

import shutil
from importlib.util import find_spec

import anyio.to_thread

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
    if rlm.backend in ("command", "none") or (rlm.command and not rlm.model):
        return [_without_model(case)]
    there = f"keys in the environment: {', '.join(keys) or 'none'}"
    more = {"backend": rlm.backend, "model": rlm.model, "keys": keys, "api_key_set": bool(rlm.api_key)}
    if not rlm.model:
        fix = "Clients answer the calls of code by themselves; set model or command in [rlm] to have a model do it."
        return [Check("Model", "info", f"none is set; {there}", fix, more)]
    found = f"{rlm.model} by {rlm.backend}" + (f" at {_host(rlm.api_base)}" if rlm.api_base else "")
    found += "; api_key is set" if rlm.api_key else f"; {there}"
    needed = _NEEDED.get(rlm.backend)
    if rlm.backend == "litellm" and find_spec("litellm") is None:
        fix = 'Install it: pip install \'rlm-mcp[llm]\'; or set backend to "openai" or "anthropic", which do without.'
        return [Check("Model", "warn", f"{found}; LiteLLM is not installed", fix, more)]
    has_key = bool(rlm.api_key or rlm.api_base or (needed in keys if needed else keys))
    if has_key:
        return [Check("Model", "ok", found, "", more)]
    fix = f"Set {needed or 'the key of its provider'} where the server is started, or RLM_API_KEY."
    return [Check("Model", "warn", found, fix, more)]


def _without_model(case: Case) -> Check:
    rlm = case.settings.rlm
    more = {"backend": rlm.backend, "command": list(rlm.command)}
    if rlm.backend == "none":
        return Check(
            "Model", "info", "backend is none: clients answer the calls of code by themselves", "", more
        )
    if not rlm.command:
        return Check("Model", "warn", "backend is command, and none is named", "Set command in [rlm].", more)
    program = shutil.which(rlm.command[0], path=case.sources.environment.get("PATH"))
    if program is None:
        fix = "Install it, or name it with its whole path."
        return Check("Model", "warn", f"the command {rlm.command[0]!r} is not found", fix, more)
    return Check("Model", "ok", f"the command {program}", "", more)


async def online(case: Case) -> list[Check]:
    """Ask the model one word, which costs a few tokens."""
    from rlm_runtime import Message, ModelError, Request

    from ..models import choices_of, open_model

    rlm = case.settings.rlm
    own = await anyio.to_thread.run_sync(case.sources.load, None)
    choices = choices_of(rlm, own.settings.rlm, case.sources.environment)
    if not choices:
        return [Check("Model answers", "info", "there is none to ask")]
    request = Request((Message("user", "Answer with the word yes."),), max_tokens=64)
    try:
        async with open_model(choices[0]) as model:
            reply = await model.complete(request)
    except ModelError as problem:
        return [
            Check(
                "Model answers", "warn", str(problem), "docs/models.md says what goes wrong and what to do."
            )
        ]
    usage = reply.usage
    return [Check("Model answers", "ok", f"{reply.model or model.name}, {usage.tokens} tokens")]


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
