"""An engine on another machine, reached by ssh: a socket here, and one ssh for each connection to it."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

_WAIT_SECONDS = 10
_END_SECONDS = 5
_LAST_BYTES = 2000


class Tunnel:
    """A socket of this machine behind which an engine on another answers. It owns every ssh that it starts."""

    def __init__(self, address: str) -> None:
        self._command = command_for(urlsplit(address))
        self._folder = tempfile.TemporaryDirectory(prefix="rlm-ssh-")
        self._words = tempfile.TemporaryFile()  # noqa: SIM115 -- what ssh has to say, as long as this lives
        self._started: list[subprocess.Popen[bytes]] = []
        path = Path(self._folder.name, "engine.sock")
        self.address = f"unix://{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, name="rlm-docker-ssh", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection:
                    self._connect(connection)

    def _connect(self, connection: socket.socket) -> None:
        self._started = [process for process in self._started if process.poll() is None]
        end = connection.fileno()
        try:
            process = subprocess.Popen(
                self._command, stdin=end, stdout=end, stderr=self._words, start_new_session=True
            )
        except OSError as problem:  # and the connection is closed
            os.write(self._words.fileno(), f"it cannot be started: {problem}\n".encode())
        else:
            self._started.append(process)

    def last_words(self) -> str:
        """Return the end of what ssh had to say."""
        descriptor = self._words.fileno()
        size = os.fstat(descriptor).st_size
        return os.pread(descriptor, _LAST_BYTES, max(0, size - _LAST_BYTES)).decode(errors="replace").strip()

    def close(self) -> None:
        """End every connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(_END_SECONDS)
        for process in self._started:
            process.terminate()
        for process in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_SECONDS)
        self._words.close()
        self._folder.cleanup()


def command_for(address: SplitResult) -> list[str]:
    """Return the command that speaks to an engine over there: ssh as its user has set it up, which never asks."""
    command = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_WAIT_SECONDS}"]
    command += ["-l", address.username] if address.username else []
    command += ["-p", str(address.port)] if address.port else []
    where = f"--host unix://{shlex.quote(address.path)} " if address.path.strip("/") else ""
    return [*command, "--", address.hostname or "", f"docker {where}system dial-stdio"]
