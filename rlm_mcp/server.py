"""The MCP server: every message that a client may send, and who answers it."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from mcp.server.caching import CacheHint
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequestParams,
    GetPromptResult,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    ServerCapabilities,
    TextContent,
)

from .app import App
from .callers import tenant_of
from .completions import complete
from .errors import said_of
from .notices import Notices
from .prompts import get_prompt, list_prompts
from .resources import Resources
from .roots import roots_of
from .sampling import SamplingModel, is_modern, offers_sampling, texts_of
from .tasks import Tasks, knows_tasks
from .tenants import Tenant
from .texts import of_problem, plain
from .tools import Tools
from .waiting import is_handle

_VERSION = version("rlm-mcp")
_HOUR_MS = 3_600_000

INSTRUCTIONS = """\
A Python REPL for this project that remembers: variables, functions and imports stay between calls, days, errors, \
time-outs and restarts.

Workflow: 1. set_repl_context(files={"log": "data/app.log"}) puts files into variables without their content passing \
through you, however large they are. 2. execute_python looks at them: search, slice, count, plot; print only what you \
need. 3. Build on variables in the next call; get_repl_context lists them.

- Code can ask models: llm_query(prompt), llm_map("...{item}", items, schema={...}) for many at once, \
rlm_query(prompt, context=...) for work in steps. Where no model is configured the result says waiting, and you \
answer by answer_calls, with sub-agents in parallel if there are many.
- Each project has one session; calls to it run one after another, calls to other projects beside it (argument project).
- A cell that fails, times out or is cancelled keeps the variables that it had set.
- Long output loses its middle; the whole is the resource rlm://outputs/ID (?offset=&limit= page through it). \
rlm://sessions lists all sessions.
- The value of the last expression is shown; matplotlib figures come back as images.
- Code is jailed: it reads the project's files, writes to a scratch folder (tempfile.gettempdir()), and has no network \
unless the user's settings allow more. [note: ...] lines tell what became of the session."""


class _Asker:
    """The client behind a request."""

    def __init__(self, app: App, ctx: Any, tenant: Tenant) -> None:
        self._app = app
        self._ctx = ctx
        self._session = ctx.session
        self.tenant = tenant

    @property
    def sampling(self) -> SamplingModel | None:
        """Its own model, if that can be asked while its call is at work."""
        asked = offers_sampling(self._ctx) and not is_modern(self._ctx) and self._session.can_send_request
        return (
            SamplingModel(self._ctx, answer_seconds=self._app.settings.rlm.answer_seconds) if asked else None
        )

    @property
    def takes_tasks(self) -> bool:
        """Whether it takes a task in place of a result."""
        return knows_tasks(self._ctx)

    @property
    def takes_questions(self) -> bool:
        """Whether its own model answers what it finds in place of a result."""
        return offers_sampling(self._ctx) and is_modern(self._ctx)

    async def progress(self, done: float, message: str) -> None:
        """Tell it how it goes on."""
        await self._session.report_progress(done, None, plain(message))


def make_server(app: App) -> Server[Any]:
    """Return a server for the clients of `app`, which is opened and closed by the door that they come in by."""
    answers = _Answers(app)
    server = _Server(
        "rlm",
        title="RLM",
        version=_VERSION,
        description="A persistent, sandboxed Python REPL for each project",
        instructions=INSTRUCTIONS,
        cache_hints={
            "tools/list": CacheHint(_HOUR_MS, "private"),
            "prompts/list": CacheHint(_HOUR_MS, "public"),
        },
        on_list_tools=answers.list_tools,
        on_call_tool=answers.call_tool,
        on_list_resources=answers.list_resources,
        on_list_resource_templates=answers.list_templates,
        on_read_resource=answers.read_resource,
        on_subscribe_resource=answers.notices.subscribe,
        on_unsubscribe_resource=answers.notices.unsubscribe,
        on_subscriptions_listen=answers.notices.listen,
        on_list_prompts=answers.list_prompts,
        on_get_prompt=answers.get_prompt,
        on_completion=answers.complete,
    )
    server.middleware.clear()  # spans that nobody collects, at the price of a tenth of a small call
    answers.notices.join(server)
    Tasks(app).join(server)
    app.leaving.append(answers.notices.close)
    return server


class _Server(Server[Any]):
    """One that says on every transport, and in both eras, of which changes it tells."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        told = notification_options or NotificationOptions(resources_changed=True)
        return super().create_initialization_options(told, experimental_capabilities, extensions)

    def get_capabilities(
        self,
        notification_options: NotificationOptions | None = None,
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
        *,
        protocol_version: str | None = None,
    ) -> ServerCapabilities:
        told = super().get_capabilities(
            notification_options, experimental_capabilities, extensions, protocol_version=protocol_version
        )
        for always_the_same in (told.tools, told.prompts):
            if always_the_same is not None:
                always_the_same.list_changed = False
        return told


class _Answers:
    """Who answers the messages of clients."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._tools = Tools(app)
        self._resources = Resources(app)
        self.notices = Notices(app, self._resources)

    async def list_tools(self, ctx: Any, params: Any) -> ListToolsResult:
        """Answer tools/list."""
        return ListToolsResult(tools=self._tools.definitions)

    async def call_tool(
        self, ctx: Any, params: CallToolRequestParams
    ) -> Any:  # a task is no result of the SDK's
        """Answer tools/call. What a model can mend comes back as the result of the tool."""
        try:
            arguments = self._tools.takes(params.name, params.arguments)
            if arguments is None:
                raise MCPError(INVALID_PARAMS, self._unknown(params.name))
            tenant = tenant_of()
            asker, state = _Asker(self._app, ctx, tenant), params.request_state
            if state is not None and is_handle(state):
                answers = texts_of(params.input_responses)
                return await self._tools.go_on(asker, arguments, state, answers)
            needed = self._app.needs_roots(tenant, arguments.project)
            roots = await roots_of(ctx, params, needed=needed)
            if isinstance(roots, InputRequiredResult):
                return roots
            return await self._tools.call(asker, params.name, arguments, roots=roots)
        except Exception as problem:
            if isinstance(problem, MCPError):
                raise
            return _failed(problem)

    async def list_resources(self, ctx: Any, params: PaginatedRequestParams | None) -> ListResourcesResult:
        """Answer resources/list."""
        return await self._resources.list(tenant_of(), params.cursor if params else None)

    async def list_templates(
        self, ctx: Any, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        """Answer resources/templates/list."""
        return await self._resources.templates(tenant_of(), params.cursor if params else None)

    async def read_resource(self, ctx: Any, params: ReadResourceRequestParams) -> ReadResourceResult:
        """Answer resources/read."""
        return await self._resources.read(tenant_of(), str(params.uri))

    async def list_prompts(self, ctx: Any, params: PaginatedRequestParams | None) -> ListPromptsResult:
        """Answer prompts/list."""
        return list_prompts(params.cursor if params else None)

    async def get_prompt(self, ctx: Any, params: GetPromptRequestParams) -> GetPromptResult:
        """Answer prompts/get."""
        return get_prompt(params.name, params.arguments)

    async def complete(self, ctx: Any, params: CompleteRequestParams) -> CompleteResult:
        """Answer completion/complete."""
        return await complete(self._app, tenant_of(), params)

    def _unknown(self, name: str) -> str:
        return f"There is no tool {name[:100]!r}; there are {', '.join(self._tools.names)}."


def _failed(problem: Exception) -> CallToolResult:
    """Return an error that a model can read."""
    return CallToolResult(content=[TextContent(text=of_problem(said_of(problem)))], is_error=True)
