"""Limits of the protocol (section "Limits" of PROTOCOL.md). Checked before memory is spent."""

from __future__ import annotations

from typing import Final

__all__ = [
    "DEFAULT_PAYLOAD_BYTES",
    "DEFAULT_WINDOW_BYTES",
    "MAX_FRAME_SPAN_BYTES",
    "MAX_HEADER_ARRAY_ELEMENTS",
    "MAX_HEADER_BYTES",
    "MAX_HEADER_MAP_KEYS",
    "MAX_HEADER_NESTING",
    "MAX_HEADER_STRING_BYTES",
    "MAX_PAYLOAD_BYTES",
    "MAX_PULL_TARGET_BYTES",
    "MAX_SEGMENTS",
    "MAX_SEQUENCE_STEP",
    "MAX_SNAPSHOT_RECORDS",
    "MAX_TIMEOUT_MILLISECONDS",
    "MAX_U64",
    "MAX_WINDOW_BYTES",
    "MIN_HEARTBEAT_MILLISECONDS",
    "MIN_PAYLOAD_BYTES",
    "PROTOCOL_VERSION",
]

PROTOCOL_VERSION: Final = 1

MAX_U64: Final = (1 << 63) - 1  # signed 64-bit integers of any language hold it

MAX_HEADER_BYTES: Final = 16 * 1024
MAX_HEADER_NESTING: Final = 4
MAX_HEADER_ARRAY_ELEMENTS: Final = 2048
MAX_HEADER_MAP_KEYS: Final = 64
MAX_HEADER_STRING_BYTES: Final = 8192

MAX_PAYLOAD_BYTES: Final = 4 * 1024 * 1024
MIN_PAYLOAD_BYTES: Final = 64 * 1024
DEFAULT_PAYLOAD_BYTES: Final = 1024 * 1024
MAX_SEGMENTS: Final = 512
MAX_FRAME_SPAN_BYTES: Final = 1 << 30
MAX_SNAPSHOT_RECORDS: Final = 40_000
MAX_SEQUENCE_STEP: Final = 1 << 32  # one transfer uses up no more of the numbers that there are
MAX_PULL_TARGET_BYTES: Final = 255  # the server keeps it with each snapshot that it holds

MAX_WINDOW_BYTES: Final = 16 * 1024 * 1024 * 1024
DEFAULT_WINDOW_BYTES: Final = 256 * 1024 * 1024

MIN_HEARTBEAT_MILLISECONDS: Final = 100
MAX_TIMEOUT_MILLISECONDS: Final = 3_600_000
