"""What can go wrong with a session.

SessionError
├── SessionEnded            the guest is gone, and its variables with it
├── VariableError           a variable could not be read, set or deleted
│   └── VariableNotFound    there is no variable of that name
└── TooWeak                 what holds here is too little for code that nobody has read
"""

from __future__ import annotations


class SessionError(Exception):
    """Base of everything this package raises on purpose."""


class SessionEnded(SessionError):
    """The guest is gone, and its variables with it. `reason` says how it ended."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"This session is over: {reason}. Open a new one to go on.")


class VariableError(SessionError):
    """A variable could not be read, set or deleted; `kind` is the guest's name for the reason."""

    def __init__(self, name: str, kind: str, message: str) -> None:
        self.name = name
        self.kind = kind
        super().__init__(f"The variable {name!r}: {message} ({kind})")


class VariableNotFound(VariableError):
    """There is no variable of that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name, "NameError", "there is no variable of this name")


class TooWeak(SessionError):
    """What holds here is too little for code that nobody has read."""

    def __init__(self, isolation: str, why: str) -> None:
        self.isolation = isolation
        super().__init__(
            f"Code cannot be run here: the sandbox alone is weak ({isolation}), and the language policy "
            f'that would make up for it is not there: {why}. Use the docker sandbox, or set policy = "off" '
            "to run code that you trust as you would run it yourself."
        )
