"""What holds on this machine, tried and not supposed: one small check for each thing that can be amiss."""

from .results import Check, State
from .running import check_all

__all__ = ["Check", "State", "check_all"]
