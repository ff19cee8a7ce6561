"""Reading a live file block by block: what differs from a digest table, and a new table.

Two threads take turns: preadv releases the interpreter, so that most of a scan runs on two cores.
Each reads 1 MiB at a time, which is still in the processor's cache when it is digested.
"""

from __future__ import annotations

import errno
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import xxhash

from blockrep.errors import StorageError
from blockrep.model.extents import Extent, ExtentKind, align_outward, merge_adjacent
from blockrep.storage.image import fiemap, kernel
from blockrep.storage.image.files import read_full
from blockrep.storage.image.table import BLOCK_BYTES, DIGEST_BYTES, UNKNOWN, Blocks, DigestTable

__all__ = [
    "ChangedError",
    "data_extents",
    "digests_of",
    "fill_unknown",
    "planned_extents",
    "scan_changes",
]

_READ_BYTES = 16 * BLOCK_BYTES
_STRIPE_BLOCKS = 64
_HOLE_BLOCKS = 4096
_THREADS = 2
_ZERO_BLOCK = bytes(BLOCK_BYTES)


class ChangedError(StorageError):
    """The file is not what was read of it before, whatever its times say."""


class _Stripe(NamedTuple):
    """Consecutive blocks: ``blocks`` of them from block ``first`` on."""

    first: int
    blocks: int
    is_hole: bool


def data_extents(fd: int, size_bytes: int) -> Iterator[Extent]:
    """Yield, ascending and merged, the whole blocks that may hold data, as DATA. Raises OSError."""
    for first, end in _data_blocks(fd, size_bytes):
        start_bytes = first * BLOCK_BYTES
        yield Extent(start_bytes, min(end * BLOCK_BYTES, size_bytes) - start_bytes)


def planned_extents(fd: int, size_bytes: int) -> Iterator[Extent]:
    """Do as :func:`data_extents`, the same again for as long as nobody writes the file.

    What was preallocated counts as data for SEEK_DATA once it was read: a plan made of that would
    change while it is carried out. File systems without extent maps (tmpfs) know no such state.
    """
    try:
        next(fiemap.mapped_extents(fd, size_bytes), None)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL}:
            raise
        return data_extents(fd, size_bytes)
    return merge_adjacent(
        align_outward(fiemap.mapped_extents(fd, size_bytes), BLOCK_BYTES, size_bytes)
    )


def digests_of(data: memoryview, seed: int) -> bytes:
    """Return the digests of consecutive blocks, the last of which may be short."""
    digest = xxhash.xxh3_128_digest
    return b"".join(
        [digest(data[at : at + BLOCK_BYTES], seed) for at in range(0, len(data), BLOCK_BYTES)]
    )


def scan_changes(
    fd: int, blocks: Blocks, base: DigestTable, new: DigestTable | None
) -> Iterator[Extent]:
    """Read the file; yield what differs from ``base``, ascending and merged.

    DISCARD where it reads as zeros, else DATA.

    Args:
        fd: the live file.
        blocks: of the new snapshot, with the seed of ``base``.
        base: the sealed table; past its end everything counts as zeros.
        new: the table to fill; None: a preview.

    Raises:
        ChangedError: the file is not what ``new`` knows of it already.
        StorageError: the file ends early.
        OSError: reading failed.
    """
    return merge_adjacent(_changes(fd, blocks, base, new))


def fill_unknown(fd: int, table: DigestTable) -> None:
    """Read the blocks that the table does not know yet. Raises as :func:`scan_changes`."""
    buffer = bytearray(_READ_BYTES)
    for stripe in _stripes(fd, table.blocks):
        first, count, is_hole = stripe
        entries = table.get(first, count)
        if UNKNOWN not in entries:
            continue
        if is_hole and entries == UNKNOWN * count:
            table.put(first, table.blocks.zero_digests(first, count))
            continue
        for number in range(count):
            if entries[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES] == UNKNOWN:
                one = _Stripe(first + number, 1, is_hole=False)
                table.put(one.first, _digest_stripe(fd, one, buffer, table.blocks))


def _changes(
    fd: int, blocks: Blocks, base: DigestTable, new: DigestTable | None
) -> Iterator[Extent]:
    for stripe, digests in _digested(fd, blocks):
        if new is not None and not new.learn(stripe.first, digests):
            raise ChangedError(f"block {stripe.first} or one after it is not what it was")
        known_count = max(0, min(stripe.blocks, base.blocks.count - stripe.first))
        known = base.get(stripe.first, known_count) + blocks.zero_digests(
            stripe.first + known_count, stripe.blocks - known_count
        )
        if known != digests:
            yield from _differing(stripe, digests, known, blocks)


