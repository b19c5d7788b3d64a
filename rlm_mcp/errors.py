"""What can go wrong at the doors.

DoorError
├── SettingsError           a setting is wrong: which, where, and what would be right (sources.py)
├── ProjectNotAllowed       a folder was asked for as a project that this client may not use
├── FolderTooWide           code in a project could read the server's own settings, or other sessions
├── ArgumentsWrong          the arguments of a tool are not what it takes
├── FileNotAllowed          a file was named that may not be loaded
├── PartlySet               of several variables, some were set and then one could not be
├── EnvironmentUnavailable  there is no way now to the engine in whose containers sessions are to run
├── CellWaits               a cell of the session waits for the client's answers
├── JobExpired              nobody answered the calls of a job in time
├── JobLost                 a job was cancelled
├── NoSuchJob               a handle that nothing waits under
├── NoSuchRun               a handle of which no run is known
├── ContextUnusable         a variable that no run can be given
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

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .jobs import Job

_log = logging.getLogger(__name__)


class DoorError(Exception):
    """Base of everything this package raises on purpose. Its text is for whoever asked."""


def said_of(problem: Exception) -> str:
    """Return what a client is told of a problem; of what nobody foresaw, only that it is in the log."""
    from rlm_runtime import RLMError
    from rlm_sandboxes import SandboxError
    from rlm_sessions import SessionError

    if isinstance(problem, (DoorError, SessionError, SandboxError, RLMError)):
        return str(problem)
    _log.error("A tool failed in a way that nobody foresaw.", exc_info=problem)
    return f"The server failed ({type(problem).__name__}); its log on stderr tells more. The session goes on."


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


class CellWaits(DoorError):
    """A cell of the session waits for the client's answers, and nothing else runs there meanwhile."""

    def __init__(self, job: Job | str) -> None:
        handle = job if isinstance(job, str) else job.handle
        calls = [] if isinstance(job, str) else [call.id for call in job.desk.open()]
        which = f" to call {', '.join(calls[:20])}" if calls else ""
        super().__init__(
            f"Nothing was run or changed: a cell of this session waits for answers{which}. Give them by "
            f'answer_calls(handle="{handle}", answers={{...}}), see what it asks by the same without answers, or end '
            f'it by answer_calls(handle="{handle}", cancel=true). get_repl_context lists the variables meanwhile.'
        )


class JobExpired(DoorError):
    """Nobody answered the calls of a job in time."""

    def __init__(self, handle: str, seconds: float) -> None:
        super().__init__(
            f"{handle} has ended: nobody answered its calls for {seconds:g} s (answer_seconds in [rlm]). The session "
            "keeps what the cell had set. Run the code again; what was answered is not asked again."
        )


class JobLost(DoorError):
    """A job was cancelled."""

    def __init__(self, handle: str) -> None:
        super().__init__(f"{handle} was cancelled. The session keeps what the code had set.")


class ContextUnusable(DoorError):
    """A variable holds what no run can be given."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The variable {name!r} holds neither text, bytes nor plain data, so no run can be given it. Nothing was "
            "started. Make a text or a list of it by execute_python, and name that."
        )


class NoSuchRun(DoorError):
    """Of no run with this handle is anything known."""

    def __init__(self, handle: str) -> None:
        super().__init__(
            f"There is no run of yours with the handle {handle[:60]!r}, and none is kept. rlm_status without a handle "
            "lists what there is; rlm_complete begins a run."
        )


class NoSuchJob(DoorError):
    """Nothing waits under this handle."""

    def __init__(self, handle: str) -> None:
        super().__init__(
            f"Nothing waits under the handle {handle[:60]!r}: it never did, it is long over, or its time was up. "
            "Run the code again; what was answered is not asked again."
        )
