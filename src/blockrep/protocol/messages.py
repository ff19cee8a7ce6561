"""Typed frames: one class for each type of PROTOCOL.md, with the bounds of its keys beside it.

``message_from(frame)`` checks a received frame; ``encode_message(message)`` returns the buffers to send.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from blockrep.errors import ERRORS_BY_CODE, BlockrepError, ProtocolError, RefusedError
from blockrep.model.extents import Extent, ExtentKind
from blockrep.model.snapshots import Snapshot, StagingInfo
from blockrep.protocol.fields import (
    Field,
    array_of,
    boolean,
    decode_map,
    encode_map,
    identifier,
    nested,
    octets,
    optional,
    text,
    u64,
)
from blockrep.protocol.frames import Frame, FrameType, encode_frame
from blockrep.protocol.limits import (
    MAX_FRAME_SPAN_BYTES,
    MAX_PAYLOAD_BYTES,
    MAX_SEGMENTS,
    MAX_SNAPSHOT_RECORDS,
    MIN_PAYLOAD_BYTES,
)

__all__ = [
    "Abort",
    "Ack",
    "Begin",
    "Bye",
    "Commit",
    "Committed",
    "Compare",
    "Compared",
    "Data",
    "Digests",
    "Hello",
    "Message",
    "Open",
    "Ping",
    "Ready",
    "Release",
    "StageRequest",
    "Volume",
    "Welcome",
    "encode_message",
    "message_from",
]

_EMPTY = memoryview(b"")
_Fields = Mapping[str, tuple[str, Field]]
_SNAPSHOT_RECORD = struct.Struct(">16s16sQQQQ32s")
_UNKNOWN_SIZE = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all typed frames."""

    TYPE: ClassVar[FrameType]
    FIELDS: ClassVar[_Fields] = {}

    def payload_to_send(self) -> bytes | memoryview:
        """Bytes that follow the header."""
        return b""

    @classmethod
    def from_frame(cls, frame: Frame) -> Message:
        """Check header and payload. Raises ValueError."""
        return cls(**decode_map(cls.FIELDS, frame.header))


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First frame of the client."""

    TYPE = FrameType.HELLO
    FIELDS = {
        "versions": ("versions", array_of(u64(), 2, 2)),
        "features": ("features", array_of(text(32), 0, 32)),
        "software": ("software", text(64)),
    }
    versions: tuple[int, int]
    features: tuple[str, ...]
    software: str


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The server accepted the client; limits are the server's."""

    TYPE = FrameType.WELCOME
    FIELDS = {
        "version": ("version", u64()),
        "features": ("features", array_of(text(32), 0, 32)),
        "software": ("software", text(64)),
        "identity": ("identity", text(255)),
        "max_payload": ("max_payload_bytes", u64(MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES)),
        "window": ("window_bytes", u64(4 * MIN_PAYLOAD_BYTES)),
        "heartbeat": ("heartbeat_milliseconds", u64(1)),
        "timeout": ("timeout_milliseconds", u64(2)),
    }
    version: int
    features: tuple[str, ...]
    software: str
    identity: str
    max_payload_bytes: int
    window_bytes: int
    heartbeat_milliseconds: int
    timeout_milliseconds: int

    def __post_init__(self) -> None:
        """Check the bounds that tie two keys."""
        if self.window_bytes < 4 * self.max_payload_bytes:
            msg = "key 'window': less than 4 times max_payload"
            raise ValueError(msg)
        if self.timeout_milliseconds < 2 * self.heartbeat_milliseconds:
            msg = "key 'timeout': less than 2 times heartbeat"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Open(Message):
    """Names a volume and what is to be done with it."""

    TYPE = FrameType.OPEN
    FIELDS = {
        "operation": ("operation", text(16)),
        "volume": ("volume", text(4096)),
        "identity": ("identity", text(128)),
    }
    operation: str
    volume: str
    identity: str


_STAGING_FIELDS: _Fields = {
    "identity": ("identity", text(128)),
    "lineage": ("lineage", identifier),
    "base": ("base_id", optional(identifier, "")),
    "id": ("snapshot_id", identifier),
    "plan": ("plan_digest", octets(32)),
    "cursor": ("cursor_bytes", u64()),
    "chain": ("chain", octets(32)),
}


