"""What a running operation tells: one small class for each event.

Shown as a progress line, plain lines or JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = [
    "Committed",
    "Connected",
    "Decided",
    "Event",
    "EventSink",
    "Planned",
    "Progress",
    "Resumed",
    "Retrying",
    "SnapshotRemoved",
    "SnapshotTaken",
    "Spent",
    "Verified",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events."""


@dataclass(frozen=True, slots=True)
class Connected(Event):
    """The server accepted us. ``identity``: our name there."""

    server: str
    identity: str


@dataclass(frozen=True, slots=True)
class Decided(Event):
    """How the replica will be brought up to date.

    ``mode``: full, incremental, adopt or resume; ``reason``: for people.
    """

    mode: str
    base_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SnapshotTaken(Event):
    """A source snapshot exists and is held."""

    snapshot_id: str
    name: str


@dataclass(frozen=True, slots=True)
class SnapshotRemoved(Event):
    """A source snapshot that nothing needs any more is gone."""

    snapshot_id: str
    name: str


@dataclass(frozen=True, slots=True)
class Planned(Event):
    """What will be sent, before the first byte."""

    extent_count: int
    data_bytes: int
    discard_bytes: int
    new_chunks: int
    chunk_bytes: int


@dataclass(frozen=True, slots=True)
class Resumed(Event):
    """An interrupted transfer goes on: everything below the cursor is durable already."""

    cursor_bytes: int
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """How far a transfer is.

    Plan bytes: ``done_bytes`` handed to the transport, ``durable_bytes`` acknowledged as durable,
    of
    ``total_bytes``; ``wire_bytes``: sent in this session.
    """

    done_bytes: int
    durable_bytes: int
    total_bytes: int
    wire_bytes: int


@dataclass(frozen=True, slots=True)
class Committed(Event):
    """The replica's new good snapshot exists."""

    snapshot_id: str
    name: str
    digest: str
    wire_bytes: int
    pruned_count: int


@dataclass(frozen=True, slots=True)
class Verified(Event):
    """The newest common snapshot was compared.

    ``different_bytes``: 0 if both ends are equal; ``different``: (offset, length) in bytes of the
    first thousand extents that differ, ascending.
    """

    snapshot_id: str
    compared_bytes: int
    different_bytes: int
    different: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Spent(Event):
    """What a transfer cost, once it is committed.

    Attributes:
        phases: (name, seconds): look, snapshot, delta, begin, open, stream, commit, tidy.
        commands: (program, how often, seconds) at the source.
        metadata_snapshot_seconds: how long the source's pool had its metadata snapshot reserved.
        target_command_count: commands at the target, until it committed.
        target_command_seconds: how long they took.
    """

    phases: tuple[tuple[str, float], ...]
    commands: tuple[tuple[str, int, float], ...]
    metadata_snapshot_seconds: float
    target_command_count: int
    target_command_seconds: float


@dataclass(frozen=True, slots=True)
class Retrying(Event):
    """The connection was lost; there will be another attempt.

    ``attempt``: its number since there was progress, 2 is the first that is made again;
    ``wait_seconds``: until then; ``reason``: the error, for people.
    """

    attempt: int
    wait_seconds: float
    reason: str


EventSink = Callable[[Event], None]
