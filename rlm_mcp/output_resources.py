"""The family `rlm://outputs`: whole outputs and images, by the ids that answers to cells name.

An id is looked for among what is kept of this tenant's projects and nowhere else, so to know one of somebody
else's is worth nothing.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from mcp_types import (
    Annotations,
    BlobResourceContents,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextResourceContents,
)

from . import addresses
from .addresses import Address
from .app import App
from .known import places_of, root_folder
from .session_resources import moment
from .tenants import Tenant

if TYPE_CHECKING:
    from rlm_sessions import Chunk, KeptOutput, Outputs

LISTED = 20
CHARACTERS, MOST_CHARACTERS = 20_000, 100_000
MOST_BYTES = 16 * 1024 * 1024

_STAY_MS = 3_600_000
_MOST_COMPLETED, _MOST_OF_A_PROJECT = 200, 1000
_GONE = "no output of that id is kept: old ones are removed after a while. Run the cell again to get it anew"
_TEXTS = ("text/plain", "text/markdown", "text/html")


class OutputFamily:
    """What can be read of the outputs of a tenant."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def listed(
        self, tenant: Tenant, after: tuple[Any, ...] | None, count: int, most: int
    ) -> Sequence[tuple[tuple[Any, ...], Resource]]:
        """Return the newest outputs, newest first. Those that came since the first page do not count."""
        outputs = [
            (place, _listed(kept)) for place, kept in await self._kept(tenant) if _is_past(after, place)
        ]
        return outputs[: min(most, max(0, LISTED - count))]

    async def _kept(self, tenant: Tenant) -> list[tuple[tuple[Any, ...], KeptOutput]]:
        root = await root_folder(self._app, tenant)
        return await anyio.to_thread.run_sync(_newest, root)

    def templates(self) -> Sequence[ResourceTemplate]:
        """Return how to ask for any output."""
        return _TEMPLATES

    async def read(self, tenant: Tenant, address: Address) -> ReadResourceResult:
        """Return a part of a text, or an image."""
        id_ = _id(address)
        address.only(("offset", "limit"))
        offset = address.number("offset", 0)
        root = await root_folder(self._app, tenant)
        contents = await anyio.to_thread.run_sync(_contents, root, address, id_, offset)
        return ReadResourceResult(contents=[contents], ttl_ms=_STAY_MS, cache_scope="private")

    async def subject(self, tenant: Tenant, address: Address) -> str:
        """Return the URI of the output itself. It never changes, and may go."""
        id_ = _id(address)
        root = await root_folder(self._app, tenant)
        await anyio.to_thread.run_sync(_read, root, address, id_, 0, 0)
        return output_uri(id_)

    async def complete(self, tenant: Tenant, argument: str, value: str) -> Sequence[str]:
        """Return the ids that begin with `value`, newest first."""
        if argument != "id":
            return []
        kept = [output.id for _, output in await self._kept(tenant)]
        return [id_ for id_ in kept if id_.startswith(value)][:_MOST_COMPLETED]


def output_uri(id_: str) -> str:
    """Return the URI of an output."""
    return addresses.write("outputs", id_)


def _id(address: Address) -> str:
    if len(address.path) != 2:
        raise addresses.no_resource(
            address.uri, "an output is rlm://outputs/ID, and answers to cells name their IDs"
        )
    return address.path[1]


# ---- finding


def _is_past(after: tuple[Any, ...] | None, place: tuple[Any, ...]) -> bool:
    try:
        return after is None or place > after
    except TypeError:  # the cursor is made up
        return False


def _newest(root: Path) -> list[tuple[tuple[Any, ...], KeptOutput]]:
    """Return all outputs, newest first, each with its place in that order."""
    found = [kept for outputs in _all_outputs(root) for kept in outputs.kept(_MOST_OF_A_PROJECT)]
    placed: list[tuple[tuple[Any, ...], KeptOutput]] = [((-kept.kept_at, kept.id), kept) for kept in found]
    return sorted(placed, key=lambda item: item[0])


def _all_outputs(root: Path) -> list[Outputs]:
    from rlm_sessions import Outputs

    return [Outputs(place / "outputs") for place in places_of(root)]


def _read(root: Path, address: Address, id_: str, offset: int, limit: int) -> Chunk:
    """Return a part of an output, in whichever project it is."""
    from rlm_sessions import OutputNotFound

    for outputs in _all_outputs(root):
        try:
            return outputs.read(id_, offset=offset, limit=limit)
        except OutputNotFound:
            continue
    raise addresses.no_resource(address.uri, _GONE)


# ---- telling


def _contents(
    root: Path, address: Address, id_: str, offset: int
) -> TextResourceContents | BlobResourceContents:
    chunk = _read(root, address, id_, 0, 0)
    if chunk.mime in _TEXTS:
        limit = address.number("limit", CHARACTERS, least=1, most=MOST_CHARACTERS)
        return _text(root, address, chunk, offset, limit)
    limit = address.number("limit", MOST_BYTES, least=1, most=MOST_BYTES)
    data = _read(root, address, id_, offset, limit).data or b""
    end = offset + len(data)
    more = addresses.write("outputs", id_, offset=end, limit=limit) if end < chunk.total and data else None
    return BlobResourceContents(
        uri=address.uri,
        mime_type=chunk.mime,
        blob=base64.b64encode(data).decode(),
        _meta={"rlm/next": more, "rlm/totalBytes": chunk.total} if more else None,
    )


def _text(root: Path, address: Address, chunk: Chunk, offset: int, limit: int) -> TextResourceContents:
    if chunk.mime == "text/plain":
        total, text = chunk.total, _read(root, address, chunk.id, offset, limit).text or ""
    else:
        whole = (_read(root, address, chunk.id, 0, MOST_BYTES).data or b"").decode(errors="replace")
        total, text = len(whole), whole[offset : offset + limit]
    if text and offset + len(text) < total:
        more = addresses.write("outputs", chunk.id, offset=offset + len(text), limit=limit)
        text += f"\n[Characters {offset} to {offset + len(text)} of {total}. The next: {more}]"
    elif not text and total:
        text = f"[There is nothing from character {offset} on: it has {total}.]"
    return TextResourceContents(uri=address.uri, mime_type=chunk.mime, text=addresses.printable(text))


def _listed(kept: KeptOutput) -> Resource:
    is_text = kept.mime == "text/plain"
    length = f"{kept.total:,} characters" if is_text else f"{kept.total:,} bytes"
    return Resource(
        uri=output_uri(kept.id),
        name=f"output-{kept.id}",
        title=f"{'Output' if is_text else 'Figure'} of step {kept.cell}",
        description=f"{'The whole output' if is_text else 'A figure'} of step {kept.cell}: {length}.",
        mime_type=kept.mime,
        size=kept.size_bytes,
        annotations=Annotations(audience=["user", "assistant"], last_modified=moment(kept.kept_at)),
    )


_TEMPLATES = (
    ResourceTemplate(
        uri_template="rlm://outputs/{id}{?offset,limit}",
        name="output",
        title="A whole output or figure",
        description=f"What a cell printed in full, from character `offset` on, `limit` characters "
        f"(default {CHARACTERS}, at most {MOST_CHARACTERS}); the last line names the next part. Figures come whole.",
    ),
)
