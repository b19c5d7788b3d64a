"""What no well-behaved client sends, and what the server does about it: it lives on, and stays small."""

from __future__ import annotations

import json
from typing import Any

import anyio
import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlm_mcp.stdio import BUSY, MESSAGE_BYTES, REQUESTS_AT_WORK, Lines, Refused, message_of

from .raw import served

NO_JSON = {
    "words": b"hello",
    "half": b'{"jsonrpc":"2.0","id":1,',
    "deep": b"[" * 100_000,
    "deep and whole": b"[" * 100_000 + b"]" * 100_000,
    "latin": b'{"jsonrpc":"2.0","id":1,"method":"p\xe9ng"}',
    "zeros": b"\0\0\0",
    "half a pair": b'{"jsonrpc":"2.0","id":1,"method":"\\ud800"}',
}
NO_MESSAGE = {
    "batch": b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    "number": b"1" * 4000,
    "nothing": b"null",
    "empty": b"{}",
    "version": b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    "method": b'{"jsonrpc":"2.0","id":1,"method":1}',
}
NOT_ANSWERED = {
    "empty": b"",
    "blank": b"  \t\r",
    "error": b'{"jsonrpc":"2.0","id":null,"error":{"code":1,"message":"x"}}',
    "answer to nothing": b'{"jsonrpc":"2.0","id":77,"result":{}}',
    "no identity": b'{"jsonrpc":"2.0","id":{},"method":"ping"}',
    "unknown notification": b'{"jsonrpc":"2.0","method":"notifications/unknown"}',
    "cancels a list": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":[]}}',
    "cancels nothing": b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":99}}',
}


@pytest.mark.parametrize(
    ("line", "code"),
    [pytest.param(line, types.PARSE_ERROR, id=name) for name, line in NO_JSON.items()]
    + [pytest.param(line, types.INVALID_REQUEST, id=name) for name, line in NO_MESSAGE.items()],
)
async def test_what_is_no_message_is_refused(line: bytes, code: int) -> None:
    with pytest.raises(Refused) as refused:
        message_of(line)

    assert refused.value.answer.error.code == code
    assert len(str(refused.value)) < 300


async def test_the_server_lives_on_whatever_it_is_sent() -> None:
    lines = [*NO_JSON.values(), *NO_MESSAGE.values(), *NOT_ANSWERED.values()]
    with anyio.fail_after(30):
        async with served() as raw:
            first = await raw.text_of("echo", text="before")
            await raw.send(*(line + b"\n" for line in lines))
            refused = [await raw.receive() for _ in (*NO_JSON, *NO_MESSAGE)]
            last = await raw.text_of("echo", text="after")
            await raw.hang_up()
            stderr = await raw.said()

    assert (first, last) == ("before", "after")
    assert all(each["id"] is None for each in refused)
    assert len(stderr) < 1000


async def test_garbage_before_the_first_request_does_not_confuse_the_choice_of_an_era() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            await raw.send(*(b"garbage\r\n" for _ in range(50)))
            refused = [await raw.receive() for _ in range(50)]
            text = await raw.text_of("echo", text="after")

    assert {each["error"]["code"] for each in refused} == {types.PARSE_ERROR}
    assert text == "after"


async def test_lines_may_end_as_on_windows_and_come_in_pieces() -> None:
    with anyio.fail_after(30):
        async with served() as raw:
            line = json.dumps(raw.call("echo", text="é" * 10), ensure_ascii=False).encode() + b"\r\n"
            for byte in line:
                await raw.send(bytes([byte]))
            answer = await raw.receive()

    assert answer["result"]["content"][0]["text"] == "é" * 10


async def test_a_message_that_is_too_long_is_refused_and_not_held() -> None:
    with anyio.fail_after(60):
        async with served() as raw:
            before = memory(await raw.text_of("memory"))
            await raw.send(b"x" * (MESSAGE_BYTES + 1))
            refused = await raw.receive()
            for _ in range(4):
                await raw.send(b"x" * MESSAGE_BYTES)
            await raw.send(b"\n")
            after = memory(await raw.text_of("memory"))

    assert (refused["id"], refused["error"]["code"]) == (None, types.INVALID_REQUEST)
    assert str(MESSAGE_BYTES) in refused["error"]["message"]
    assert after < before + MESSAGE_BYTES


async def test_a_long_message_is_no_problem() -> None:
    with anyio.fail_after(60):
        async with served() as raw:
            text = await raw.text_of("echo", text="x" * 20_000_000)

    assert len(text) == 20_000_000


async def test_a_client_that_does_not_read_costs_a_bounded_amount_of_memory() -> None:
    peak = 0
    with anyio.fail_after(60):
        async with served() as raw:
            await raw.text_of("memory")
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(raw.send, *(raw.call("big", size=1_000_000) for _ in range(5000)))
                await raw.begins_to_answer()
                peak = await settled_memory(raw.process.pid)
                tasks.cancel_scope.cancel()
            raw.process.kill()

    assert peak < 300_000


async def settled_memory(pid: int) -> int:
    """Return how much memory a process uses when that has stopped to grow, in kB."""
    last, same = 0, 0
    while same < 10:
        await anyio.sleep(0.05)
        now = memory(await anyio.Path(f"/proc/{pid}/status").read_text())
        last, same = now, same + 1 if now == last else 0
    return last


async def test_requests_beyond_a_number_are_refused_and_cancelled_ones_make_room() -> None:
    with anyio.fail_after(60):
        async with served() as raw:
            calls = [raw.call("sleep") for _ in range(REQUESTS_AT_WORK)]
            await raw.send(*calls)
            refused = await raw.ask(raw.call("echo"))
            await raw.send(*(cancelled(each["id"]) for each in calls[:10]))
            await raw.send(*(cancelled(str(each["id"])) for each in calls[10:20]))
            await raw.send(*(raw.call("sleep") for _ in range(19)))
            text = await raw.text_of("echo", text="room for one")

    assert refused["error"]["code"] == BUSY
    assert text == "room for one"


def cancelled(number: int | str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": number}}


def memory(status: str) -> int:
    """Return the kB of memory that a process status tells of."""
    return int(status.partition("VmRSS:")[2].split()[0])


@given(st.lists(st.binary(max_size=8).map(lambda each: each.replace(b" ", b"\n"))), st.integers(1, 10))
def test_lines_are_the_same_in_whatever_portions_they_come(portions: list[bytes], bound: int) -> None:
    whole = b"".join(portions) + b"\n"
    expected = [
        None if len(each) > bound else each
        for each in whole.split(b"\n")
        if len(each) > bound or each.strip()
    ]

    lines = Lines(bound)
    told = [line and bytes(line) for portion in (*portions, b"\n") for line in lines.feed(portion)]

    assert told == expected
