"""Who asks: the tenant whose request is being answered.

Over stdio that is the account that the server runs under. Over HTTP each request comes with a token that says
whose it is, and the tenant travels with it.
"""

from __future__ import annotations

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken

from .errors import DoorError
from .tenants import OWNER, Tenant


class TenantToken(AccessToken):
    """A token that was accepted, and whose it is. It does not hold the token's own text."""

    token: str = ""
    tenant: Tenant


class UnknownCaller(DoorError):
    """A request came with a token of which nobody said whose it is; it is never taken for the owner's."""

    def __init__(self) -> None:
        super().__init__(
            "The token of this request belongs to no tenant. Use one that this server was given."
        )


def tenant_of() -> Tenant:
    """Return whose request is in progress: the owner's, unless it came with the token of another tenant."""
    token = get_access_token()
    if token is None:
        return OWNER
    if not isinstance(token, TenantToken):
        raise UnknownCaller
    return token.tenant
