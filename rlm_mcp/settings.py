"""All settings, in one typed model. Where each value came from is told by `sources.py`, which reads them.

The sections are those of `rlm.toml`. Nothing below this package sees them: lower layers get the small
values that are made of them here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

KIB, MIB, GIB = 1024, 1024**2, 1024**3

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", re.IGNORECASE)
_MOST_DIGITS = 20
_UNITS = {"": 1, "k": KIB, "m": MIB, "g": GIB, "t": 1024 * GIB}


def bytes_of(value: Any) -> Any:
    """Return how many bytes a size such as "512m" or "2 GiB" means; other values as they are."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None or len(match[1]) > _MOST_DIGITS:
        raise ValueError('it is no size; write a number of bytes, or one such as "512m" or "2g"')
    return int(float(match[1]) * _UNITS[match[2].lower()])


def path_of(value: Any) -> Any:
    """Return a path with "~" replaced; other values as they are."""
    return Path(value).expanduser() if isinstance(value, str) else value


Bytes = Annotated[int, BeforeValidator(bytes_of)]
Folder = Annotated[Path, BeforeValidator(path_of)]


class Section(BaseModel):
    """A table of the configuration. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RlmSection(Section):
    """[rlm]: recursion, models, and where code runs."""

    environment: Literal["local", "docker"] = "local"
    """Where sessions run: "local", a jail made by the kernel, or "docker", a container."""
    backend: Literal["litellm", "openai", "anthropic", "command", "none"] = "litellm"
    """Who answers calls from code: a client for a model, the program in `command`, or "none" but the MCP client."""
    model: str = Field(default="", max_length=200)
    """The model that answers; none unless named. For LiteLLM with its provider: "anthropic/claude-sonnet-4-5"."""
    sub_model: str = Field(default="", max_length=200)
    """The model that answers what code asks, where a cheaper one will do; the same as `model` unless named."""
    api_base: str = Field(default="", max_length=2000)
    """Where a compatible server for the model listens."""
    api_key: str = Field(default="", max_length=4000, repr=False, json_schema_extra={"secret": True})
    """The key for the model at its address; better given in the environment, by the name that its provider uses."""
    command: tuple[str, ...] = Field(default=(), max_length=100)
    """A program that reads a prompt, on its input or in place of "{prompt}", and prints an answer: ["claude", "-p"]."""
    command_at_once: int = Field(default=2, ge=1, le=1000)
    """How many of those programs may run at once."""
    command_seconds: float = Field(default=600.0, ge=0.1, le=86_400)
    """How long one of those programs may take; it is killed then."""
    max_depth: int = Field(default=4, ge=0, le=100)
    """How deep calls may recurse."""
    max_subcalls: int = Field(default=500, ge=0, le=1_000_000)
    """How many calls one run, or the code of one cell, may make in all."""
    token_budget: int = Field(default=2_000_000, ge=0, le=10**12)
    """How many tokens one run, or the code of one cell, may use in all."""
    cost_budget_usd: float | None = Field(default=None, ge=0, le=1_000_000)
    """How many dollars one run, or the code of one cell, may cost; no limit unless set. Needs a known price."""
    wall_seconds: float = Field(default=3600.0, ge=0.1, le=7 * 86_400)
    """How long one run may take."""
    at_once: int = Field(default=16, ge=1, le=1000)
    """How many requests to models may be in flight at once, for one run or cell."""
    max_tokens: int = Field(default=4096, ge=16, le=1_000_000)
    """How many tokens one answer may have unless the call says otherwise."""
    answer_seconds: float = Field(default=3600.0, ge=1, le=7 * 86_400)
    """How long a call waits for the answer of an MCP client, or of the client's own model."""
    prices: dict[str, tuple[float, float]] = Field(default_factory=dict)
    """What models cost whose price is not known: dollars for a million tokens, read and written."""
    verbose: bool = False
    """Tell on stderr what goes on: each event of a run, without what is said in it."""
    log_dir: Folder | None = None
    """Where trajectories are written; the project's own place unless given."""
    trajectory_days: float = Field(default=90.0, ge=1, le=36_500)
    """How many days a trajectory stays there after its end; a context stays as long as one names it."""
    trajectory_bytes: Bytes = Field(default=2 * GIB, ge=MIB, le=2**53)
    """How much trajectories and their contexts may take in one place; the oldest go first."""
    docker_image: str = Field(default="python:3.13-slim", min_length=1, max_length=500)
    """The image for sessions in Docker; any with Python 3.9 or newer."""
    docker_python: str = Field(default="python3", min_length=1, max_length=500)
    """The Python in the image that runs the code: a name on its PATH, or a path in it."""
    docker_cpus: float = Field(default=1.0, ge=0.01, le=1024)
    """How many processors a container may use."""
    docker_memory: Bytes = Field(default=512 * MIB, ge=32 * MIB, le=2**53)
    """How much memory a session in a container may use, in place of memory_bytes of [sandbox]."""
    docker_network_disabled: bool = True
    """Whether containers are without a network, in place of network of [sandbox]."""
    docker_network: str = Field(default="bridge", min_length=1, max_length=200)
    """The engine's network for containers that have one: "bridge", "host" for the machine's own, or a name."""
    docker_mounts: tuple[Folder, ...] = Field(default=(), max_length=100)
    """Further folders that containers see, read-only, and from which contexts may be loaded."""
    docker_copy_files: bool = False
    """Whether containers get copies of folders in place of a view of them; an engine elsewhere always gives copies."""
    docker_runtime: str = Field(default="", max_length=200)
    """The engine's runtime for containers, such as "runsc" or "kata"; the engine's own choice unless named."""
    docker_host: str = Field(default="", max_length=2000)
    """Where the engine listens, as in DOCKER_HOST; found as Docker's own command finds it unless named."""
    docker_pull: Literal["missing", "never"] = "missing"
    """Whether an image that the engine does not have is fetched."""
    docker_warm: int = Field(default=1, ge=0, le=100)
    """How many containers a server keeps ready for the next session of the kind that was started last."""
    snipara_api_key: str = Field(default="", max_length=4000, repr=False, json_schema_extra={"secret": True})
    """The key for Snipara; better given in the environment."""
    snipara_project_slug: str = Field(default="", max_length=200)
    """The project at Snipara."""
    snipara_api_url: str = Field(default="", max_length=2000)
    """Where Snipara answers, if not at its own address."""