@dataclass(frozen=True, slots=True)
class Volume(Message):
    """The replica as it is: header of :class:`blockrep.model.snapshots.Replica`, snapshots in the payload."""

    TYPE = FrameType.VOLUME
    FIELDS = {
        "exists": ("exists", boolean),
        "owned": ("owned", boolean),
        "drifted": ("drifted", boolean),
        "kind": ("kind", text(16)),
        "identity": ("identity", text(128)),
        "size": ("size_bytes", u64()),
        "block": ("block_bytes", u64()),
        "align": ("align_bytes", u64(1)),
        "lineage": ("lineage", optional(identifier, "")),
        "chunk": ("chunk_bytes", u64(1)),
        "free": ("free_bytes", u64()),
        "metadata": ("metadata_free_chunks", u64()),
        "staging": ("staging", optional(nested(_STAGING_FIELDS, StagingInfo))),
    }
    exists: bool
    owned: bool
    drifted: bool
    kind: str
    identity: str
    size_bytes: int
    block_bytes: int
    align_bytes: int
    lineage: str
    chunk_bytes: int
    free_bytes: int
    metadata_free_chunks: int
    staging: StagingInfo | None
    snapshots: tuple[Snapshot, ...] = ()

    def payload_to_send(self) -> bytes:
        """Pack the newest snapshots, oldest of them first."""
        return b"".join(
            _SNAPSHOT_RECORD.pack(
                bytes.fromhex(one.id),
                bytes.fromhex(one.lineage),
                one.sequence,
                one.created_seconds,
                one.size_bytes,
                one.allocated_bytes if one.allocated_bytes >= 0 else _UNKNOWN_SIZE,
                bytes.fromhex(one.digest).rjust(32, b"\0"),
            )
            for one in self.snapshots[-MAX_SNAPSHOT_RECORDS:]
        )

    @classmethod
    def from_frame(cls, frame: Frame) -> Volume:
        """Check header and payload. Raises ValueError."""
        if len(frame.payload) % _SNAPSHOT_RECORD.size:
            msg = "the payload is not a whole number of snapshot records"
            raise ValueError(msg)
        snapshots = tuple(_snapshot(*record) for record in _SNAPSHOT_RECORD.iter_unpack(frame.payload))
        return cls(**decode_map(cls.FIELDS, frame.header), snapshots=snapshots)


def _snapshot(
    id_: bytes, lineage: bytes, sequence: int, created_seconds: int, size_bytes: int, allocated: int, digest: bytes
) -> Snapshot:
    return Snapshot(
        id=id_.hex(),
        lineage=lineage.hex(),
        sequence=sequence,
        created_seconds=created_seconds,
        size_bytes=size_bytes,
        committed=True,
        digest=digest.hex(),
        allocated_bytes=-1 if allocated == _UNKNOWN_SIZE else allocated,
    )


