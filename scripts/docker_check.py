"""What `docker-builds` runs in the container of the server: its promises over HTTP, tried with the standard library.

It is given the token as its argument, and ends with an error at the first promise that does not hold.
"""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

SERVER = "http://127.0.0.1:8000"
PROTOCOL = "2025-11-25"


def main(token: str) -> None:
    """Be well, refuse a stranger, and run a cell for the owner of the token."""
    assert urlopen(f"{SERVER}/health", timeout=10).status == 200
    assert refusal("wrong-token-of-a-stranger") == 401
    assert value_of_sum(token) == "2"


def refusal(token: str) -> int:
    try:
        post({"jsonrpc": "2.0", "id": 1, "method": "ping"}, token=token)
    except HTTPError as refused:
        return refused.code
    return 200


def value_of_sum(token: str) -> str:
    client = {
        "protocolVersion": PROTOCOL,
        "capabilities": {},
        "clientInfo": {"name": "check", "version": "1"},
    }
    _, session = post({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}, token=token)
    post({"jsonrpc": "2.0", "method": "notifications/initialized"}, token=token, session=session)
    cell = {"name": "execute_python", "arguments": {"code": "1 + 1", "project": "check"}}
    answer, _ = post(
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": cell}, token=token, session=session
    )
    return "".join(part["text"] for part in answer["result"]["content"]).strip()


def post(message: dict[str, Any], *, token: str, session: str = "") -> tuple[dict[str, Any], str]:
    """Return the server's answer, and the id of the session that it opened or was told."""
    headers = {
        "Authorization": f"Bearer {token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": PROTOCOL,
    }
    if session:
        headers["Mcp-Session-Id"] = session
    with urlopen(Request(f"{SERVER}/mcp", json.dumps(message).encode(), headers), timeout=60) as response:
        text = response.read().decode()
        opened = response.headers.get("Mcp-Session-Id") or session
    lines = [line.removeprefix("data:") for line in text.splitlines() if line.startswith(("data:", "{"))]
    answers = [json.loads(line) for line in lines if line.strip()]
    return (answers[-1] if answers else {}), opened


main(sys.argv[1])
