"""BEGIN, READY, DATA, ACK, COMMIT, COMMITTED: one snapshot's journey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Self

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.fields import (
    array_of,
    boolean,
    decode_map,
    identifier,
    octets,
    one_of,
    optional,
    text,
    u64,
)
from blockrep.protocol.frames import Frame, FrameType
from blockrep.protocol.limits import (
    MAX_FRAME_SPAN_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SEGMENTS,
    MAX_U64,
)
from blockrep.protocol.messages.base import EMPTY_PAYLOAD, Fields, Message

__all__ = ["Ack", "Begin", "Commit", "Committed", "Data", "Ready"]

# What a frame costs of the window beside its payload: PROTOCOL.md, WELCOME.
_FRAME_COST_BYTES = 128
_SEGMENT_COST_BYTES = 24


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Announces a transfer with its plan."""

    TYPE = FrameType.BEGIN
    FIELDS: ClassVar[Fields] = {
        "lineage": ("lineage", identifier),
        "id": ("snapshot_id", identifier),
        "sequence": ("sequence", u64()),
        "created": ("created_seconds", u64()),
        "base": ("base_id", optional(identifier, "")),
        "mode": ("mode", one_of("full", "incremental", "adopt")),
        "size": ("size_bytes", u64(1)),
        "extents": ("extent_count", u64()),
        "data": ("data_bytes", u64()),
        "discard": ("discard_bytes", u64()),
        "plan": ("plan_digest", octets(32)),
        "chunks": ("new_chunks", u64()),
        "shrink": ("allow_shrink", boolean),
    }
    lineage: str
    snapshot_id: str
    sequence: int
    created_seconds: int
    base_id: str
    mode: str
    size_bytes: int
    extent_count: int
    data_bytes: int
    discard_bytes: int
    plan_digest: bytes
    new_chunks: int
    allow_shrink: bool

    def __post_init__(self) -> None:
        """Check that mode and base fit."""
        if bool(self.base_id) != (self.mode == "incremental"):
            raise ValueError(f"key 'base': does not fit mode {self.mode}")


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """Where the sender starts."""

    TYPE = FrameType.READY
    FIELDS: ClassVar[Fields] = {
        "staging": ("staging_identity", text(128)),
        "cursor": ("cursor_bytes", u64()),
        "chain": ("chain", octets(32)),
    }
    staging_identity: str
    cursor_bytes: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Data(Message):
    """Segments of the new snapshot, ascending; their content is the payload.

    ``chain``: the chain after this frame, 32 bytes. ``unpacked_bytes``: None, or the payload is one
    zstd frame that expands to so many bytes.
    """

    TYPE = FrameType.DATA
    FIELDS: ClassVar[Fields] = {
        "s": ("segment_numbers", array_of(u64(), 3, 3 * MAX_SEGMENTS)),
        "x": ("content_digest", octets(16)),
        "c": ("chain", octets(32)),
        "z": ("unpacked_bytes", optional(u64(1, MAX_PAYLOAD_BYTES))),
    }
    segments: tuple[Extent, ...]
    content_digest: bytes
    chain: bytes
    unpacked_bytes: int | None = None
    payload: memoryview = field(default=EMPTY_PAYLOAD, repr=False)

    def __post_init__(self) -> None:
        """Check that the segments ascend and that the payload is their content."""
        _check_ascending(self.segments)
        content_bytes = sum(
            part.length_bytes for part in self.segments if part.kind is ExtentKind.DATA
        )
        if content_bytes != self.content_bytes:
            raise ValueError(f"segments of {content_bytes} bytes do not fit the payload")
        if self.unpacked_bytes is not None and not len(self.payload):
            raise ValueError("a compressed payload is empty")

    @property
    def segment_numbers(self) -> tuple[int, ...]:
        """The segments as they travel: kind, offset, length of each, flattened."""
        return tuple(
            number
            for part in self.segments
            for number in (int(part.kind), part.offset_bytes, part.length_bytes)
        )

    @property
    def content_bytes(self) -> int:
        """Size of the payload, uncompressed."""
        return len(self.payload) if self.unpacked_bytes is None else self.unpacked_bytes

    @property
    def window_cost_bytes(self) -> int:
        """What the frame takes of the window (PROTOCOL.md, WELCOME)."""
        return _FRAME_COST_BYTES + _SEGMENT_COST_BYTES * len(self.segments) + len(self.payload)

    def payload_to_send(self) -> memoryview:
        """Content of the DATA segments, in order."""
        return self.payload

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        """Check header and payload. Raises ValueError."""
        attributes = decode_map(cls.FIELDS, frame.header)
        segments = _segments_from(attributes.pop("segment_numbers"))
        return cls(segments, **attributes, payload=frame.payload)


def _segments_from(numbers: Sequence[int]) -> tuple[Extent, ...]:
    if len(numbers) % 3:
        raise ValueError("key 's': not a whole number of segments")
    segments = []
    for at in range(0, len(numbers), 3):
        kind, offset_bytes, length_bytes = numbers[at : at + 3]
        if kind > ExtentKind.DISCARD:
            raise ValueError(f"key 's': segment {at // 3} is of the unknown kind {kind}")
        segments.append(Extent(offset_bytes, length_bytes, ExtentKind(kind)))
    return tuple(segments)


def _check_ascending(segments: Sequence[Extent]) -> None:
    position = covered_bytes = 0
    for index, part in enumerate(segments):
        if part.length_bytes <= 0 or part.offset_bytes < position:
            raise ValueError(f"key 's': segment {index} is empty or out of order")
        position = part.end_bytes
        covered_bytes += part.length_bytes
    if covered_bytes > MAX_FRAME_SPAN_BYTES or position > MAX_U64:
        raise ValueError(f"key 's': covers {covered_bytes} bytes up to offset {position}")


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """Positions of the receiver. Received is not durable."""

    TYPE = FrameType.ACK
    FIELDS: ClassVar[Fields] = {
        "received": ("received_bytes", u64()),
        "durable": ("durable_bytes", u64()),
    }
    received_bytes: int
    durable_bytes: int

    def __post_init__(self) -> None:
        """Check that nothing is durable that was not received."""
        if self.durable_bytes > self.received_bytes:
            raise ValueError("key 'durable': beyond 'received'")


@dataclass(frozen=True, slots=True)
class Commit(Message):
    """Everything has been sent. ``digest``: the chain after the last DATA frame."""

    TYPE = FrameType.COMMIT
    FIELDS: ClassVar[Fields] = {"id": ("snapshot_id", identifier), "digest": ("digest", octets(32))}
    snapshot_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Committed(Message):
    """The good snapshot exists. How many commands that took, and how long; 0: unknown, or none."""

    TYPE = FrameType.COMMITTED
    FIELDS: ClassVar[Fields] = {
        "id": ("snapshot_id", identifier),
        "digest": ("digest", octets(32)),
        "name": ("name", text(4096)),
        "pruned": ("pruned_count", u64()),
        "commands": ("command_count", optional(u64(), 0)),
        "spent": ("command_milliseconds", optional(u64(), 0)),
    }
    snapshot_id: str
    digest: bytes
    name: str
    pruned_count: int
    command_count: int = 0
    command_milliseconds: int = 0
