"""COMPARE, DIGESTS, COMPARED: where the two ends' contents differ."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Self

from blockrep.protocol.fields import boolean, decode_map, identifier, nested, octets, optional, u64
from blockrep.protocol.frames import Frame, FrameType
from blockrep.protocol.limits import MAX_PAYLOAD_BYTES
from blockrep.protocol.messages.base import EMPTY_PAYLOAD, Fields, Message

__all__ = ["Compare", "Compared", "Digests", "StageRequest"]

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class StageRequest:
    """What an adoption stages before its plan is known (key ``stage`` of COMPARE)."""

    lineage: str
    snapshot_id: str
    sequence: int
    created_seconds: int
    size_bytes: int
    allow_shrink: bool


_STAGE_FIELDS: Fields = {
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
    FIELDS: ClassVar[Fields] = {
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
            raise ValueError("exactly one of the keys 'id' and 'stage' is needed")
        if self.block_bytes & (self.block_bytes - 1):
            raise ValueError("key 'block': not a power of two")


@dataclass(frozen=True, slots=True)
class Digests(Message):
    """Digests of ``count`` consecutive blocks, 16 bytes each; none if all of them read as zeros."""

    TYPE = FrameType.DIGESTS
    FIELDS: ClassVar[Fields] = {
        "offset": ("offset_bytes", u64()),
        "count": ("count", u64(1, 1 << 40)),
        "zero": ("zero", boolean),
    }
    offset_bytes: int
    count: int
    zero: bool
    payload: memoryview = field(default=EMPTY_PAYLOAD, repr=False)

    def __post_init__(self) -> None:
        """Check that the payload holds as many digests as are announced."""
        if len(self.payload) != (0 if self.zero else _DIGEST_BYTES * self.count):
            raise ValueError(f"the payload does not hold {self.count} digests")

    def payload_to_send(self) -> memoryview:
        """Digests, 16 bytes each."""
        return self.payload

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        """Check header and payload. Raises ValueError."""
        return cls(**decode_map(cls.FIELDS, frame.header), payload=frame.payload)


@dataclass(frozen=True, slots=True)
class Compared(Message):
    """End of the digests. ``size_bytes``: of what was read."""

    TYPE = FrameType.COMPARED
    FIELDS: ClassVar[Fields] = {"size": ("size_bytes", u64())}
    size_bytes: int