class SandboxSection(Section):
    """[sandbox]: what code in a session may use and see."""

    files: Literal["none", "read", "write"] = "read"
    """What code sees of the project's folder: nothing, everything read-only, or everything to change."""
    network: bool = False
    """Whether code has the machine's network."""
    folders: tuple[Folder, ...] = Field(default=(), max_length=100)
    """Folders outside the project that code may read, and from which contexts may be loaded."""
    python: Folder | None = None
    """The Python that runs the code: a program or a virtual environment; the project's .venv unless given."""
    policy: Literal["auto", "off", "permissive", "strict"] = "auto"
    """The language policy: "auto" is off in a strong container, permissive behind other strong walls, else strict."""
    wall_seconds: float = Field(default=120.0, ge=0.1, le=86_400)
    """How long one cell may run unless the call says otherwise."""
    max_wall_seconds: float = Field(default=600.0, ge=0.1, le=86_400)
    """How long a call may let a cell run."""
    cpu_seconds: float = Field(default=600.0, ge=0.1, le=86_400)
    """How much processor time one cell may use."""
    grace_seconds: float = Field(default=1.0, ge=0, le=60)
    """How long a cell that was interrupted may take to stop before it is killed."""
    memory_bytes: Bytes = Field(default=2 * GIB, ge=32 * MIB, le=2**53)
    """How much memory one session may use."""
    processes: int = Field(default=0, ge=0, le=10_000)
    """How many further processes code may start."""
    threads: int = Field(default=64, ge=4, le=100_000)
    """How many threads code may start."""
    open_files: int = Field(default=256, ge=16, le=1_000_000)
    """How many files code may have open."""
    file_bytes: Bytes = Field(default=512 * MIB, ge=0, le=2**53)
    """How large a file may grow that code writes."""
    scratch_bytes: Bytes = Field(default=512 * MIB, ge=64 * KIB, le=2**53)
    """How much fits into the scratch folder of a session."""
    output_bytes: Bytes = Field(default=16 * MIB, ge=KIB, le=2**53)
    """How much one cell may print."""

    @property
    def most_seconds(self) -> float:
        """How long a call may let a cell run, which is never less than a call that does not say."""
        return max(self.wall_seconds, self.max_wall_seconds)


