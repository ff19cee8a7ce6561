"""The state machine of a session as data; a test holds it equal to the table in PROTOCOL.md."""

from __future__ import annotations

from enum import Enum
from typing import Final

from blockrep.protocol.frames import FrameType

__all__ = ["TRANSITIONS", "Side", "State", "next_state"]


class Side(Enum):
    """Who dialled, who listens."""

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Side:
        """The peer's side."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


class State(Enum):
    """States of a session; ABORTED is entered by ABORT from every one that is not the end."""

    START = "START"
    GREETED = "GREETED"
    IDLE = "IDLE"
    OPENING = "OPENING"
    OPENED = "OPENED"
    COMPARING = "COMPARING"
    PRUNING = "PRUNING"
    BEGINNING = "BEGINNING"
    STREAMING = "STREAMING"
    COMMITTING = "COMMITTING"
    CLOSED = "CLOSED"
    ABORTED = "ABORTED"


TRANSITIONS: Final[dict[tuple[State, FrameType, Side], State]] = {
    (State.START, FrameType.HELLO, Side.CLIENT): State.GREETED,
    (State.GREETED, FrameType.WELCOME, Side.SERVER): State.IDLE,
    (State.IDLE, FrameType.OPEN, Side.CLIENT): State.OPENING,
    (State.IDLE, FrameType.PULL, Side.CLIENT): State.IDLE,
    (State.IDLE, FrameType.BYE, Side.CLIENT): State.CLOSED,
    (State.OPENING, FrameType.VOLUME, Side.SERVER): State.OPENED,
    (State.OPENED, FrameType.BEGIN, Side.CLIENT): State.BEGINNING,
    (State.OPENED, FrameType.COMPARE, Side.CLIENT): State.COMPARING,
    (State.OPENED, FrameType.PRUNE, Side.CLIENT): State.PRUNING,
    (State.OPENED, FrameType.RELEASE, Side.CLIENT): State.IDLE,
    (State.OPENED, FrameType.BYE, Side.CLIENT): State.CLOSED,
    (State.COMPARING, FrameType.DIGESTS, Side.SERVER): State.COMPARING,
    (State.COMPARING, FrameType.COMPARED, Side.SERVER): State.OPENED,
    (State.PRUNING, FrameType.PRUNED, Side.SERVER): State.OPENED,
    (State.BEGINNING, FrameType.READY, Side.SERVER): State.STREAMING,
    (State.STREAMING, FrameType.DATA, Side.CLIENT): State.STREAMING,
    (State.STREAMING, FrameType.ACK, Side.SERVER): State.STREAMING,
    (State.STREAMING, FrameType.COMMIT, Side.CLIENT): State.COMMITTING,
    (State.COMMITTING, FrameType.ACK, Side.SERVER): State.COMMITTING,
    (State.COMMITTING, FrameType.COMMITTED, Side.SERVER): State.IDLE,
}

_FINAL: Final = frozenset({State.CLOSED, State.ABORTED})
_NO_PING: Final = _FINAL | {State.START, State.GREETED}


def next_state(state: State, frame_type: FrameType, sender: Side) -> State | None:
    """Return the state after ``sender`` sent such a frame in ``state``; None if it may not.

    After PULL the sides have changed places: the caller then names the other one.
    """
    if frame_type is FrameType.ABORT:
        return None if state in _FINAL else State.ABORTED
    if frame_type is FrameType.PING:
        return None if state in _NO_PING else state
    return TRANSITIONS.get((state, frame_type, sender))
