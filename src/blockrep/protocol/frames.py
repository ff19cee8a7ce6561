"""Frames: prefix, msgpack header, raw payload (section "Frames" of PROTOCOL.md).

A :class:`FrameReader` hands out the buffer that the next bytes belong into, so that a payload is
received straight into its final place and never copied: ask :meth:`~FrameReader.get_buffer`,
receive into it, tell :meth:`~FrameReader.buffer_updated` how much came.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from typing import Final

import msgpack
import xxhash

from blockrep.errors import InternalError, ProtocolError
from blockrep.protocol.limits import (
    MAX_HEADER_ARRAY_ELEMENTS,
    MAX_HEADER_BYTES,
    MAX_HEADER_MAP_KEYS,
    MAX_HEADER_NESTING,
    MAX_HEADER_STRING_BYTES,
    MAX_PAYLOAD_BYTES,
)

__all__ = [
    "MAGIC",
    "PREFIX_BYTES",
    "Frame",
    "FrameReader",
    "FrameType",
    "allocate_payload",
    "encode_frame",
]

MAGIC: Final = b"BRP1"
_PREFIX = struct.Struct(">4sBBHII")
_CHECKED_PREFIX = struct.Struct(">4sBBHI")
PREFIX_BYTES: Final = _PREFIX.size
_FIRST_OPTIONAL_TYPE: Final = 0x80
_SKIP_BYTES: Final = 64 * 1024


class FrameType(IntEnum):
    """Types that this version speaks."""

    HELLO = 0x01
    WELCOME = 0x02
    OPEN = 0x03
    VOLUME = 0x04
    BEGIN = 0x05
    READY = 0x06
    DATA = 0x07
    ACK = 0x08
    COMMIT = 0x09
    COMMITTED = 0x0A
    COMPARE = 0x0B
    DIGESTS = 0x0C
    COMPARED = 0x0D
    RELEASE = 0x0E
    PING = 0x0F
    ABORT = 0x10
    BYE = 0x11
    PRUNE = 0x12
    PRUNED = 0x13
    PULL = 0x14


_KNOWN_TYPES: Final = {int(one): one for one in FrameType}
_TYPES_WITH_PAYLOAD: Final = frozenset({FrameType.VOLUME, FrameType.DATA, FrameType.DIGESTS})
# Their messages keep the payload; whoever takes the message gives the buffer back.
_POOLED_TYPES: Final = frozenset({FrameType.DATA, FrameType.DIGESTS})


@dataclass(frozen=True, slots=True)
class Frame:
    """One received frame. ``payload`` is owned by whoever takes the frame."""

    type: FrameType
    header: Mapping[str, object]
    payload: memoryview


def _check_value(prefix: bytes | memoryview, header: bytes | bytearray) -> int:
    """Return the check of a frame: over the first 12 bytes of its prefix and its header."""
    state = xxhash.xxh3_64(prefix)
    state.update(header)
    return state.intdigest() & 0xFFFFFFFF


def encode_frame(
    frame_type: FrameType, header: Mapping[str, object], payload_bytes: int = 0
) -> bytes:
    """Return prefix and header of a frame; the caller sends ``payload_bytes`` of payload after it.

    Raises:
        ValueError: header or payload exceed the limits (our own mistake).
    """
    packed: bytes = msgpack.packb(header, use_bin_type=True)
    if len(packed) > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        sizes = f"header of {len(packed)} or payload of {payload_bytes} bytes"
        raise ValueError(f"{frame_type.name}: {sizes} is over the limit")
    checked = _CHECKED_PREFIX.pack(MAGIC, frame_type, 0, len(packed), payload_bytes)
    return checked + _check_value(checked, packed).to_bytes(4, "big") + packed


def _refuse_key_twice(pairs: list[tuple[object, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if type(key) is not str or key in result:
            raise ValueError("a map has a key that is not a string, or one twice")
        result[key] = value
    return result


def _is_plain(value: object, depth: int) -> bool:
    """Whether ``value`` nests at most ``depth`` levels and holds only types of the norm."""
    if isinstance(value, dict | list):
        children = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_is_plain(child, depth - 1) for child in children)
    return value is None or isinstance(value, bool | int | str | bytes)


def _decode_header(packed: bytearray) -> dict[str, object]:
    try:
        # Extension types, timestamps among them, need at least one byte: none is let in. The whole
        # is at most MAX_HEADER_BYTES, which was checked before a byte of it was buffered.
        header = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_refuse_key_twice,
            max_str_len=MAX_HEADER_STRING_BYTES,
            max_bin_len=MAX_HEADER_STRING_BYTES,
            max_array_len=MAX_HEADER_ARRAY_ELEMENTS,
            max_map_len=MAX_HEADER_MAP_KEYS,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"a header is not valid msgpack: {error}") from error
    if not isinstance(header, dict) or not _is_plain(header, MAX_HEADER_NESTING):
        raise ProtocolError("a header is not a map of plain values")
    return header


def allocate_payload(size_bytes: int) -> memoryview:
    """Default allocator: a fresh buffer of exactly ``size_bytes`` bytes."""
    return memoryview(bytearray(size_bytes))


def _admit_all(_frame_type: FrameType) -> None:
    """Let every known type in."""


class _Stage(Enum):
    PREFIX = auto()
    HEADER = auto()
    PAYLOAD = auto()
    SKIPPED_PAYLOAD = auto()


class FrameReader:
    """Cuts a byte stream into frames without copying payloads.

    Args:
        allocate: returns a writable buffer of the given size for a payload; the place where a
            driver brings its buffer pool in.
        admit: asked about each known type when its prefix has arrived, before anything is
            allocated for the frame; raises ProtocolError if the type may not come now.

    Attributes:
        max_data_payload_bytes: what DATA may carry, once the two ends have agreed.
    """

    def __init__(
        self,
        allocate: Callable[[int], memoryview] = allocate_payload,
        admit: Callable[[FrameType], None] = _admit_all,
    ) -> None:
        self.max_data_payload_bytes: int = MAX_PAYLOAD_BYTES
        self._allocate = allocate
        self._admit = admit
        self._prefix = bytearray(PREFIX_BYTES)
        self._start_frame()

    def _start_frame(self) -> None:
        self._type = 0
        self._header_packed = bytearray()
        self._header: dict[str, object] = {}
        self._payload_bytes = 0
        self._expect(_Stage.PREFIX, memoryview(self._prefix))

    def _expect(self, stage: _Stage, part: memoryview) -> None:
        self._stage = stage
        self._part = part
        self._filled = 0

    def get_buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        return self._part[self._filled :]

    def buffer_updated(self, count: int) -> Frame | None:
        """Take note of ``count`` bytes received into the buffer; return the frame they completed.

        Raises:
            ProtocolError: the bytes are no valid frame. The reader must not be used any more.
            InternalError: ``count`` is not a number of bytes that fit the buffer.
        """
        if not 0 < count <= len(self._part) - self._filled:
            raise InternalError(f"{count} bytes cannot have been received into this buffer")
        self._filled += count
        if self._filled < len(self._part):
            return None
        if self._stage is _Stage.PREFIX:
            self._take_prefix()
            return None
        if self._stage is _Stage.HEADER:
            return self._take_header()
        if self._stage is _Stage.PAYLOAD:
            return self._finish_frame(self._part)
        self._skip(len(self._part))
        return None

    def _take_prefix(self) -> None:
        magic, frame_type, flags, header_bytes, payload_bytes, _ = _PREFIX.unpack(self._prefix)
        if magic != MAGIC:
            raise ProtocolError("the peer does not speak the blockrep protocol (wrong magic)")
        if flags:
            raise ProtocolError(f"a frame has unknown flags {flags:#04x}")
        payload_limit = MAX_PAYLOAD_BYTES
        known_type = _KNOWN_TYPES.get(frame_type)
        if known_type is not None:
            self._admit(known_type)
            payload_limit = self._payload_limit(known_type)
        elif frame_type < _FIRST_OPTIONAL_TYPE:
            raise ProtocolError(f"a frame has the unknown type {frame_type:#04x}")
        if not 0 < header_bytes <= MAX_HEADER_BYTES or payload_bytes > payload_limit:
            sizes = f"header {header_bytes}, payload {payload_bytes} bytes"
            raise ProtocolError(f"a frame of type {frame_type:#04x} has a wrong size: {sizes}")
        self._type = frame_type
        self._payload_bytes = payload_bytes
        self._header_packed = bytearray(header_bytes)
        self._expect(_Stage.HEADER, memoryview(self._header_packed))

    def _payload_limit(self, frame_type: FrameType) -> int:
        if frame_type is FrameType.DATA:
            return self.max_data_payload_bytes
        return MAX_PAYLOAD_BYTES if frame_type in _TYPES_WITH_PAYLOAD else 0

    def _take_header(self) -> Frame | None:
        check = int.from_bytes(self._prefix[12:], "big")
        if _check_value(memoryview(self._prefix)[:12], self._header_packed) != check:
            raise ProtocolError("a frame's header is damaged (wrong check value)")
        if self._type >= _FIRST_OPTIONAL_TYPE:
            self._skip(0)
            return None
        self._header = _decode_header(self._header_packed)
        if not self._payload_bytes:
            return self._finish_frame(memoryview(b""))
        allocate = self._allocate if self._type in _POOLED_TYPES else allocate_payload
        payload = allocate(self._payload_bytes)
        if len(payload) != self._payload_bytes:
            raise InternalError(f"a buffer of {len(payload)} for {self._payload_bytes} bytes")
        self._expect(_Stage.PAYLOAD, payload)
        return None

    def _skip(self, skipped_bytes: int) -> None:
        """Go on throwing the payload of an optional frame away, through a buffer of little size."""
        self._payload_bytes -= skipped_bytes
        if self._payload_bytes:
            scratch = bytearray(min(self._payload_bytes, _SKIP_BYTES))
            self._expect(_Stage.SKIPPED_PAYLOAD, memoryview(scratch))
        else:
            self._start_frame()

    def _finish_frame(self, payload: memoryview) -> Frame:
        frame = Frame(_KNOWN_TYPES[self._type], self._header, payload)
        self._start_frame()
        return frame
