"""Ways to the engine under test that make it one on another machine: by TCP, by TLS, by ssh. All are on the loopback."""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.abc
import anyio.from_thread
from anyio.streams.tls import TLSListener

from .engine import Engine

LOOPBACK = "127.0.0.1"
OVER = (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream)


@dataclass(frozen=True)
class Certificates:
    """A folder as DOCKER_CERT_PATH names one, with the keys of a server beside it."""

    client: Path
    server: Path

    def for_server(self) -> ssl.SSLContext:
        """Return what a server needs that lets in whom the authority knows, and nobody else."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(self.client / "ca.pem"))
        context.load_cert_chain(self.server / "cert.pem", self.server / "key.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def make_certificates(folder: Path) -> Certificates:
    """Make an authority and a pair of keys for either side."""
    made = Certificates(folder / "client", folder / "server")
    authority, key = made.client / "ca.pem", folder / "ca-key.pem"
    new = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
    for side in (made.client, made.server):
        side.mkdir(parents=True)
    _run(f"{new} -keyout {key} -out {authority} -subj /CN=authority")
    for side in (made.client, made.server):
        _run(
            f"{new} -keyout {side}/key.pem -out {side}/cert.pem -subj /CN={side.name} -CA {authority} -CAkey {key} "
            f"-addext subjectAltName=IP:{LOOPBACK} -addext basicConstraints=critical,CA:FALSE"
        )
    return made


@contextmanager
def forwarded(engine: Engine, context: ssl.SSLContext | None = None, *, port: int = 0) -> Generator[str]:
    """Return an address on the loopback behind which the engine answers. It is served in a thread of its own."""
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(_served(engine, context, port)) as port,
    ):
        yield f"tcp://{LOOPBACK}:{port}"


@asynccontextmanager
async def _served(engine: Engine, context: ssl.SSLContext | None, port: int) -> AsyncGenerator[int]:
    path = engine.host.removeprefix("unix://")

    async def serve(near: anyio.abc.ByteStream) -> None:
        with contextlib.suppress(*OVER):
            await carry(near)

    async def carry(near: anyio.abc.ByteStream) -> None:
        async with near, await anyio.connect_unix(path) as far, anyio.create_task_group() as both:

            async def pass_on(
                source: anyio.abc.ByteStream, target: anyio.abc.ByteStream, *, last: bool
            ) -> None:
                with contextlib.suppress(OSError, *OVER):
                    async for data in source:
                        await target.send(data)
                if last:
                    both.cancel_scope.cancel()
                else:
                    with contextlib.suppress(OSError, *OVER):
                        await far.send_eof()

            both.start_soon(lambda: pass_on(near, far, last=False))
            both.start_soon(lambda: pass_on(far, near, last=True))

    tcp = await anyio.create_tcp_listener(local_host=LOOPBACK, local_port=port)
    port = tcp.extra(anyio.abc.SocketAttribute.local_port)
    listener = TLSListener(tcp, context, standard_compatible=False) if context else tcp
    async with tcp, anyio.create_task_group() as serving:
        serving.start_soon(listener.serve, serve)
        yield port
        serving.cancel_scope.cancel()


@contextmanager
def sshd(folder: Path, engine: Engine) -> Generator[str]:
    """Start a server for ssh with keys of its own, have `ssh` know the way, and return the address without a path."""
    port, user = free_port(), pwd.getpwuid(os.getuid()).pw_name
    for name in ("host", "user"):
        _run(f"ssh-keygen -q -t ed25519 -N '' -f {folder}/{name}")
    (folder / "known").write_text(f"[{LOOPBACK}]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress {LOOPBACK}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPermitRootLogin yes\nMaxStartups 100\nSetEnv DOCKER_HOST={engine.host}\n"
    )
    (folder / "config").write_text(
        f"IdentityFile {folder}/user\nIdentitiesOnly yes\nUserKnownHostsFile {folder}/known\nGlobalKnownHostsFile none\n"
    )
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which Debian makes when it starts its own
    command = [
        shutil.which("sshd", path="/usr/sbin:/usr/local/sbin") or "sshd",
        "-D",
        "-e",
        "-f",
        str(folder / "sshd_config"),
    ]
    with serving(command, "Server listening"):
        yield f"ssh://{user}@{LOOPBACK}:{port}"


@contextmanager
def serving(command: list[str], ready: str) -> Generator[None]:
    """Run a server that says `ready` on stderr when it is."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        for line in server.stderr:
            if ready in line:
                break
        drain = threading.Thread(target=server.stderr.read)
        drain.start()
        try:
            yield
        finally:
            server.terminate()
            drain.join()


def ssh_with(folder: Path) -> Path:
    """Return a folder for the PATH in which `ssh` is the machine's own with the settings in `folder`."""
    place = folder / "bin"
    place.mkdir()
    command = place / "ssh"
    command.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {folder}/config "$@"\n')
    command.chmod(0o755)
    return place


@contextmanager
def listening(answer: Callable[[socket.socket], object], path: Path) -> Generator[str]:
    """Return the address of a socket that does with each connection what `answer` does."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    answer(listener.accept()[0])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def free_port() -> int:
    """Return a port of the loopback that nobody listens to."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def _run(command: str) -> None:
    subprocess.run(shlex.split(command), check=True, capture_output=True, timeout=30)
