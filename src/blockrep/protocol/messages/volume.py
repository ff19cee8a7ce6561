"""OPEN, VOLUME, PRUNE, PRUNED, RELEASE: which volume is worked on, and what it holds."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar, Self

from blockrep.model.snapshots import Snapshot, StagingInfo
from blockrep.protocol.fields import (
    boolean,
    decode_map,
    identifier,
    nested,
    octets,
    one_of,
    optional,
    text,
    u64,
)
from blockrep.protocol.frames import Frame, FrameType
from blockrep.protocol.limits import MAX_SNAPSHOT_RECORDS, MAX_U64
from blockrep.protocol.messages.base import Fields, Message

__all__ = ["Open", "Prune", "Pruned", "Release", "Volume"]

_SNAPSHOT_RECORD = struct.Struct(">16s16sQQQQ32s")
_UNKNOWN_SIZE = (1 << 64) - 1
_DIGEST = octets(32)
_NO_DIGEST = bytes(32)
_U64 = u64()


@dataclass(frozen=True, slots=True)
class Open(Message):
    """Names a volume and what is to be done with it. ``identity``: of the source volume."""

    TYPE = FrameType.OPEN
    FIELDS: ClassVar[Fields] = {
        "operation": ("operation", one_of("push", "verify", "list", "prune")),
        "volume": ("volume", text(4096)),
        "identity": ("identity", text(128)),
    }
    operation: str
    volume: str
    identity: str


_STAGING_FIELDS: Fields = {
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
    """The replica as it is, see :class:`blockrep.model.snapshots.Replica`.

    ``snapshots`` travel in the payload, oldest first; of more than the limit the newest are sent.
    """

    TYPE = FrameType.VOLUME
    FIELDS: ClassVar[Fields] = {
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
        """Pack the newest snapshots, oldest of them first. Raises ValueError: out of bounds."""
        return b"".join(_record_from(one) for one in self.snapshots[-MAX_SNAPSHOT_RECORDS:])

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        """Check header and payload. Raises ValueError."""
        count, rest = divmod(len(frame.payload), _SNAPSHOT_RECORD.size)
        if rest or count > MAX_SNAPSHOT_RECORDS:
            raise ValueError(f"the payload is not up to {MAX_SNAPSHOT_RECORDS} snapshot records")
        attributes = decode_map(cls.FIELDS, frame.header)
        records = _SNAPSHOT_RECORD.iter_unpack(frame.payload)
        return cls(**attributes, snapshots=tuple(_snapshot_from(*record) for record in records))


def _record_from(snapshot: Snapshot) -> bytes:
    allocated_bytes = snapshot.allocated_bytes
    return _SNAPSHOT_RECORD.pack(
        identifier.encode(snapshot.id),
        identifier.encode(snapshot.lineage),
        _U64.encode(snapshot.sequence),
        _U64.encode(snapshot.created_seconds),
        _U64.encode(snapshot.size_bytes),
        _UNKNOWN_SIZE if allocated_bytes < 0 else _U64.encode(allocated_bytes),
        _DIGEST.encode(bytes.fromhex(snapshot.digest)) if snapshot.digest else _NO_DIGEST,
    )


def _snapshot_from(
    id_: bytes,
    lineage: bytes,
    sequence: int,
    created_seconds: int,
    size_bytes: int,
    allocated_bytes: int,
    digest: bytes,
) -> Snapshot:
    if allocated_bytes == _UNKNOWN_SIZE:
        allocated_bytes = -1
    if max(sequence, created_seconds, size_bytes, allocated_bytes) > MAX_U64:
        raise ValueError(f"a snapshot record has a number above {MAX_U64}")
    return Snapshot(
        id=id_.hex(),
        lineage=lineage.hex(),
        sequence=sequence,
        created_seconds=created_seconds,
        size_bytes=size_bytes,
        committed=True,
        digest="" if digest == _NO_DIGEST else digest.hex(),
        allocated_bytes=allocated_bytes,
    )


@dataclass(frozen=True, slots=True)
class Release(Message):
    """The client is done with the volume."""

    TYPE = FrameType.RELEASE


@dataclass(frozen=True, slots=True)
class Prune(Message):
    """Asks to drop the oldest good snapshots. ``keep``: how many stay, the newest of them."""

    TYPE = FrameType.PRUNE
    FIELDS: ClassVar[Fields] = {"keep": ("keep", u64(1))}
    keep: int


@dataclass(frozen=True, slots=True)
class Pruned(Message):
    """So many good snapshots were dropped, and so many are there now."""

    TYPE = FrameType.PRUNED
    FIELDS: ClassVar[Fields] = {"pruned": ("pruned_count", u64()), "kept": ("kept_count", u64())}
    pruned_count: int
    kept_count: int
