"""The tools, resources and prompts by which the conformance suite looks at a server.

They are put before those of our own server, which answers everything else. So what is examined is the
server as it is, with its transport, its checks and its notices, and the suite finds the words it looks for.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    EmbeddedResource,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    ListPromptsResult,
    ListResourceTemplatesResult,
    ListRootsRequest,
    ListToolsResult,
    Prompt,
    PromptArgument,
    PromptMessage,
    ReadResourceResult,
    ResourceTemplate,
    SamplingMessage,
    TextContent,
    TextResourceContents,
    Tool,
)
from mcp_types import BlobResourceContents as Blob

Answer: TypeAlias = Callable[[Any], Awaitable[Any]]
Before: TypeAlias = Callable[[Any, Any, Answer], Awaitable[Any]]

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
SILENCE = "UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA="


def with_fixtures(server: Server[Any]) -> Server[Any]:
    """Put the fixtures before what a server answers by itself."""
    for method, before in _BEFORE.items():
        _put_before(server, method, before)
    return server


def _put_before(server: Server[Any], method: str, before: Before) -> None:
    entry = server.get_request_handler(method)
    assert entry is not None, f"The server does not answer {method}."

    async def handle(ctx: Any, params: Any) -> Any:
        return await before(ctx, params, lambda changed: entry.handler(ctx, changed))

    server.add_request_handler(method, entry.params_type, handle)


# ---- tools


def _text(text: str) -> TextContent:
    return TextContent(text=text)


def _embedded(uri: str, text: str, mime_type: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, text=text, mime_type=mime_type))


_IMAGE = ImageContent(data=PIXEL, mime_type="image/png")
_SAYS: Mapping[str, list[ContentBlock]] = {
    "test_simple_text": [_text("This is a simple text response for testing.")],
    "test_logging_tool": [_text("The server has no log for clients, so nothing was logged.")],
    "test_image_content": [_IMAGE],
    "test_audio_content": [AudioContent(data=SILENCE, mime_type="audio/wav")],
    "test_embedded_resource": [
        _embedded("test://embedded-resource", "This is an embedded resource content.")
    ],
    "test_multiple_content_types": [
        _text("Multiple content types test:"),
        _IMAGE,
        _embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
    ],
}
_SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


async def _progress(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100)
    return CallToolResult(content=[_text("Done.")])


async def _error(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
    said = "This tool intentionally returns an error for testing"
    return CallToolResult(content=[_text(said)], is_error=True)


async def _missing_capability(ctx: Any, params: CallToolRequestParams) -> CallToolResult:
    capabilities = ctx.session.client_capabilities
    if capabilities is None or capabilities.sampling is None:
        data: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(-32021, "This tool needs a client that offers sampling.", data)
    return CallToolResult(content=[_text("The client offers sampling.")])


_DOES: Mapping[str, Callable[[Any, CallToolRequestParams], Awaitable[CallToolResult]]] = {
    "test_tool_with_progress": _progress,
    "test_error_handling": _error,
    "test_missing_capability": _missing_capability,
}


# ---- what asks the client back before it answers


def _question(message: str, name: str, kind: str = "string") -> ElicitRequest:
    schema: Any = {"type": "object", "properties": {name: {"type": kind}}, "required": [name]}
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def _sampling(text: str, most: int) -> CreateMessageRequest:
    message = SamplingMessage(role="user", content=_text(text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=most))


_NAME = _question("What is your name?", "name")
_ROUNDS: Mapping[str, list[dict[str, Any]]] = {
    "test_input_required_result_elicitation": [{"user_name": _NAME}],
    "test_streaming_elicitation": [{"user_name": _NAME}],
    "test_input_required_result_sampling": [
        {"capital_question": _sampling("What is the capital of France?", 100)}
    ],
    "test_input_required_result_list_roots": [{"client_roots": ListRootsRequest()}],
    "test_input_required_result_request_state": [{"confirm": _question("Please confirm", "ok", "boolean")}],
    "test_input_required_result_multiple_inputs": [
        {
            "user_name": _NAME,
            "greeting": _sampling("Generate a greeting", 50),
            "client_roots": ListRootsRequest(),
        }
    ],
    "test_input_required_result_multi_round": [
        {"step1": _question("Step 1: What is your name?", "name")},
        {"step2": _question("Step 2: What is your favorite color?", "color")},
    ],
    "test_input_required_result_prompt": [
        {"user_context": _question("What context should the prompt use?", "context")}
    ],
}


def _asked(rounds: list[dict[str, Any]], params: Any) -> InputRequiredResult | str:
    """Return what is to be asked next, or all that was answered."""
    given: Mapping[str, Any] = params.input_responses or {}
    number = int((params.request_state or "round-0").removeprefix("round-"))
    if set(rounds[number]) <= set(given):
        number += 1
    if number < len(rounds):
        return InputRequiredResult(input_requests=rounds[number], request_state=f"round-{number}")
    answers = {key: answer.model_dump(mode="json", by_alias=True) for key, answer in given.items()}
    return f"state-ok {json.dumps(answers)}"


async def _capabilities(ctx: Any, params: CallToolRequestParams) -> InputRequiredResult:
    can = ctx.session.client_capabilities
    asks: dict[str, Any] = {}
    if can.sampling is not None:
        asks["sampling"] = _sampling("Say anything.", 10)
    if can.elicitation is not None:
        asks["elicitation"] = _NAME
    return InputRequiredResult(input_requests=asks)


# ---- the fixtures before our own


_CAPABILITIES = "test_input_required_result_capabilities"


async def _list_tools(ctx: Any, params: Any, ours: Answer) -> ListToolsResult:
    found: ListToolsResult = await ours(params)
    names = [*_SAYS, *_DOES, *(name for name in _ROUNDS if not name.endswith("_prompt")), _CAPABILITIES]
    more = [Tool(name=name, description=name, input_schema={"type": "object"}) for name in names]
    more.append(Tool(name="json_schema_2020_12_tool", description="A wide schema", input_schema=_SCHEMA))
    return found.model_copy(update={"tools": [*found.tools, *more]})


async def _call_tool(ctx: Any, params: CallToolRequestParams, ours: Answer) -> Any:
    if content := _SAYS.get(params.name):
        return CallToolResult(content=content)
    if does := _DOES.get(params.name):
        return await does(ctx, params)
    if params.name == _CAPABILITIES:
        return await _capabilities(ctx, params)
    if rounds := _ROUNDS.get(params.name):
        asked = _asked(rounds, params)
        return asked if isinstance(asked, InputRequiredResult) else CallToolResult(content=[_text(asked)])
    return await ours(params)


async def _list_templates(ctx: Any, params: Any, ours: Answer) -> ListResourceTemplatesResult:
    found: ListResourceTemplatesResult = await ours(params)
    more = ResourceTemplate(uri_template="test://template/{id}/data", name="template", description="Any id")
    return found.model_copy(update={"resource_templates": [*found.resource_templates, more]})


async def _read_resource(ctx: Any, params: Any, ours: Answer) -> Any:
    uri = str(params.uri)
    if uri == "test://static-text":
        said = "This is the content of the static text resource."
        return ReadResourceResult(contents=[TextResourceContents(uri=uri, text=said, mime_type="text/plain")])
    if uri == "test://static-binary":
        return ReadResourceResult(contents=[Blob(uri=uri, blob=PIXEL, mime_type="image/png")])
    if uri.startswith("test://template/"):
        number = uri.split("/")[3]
        said = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        return ReadResourceResult(
            contents=[TextResourceContents(uri=uri, text=said, mime_type="application/json")]
        )
    return await ours(params)


async def _subscribe(ctx: Any, params: Any, ours: Answer) -> Any:
    """The suite's resource stands for the list of our sessions."""
    known = str(params.uri).replace("test://watched-resource", "rlm://sessions")
    return await ours(params.model_copy(update={"uri": known}))