@dataclass(frozen=True, slots=True)
class Begin(Message):
    """Announces a transfer with its plan."""

    TYPE = FrameType.BEGIN
    FIELDS = {
        "lineage": ("lineage", identifier),
        "id": ("snapshot_id", identifier),
        "sequence": ("sequence", u64()),
        "created": ("created_seconds", u64()),
        "base": ("base_id", optional(identifier, "")),
        "mode": ("mode", text(16)),
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
        if self.mode not in {"full", "incremental", "adopt"}:
            msg = f"key 'mode': unknown mode {self.mode!r}"
            raise ValueError(msg)
        if bool(self.base_id) != (self.mode == "incremental"):
            msg = f"key 'base': does not fit mode {self.mode}"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Ready(Message):
    """Where the sender starts."""

    TYPE = FrameType.READY
    FIELDS = {
        "staging": ("staging_identity", text(128)),
        "cursor": ("cursor_bytes", u64()),
        "chain": ("chain", octets(32)),
    }
    staging_identity: str
    cursor_bytes: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Data(Message):
    """Segments of the new snapshot. ``unpacked_bytes``: None, or the payload is zstd and expands to so many bytes."""

    TYPE = FrameType.DATA
    FIELDS = {
        "s": ("segments", array_of(u64(), 3, 3 * MAX_SEGMENTS)),
        "x": ("content_digest", octets(16)),
        "z": ("unpacked_bytes", optional(u64(1, MAX_PAYLOAD_BYTES))),
    }
    segments: tuple[Extent, ...]
    content_digest: bytes
    unpacked_bytes: int | None = None
    payload: memoryview = field(default=_EMPTY, repr=False)

    @property
    def window_cost_bytes(self) -> int:
        """What the frame takes of the window: 128, 24 a segment, and the payload (PROTOCOL.md, WELCOME)."""
        return 128 + 24 * len(self.segments) + len(self.payload)

    def payload_to_send(self) -> memoryview:
        """Content of the DATA segments, in order."""
        return self.payload

    @classmethod
    def from_frame(cls, frame: Frame) -> Data:
        """Check header and payload. Raises ValueError."""
        attributes = decode_map(cls.FIELDS, frame.header)
        segments = _segments(attributes["segments"])
        content_bytes = sum(part.length_bytes for part in segments if part.kind is ExtentKind.DATA)
        unpacked_bytes = attributes["unpacked_bytes"]
        if content_bytes != (len(frame.payload) if unpacked_bytes is None else unpacked_bytes):
            msg = f"segments of {content_bytes} bytes do not fit the payload"
            raise ValueError(msg)
        if unpacked_bytes is not None and not len(frame.payload):
            msg = "a compressed payload is empty"
            raise ValueError(msg)
        return cls(segments, attributes["content_digest"], unpacked_bytes, frame.payload)


def _segments(numbers: tuple[int, ...]) -> tuple[Extent, ...]:
    if len(numbers) % 3:
        msg = "key 's': not a whole number of segments"
        raise ValueError(msg)
    position = 0
    covered_bytes = 0
    segments = []
    for index in range(0, len(numbers), 3):
        kind, offset, length = numbers[index : index + 3]
        if kind > ExtentKind.DISCARD or not length or offset < position:
            msg = f"key 's': segment {index // 3} is of an unknown kind, empty or out of order"
            raise ValueError(msg)
        position = offset + length
        covered_bytes += length
        segments.append(Extent(offset, length, ExtentKind(kind)))
    if covered_bytes > MAX_FRAME_SPAN_BYTES:
        msg = f"key 's': covers {covered_bytes} bytes"
        raise ValueError(msg)
    return tuple(segments)


@dataclass(frozen=True, slots=True)
class Ack(Message):
    """Positions of the receiver. Received is not durable."""

    TYPE = FrameType.ACK
    FIELDS = {"received": ("received_bytes", u64()), "durable": ("durable_bytes", u64())}
    received_bytes: int
    durable_bytes: int

    def __post_init__(self) -> None:
        """Check that nothing is durable that was not received."""
        if self.durable_bytes > self.received_bytes:
            msg = "key 'durable': beyond 'received'"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Commit(Message):
    """Everything has been sent."""

    TYPE = FrameType.COMMIT
    FIELDS = {"id": ("snapshot_id", identifier), "digest": ("digest", octets(32))}
    snapshot_id: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Committed(Message):
    """The good snapshot exists."""

    TYPE = FrameType.COMMITTED
    FIELDS = {
        "id": ("snapshot_id", identifier),
        "digest": ("digest", octets(32)),
        "name": ("name", text(4096)),
        "pruned": ("pruned_count", u64()),
    }
    snapshot_id: str
    digest: bytes
    name: str
    pruned_count: int


@dataclass(frozen=True, slots=True)
class StageRequest:
    """What an adoption stages before its plan is known (key ``stage`` of COMPARE)."""

    lineage: str
    snapshot_id: str
    sequence: int
    created_seconds: int
    size_bytes: int
    allow_shrink: bool


_STAGE_FIELDS: _Fields = {
    "lineage": ("lineage", identifier),
    "id": ("snapshot_id", identifier),
    "sequence": ("sequence", u64()),
    "created": ("created_seconds", u64()),
    "size": ("size_bytes", u64(1)),
    "shrink": ("allow_shrink", boolean),
}


@dataclass(frozen=True, slots=True)
class Compare(Message):
    """Asks for digests of a good snapshot, or of what an adoption would start from."""

    TYPE = FrameType.COMPARE
    FIELDS = {
        "id": ("snapshot_id", optional(identifier, "")),
        "stage": ("stage", optional(nested(_STAGE_FIELDS, StageRequest))),
        "block": ("block_bytes", u64(4096, MAX_PAYLOAD_BYTES)),
        "seed": ("seed", octets(8)),
    }
    snapshot_id: str
    stage: StageRequest | None
    block_bytes: int
    seed: bytes

    def __post_init__(self) -> None:
        """Check that exactly one subject is named and that the block is a power of two."""
        if bool(self.snapshot_id) == (self.stage is not None):
            msg = "exactly one of the keys 'id' and 'stage' is needed"
            raise ValueError(msg)
        if self.block_bytes & (self.block_bytes - 1):
            msg = "key 'block': not a power of two"
            raise ValueError(msg)


@dataclass(frozen=True, slots=True)
class Digests(Message):
    """Digests of ``count`` consecutive blocks, 16 bytes each; none if all of them read as zeros."""

    TYPE = FrameType.DIGESTS
    FIELDS = {"offset": ("offset_bytes", u64()), "count": ("count", u64(1, 1 << 40)), "zero": ("zero", boolean)}
    offset_bytes: int
    count: int
    zero: bool
    payload: memoryview = field(default=_EMPTY, repr=False)

    def payload_to_send(self) -> memoryview:
        """Digests, 16 bytes each."""
        return self.payload

    @classmethod
    def from_frame(cls, frame: Frame) -> Digests:
        """Check header and payload. Raises ValueError."""
        message = cls(**decode_map(cls.FIELDS, frame.header), payload=frame.payload)
        if len(frame.payload) != (0 if message.zero else 16 * message.count):
            msg = f"the payload does not hold {message.count} digests"
            raise ValueError(msg)
        return message


@dataclass(frozen=True, slots=True)
class Compared(Message):
    """End of the digests."""

    TYPE = FrameType.COMPARED
    FIELDS = {"size": ("size_bytes", u64())}
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Release(Message):
    """The client is done with the volume."""

    TYPE = FrameType.RELEASE


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """A sign of life."""

    TYPE = FrameType.PING


@dataclass(frozen=True, slots=True)
class Bye(Message):
    """Orderly end."""

    TYPE = FrameType.BYE


@dataclass(frozen=True, slots=True)
class Abort(Message):
    """An error; nothing follows."""

    TYPE = FrameType.ABORT
    FIELDS = {
        "code": ("code", text(32)),
        "what": ("what", text(1024)),
        "where": ("where", optional(text(1024))),
        "safe": ("safe", optional(text(1024))),
        "next": ("next_step", optional(text(1024))),
    }
    code: str
    what: str
    where: str | None = None
    safe: str | None = None
    next_step: str | None = None

    @classmethod
    def from_error(cls, error: BlockrepError) -> Abort:
        """Build the frame for an error; text is cut and cleaned to what the frame may hold."""
        parts = (_printable(part) for part in (error.what, error.where, error.safe, error.next_step))
        what, where, safe, next_step = parts
        return cls(error.code, what or "", where, safe, next_step)

    def to_error(self) -> BlockrepError:
        """Return the error as its class here; an unknown code counts as refused."""
        error_class = ERRORS_BY_CODE.get(self.code, RefusedError)
        return error_class(self.what, where=self.where, safe=self.safe, next_step=self.next_step)


def _printable(value: str | None) -> str | None:
    if value is None:
        return None
    cleaned = "".join(character if character.isprintable() else " " for character in value)
    return cleaned.encode(errors="replace")[:1000].decode(errors="ignore")


_CLASSES: dict[FrameType, type[Message]] = {
    cls.TYPE: cls
    for cls in (
        Hello, Welcome, Open, Volume, Begin, Ready, Data, Ack, Commit, Committed,
        Compare, Digests, Compared, Release, Ping, Bye, Abort,
    )
}  # fmt: skip


def message_from(frame: Frame) -> Message:
    """Return the typed message of a received frame.

    Raises:
        ProtocolError: the header or payload is not what the frame's type demands; says which key.
    """
    try:
        return _CLASSES[frame.type].from_frame(frame)
    except ValueError as error:
        msg = f"{frame.type.name}: {error}"
        raise ProtocolError(msg) from error


def encode_message(message: Message) -> list[bytes | memoryview]:
    """Return the buffers of a message: prefix with header, and the payload if there is one.

    Raises:
        ValueError: the message does not fit the limits (our own mistake).
    """
    payload = message.payload_to_send()
    header: dict[str, Any]
    if isinstance(message, Data):
        numbers = [number for part in message.segments for number in (int(part.kind), part.offset_bytes, part.length_bytes)]
        header = {"s": numbers, "x": message.content_digest}
        if message.unpacked_bytes is not None:
            header["z"] = message.unpacked_bytes
    else:
        header = encode_map(message.FIELDS, message)
    head = encode_frame(message.TYPE, header, len(payload))
    return [head, payload] if len(payload) else [head]
