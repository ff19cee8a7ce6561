"""The sender's data path: plan -> frames.

Runs in a storage thread, batch by batch; no asyncio here.

A batch is a few frames, read into buffers that are allocated once and used in turn. All-zero
blocks become ZERO segments and their bytes leave the payload, so that a run of zeros costs a
header; what equals the base leaves the frame altogether, where that is asked for. One hop between
threads moves a whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise

import xxhash

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.chain import advance_chain
from blockrep.protocol.limits import MAX_FRAME_SPAN_BYTES, MAX_SEGMENTS
from blockrep.protocol.messages import Data
from blockrep.replication.page_delta import PAGE_BYTES, PageDelta
from blockrep.storage.interface import SnapshotReader

__all__ = ["BATCH_FRAMES", "FrameBuilder", "OutgoingFrame"]

BATCH_FRAMES = 4
ZERO_BLOCK_BYTES = 64 * 1024
_ZEROS = bytes(ZERO_BLOCK_BYTES)
#: What one batch reads at most: where nearly all equals the base, frames fill slowly.
_BATCH_BYTES = 32 * 1024 * 1024
#: The most segments that one block of content becomes: every second page, or the block.
_BLOCK_SEGMENTS = ZERO_BLOCK_BYTES // PAGE_BYTES // 2
#: Start and end in a buffer, and what is there.
_Part = tuple[int, int, ExtentKind]


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A DATA message ready to send.

    ``covered_bytes``: how much of the plan it does, with what equals the base before it.
    """

    message: Data
    covered_bytes: int

    @property
    def end_bytes(self) -> int:
        """The cursor after this frame."""
        return self.message.segments[-1].end_bytes


class _Filling:
    """A frame while it is filled; content stands in ``buffer`` from 0 to ``used_bytes``."""

    def __init__(self, buffer: bytearray) -> None:
        self.buffer = buffer
        self.view = memoryview(buffer)
        self.segments: list[Extent] = []
        self.used_bytes = 0
        self.span_bytes = 0
        self.covered_bytes = 0

    def room_for(self, extent: Extent) -> int:
        """Return how much of an extent fits; 0: the frame is full."""
        length = min(extent.length_bytes, MAX_FRAME_SPAN_BYTES - self.span_bytes)
        free_segments = MAX_SEGMENTS - len(self.segments)
        if extent.kind is not ExtentKind.DATA:
            return length if free_segments else 0
        # A piece that does not begin with a block touches one more.
        blocks = free_segments // _BLOCK_SEGMENTS - 1
        length = min(length, len(self.buffer) - self.used_bytes, blocks * ZERO_BLOCK_BYTES)
        if length < extent.length_bytes:
            # Whole blocks: a source without snapshots checks them by their digests.
            end = (extent.offset_bytes + length) // ZERO_BLOCK_BYTES * ZERO_BLOCK_BYTES
            length = end - extent.offset_bytes
        return max(length, 0)

    def add(self, offset_bytes: int, length_bytes: int, kind: ExtentKind, at: int = 0) -> None:
        """Append a segment; the content of DATA stands in the buffer from ``at`` on."""
        if kind is ExtentKind.DATA:
            start = self.used_bytes
            if start != at:
                self.view[start : start + length_bytes] = self.view[at : at + length_bytes]
            self.used_bytes += length_bytes
        self.span_bytes += length_bytes
        if self.segments:
            last = self.segments[-1]
            if last.kind is kind and last.end_bytes == offset_bytes:
                joined = Extent(last.offset_bytes, last.length_bytes + length_bytes, kind)
                self.segments[-1] = joined
                return
        self.segments.append(Extent(offset_bytes, length_bytes, kind))


