"""What can go wrong at the doors.

DoorError
├── SettingsError           a setting is wrong: which, where, and what would be right (sources.py)
├── ProjectNotAllowed       a folder was asked for as a project that this client may not use
├── FolderTooWide           code in a project could read the server's own settings, or other sessions
├── ArgumentsWrong          the arguments of a tool are not what it takes
├── FileNotAllowed          a file was named that may not be loaded
├── PartlySet               of several variables, some were set and then one could not be
├── EnvironmentUnavailable  there is no way now to the engine in whose containers sessions are to run
├── TooManyWait             so many calls wait for one session that another one is refused
├── UnknownCaller           a request came with a token of which nobody said whose it is (callers.py)
├── AddressUnusable         the server cannot listen where it is told to (http.py)
├── ServingFailed           the web server ended before it had begun (http.py)
├── TokensUnusable          the tokens that were configured cannot be used (web/tokens.py)
├── TokenFileUnusable       the place of the server's own token cannot be used (web/tokens.py)
├── OAuthUnusable           the authorization server cannot be used as it is configured (web/oauth.py)
└── DoorProblem             what a visitor from a shell asked for cannot be done (door.py)
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DoorError(Exception):
    """Base of everything this package raises on purpose. Its text is for whoever asked."""


class ProjectNotAllowed(DoorError):
    """A folder was asked for as a project that this client may not use."""

    def __init__(self, folder: Path | str, allowed: Sequence[Path], setting: str) -> None:
        self.folder = folder
        listed = ", ".join(map(str, allowed)) or "none"
        super().__init__(
            f"The folder {folder} may not be used as a project here (allowed: {listed}, and folders in those). "
            f"Leave `project` out to use this project, give a plain name for one without a folder, or have the user "
            f"add the folder to {setting} in their configuration."
        )


class FolderTooWide(DoorError):
    """Code in a project could read the server's own settings, or what is kept of other sessions."""

    def __init__(self, folder: Path, place: Path) -> None:
        self.folder = folder
        super().__init__(
            f"Nothing is run in {folder}: code there could read {place}, where this server has its settings or keeps "
            'all sessions. Use a folder without that, or have the user set files = "none" in [sandbox] of '
            "its rlm.toml."
        )


class ArgumentsWrong(DoorError):
    """The arguments of a tool are not what it takes."""

    def __init__(self, tool: str, wrong: Sequence[str], taken: Sequence[str]) -> None:
        said = " ".join(each if each.endswith("?") else f"{each}." for each in wrong)
        super().__init__(f"{said} {tool} takes: {', '.join(taken)}. Nothing was run or changed.")


class FileNotAllowed(DoorError):
    """A file was named that may not be loaded."""

    def __init__(self, path: str, why: str, allowed: Sequence[Path]) -> None:
        self.path = path
        listed = ", ".join(map(str, allowed))
        way_out = (
            f"Files can be loaded from {listed}; the user can allow more in [sandbox] folders of their rlm.toml."
            if listed
            else "This project has no folder, so there are no files to load; pass `values` instead."
        )
        super().__init__(f"{path[:200]!r} was not loaded: {why}. Nothing was changed. {way_out}")


class PartlySet(DoorError):
    """Of several variables, some were set and then one could not be."""

    def __init__(self, done: Sequence[str], problem: Exception) -> None:
        super().__init__(
            f"{problem}\nThese were set before it, and those after it were not; set the rest again:\n"
            + "\n".join(done)
        )


class EnvironmentUnavailable(DoorError):
    """There is no way now to the engine in whose containers sessions are to run, and nowhere else they may."""

    def __init__(self, problem: Exception, where: str) -> None:
        super().__init__(
            f'{problem} Nothing was run; the next call tries again. environment = "docker" is set by {where}; '
            '"local" needs no engine.'
        )


class TooManyWait(DoorError):
    """So many calls wait for one session that another one is refused."""

    def __init__(self, waiting: int, doing: str) -> None:
        super().__init__(
            f"{waiting} calls wait for this session already ({doing}). Wait for their answers, cancel some, or use "
            "another project's session."
        )