class SessionsSection(Section):
    """[sessions]: how sessions are kept."""

    state_dir: Folder | None = None
    """Where everything is kept; this system's place for the state of programs unless given."""
    durable: bool = False
    """Whether an answer waits until the state is on the disk."""
    awake: int = Field(default=64, ge=1, le=10_000)
    """How many sessions of one tenant may be awake at once."""
    idle_seconds: float = Field(default=1800.0, ge=1, le=30 * 86_400)
    """How long a session stays awake after its last cell."""
    memory_bytes: Bytes = Field(default=8 * GIB, ge=64 * MIB, le=2**53)
    """How much memory the sessions of one tenant may use before idle ones are put to sleep."""
    kept_bytes: Bytes = Field(default=20 * GIB, ge=MIB, le=2**53)
    """How much may be kept of one tenant's projects; the least recently used go first."""
    state_bytes: Bytes = Field(default=4 * GIB, ge=MIB, le=2**53)
    """How large the state of one session may be to be kept."""
    shown_characters: int = Field(default=20_000, ge=500, le=40_000)
    """How much of what a cell printed is shown; the whole stays readable."""


class HttpSection(Section):
    """[http]: serving over HTTP. Only the user's own configuration may hold it."""

    host: str = Field(default="127.0.0.1", min_length=1, max_length=255)
    """The address to listen on."""
    port: int = Field(default=8000, ge=0, le=65535)
    """The port to listen on; 0 takes any that is free."""
    tokens: dict[str, str] = Field(default_factory=dict, repr=False, json_schema_extra={"secret": True})
    """Bearer tokens by the name of their tenant, as they are or as "sha256:" and the digest."""
    allowed_hosts: tuple[str, ...] = Field(default=(), max_length=100)
    """Names by which clients may reach the server, with ":port" or ":*"; loopback's own are known."""
    allowed_origins: tuple[str, ...] = Field(default=(), max_length=100)
    """Origins of web pages that may use the server; none but loopback's unless named."""
    folders: dict[str, tuple[Folder, ...]] = Field(default_factory=dict)
    """Folders on this machine that a tenant may use as projects, by the tenant's name."""
    requests_per_minute: int = Field(default=600, ge=1, le=1_000_000)
    """How many requests a tenant may make in a minute."""
    concurrent_requests: int = Field(default=64, ge=1, le=100_000)
    """How many requests of one tenant may be at work at once."""
    connections: int = Field(default=256, ge=1, le=100_000)
    """How many connections of all clients may be open at once."""
    client_sessions: int = Field(default=1000, ge=1, le=100_000)
    """How many MCP sessions of clients may be open at once; one tenant can have half of them."""
    body_bytes: Bytes = Field(default=8 * MIB, ge=KIB, le=256 * MIB)
    """How large a request may be."""
    shutdown_seconds: float = Field(default=5.0, ge=0, le=300)
    """How long requests at work may take to end when the server is to stop."""
    oauth_issuer: str = Field(default="", max_length=2000)
    """The OAuth authorization server whose tokens are accepted; none unless named."""
    oauth_resource: str = Field(default="", max_length=2000)
    """This server's own address, for which tokens must be issued."""
    oauth_introspection: str = Field(default="", max_length=2000)
    """Where the authorization server tells whether a token is valid (RFC 7662)."""
    oauth_client_id: str = Field(default="", max_length=400)
    """The name by which this server asks there."""
    oauth_client_secret: str = Field(
        default="", max_length=4000, repr=False, json_schema_extra={"secret": True}
    )
    """The secret by which this server asks there."""
    oauth_scopes: tuple[str, ...] = Field(default=(), max_length=50)
    """Scopes that a token must have."""


class Settings(Section):
    """All settings."""

    project: str = Field(default="", max_length=4096)
    """The project of a client that names none: a folder, or a plain name. Never read from a project's own file."""
    rlm: RlmSection = RlmSection()
    sandbox: SandboxSection = SandboxSection()
    sessions: SessionsSection = SessionsSection()
    http: HttpSection = HttpSection()
