"""What every sandbox promises, however much or little it keeps out."""

from __future__ import annotations

import signal
from typing import Any

import anyio
import pytest

from rlm_sandboxes import Limits, ProcessEnded, Program, Sandbox, StartFailed
from tests.contracts.asking import ask, hear, tell
from tests.contracts.conftest import PROBE


async def test_what_is_sent_arrives_and_is_answered(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            answer = await ask(process, "echo", text="grüße\n\0")

    assert answer == "grüße\n\0"


async def test_many_bytes_arrive_whole_and_in_order_each_way(sandbox: Sandbox) -> None:
    text = "".join(str(n) for n in range(300_000))

    with anyio.fail_after(30):
        async with sandbox.start(PROBE, None, Limits()) as process:
            echoed = await ask(process, "echo", text=text)

    assert echoed == text


async def test_sending_waits_while_the_program_does_not_read(sandbox: Sandbox) -> None:
    with anyio.fail_after(30):
        async with sandbox.start(PROBE, None, Limits()) as process:
            await tell(process, "spin")
            assert await hear(process) == "spinning"
            with anyio.move_on_after(0.3) as waiting:
                await process.send(b" " * 64_000_000)

    assert waiting.cancelled_caught


@pytest.mark.parametrize("kept", [signal.default_int_handler, signal.SIG_IGN], ids=["heeds", "ignores"])
async def test_an_interrupt_stops_what_the_program_does_and_not_the_program_whatever_the_host_does_itself(
    sandbox: Sandbox, kept: Any
) -> None:
    own = signal.signal(signal.SIGINT, kept)
    try:
        with anyio.fail_after(20):
            async with sandbox.start(PROBE, None, Limits()) as process:
                await tell(process, "spin")
                assert await hear(process) == "spinning"
                await process.interrupt()
                stopped = await hear(process)
                afterwards = await ask(process, "echo", text="still here")
    finally:
        signal.signal(signal.SIGINT, own)

    assert (stopped, afterwards) == ("interrupted", "still here")


@pytest.mark.parametrize("code", [0, 7])
async def test_a_program_that_ends_is_reported_with_its_exit_code(sandbox: Sandbox, code: int) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            await tell(process, "end", code=code, softly=True)
            with pytest.raises(ProcessEnded) as ended:
                while True:
                    await process.receive()

    assert ended.value.status == code


async def test_sending_to_a_program_that_is_over_says_so(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            await process.kill()

            with pytest.raises(ProcessEnded):
                while True:
                    await process.send(b"x" * 65536)


async def test_kill_ends_a_program_that_refuses_to_stop(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            await tell(process, "spin")
            assert await hear(process) == "spinning"
            await process.kill()
            with pytest.raises(ProcessEnded) as ended:
                await process.receive()

    assert ended.value.status == -9


async def test_killing_twice_is_once(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            await process.kill()
            await process.kill()

            with pytest.raises(ProcessEnded):
                await process.receive()


async def test_a_paused_program_goes_on_when_resumed_and_not_before(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            assert await ask(process, "echo", text="awake") == "awake"
            await process.pause()
            await tell(process, "echo", text="later")
            with anyio.move_on_after(0.3) as silence:
                await process.receive()
            await process.resume()
            answer = await hear(process)

    assert silence.cancelled_caught
    assert answer == "later"


async def test_usage_grows_while_the_program_works(sandbox: Sandbox) -> None:
    with anyio.fail_after(30):
        async with sandbox.start(PROBE, None, Limits()) as process:
            before = await process.usage()
            await tell(process, "spin")
            assert await hear(process) == "spinning"
            after = before
            while after.cpu_seconds < before.cpu_seconds + 0.1:
                await anyio.sleep(0.05)
                after = await process.usage()

    assert after.threads >= 1
    assert after.memory_bytes > 0


async def test_a_program_that_fails_to_come_up_ends_with_its_reason(sandbox: Sandbox) -> None:
    broken = Program(PROBE.package, "rlm_probe.main:fail")

    with anyio.fail_after(20), pytest.raises((StartFailed, ProcessEnded)) as failed:
        async with sandbox.start(broken, None, Limits()) as process:
            await process.receive()

    assert "never comes up" in str(failed.value)


async def test_processes_do_not_hear_one_another(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with (
            sandbox.start(PROBE, None, Limits()) as one,
            sandbox.start(PROBE, None, Limits()) as other,
        ):
            await tell(one, "echo", text="for one")
            await tell(other, "echo", text="for the other")
            heard = await hear(other), await hear(one)

    assert heard == ("for the other", "for one")


async def test_a_start_that_is_cancelled_leaves_the_sandbox_usable(sandbox: Sandbox) -> None:
    with anyio.fail_after(30):
        for delay in (0.0, 0.001, 0.003, 0.01, 0.03):
            with anyio.move_on_after(delay):
                async with sandbox.start(PROBE, None, Limits()):
                    await anyio.sleep_forever()
        async with sandbox.start(PROBE, None, Limits()) as process:
            answer = await ask(process, "echo", text="fine")

    assert answer == "fine"


async def test_the_isolation_is_reported_layer_by_layer(sandbox: Sandbox) -> None:
    with anyio.fail_after(20):
        async with sandbox.start(PROBE, None, Limits()) as process:
            layers = process.isolation.layers

    assert layers
    assert all(layer.holds or layer.detail for layer in layers)  # what is missing has a reason
