"""The chain: the running digest that proves which DATA frames, in which order, made a staging.

Definition in section "Transfers" of PROTOCOL.md. BLAKE2b-256 of the standard library: the input is
tens of bytes for each frame.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence

from blockrep.model.extents import Extent

__all__ = ["advance_chain", "first_chain"]

_SEGMENT = struct.Struct(">BQQ")
_FIRST = b"blockrep chain 1"
_CHAIN_BYTES = 32


def first_chain(snapshot_id: str, plan_digest: bytes) -> bytes:
    """Return c0, 32 bytes, of the transfer of ``snapshot_id`` (hexadecimal) by that plan."""
    start = _FIRST + bytes.fromhex(snapshot_id) + plan_digest
    return hashlib.blake2b(start, digest_size=_CHAIN_BYTES).digest()


def advance_chain(chain: bytes, segments: Sequence[Extent], content_digest: bytes) -> bytes:
    """Return the chain after a DATA frame with these segments and this ``x``."""
    record = b"".join(
        _SEGMENT.pack(part.kind, part.offset_bytes, part.length_bytes) for part in segments
    )
    return hashlib.blake2b(chain + record + content_digest, digest_size=_CHAIN_BYTES).digest()
