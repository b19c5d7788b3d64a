"""Bearer tokens: which are accepted, and whose they are.

Only digests are kept, in memory and on the disk. A token is compared with all of them, in the same time whether
or not one is right.
"""

from __future__ import annotations

import hmac
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Protocol

from ..app import root_of
from ..callers import TenantToken
from ..errors import DoorError
from ..settings import HttpSection, Settings
from ..tenants import OWNER, Tenant

OWNER_NAME = "owner"  # as which the account itself is named in the configuration and in the log
TOKEN_FILE = "http-token"  # noqa: S105 -- the name of a file

_SHORTEST = 16
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,99}")


class TokensUnusable(DoorError):
    """The tokens that were configured cannot be used."""


class TokenFileUnusable(DoorError):
    """The place where the digest of the server's own token is kept cannot be read or written."""

    def __init__(self, path: Path, problem: str) -> None:
        self.path = path
        super().__init__(
            f"The digest of this server's token is kept in {path}, and that cannot be used: {problem}. Nothing is "
            "served. Remove the file or mend its folder, or set tokens in [http] of the user's rlm.toml."
        )


class OtherTokens(Protocol):
    """Who knows of tokens that are not ours, such as an authorization server."""

    async def verify_token(self, token: str) -> TenantToken | None: ...


@dataclass(frozen=True)
class Key:
    """A token of which only the digest is known, and whose it is."""

    digest: bytes
    tenant: Tenant


@dataclass(frozen=True)
class Keys:
    """The tokens that a server accepts, and what there is to say of them when it starts."""

    keys: tuple[Key, ...]
    made: str | None = None  # the token that was made just now; it is told once
    kept_in: Path | None = None  # where the digest of the server's own token is


class Accepted:
    """Says of a token whose it is. It is what the SDK calls a verifier of tokens."""

    def __init__(self, keys: Iterable[Key], *, others: OtherTokens | None, like: TenantToken) -> None:
        self._keys = tuple(keys)
        self._others = others
        self._like = like

    async def verify_token(self, token: str) -> TenantToken | None:
        tenant = tenant_with(token, self._keys)
        if tenant is not None:
            name = tenant.name or OWNER_NAME
            return self._like.model_copy(update={"client_id": f"tenant:{name}", "tenant": tenant})
        return await self._others.verify_token(token) if self._others else None


def tenant_with(token: str, keys: Iterable[Key]) -> Tenant | None:
    """Return whose token this is. Every key is compared, whichever is right."""
    digest = sha256(token.encode("utf-8", "surrogateescape")).digest()
    found = [key.tenant for key in keys if hmac.compare_digest(key.digest, digest)]
    return found[0] if found else None


def keys_of(settings: Settings, *, new_token: bool = False) -> Keys:
    """Return the tokens that hold for a server; the owner's own is made if there is no other way in. Blocking."""
    configured = configured_keys(settings.http)
    if configured and new_token:
        raise TokensUnusable(
            "A new token is made only for a server to which none is given, and [http] tokens gives some. "
            "Change the one to be replaced there."
        )
    if configured or (settings.http.oauth_issuer and not new_token):
        return Keys(configured)
    path = root_of(settings, OWNER) / TOKEN_FILE
    digest = None if new_token else _kept_digest(path)
    if digest is not None:
        return Keys((Key(digest, OWNER),), kept_in=path)
    token = secrets.token_urlsafe(32)
    digest = sha256(token.encode()).digest()
    _keep_digest(path, digest)
    return Keys((Key(digest, OWNER),), made=token, kept_in=path)


def configured_keys(http: HttpSection) -> tuple[Key, ...]:
    """Return the tokens of the configuration. Raise `TokensUnusable` for those that protect nothing."""
    digests = {_checked_name(name): _digest_of(name, token) for name, token in http.tokens.items()}
    if len(set(digests.values())) < len(digests):
        raise TokensUnusable(
            "Two tenants in [http] tokens have the same token, so nobody could say whose a request is. "
            "Give each a token of its own."
        )
    return tuple(Key(digest, _tenant(name, http.folders)) for name, digest in digests.items())


def _tenant(name: str, folders: Mapping[str, tuple[Path, ...]]) -> Tenant:
    return OWNER if name == OWNER_NAME else Tenant(name, folders=folders.get(name, ()))


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise TokensUnusable(
            f"{name[:100]!r} in [http] tokens is no name for a tenant. Use letters, digits and any of _ . @ -, "
            'at most 100; "owner" is the account that the server runs under.'
        )
    return name


def _digest_of(name: str, token: str) -> bytes:
    given = _DIGEST.fullmatch(token.strip().lower())
    if given is not None:
        return bytes.fromhex(given[1])
    if token.startswith("sha256:"):
        raise TokensUnusable(
            f'The token of {name!r} in [http] tokens starts with "sha256:" and is no such digest, which has 64 '
            "hexadecimal digits. Make one with: printf %s TOKEN | sha256sum"
        )
    if len(token) < _SHORTEST or token != token.strip() or not token.isascii() or not token.isprintable():
        raise TokensUnusable(
            f"The token of {name!r} in [http] tokens is not fit for use: it needs at least {_SHORTEST} plain "
            'characters and no spaces around it. Make one with: python3 -c "import secrets; '
            'print(secrets.token_urlsafe(32))"'
        )
    return sha256(token.encode()).digest()


def _kept_digest(path: Path) -> bytes | None:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)) as file:
            text = file.read(200)
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as problem:
        raise TokenFileUnusable(path, str(problem)) from problem
    match = _DIGEST.fullmatch(text.strip())
    if match is None:
        raise TokenFileUnusable(path, "it holds no digest")
    return bytes.fromhex(match[1])


def _keep_digest(path: Path, digest: bytes) -> None:
    """Write the digest so that it is there whole or not at all, and for nobody else to read."""
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "w"
        ) as file:
            file.write(f"sha256:{digest.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as problem:
        fresh.unlink(missing_ok=True)
        raise TokenFileUnusable(path, str(problem)) from problem
