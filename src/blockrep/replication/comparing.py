"""Digests of a snapshot, block by block, and where two ends differ.

XXH3-128 with a random seed that only the two hosts of this comparison know: whoever wrote the data
cannot have aimed at a collision.
Runs in a storage thread; no asyncio here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import xxhash

from blockrep.model.extents import Extent
from blockrep.storage.interface import SnapshotReader

__all__ = ["DIGEST_BYTES", "DigestRun", "compare_runs", "digest_blocks", "zero_digest"]

DIGEST_BYTES = 16
_READ_BYTES = 1024 * 1024
_MAX_ZERO_BLOCKS = 1 << 30


@dataclass(frozen=True, slots=True)
class DigestRun:
    """Digests of ``count`` consecutive blocks from block ``first`` on; ``digests`` None.

    All of them read as zeros.
    """

    first: int
    count: int
    digests: bytes | None


def zero_digest(length_bytes: int, seed: int) -> bytes:
    """Return the digest of so many zeros."""
    return xxhash.xxh3_128_digest(bytes(length_bytes), seed)


def digest_blocks(
    reader: SnapshotReader, size_bytes: int, block_bytes: int, seed: int
) -> Iterator[DigestRun]:
    """Yield the digests of the first ``size_bytes`` bytes, in order, without gaps.

    Unallocated blocks as zero runs.
    """
    buffer = bytearray(max(_READ_BYTES, block_bytes))
    zero = zero_digest(block_bytes, seed)
    next_block = 0
    block_count = -(-size_bytes // block_bytes)
    for first, end in _allocated_blocks(reader.allocated(), size_bytes, block_bytes):
        start = max(first, next_block)
        yield from _zero_runs(next_block, start)
        while start < end:
            count = min(end - start, len(buffer) // block_bytes)
            digests = _digest_run(reader, buffer, start, count, block_bytes, size_bytes, seed)
            yield DigestRun(start, count, None if digests == zero * count else digests)
            start += count
        next_block = max(end, next_block)
    yield from _zero_runs(next_block, block_count)


def _allocated_blocks(
    extents: Iterable[Extent], size_bytes: int, block_bytes: int
) -> Iterator[tuple[int, int]]:
    for extent in extents:
        end_bytes = min(extent.end_bytes, size_bytes)
        if extent.offset_bytes < end_bytes:
            yield extent.offset_bytes // block_bytes, -(-end_bytes // block_bytes)


def _zero_runs(first: int, end: int) -> Iterator[DigestRun]:
    while first < end:
        count = min(end - first, _MAX_ZERO_BLOCKS)
        yield DigestRun(first, count, None)
        first += count


def _digest_run(
    reader: SnapshotReader,
    buffer: bytearray,
    first: int,
    count: int,
    block_bytes: int,
    size_bytes: int,
    seed: int,
) -> bytes:
    start_bytes = first * block_bytes
    length_bytes = min(count * block_bytes, size_bytes - start_bytes)
    view = memoryview(buffer)[:length_bytes]
    reader.read_into(start_bytes, view)
    return b"".join(
        xxhash.xxh3_128_digest(view[at : at + block_bytes], seed)
        for at in range(0, length_bytes, block_bytes)
    )


def compare_runs(
    ours: Iterable[DigestRun],
    theirs: Iterable[DigestRun],
    size_bytes: int,
    block_bytes: int,
    seed: int,
) -> Iterator[Extent]:
    """Yield, ascending and merged only within runs, the blocks whose digests differ.

    As DATA extents clipped to the size.

    Raises:
        ValueError: one side ends early or leaves a gap.
    """
    zero = zero_digest(block_bytes, seed)
    left, right = _Cursor(ours), _Cursor(theirs)
    block_count = -(-size_bytes // block_bytes)
    position = 0
    tail_bytes = size_bytes % block_bytes
    while position < block_count:
        left.advance(position)
        right.advance(position)
        count = min(left.available, right.available, block_count - position)
        if tail_bytes and position + count == block_count and count > 1:
            count -= 1  # the short last block has a zero digest of its own
        whole = not (tail_bytes and position + count == block_count)
        zero_of_run = zero if whole else zero_digest(tail_bytes, seed)
        for first, end in _different(left.take(count), right.take(count), count, zero_of_run):
            start_bytes = (position + first) * block_bytes
            yield Extent(start_bytes, min((position + end) * block_bytes, size_bytes) - start_bytes)
        position += count


class _Cursor:
    """Walks a stream of runs block by block."""

    def __init__(self, runs: Iterable[DigestRun]) -> None:
        self._runs = iter(runs)
        self._run = DigestRun(0, 0, None)
        self._used = 0

    @property
    def available(self) -> int:
        return self._run.count - self._used

    def advance(self, position: int) -> None:
        while not self.available:
            run = next(self._runs, None)
            if run is None or run.first != position:
                msg = f"digests are missing from block {position} on"
                raise ValueError(msg)
            self._run, self._used = run, 0

    def take(self, count: int) -> bytes | None:
        start = self._used
        self._used += count
        digests = self._run.digests
        return (
            None if digests is None else digests[start * DIGEST_BYTES : self._used * DIGEST_BYTES]
        )


def _different(
    left: bytes | None, right: bytes | None, count: int, zero: bytes
) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of runs of differing blocks."""
    if left == right:
        return
    if left is None:
        left = zero * count
    if right is None:
        right = zero * count
    start = -1
    for index in range(count):
        at = index * DIGEST_BYTES
        if left[at : at + DIGEST_BYTES] != right[at : at + DIGEST_BYTES]:
            if start < 0:
                start = index
        elif start >= 0:
            yield start, index
            start = -1
    if start >= 0:
        yield start, count
