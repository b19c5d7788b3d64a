"""What can go wrong with a session.

SessionError
├── SessionEnded            the guest is gone, and its variables with it
├── VariableError           a variable could not be read, set or deleted
│   └── VariableNotFound    there is no variable of that name
├── TooWeak                 what holds here is too little for code that nobody has read
├── FilesNotFound           a pattern for files that means none, or too many
├── AllBusy                 no more sessions can be awake, and none can be put to sleep
├── ProjectError            what was given cannot be a project (projects.py)
├── PlaceError              a place on the disk cannot be used (places.py)
│   └── ProjectInUse        somebody has the project open
├── LockUnusable            the lock of a project cannot be used (locks.py)
├── JournalUnwritable       an entry could not be written (journal.py)
├── OutputNotFound          there is no output of that id (any more) (outputs.py)
└── OutputsFull             an output could not be kept (outputs.py)
"""

from __future__ import annotations


class SessionError(Exception):
    """Base of everything this package raises on purpose."""


class SessionEnded(SessionError):
    """The guest is gone, and its variables with it. `reason` says how it ended.

    `began` is False where it was gone before it could begin with what was asked of it.
    """

    def __init__(self, reason: str, *, began: bool = True) -> None:
        self.reason = reason
        self.began = began
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


class FilesNotFound(SessionError):
    """A pattern for files that means none, or too many."""

    def __init__(self, pattern: str, why: str) -> None:
        self.pattern = pattern
        super().__init__(f"No files can be loaded for {pattern!r}: {why}. Nothing was changed.")


class AllBusy(SessionError):
    """No more sessions can be awake, and none can be put to sleep."""

    def __init__(self, most: int, sessions: list[str]) -> None:
        self.most = most
        listed = "".join(f"\n- {session}" for session in sessions[:10])
        super().__init__(
            f"{most} sessions are awake, as many as may be, and each is at work or cannot be written down:{listed}\n"
            "Wait, interrupt or close one of them, or allow more sessions."
        )


class TooWeak(SessionError):
    """What holds here is too little for code that nobody has read."""

    def __init__(self, isolation: str, why: str) -> None:
        self.isolation = isolation
        super().__init__(
            f"Code cannot be run here: the sandbox alone is weak ({isolation}), and the language policy "
            f'that would make up for it is not there: {why}. Use the docker sandbox, or set policy = "off" '
            "to run code that you trust as you would run it yourself."
        )
