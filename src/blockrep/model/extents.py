"""Extents and the operations on ascending streams of them.

An *extent map* is an iterable of extents in ascending order that do not overlap. Every function
here takes and yields such streams lazily, so that a delta of ten million extents needs no more
memory than one of ten.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

__all__ = [
    "Extent",
    "ExtentKind",
    "ExtentSummary",
    "align_outward",
    "check_ascending",
    "clip",
    "count_chunks",
    "digest",
    "merge_adjacent",
    "skip_before",
    "summarize",
]

_RECORD = struct.Struct("<BQQ")


class ExtentKind(IntEnum):
    """What is known of an extent's content in the new snapshot.

    DATA: to be read from the snapshot. ZERO: reads as zeros. DISCARD: unmapped in the snapshot; it
    reads as zeros and the target should free its space where it can.
    """

    DATA = 0
    ZERO = 1
    DISCARD = 2


@dataclass(frozen=True, slots=True, order=True)
class Extent:
    """A contiguous run of bytes: ``[offset_bytes, offset_bytes + length_bytes)``."""

    offset_bytes: int
    length_bytes: int
    kind: ExtentKind = ExtentKind.DATA

    @property
    def end_bytes(self) -> int:
        """First byte after the extent."""
        return self.offset_bytes + self.length_bytes


@dataclass(frozen=True, slots=True)
class ExtentSummary:
    """Totals of an extent map, in bytes, and the digest that names it."""

    extent_count: int
    data_bytes: int
    discard_bytes: int
    digest: bytes


def check_ascending(extents: Iterable[Extent], size_bytes: int) -> Iterator[Extent]:
    """Yield the extents unchanged.

    Raises:
        ValueError: an extent is empty, overlaps or precedes its predecessor, or ends past
            ``size_bytes``.
    """
    position = 0
    for extent in extents:
        end_bytes = extent.end_bytes
        if extent.length_bytes <= 0 or extent.offset_bytes < position or end_bytes > size_bytes:
            raise ValueError(f"{extent} is out of order or outside of {size_bytes} bytes")
        position = extent.end_bytes
        yield extent


def merge_adjacent(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of the same kind that touch."""
    pending: Extent | None = None
    for extent in extents:
        if pending is None:
            pending = extent
        elif pending.kind == extent.kind and pending.end_bytes == extent.offset_bytes:
            length_bytes = pending.length_bytes + extent.length_bytes
            pending = Extent(pending.offset_bytes, length_bytes, pending.kind)
        else:
            yield pending
            pending = extent
    if pending is not None:
        yield pending


def clip(extents: Iterable[Extent], size_bytes: int) -> Iterator[Extent]:
    """Drop what lies at or past ``size_bytes``; cut the extent that crosses it."""
    for extent in extents:
        if extent.offset_bytes >= size_bytes:
            return
        if extent.end_bytes > size_bytes:
            yield Extent(extent.offset_bytes, size_bytes - extent.offset_bytes, extent.kind)
            return
        yield extent


def skip_before(extents: Iterable[Extent], cursor_bytes: int) -> Iterator[Extent]:
    """Drop everything below ``cursor_bytes``; cut the extent that crosses it (resume)."""
    for extent in extents:
        if extent.end_bytes <= cursor_bytes:
            continue
        if extent.offset_bytes < cursor_bytes:
            yield Extent(cursor_bytes, extent.end_bytes - cursor_bytes, extent.kind)
        else:
            yield extent


def align_outward(extents: Iterable[Extent], block_bytes: int, size_bytes: int) -> Iterator[Extent]:
    """Make every extent begin and end at whole blocks (the last block of the volume may be short).

    A block that a ZERO or DISCARD extent covers only in part becomes DATA, as does every block
    that a DATA extent touches: the new snapshot is read for what is added, so the target gets
    whole blocks of true content. That is what a pool needs that does not zero new chunks.
    Neighbours of the same kind may touch (see :func:`merge_adjacent`). Nothing is kept back: what a
    block becomes is known from the first extent that touches it.
    """
    position = 0  # all blocks below it have been yielded
    for extent in extents:
        first = extent.offset_bytes // block_bytes * block_bytes
        end = min(-(-extent.end_bytes // block_bytes) * block_bytes, size_bytes)
        whole_first, whole_end = first, end
        if extent.kind is not ExtentKind.DATA:
            whole_first = -(-extent.offset_bytes // block_bytes) * block_bytes
            if extent.end_bytes < end:
                whole_end = extent.end_bytes // block_bytes * block_bytes
        for kind, piece_first, piece_end in (
            (ExtentKind.DATA, first, min(whole_first, end)),
            (extent.kind, whole_first, whole_end),
            (ExtentKind.DATA, max(whole_end, first), end),
        ):
            start = max(position, piece_first)
            if start < piece_end:
                yield Extent(start, piece_end - start, kind)
                position = piece_end


def count_chunks(extents: Iterable[Extent], chunk_bytes: int) -> int:
    """Count the distinct chunks that are written: the most that a transfer allocates.

    Those that the DATA extents touch, and those that others touch in part: zeros are written there.
    """
    total = 0
    last_chunk = -1
    for extent in extents:
        for first, last in _written_chunks(extent, chunk_bytes):
            start = max(first, last_chunk + 1)
            if last >= start:
                total += last - start + 1
                last_chunk = last
    return total


def _written_chunks(extent: Extent, chunk_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield runs of chunks, first and last."""
    first = extent.offset_bytes // chunk_bytes
    last = (extent.end_bytes - 1) // chunk_bytes
    first_whole = -(-extent.offset_bytes // chunk_bytes)
    end_whole = extent.end_bytes // chunk_bytes
    if extent.kind is ExtentKind.DATA or first_whole >= end_whole:
        yield first, last
        return
    if first < first_whole:
        yield first, first
    if last >= end_whole:
        yield last, last


def digest(extents: Iterable[Extent]) -> bytes:
    """Return the 32-byte digest that names an extent map.

    BLAKE2b over (kind u8, offset u64, length u64), little-endian, of each extent: the *plan digest*
    of PROTOCOL.md.
    """
    return summarize(extents).digest


def summarize(extents: Iterable[Extent]) -> ExtentSummary:
    """Read an extent map once and return its totals and digest (see :func:`digest`)."""
    state = hashlib.blake2b(digest_size=32)
    count = data_bytes = discard_bytes = 0
    for extent in extents:
        count += 1
        if extent.kind is ExtentKind.DATA:
            data_bytes += extent.length_bytes
        else:
            discard_bytes += extent.length_bytes
        state.update(_RECORD.pack(extent.kind, extent.offset_bytes, extent.length_bytes))
    return ExtentSummary(count, data_bytes, discard_bytes, state.digest())
