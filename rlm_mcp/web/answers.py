"""What a request is answered with that does not get as far as the protocol."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

INVALID_REQUEST = -32600
PARSE_ERROR = -32700


def refusal(
    status: int, message: str, *, code: int = INVALID_REQUEST, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a refusal in the form that clients of the protocol read."""
    body = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": message}}
    return JSONResponse(body, status_code=status, headers={"Cache-Control": "no-store", **(headers or {})})


def last_refusal(status: int, message: str, *, code: int = INVALID_REQUEST) -> Response:
    """Return a refusal after which the connection is closed, because what is still to come on it is not wanted."""
    return refusal(status, message, code=code, headers={"Connection": "close"})


def too_many(message: str, *, retry_seconds: int) -> Response:
    """Return the refusal of a client that asks too much, with when to come back."""
    return refusal(429, message, headers={"Retry-After": str(max(1, retry_seconds))})


def stopping() -> Response:
    """Return the refusal of a server that is about to end."""
    message = "The server is stopping. Nothing was done; try again when it is back."
    return refusal(503, message, headers={"Retry-After": "5", "Connection": "close"})


def interrupted() -> Response:
    """Return what a call is answered that was ended because the server is."""
    message = "The server stopped and interrupted this call; some of it may have been done. Try again when it is back."
    return refusal(503, message, headers={"Retry-After": "5", "Connection": "close"})
