"""What can go wrong with a sandbox.

SandboxError
├── LimitsInvalid           a limit that cannot be kept was asked for
├── SandboxUnavailable      this machine cannot isolate programs in the way asked for
│   ├── LibraryMissing      a Python package that this backend stands on is not installed
│   ├── EngineUnavailable   no container engine answers, or it does not let us in
│   ├── ImageUnavailable    the container image is not there and cannot be had
│   └── ImageUnusable       the container image cannot run the program
├── InterpreterUnusable     the Python that was named cannot run the program
├── StartFailed             the program did not come up
└── ProcessEnded            the program is over; nothing more can be sent or received
"""

from __future__ import annotations


class SandboxError(Exception):
    """Base of everything this package raises on purpose."""


class LimitsInvalid(SandboxError, ValueError):
    """A limit that cannot be kept was asked for."""

    def __init__(self, field: str, value: object, wanted: str) -> None:
        self.field = field
        self.value = value
        super().__init__(f"The limit {field} = {value!r} cannot be kept: it must be {wanted}.")


class SandboxUnavailable(SandboxError):
    """This machine cannot isolate programs in the way asked for."""


class LibraryMissing(SandboxUnavailable):
    """A Python package that a backend stands on is not installed."""

    def __init__(self, backend: str, library: str) -> None:
        self.library = library
        super().__init__(
            f"The {backend!r} sandbox needs the Python package {library!r}, which is not installed here. "
            f"Install it: pip install 'rlm-mcp[{backend}]'; with uvx, start uvx --from 'rlm-mcp[{backend}]' rlm-mcp."
        )


class EngineUnavailable(SandboxUnavailable):
    """No container engine answers, or it does not let us in. `address` is where it was looked for."""

    def __init__(self, address: str, reason: str, advice: str) -> None:
        self.address = address
        self.reason = reason
        super().__init__(f"The 'docker' sandbox needs a container engine at {address}: {reason}. {advice}")


class ImageUnavailable(SandboxUnavailable):
    """The container image is not there and cannot be had."""

    def __init__(self, image: str, reason: str, advice: str) -> None:
        self.image = image
        self.reason = reason
        super().__init__(f"The container image {image} is not on the engine: {reason}. {advice}")


class ImageUnusable(SandboxUnavailable):
    """The container image cannot run the program."""

    def __init__(self, image: str, reason: str, advice: str) -> None:
        self.image = image
        self.reason = reason
        super().__init__(f"The container image {image} cannot be used: {reason}. {advice}")


class InterpreterUnusable(SandboxError):
    """The Python that was named cannot run the program."""

    def __init__(self, python: str, reason: str, advice: str) -> None:
        self.python = python
        self.reason = reason
        super().__init__(f"The Python at {python} cannot be used: {reason}. {advice}")


class StartFailed(SandboxError):
    """The program did not come up."""


class ProcessEnded(SandboxError):
    """The program is over; nothing more can be sent or received.

    `status` is the exit code, negative for the number of the signal that ended
    it, or None where the system did not say.
    """

    def __init__(self, status: int | None, detail: str = "") -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"The program in the sandbox {describe_status(status)}{detail and ': ' + detail}.")


def describe_status(status: int | None) -> str:
    """Return how a program ended, as the predicate of a sentence."""
    import signal

    if status is None:
        return "ended"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
