"""Frames: prefix, msgpack header, raw payload (section "Frames" of PROTOCOL.md).

A :class:`FrameReader` hands out the buffer that the next bytes belong into, so that a payload is received straight into its
final place and never copied: ask :meth:`~FrameReader.get_buffer`, receive into it, tell :meth:`~FrameReader.buffer_updated` how much came.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import msgpack
import xxhash

from blockrep.errors import ProtocolError
from blockrep.protocol.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES

__all__ = ["PREFIX_BYTES", "Frame", "FrameReader", "FrameType", "encode_frame"]

MAGIC: Final = b"BRP1"
_PREFIX = struct.Struct(">4sBBHII")
_CHECKED_PREFIX = struct.Struct(">4sBBHI")
PREFIX_BYTES: Final = _PREFIX.size
_FIRST_OPTIONAL_TYPE: Final = 0x80
_MAX_NESTING: Final = 4


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


_KNOWN_TYPES: Final = frozenset(int(one) for one in FrameType)
_TYPES_WITH_PAYLOAD: Final = frozenset({FrameType.VOLUME, FrameType.DATA, FrameType.DIGESTS})
_POOLED_TYPES: Final = frozenset({FrameType.DATA, FrameType.DIGESTS})  # their messages keep the payload; the taker gives it back


@dataclass(frozen=True, slots=True)
class Frame:
    """One received frame. ``payload`` is owned by whoever takes the frame."""

    type: FrameType
    header: Mapping[str, object]
    payload: memoryview


def _check(prefix: bytes | bytearray | memoryview, header: bytes | bytearray | memoryview) -> int:
    state = xxhash.xxh3_64(prefix)
    state.update(header)
    return state.intdigest() & 0xFFFFFFFF


def encode_frame(frame_type: FrameType, header: Mapping[str, object], payload_bytes: int = 0) -> bytes:
    """Return prefix and header of a frame; the caller sends the payload of ``payload_bytes`` bytes after it.

    Raises:
        ValueError: header or payload exceed the limits (our own mistake).
    """
    packed = msgpack.packb(header, use_bin_type=True)
    if len(packed) > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        msg = f"{frame_type.name}: header of {len(packed)} or payload of {payload_bytes} bytes is over the limit"
        raise ValueError(msg)
    checked = _CHECKED_PREFIX.pack(MAGIC, frame_type, 0, len(packed), payload_bytes)
    return checked + _check(checked, packed).to_bytes(4, "big") + packed


def _refuse_key_twice(pairs: list[tuple[object, object]]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, value in pairs:
        if not isinstance(key, str) or key in result:
            msg = "a header's map has a key that is not a string, or one twice"
            raise ValueError(msg)
        result[key] = value
    return result


def _refuse_extension(code: int, _data: bytes) -> object:
    msg = f"a header holds msgpack extension type {code}"
    raise ValueError(msg)


def _nesting_is_bounded(value: object, depth: int) -> bool:
    """Whether ``value`` nests at most ``depth`` levels of maps and arrays and holds only types that the norm allows."""
    if isinstance(value, (dict, list)):
        children = value.values() if isinstance(value, dict) else value
        return depth > 0 and all(_nesting_is_bounded(child, depth - 1) for child in children)
    return value is None or isinstance(value, (bool, int, str, bytes))


def _decode_header(packed: bytearray) -> dict[str, object]:
    try:
        # Bounds of the norm; max_buffer_size is implied by the header limit, which was checked before.
        header = msgpack.unpackb(
            packed,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=_refuse_key_twice,
            ext_hook=_refuse_extension,
            max_str_len=8192,
            max_bin_len=8192,
            max_array_len=2048,
            max_map_len=64,
            max_ext_len=0,
        )
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException) as error:
        msg = f"a header is not valid msgpack: {error}"
        raise ProtocolError(msg) from error
    if not isinstance(header, dict) or not _nesting_is_bounded(header, _MAX_NESTING):
        msg = "a header is not a map of plain values"
        raise ProtocolError(msg)
    return header


def allocate_payload(size_bytes: int) -> memoryview:
    """Default allocator: a fresh buffer of exactly ``size_bytes`` bytes."""
    return memoryview(bytearray(size_bytes))


class FrameReader:
    """Cuts a byte stream into frames without copying payloads.

    Args:
        allocate: returns a writable buffer of the given size for a payload; the place where a driver brings its buffer pool in.
    """

    def __init__(self, allocate: Callable[[int], memoryview] = allocate_payload) -> None:
        self.max_data_payload_bytes = MAX_PAYLOAD_BYTES
        self._allocate = allocate
        self._prefix = bytearray(PREFIX_BYTES)
        self._start_frame()

    def _start_frame(self) -> None:
        self._type = 0
        self._header_packed = bytearray()
        self._header: dict[str, object] | None = None
        self._payload_bytes = 0
        self._payload = memoryview(b"")
        self._part = memoryview(self._prefix)
        self._filled = 0

    @property
    def between_frames(self) -> bool:
        """No part of a frame has been received that would be lost if the stream ended here."""
        return self._type == 0 and self._filled == 0

    def get_buffer(self) -> memoryview:
        """Return where the next bytes go; never empty."""
        return self._part[self._filled :]

    def buffer_updated(self, count: int) -> Frame | None:
        """Take note of ``count`` bytes received into the buffer; return the frame that they completed, if any.

        Raises:
            ProtocolError: the bytes are not a valid frame. The reader must not be used any more.
        """
        self._filled += count
        if self._filled < len(self._part):
            return None
        if self._type == 0:
            self._take_prefix()
            return None
        if self._header is None:
            self._take_header()
            if self._payload_bytes:
                return None
        if self._type >= _FIRST_OPTIONAL_TYPE:
            self._start_frame()
            return None
        frame = Frame(FrameType(self._type), self._header, self._payload)
        self._start_frame()
        return frame

    def _take_prefix(self) -> None:
        magic, frame_type, flags, header_bytes, payload_bytes, _ = _PREFIX.unpack(self._prefix)
        if magic != MAGIC:
            msg = "the peer does not speak the blockrep protocol (wrong magic)"
            raise ProtocolError(msg)
        if flags:
            msg = f"a frame has unknown flags {flags:#04x}"
            raise ProtocolError(msg)
        if frame_type < _FIRST_OPTIONAL_TYPE and frame_type not in _KNOWN_TYPES:
            msg = f"a frame has the unknown type {frame_type:#04x}"
            raise ProtocolError(msg)
        payload_limit = MAX_PAYLOAD_BYTES
        if frame_type == FrameType.DATA:
            payload_limit = self.max_data_payload_bytes
        elif frame_type < _FIRST_OPTIONAL_TYPE and frame_type not in _TYPES_WITH_PAYLOAD:
            payload_limit = 0
        if header_bytes > MAX_HEADER_BYTES or payload_bytes > payload_limit:
            msg = f"a frame of type {frame_type:#04x} is too large: header {header_bytes}, payload {payload_bytes} bytes"
            raise ProtocolError(msg)
        if not header_bytes:
            msg = f"a frame of type {frame_type:#04x} has no header"
            raise ProtocolError(msg)
        self._type = frame_type
        self._payload_bytes = payload_bytes
        self._header_packed = bytearray(header_bytes)
        self._part = memoryview(self._header_packed)
        self._filled = 0

    def _take_header(self) -> None:
        if _check(memoryview(self._prefix)[:12], self._header_packed) != int.from_bytes(self._prefix[12:], "big"):
            msg = "a frame's header is damaged (wrong check value)"
            raise ProtocolError(msg)
        optional = self._type >= _FIRST_OPTIONAL_TYPE
        self._header = {} if optional else _decode_header(self._header_packed)
        if self._payload_bytes:
            allocate = self._allocate if self._type in _POOLED_TYPES else allocate_payload
            self._payload = allocate(self._payload_bytes)
            self._part = self._payload
            self._filled = 0