def _differing(stripe: _Stripe, digests: bytes, known: bytes, blocks: Blocks) -> Iterator[Extent]:
    zeros = blocks.zero_digests(stripe.first, stripe.blocks)
    for number in range(stripe.blocks):
        entry = slice(number * DIGEST_BYTES, (number + 1) * DIGEST_BYTES)
        if digests[entry] == known[entry]:
            continue
        start_bytes = (stripe.first + number) * BLOCK_BYTES
        length = min(BLOCK_BYTES, blocks.size_bytes - start_bytes)
        kind = ExtentKind.DISCARD if digests[entry] == zeros[entry] else ExtentKind.DATA
        yield Extent(start_bytes, length, kind)


def _digested(fd: int, blocks: Blocks) -> Iterator[tuple[_Stripe, bytes]]:
    """Yield all stripes of the file with their digests, in order."""
    waiting: deque[tuple[_Stripe, Future[bytes] | None, bytearray | None]] = deque()
    buffers = [bytearray(_READ_BYTES) for _ in range(_THREADS + 1)]

    def finish() -> tuple[_Stripe, bytes]:
        stripe, future, buffer = waiting.popleft()
        if future is None or buffer is None:
            return stripe, blocks.zero_digests(stripe.first, stripe.blocks)
        digests = future.result()
        buffers.append(buffer)
        return stripe, digests

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="blockrep-scan") as pool:
        for stripe in _stripes(fd, blocks):
            if stripe.is_hole:
                waiting.append((stripe, None, None))
            else:
                buffer = buffers.pop()
                waiting.append(
                    (stripe, pool.submit(_digest_stripe, fd, stripe, buffer, blocks), buffer)
                )
            while len(waiting) > _THREADS:
                yield finish()
        while waiting:
            yield finish()


def _digest_stripe(fd: int, stripe: _Stripe, buffer: bytearray, blocks: Blocks) -> bytes:
    digest = xxhash.xxh3_128_digest
    zero = blocks.zero_digests(0, 1) if blocks.count > 1 else b""
    seed = blocks.seed
    position = stripe.first * BLOCK_BYTES
    end = min((stripe.first + stripe.blocks) * BLOCK_BYTES, blocks.size_bytes)
    view = memoryview(buffer)
    found = []
    while position < end:
        length = min(len(buffer), end - position)
        if not read_full(fd, view[:length], position):
            raise StorageError(
                f"the file ends before offset {position + length}: it was cut short",
                safe="nothing was changed",
                next_step="stop whatever truncates the file",
            )
        for at in range(0, length, BLOCK_BYTES):
            if at + BLOCK_BYTES <= length and buffer.startswith(_ZERO_BLOCK, at) and zero:
                found.append(zero)
            else:
                found.append(digest(view[at : min(at + BLOCK_BYTES, length)], seed))
        position += length
    return b"".join(found)


def _stripes(fd: int, blocks: Blocks) -> Iterator[_Stripe]:
    """Cut the whole file into stripes of data and, longer ones, of holes."""
    position = 0
    for first, end in _data_blocks(fd, blocks.size_bytes):
        yield from _cut(position, first, _HOLE_BLOCKS, is_hole=True)
        yield from _cut(first, end, _STRIPE_BLOCKS, is_hole=False)
        position = end
    yield from _cut(position, blocks.count, _HOLE_BLOCKS, is_hole=True)


def _cut(first: int, end: int, most: int, *, is_hole: bool) -> Iterator[_Stripe]:
    while first < end:
        count = min(most, end - first)
        yield _Stripe(first, count, is_hole)
        first += count


def _data_blocks(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (first, end) of runs of blocks that may hold data; runs that touch are one."""
    waiting: tuple[int, int] | None = None
    for start_bytes, end_bytes in kernel.data_ranges(fd, size_bytes):
        first, end = start_bytes // BLOCK_BYTES, -(-end_bytes // BLOCK_BYTES)
        if waiting is not None and first <= waiting[1]:
            waiting = (waiting[0], max(end, waiting[1]))
            continue
        if waiting is not None:
            yield waiting
        waiting = (first, end)
    if waiting is not None:
        yield waiting