_PROMPTS: Mapping[str, tuple[str, ...]] = {
    "test_simple_prompt": (),
    "test_prompt_with_arguments": ("arg1", "arg2"),
    "test_prompt_with_embedded_resource": ("resourceUri",),
    "test_prompt_with_image": (),
    "test_input_required_result_prompt": (),
}


async def _list_prompts(ctx: Any, params: Any, ours: Answer) -> ListPromptsResult:
    found: ListPromptsResult = await ours(params)
    more = [
        Prompt(
            name=name,
            description=name,
            arguments=[PromptArgument(name=each, description=each, required=True) for each in arguments],
        )
        for name, arguments in _PROMPTS.items()
    ]
    return found.model_copy(update={"prompts": [*found.prompts, *more]})


async def _get_prompt(ctx: Any, params: GetPromptRequestParams, ours: Answer) -> Any:
    given = params.arguments or {}
    match params.name:
        case "test_simple_prompt":
            return _prompt(_text("This is a simple prompt for testing."))
        case "test_prompt_with_arguments":
            return _prompt(_text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))
        case "test_prompt_with_embedded_resource":
            embedded = _embedded(given["resourceUri"], "Embedded resource content for testing.")
            return _prompt(embedded, _text("Please process the embedded resource above."))
        case "test_prompt_with_image":
            return _prompt(_IMAGE, _text("Please analyze the image above."))
        case "test_input_required_result_prompt":
            asked = _asked(_ROUNDS[params.name], params)
            return asked if isinstance(asked, InputRequiredResult) else _prompt(_text(asked))
        case _:
            return await ours(params)


def _prompt(*content: ContentBlock) -> GetPromptResult:
    return GetPromptResult(messages=[PromptMessage(role="user", content=each) for each in content])


_BEFORE: Mapping[str, Before] = {
    "tools/list": _list_tools,
    "tools/call": _call_tool,
    "resources/templates/list": _list_templates,
    "resources/read": _read_resource,
    "resources/subscribe": _subscribe,
    "resources/unsubscribe": _subscribe,
    "prompts/list": _list_prompts,
    "prompts/get": _get_prompt,
}
