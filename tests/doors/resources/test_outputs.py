"""Whole outputs and images as resources."""

from __future__ import annotations

import base64
import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp import Client, MCPError

from rlm_mcp import addresses, output_resources
from rlm_mcp.app import App

from .conftest import blob_at, run, session_of, text_at

PLAIN = st.characters(exclude_categories=("Cs", "Cc"))
LONG = "print('\\n'.join(f'line {n} äöü' for n in range(4000)))"
WHOLE = "\n".join(f"line {n} äöü" for n in range(4000)) + "\n"
PICTURE = """
class Picture:
    def _repr_png_(self):
        return b'\\x89PNG\\r\\n\\x1a\\n' + bytes(100)
Picture()
"""


async def test_a_long_output_is_read_to_its_end_by_what_each_part_names(client: Client, app: App) -> None:
    result = await run(app, "notes", LONG)
    assert result.output_id is not None
    uri: str | None = f"rlm://outputs/{result.output_id}?limit=7000"
    whole = ""
    while uri is not None:
        text = await text_at(client, uri)
        named = re.search(r"\n\[Characters \d+ to \d+ of \d+\. The next: (\S+)\]\Z", text)
        whole += text[: named.start()] if named else text
        uri = named[1] if named else None

    assert whole == WHOLE


async def test_a_part_is_20_000_characters_unless_asked_otherwise_and_never_more_than_100_000(
    client: Client, app: App
) -> None:
    result = await run(app, "notes", "print('x' * 250_000)")
    uri = f"rlm://outputs/{result.output_id}"

    assert (await text_at(client, uri)).startswith("x" * 20_000 + "\n[")
    assert (await text_at(client, f"{uri}?limit=999999")).startswith("x" * 100_000 + "\n[")


async def test_past_the_end_of_an_output_it_says_so(client: Client, app: App) -> None:
    result = await run(app, "notes", LONG)

    assert "nothing from character 900000 on" in await text_at(
        client, f"rlm://outputs/{result.output_id}?offset=900000"
    )


async def test_characters_that_are_none_reach_the_client_as_escapes(client: Client, app: App) -> None:
    result = await run(app, "notes", "import sys\nprint('\\udcff' * 30_000)")

    assert (await text_at(client, f"rlm://outputs/{result.output_id}")).startswith("\\udcff" * 1000)


async def test_an_image_comes_as_its_bytes(client: Client, app: App) -> None:
    result = await run(app, "notes", PICTURE)
    contents = await blob_at(client, f"rlm://outputs/{result.displays[0].id}")

    assert contents.mime_type == "image/png"
    assert base64.b64decode(contents.blob) == result.displays[0].data


async def test_a_part_of_an_image_names_the_next_one(client: Client, app: App) -> None:
    result = await run(app, "notes", PICTURE)
    uri: str | None = f"rlm://outputs/{result.displays[0].id}?limit=50"
    data, parts = b"", 0
    while uri is not None:
        contents = await blob_at(client, uri)
        data, parts = data + base64.b64decode(contents.blob), parts + 1
        uri = (contents.meta or {}).get("rlm/next")

    assert (data, parts) == (result.displays[0].data, 3)


async def test_markdown_comes_as_text(client: Client, app: App) -> None:
    code = "class Note:\n    def _repr_markdown_(self):\n        return '# äöü' * 100\nNote()"
    result = await run(app, "notes", code)
    uri = f"rlm://outputs/{result.displays[0].id}"
    contents = (await client.read_resource(f"{uri}?offset=2&limit=3")).contents[0]

    assert contents.mime_type == "text/markdown"
    assert await text_at(client, uri) == "# äöü" * 100
    assert (await text_at(client, f"{uri}?offset=2&limit=3")).startswith("äöü\n[Characters 2 to 5 of 500.")


async def test_an_output_is_read_while_its_session_sleeps(client: Client, app: App) -> None:
    result = await run(app, "notes", LONG)
    session = await session_of(app, "notes")
    assert await session.sleep()

    assert (await text_at(client, f"rlm://outputs/{result.output_id}")).startswith("line 0 ")
    assert not session.awake


async def test_an_output_that_is_not_there_says_how_to_get_it(client: Client, app: App) -> None:
    await run(app, "notes", "1")
    uri = "rlm://outputs/c1-0123456789abcdef"

    with pytest.raises(MCPError, match="Run the cell again") as caught:
        await client.read_resource(uri)

    assert caught.value.code == -32602
    assert caught.value.data == {"uri": uri}


async def test_the_newest_outputs_are_listed_with_what_they_are(client: Client, app: App) -> None:
    long, picture = await run(app, "notes", LONG), await run(app, "notes", PICTURE)
    listed = [
        each for each in (await client.list_resources()).resources if each.uri.startswith("rlm://outputs")
    ]

    assert [each.uri for each in listed] == [
        f"rlm://outputs/{picture.displays[0].id}",
        f"rlm://outputs/{long.output_id}",
    ]
    assert [(each.mime_type, each.size) for each in listed] == [
        ("image/png", len(picture.displays[0].data)),
        ("text/plain", len(WHOLE.encode())),
    ]


async def test_no_more_than_the_newest_twenty_are_listed(client: Client, app: App) -> None:
    session = await session_of(app, "notes")
    for _ in range(output_resources.LISTED + 7):
        await session.run(PICTURE)
    listed = [
        each for each in (await client.list_resources()).resources if each.uri.startswith("rlm://outputs")
    ]

    assert len(listed) == output_resources.LISTED


@given(
    parts=st.lists(st.text(PLAIN, min_size=1, max_size=20), min_size=1, max_size=4),
    search=st.text(PLAIN, max_size=20),
)
def test_an_address_that_is_written_says_the_same_when_it_is_read(parts: list[str], search: str) -> None:
    address = addresses.read(addresses.write(*parts, search=search, after=3))

    assert list(address.path) == parts
    assert address.query == {"search": search, "after": "3"}


@given(text=st.text(max_size=50))
def test_any_text_is_an_address_or_is_refused(text: str) -> None:
    with suppress(MCPError):
        addresses.read(f"rlm://{text}")
    with suppress(MCPError):
        addresses.read(text)
