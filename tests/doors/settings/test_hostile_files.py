"""Whatever stands where a file is looked for, the answer comes at once and is clear."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from rlm_mcp.sources import SettingsError, Sources
from rlm_mcp.toml_files import MAX_BYTES

from .conftest import Desk


async def problem(desk: Desk) -> str:
    """Return the one thing that is wrong, found in a worker thread as the server does."""
    sources = Sources({}, {}, desk.config)
    with anyio.fail_after(20), pytest.raises(SettingsError) as caught:
        await anyio.to_thread.run_sync(sources.load, desk.project, abandon_on_cancel=True)
    (only,) = caught.value.problems
    return desk.shortened(only)


@pytest.mark.parametrize("whose", ["config", "project"])
async def test_a_pipe_that_nobody_writes_to_is_no_reason_to_wait(desk: Desk, whose: str) -> None:
    os.mkfifo(getattr(desk, whose) / "rlm.toml")

    assert (
        await problem(desk)
        == f"{whose.upper()}/rlm.toml: it is no ordinary file, and cannot be read. Move it away."
    )


async def test_a_folder_a_device_and_a_socket_are_refused(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = desk.config / "rlm.toml"
    path.mkdir()
    folder = await problem(desk)
    path.rmdir()
    path.symlink_to("/dev/zero")
    device = await problem(desk)
    path.unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(desk.config)  # the address of a socket has to be short
        listener.bind(path.name)
        bound = await problem(desk)

    assert "no ordinary file" in folder
    assert "no ordinary file" in device
    assert bound.startswith("CONFIG/rlm.toml: it cannot be read: ")


@pytest.mark.parametrize("whose", ["config", "project"])
async def test_a_link_to_itself_is_said_to_be_one(desk: Desk, whose: str) -> None:
    folder: Path = getattr(desk, whose)
    (folder / "rlm.toml").symlink_to("other")
    (folder / "other").symlink_to("rlm.toml")

    assert "link that leads to itself" in await problem(desk)


def test_a_link_to_nothing_in_the_project_is_as_no_file(desk: Desk) -> None:
    (desk.project / "rlm.toml").symlink_to("nothing")

    assert desk.load().notes == ()


async def test_a_link_to_nothing_outside_is_refused(desk: Desk) -> None:
    (desk.project / "rlm.toml").symlink_to("/nonexistent/rlm.toml")

    assert "leads out of the project" in await problem(desk)


def test_a_folder_behind_a_link_that_may_not_be_followed_is_not_applied(desk: Desk) -> None:
    desk.theirs('[sandbox]\nfolders = ["/proc/1/cwd"]\n')
    loaded = desk.load()

    assert loaded.settings.sandbox.folders == ()
    assert "/proc/1/cwd" in "".join(loaded.notes)


async def test_a_file_that_is_too_large_is_not_read(desk: Desk) -> None:
    with (desk.project / "rlm.toml").open("wb") as file:
        file.truncate(1 << 40)

    assert await problem(desk) == (
        f"PROJECT/rlm.toml: it is larger than {MAX_BYTES} bytes, and was not read. Make it smaller."
    )


def test_a_file_that_is_just_not_too_large_is_read(desk: Desk) -> None:
    text = "[rlm]\nmax_depth = 1\n"
    desk.theirs(text + "#" * (MAX_BYTES - len(text)))

    assert desk.load().settings.rlm.max_depth == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[rlm]\nmodel = '\xff'\n", "PROJECT/rlm.toml:2: this is not UTF-8"),
        (b"\x00" * 100, "PROJECT/rlm.toml:1:1: this is not TOML: "),
        (b"[rlm]\nmodel = 'a\x00b'\n", "PROJECT/rlm.toml:2:11: this is not TOML: "),
        (b"\x7fELF\x02\x01" * 100, "PROJECT/rlm.toml:1:1: this is not TOML: "),
        (b"x = " + b"[" * 500_000, "PROJECT/rlm.toml:1: more than 32 levels"),
        (b"x = " + b"{a = " * 200_000, "PROJECT/rlm.toml:1: more than 32 levels"),
        (b"\na" + b".a" * 500_000 + b" = 1", "PROJECT/rlm.toml:2: more than 32 levels"),
        (b"x = 1" + b"1" * 100_000, "PROJECT/rlm.toml: it holds a number too long"),
        (b"x = 0x1" + b"1" * 100_000, "PROJECT/rlm.toml:1: x is not a setting"),
        (b"[rlm]\nmax_depth = 0x1" + b"1" * 100_000, "PROJECT/rlm.toml:2: [rlm] max_depth = a value that cannot be shown"),
        (b"[rlm]\nmodel = '''\r" * 10, "PROJECT/rlm.toml:"),
        (b'[sandbox]\nmemory_bytes = "' + b"9" * 400 + b'"', "PROJECT/rlm.toml:2: [sandbox] memory_bytes"),
    ],
    ids=range(12),
)  # fmt: skip
async def test_content_of_any_kind_is_a_clear_error(desk: Desk, content: bytes, said: str) -> None:
    (desk.project / "rlm.toml").write_bytes(content)

    assert (await problem(desk)).startswith(said)


@pytest.mark.parametrize(
    "text", ["[[rlm]]\n", "[rlm.x]\n[rlm.y]\n", "'a'=1\n", '"""', "a=1\n", "[a]\n", "\r\n", "#\n"]
)
async def test_a_full_file_of_anything_is_answered(desk: Desk, text: str) -> None:
    desk.theirs(text * (MAX_BYTES // len(text)))
    sources = Sources({}, {}, desk.config)

    with anyio.fail_after(60):
        try:
            await anyio.to_thread.run_sync(sources.load, desk.project)
        except SettingsError as error:
            assert str(error).startswith(f"{desk.project}/rlm.toml:")


@pytest.mark.parametrize("start", [b"\xef\xbb\xbf", b""])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_files_of_other_systems_are_read_and_lines_counted_alike(
    desk: Desk, start: bytes, end: bytes
) -> None:
    (desk.project / "rlm.toml").write_bytes(start + end.join([b"# x", b"[rlm]", b"max_depth = 1", b""]))

    assert desk.load().origins["rlm.max_depth"].where.endswith("rlm.toml:3")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable for root")
async def test_a_file_that_may_not_be_read_is_said_to_be_so(desk: Desk) -> None:
    desk.user("").chmod(0)

    assert (
        await problem(desk)
        == "CONFIG/rlm.toml: it cannot be read: Permission denied. Mend that, or move it away."
    )


def test_folders_that_are_not_there_or_are_files_hold_no_settings(desk: Desk) -> None:
    file = desk.user("")

    assert Sources({}, {}, desk.config / "none").load(desk.project / "none").notes == ()
    assert Sources({}, {}, file).load(file).notes == ()
