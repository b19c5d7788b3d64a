"""Sessions: a Python REPL in a sandbox, with variables that stay."""

from .errors import SessionEnded, SessionError, TooWeak, VariableError, VariableNotFound
from .output import shorten
from .results import CellError, CellResult, Display, Value, Variable
from .session import Answer, Policy, Session, guest_program, open_session

__all__ = [
    "Answer",
    "CellError",
    "CellResult",
    "Display",
    "Policy",
    "Session",
    "SessionEnded",
    "SessionError",
    "TooWeak",
    "Value",
    "Variable",
    "VariableError",
    "VariableNotFound",
    "guest_program",
    "open_session",
    "shorten",
]