class FrameBuilder:
    """Reads a plan from a snapshot into frames.

    Args:
        extents: what is left of the plan, neighbours of one kind merged.
        reader: the open snapshot.
        payload_bytes: largest payload, at least 64 KiB.
        batches: how many the caller holds at once, the one that is built counted.
        chain: after the frame before the first one.
        page_delta: leaves out what equals the base; None: all of the plan is sent.
    """

    def __init__(
        self,
        extents: Iterable[Extent],
        reader: SnapshotReader,
        payload_bytes: int,
        batches: int,
        chain: bytes,
        page_delta: PageDelta | None = None,
    ) -> None:
        self._extents = iter(extents)
        self._rest: Extent | None = next(self._extents, None)
        self._reader = reader
        self._payload_bytes = payload_bytes
        self._frame_count = batches * BATCH_FRAMES
        self._buffers: list[bytearray] = []
        self._next_buffer = 0
        self._chain = chain
        self._page_delta = page_delta
        self._filling = self._new_filling()

    def next_batch(self) -> list[OutgoingFrame] | None:
        """Read and frame what comes next, perhaps nothing; None: the plan has ended.

        Raises what the reader raises.
        """
        if self._rest is None:
            return None
        frames: list[OutgoingFrame] = []
        left_bytes = _BATCH_BYTES
        while len(frames) < BATCH_FRAMES and left_bytes > 0 and self._rest is not None:
            length = self._filling.room_for(self._rest)
            if length == 0:
                frames.append(self._finish())
                continue
            self._take(self._rest, length)
            if self._rest.kind is ExtentKind.DATA:
                left_bytes -= length
            self._advance(length)
        # A frame is not kept for the next batch: what it covers could not become durable meanwhile.
        if self._filling.segments:
            frames.append(self._finish())
        self._reader.remember()
        return frames

    def _new_filling(self) -> _Filling:
        if self._next_buffer == len(self._buffers):  # a small transfer needs only a few
            self._buffers.append(bytearray(self._payload_bytes))
        buffer = self._buffers[self._next_buffer]
        self._next_buffer = (self._next_buffer + 1) % self._frame_count
        return _Filling(buffer)

    def _advance(self, length: int) -> None:
        assert self._rest is not None
        left = self._rest.length_bytes - length
        if left:
            self._rest = Extent(self._rest.offset_bytes + length, left, self._rest.kind)
        else:
            self._rest = next(self._extents, None)

    def _take(self, extent: Extent, length: int) -> None:
        """Put the beginning of an extent into the frame."""
        filling, offset = self._filling, extent.offset_bytes
        filling.covered_bytes += length
        if extent.kind is not ExtentKind.DATA:
            filling.add(offset, length, extent.kind)
            return
        start = filling.used_bytes
        end = start + length
        self._reader.read_into(offset, filling.view[start:end])
        delta = self._page_delta
        if delta is not None and not delta.load(offset, length):
            delta = None
        shift_bytes = offset - start
        cuts = _block_cuts(start, end, shift_bytes)
        if delta is None:
            parts = _all_parts(filling.buffer, cuts)
        else:
            parts = _changed_parts(filling.buffer, cuts, delta)
        for first, last, kind in parts:
            filling.add(first + shift_bytes, last - first, kind, first)

    def _finish(self) -> OutgoingFrame:
        filling, self._filling = self._filling, self._new_filling()
        content = filling.view[: filling.used_bytes]
        content_digest = xxhash.xxh3_128_digest(content)
        segments = tuple(filling.segments)
        self._chain = advance_chain(self._chain, segments, content_digest)
        message = Data(segments, content_digest, self._chain, payload=content)
        return OutgoingFrame(message, filling.covered_bytes)


def _block_cuts(start: int, end: int, shift_bytes: int) -> list[int]:
    """Cut a part of a buffer where the volume's blocks end, whose offsets are larger by a shift."""
    first = start + ZERO_BLOCK_BYTES - (start + shift_bytes) % ZERO_BLOCK_BYTES
    return [start, *range(first, end, ZERO_BLOCK_BYTES), end]


def _all_parts(buffer: bytearray, cuts: list[int]) -> Iterator[_Part]:
    """Yield runs of blocks of zeros, and of others."""
    zeros = [_is_zero(buffer, first, last) for first, last in pairwise(cuts)]
    at = 0
    for is_zero, run in groupby(zeros):
        first, at = at, at + len(list(run))
        yield cuts[first], cuts[at], ExtentKind.ZERO if is_zero else ExtentKind.DATA


def _changed_parts(buffer: bytearray, cuts: list[int], delta: PageDelta) -> Iterator[_Part]:
    """Yield the blocks of zeros and the runs of pages that the base lacks.

    It was loaded for the first cut. Whoever takes a part may move its content to the left: a block
    is done with before it is yielded.
    """
    start = cuts[0]
    for first, last in pairwise(cuts):
        if delta.is_same(buffer, first, last, first - start):
            continue
        if _is_zero(buffer, first, last):
            yield first, last, ExtentKind.ZERO
            continue
        for page, end in list(delta.changed_pages(buffer, first, last, first - start)):
            yield page, end, ExtentKind.DATA


def _is_zero(buffer: bytearray, start: int, end: int) -> bool:
    # startswith leaves at the first difference and copies nothing.
    length = end - start
    return buffer.startswith(_ZEROS if length == ZERO_BLOCK_BYTES else _ZEROS[:length], start)
