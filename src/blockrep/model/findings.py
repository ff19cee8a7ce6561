"""What a check of a host found: one line each, with the command that helps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from blockrep.errors import BlockrepError

__all__ = ["Finding", "Level"]


class Level(Enum):
    """How much a finding matters."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        level: ERROR is what keeps replication from working, now or after the next crash.
        where: the volume, file, program or host.
        what: what is so, one line.
        remedy: the command, or the deed, that helps; empty if nothing needs help.
        exit_code: of an error, as a push would end with it.
        fix: does what ``remedy`` says, and raises BlockrepError if it cannot; None if that is for
            people to decide.
    """

    level: Level
    where: str
    what: str
    remedy: str = ""
    exit_code: int = 0
    fix: Callable[[], object] | None = field(default=None, compare=False)

    @classmethod
    def of_error(cls, error: BlockrepError) -> Finding:
        """Return what an operation would end with."""
        return cls(
            Level.ERROR, error.where or "", error.what, error.next_step or "", error.exit_code
        )
