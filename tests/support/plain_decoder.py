"""A minimal decoder of the protocol, written from PROTOCOL.md alone: nothing of blockrep is used.

It holds the vectors and the code to the text: if both were wrong together, this would tell.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgpack
import xxhash

NAMES = {
    1: "HELLO", 2: "WELCOME", 3: "OPEN", 4: "VOLUME", 5: "BEGIN", 6: "READY", 7: "DATA", 8: "ACK",
    9: "COMMIT", 10: "COMMITTED", 11: "COMPARE", 12: "DIGESTS", 13: "COMPARED", 14: "RELEASE",
    15: "PING", 16: "ABORT", 17: "BYE", 18: "PRUNE", 19: "PRUNED", 20: "PULL",
}  # fmt: skip


def decode(frame: bytes) -> tuple[str, dict[str, Any], bytes]:
    """Return name, header and payload of one whole frame; assert all that the prefix promises."""
    assert frame[0:4] == bytes.fromhex("42525031")
    kind, flags = frame[4], frame[5]
    header_bytes = int.from_bytes(frame[6:8], "big")
    payload_bytes = int.from_bytes(frame[8:12], "big")
    assert flags == 0
    assert 1 <= header_bytes <= 16384
    assert payload_bytes <= 4194304
    assert len(frame) == 16 + header_bytes + payload_bytes
    header = frame[16 : 16 + header_bytes]
    check = xxhash.xxh3_64_intdigest(frame[0:12] + header, seed=0) % 2**32
    assert int.from_bytes(frame[12:16], "big") == check
    payload = frame[16 + header_bytes :]
    name = NAMES[kind]
    assert not payload or name in {"VOLUME", "DATA", "DIGESTS"}
    return name, msgpack.unpackb(header), payload


def segments(header: dict[str, Any]) -> list[tuple[int, int, int]]:
    """Return (kind, offset, length) of the segments of a DATA header."""
    numbers = header["s"]
    assert len(numbers) % 3 == 0
    return [tuple(numbers[at : at + 3]) for at in range(0, len(numbers), 3)]


def plan_digest(extents: Iterable[Sequence[int]]) -> bytes:
    """BLAKE2b-256 over kind (1), offset (8), length (8), little-endian."""
    packed = b"".join(struct.pack("<BQQ", *extent) for extent in extents)
    return hashlib.blake2b(packed, digest_size=32).digest()


def chain_start(snapshot_id: bytes, plan: bytes) -> bytes:
    """c0."""
    return hashlib.blake2b(b"blockrep chain 1" + snapshot_id + plan, digest_size=32).digest()


def chain_next(chain: bytes, header: dict[str, Any]) -> bytes:
    """c(n+1) of c(n) and a DATA header."""
    packed = b"".join(struct.pack(">BQQ", *segment) for segment in segments(header))
    return hashlib.blake2b(chain + packed + header["x"], digest_size=32).digest()


def content_digest(content: bytes, seed: int = 0) -> bytes:
    """XXH3-128, big-endian."""
    return xxhash.xxh3_128_intdigest(content, seed=seed).to_bytes(16, "big")


def snapshot_records(payload: bytes) -> list[dict[str, Any]]:
    """The records in the payload of VOLUME."""
    assert len(payload) % 96 == 0
    names = ("id", "lineage", "sequence", "created", "size", "allocated", "digest")
    records = struct.iter_unpack(">16s16sQQQQ32s", payload)
    return [dict(zip(names, record, strict=True)) for record in records]
