"""What all typed frames have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from blockrep.protocol.fields import Field, decode_map, encode_map
from blockrep.protocol.frames import Frame, FrameType

__all__ = ["EMPTY_PAYLOAD", "Fields", "Message"]

Fields = Mapping[str, tuple[str, Field]]
"""Header key -> (attribute of the message, how it travels). The order is the order on the wire."""

EMPTY_PAYLOAD = memoryview(b"")


@dataclass(frozen=True, slots=True)
class Message:
    """Base of all typed frames.

    Keys that depend on each other are checked in ``__post_init__``, which raises ValueError:
    neither end can so much as build such a message.
    """

    TYPE: ClassVar[FrameType]
    FIELDS: ClassVar[Fields] = {}

    def header_to_send(self) -> dict[str, Any]:
        """Return the header. Raises ValueError: a key is out of its bounds."""
        return encode_map(self.FIELDS, self)

    def payload_to_send(self) -> bytes | memoryview:
        """Return the bytes that follow the header. Raises ValueError: they do not fit it."""
        return b""

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        """Check header and payload. Raises ValueError: says which key."""
        return cls(**decode_map(cls.FIELDS, frame.header))
