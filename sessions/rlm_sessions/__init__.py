"""Sessions: a Python REPL in a sandbox for each project, with variables that stay."""

from .asking import Answer, Asking, ToolOffer, asking
from .errors import (
    AllBusy,
    FilesNotFound,
    SessionEnded,
    SessionError,
    TooWeak,
    VariableError,
    VariableNotFound,
)
from .files_named import matching as files_matching
from .journal import Journal, JournalUnwritable
from .journal import Page as JournalPage
from .keeping.keepers import Keepers, open_keepers
from .lasting import Care, ProjectSession, SessionInfo
from .locks import LockUnusable, OwnerLock
from .locks import runs as process_runs
from .manager import Household, Manager, SessionHost, open_manager
from .output import shorten
from .outputs import Chunk, OutputNotFound, Outputs, OutputsFull
from .outputs import Kept as KeptOutput
from .places import Kept as KeptProject
from .places import PlaceError, Places, ProjectInUse, default_root, private_folder
from .projects import Project, ProjectError, identify, is_key
from .results import CellError, CellResult, Display, Loaded, LoadedFile, Lost, Restored, Value, Variable
from .scribe import Scribe
from .session import Policy, Session, guest_program, open_session

__all__ = [
    "AllBusy",
    "Answer",
    "Asking",
    "Care",
    "CellError",
    "CellResult",
    "Chunk",
    "Display",
    "FilesNotFound",
    "Household",
    "Journal",
    "JournalPage",
    "JournalUnwritable",
    "Keepers",
    "KeptOutput",
    "KeptProject",
    "Loaded",
    "LoadedFile",
    "LockUnusable",
    "Lost",
    "Manager",
    "OutputNotFound",
    "Outputs",
    "OutputsFull",
    "OwnerLock",
    "PlaceError",
    "Places",
    "Policy",
    "Project",
    "ProjectError",
    "ProjectInUse",
    "ProjectSession",
    "Restored",
    "Scribe",
    "Session",
    "SessionEnded",
    "SessionError",
    "SessionHost",
    "SessionInfo",
    "TooWeak",
    "ToolOffer",
    "Value",
    "Variable",
    "VariableError",
    "VariableNotFound",
    "asking",
    "default_root",
    "files_matching",
    "guest_program",
    "identify",
    "is_key",
    "open_keepers",
    "open_manager",
    "open_session",
    "private_folder",
    "process_runs",
    "shorten",
]
