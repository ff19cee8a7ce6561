"""The sender's data path: plan -> frames.

Runs in a storage thread, batch by batch; no asyncio here.

A batch is a few frames, read into buffers that are allocated once and used in turn. All-zero
blocks become ZERO segments and their
bytes leave the payload, so that a run of zeros costs a header. One hop between threads moves a
whole batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import xxhash

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.chain import advance_chain
from blockrep.protocol.limits import MAX_FRAME_SPAN_BYTES, MAX_SEGMENTS
from blockrep.protocol.messages import Data
from blockrep.storage.interface import SnapshotReader

__all__ = ["Compressor", "FrameBuilder", "OutgoingFrame", "group_for_frames"]

ZERO_BLOCK_BYTES = 64 * 1024
_ZEROS = bytes(ZERO_BLOCK_BYTES)


class Compressor(Protocol):
    """Compresses one payload."""

    def compress(self, content: memoryview) -> bytes:
        """Return one zstd frame."""


@dataclass(frozen=True, slots=True)
class OutgoingFrame:
    """A DATA message ready to send. ``covered_bytes``: how much of the plan it does."""

    message: Data
    covered_bytes: int

    @property
    def end_bytes(self) -> int:
        """The cursor after this frame."""
        return self.message.segments[-1].end_bytes


def group_for_frames(extents: Iterable[Extent], payload_bytes: int) -> Iterator[list[Extent]]:
    """Cut a plan into what one frame each carries.

    At most ``payload_bytes`` of DATA, few enough segments even if every 64 KiB block turns out to
    alternate between data and zeros, and at most 1 GiB
    covered.
    """
    max_parts = MAX_SEGMENTS - 2 * (payload_bytes // ZERO_BLOCK_BYTES + 1)
    group: list[Extent] = []
    data_bytes = covered_bytes = 0
    for extent in extents:
        offset = extent.offset_bytes
        while offset < extent.end_bytes:
            is_data = extent.kind is ExtentKind.DATA
            room = min(
                MAX_FRAME_SPAN_BYTES - covered_bytes,
                payload_bytes - data_bytes if is_data else MAX_FRAME_SPAN_BYTES,
            )
            if room == 0 or len(group) == max_parts:
                yield group
                group, data_bytes, covered_bytes = [], 0, 0
                continue
            length = min(room, extent.end_bytes - offset)
            group.append(Extent(offset, length, extent.kind))
            covered_bytes += length
            data_bytes += length if is_data else 0
            offset += length
    if group:
        yield group


class FrameBuilder:
    """Reads groups of extents from a snapshot into frames.

    Args:
        reader: the open snapshot.
        payload_bytes: largest payload.
        frame_count: buffers to hold; a frame must have been sent before ``frame_count`` more
            are built.
        chain: after the frame before the first one.
        compressor: None: payloads travel as they are.
    """

    def __init__(
        self,
        reader: SnapshotReader,
        payload_bytes: int,
        frame_count: int,
        chain: bytes,
        compressor: Compressor | None = None,
    ) -> None:
        self._reader = reader
        self._payload_bytes = payload_bytes
        self._frame_count = frame_count
        self._buffers: list[bytearray] = []
        self._next_buffer = 0
        self._chain = chain
        self._compressor = compressor

    def build_batch(self, groups: Iterable[list[Extent]]) -> list[OutgoingFrame]:
        """Read and frame some groups, in order. Raises what the reader raises."""
        return [self._build(group) for group in groups]

    def _build(self, group: list[Extent]) -> OutgoingFrame:
        if self._next_buffer == len(self._buffers):  # a small transfer needs only a few
            self._buffers.append(bytearray(self._payload_bytes))
        buffer = self._buffers[self._next_buffer]
        self._next_buffer = (self._next_buffer + 1) % self._frame_count
        view = memoryview(buffer)
        segments: list[Extent] = []
        used_bytes = 0
        for extent in group:
            if extent.kind is not ExtentKind.DATA:
                segments.append(extent)
                continue
            self._reader.read_into(
                extent.offset_bytes, view[used_bytes : used_bytes + extent.length_bytes]
            )
            used_bytes = _keep_nonzero(buffer, view, used_bytes, extent, segments)
        content = view[:used_bytes]
        content_digest = xxhash.xxh3_128_digest(content)
        self._chain = advance_chain(self._chain, segments, content_digest)
        covered_bytes = sum(extent.length_bytes for extent in group)
        if self._compressor is not None and used_bytes:
            packed = self._compressor.compress(content)
            if len(packed) < used_bytes:
                packed_view = memoryview(packed)
                message = Data(
                    tuple(segments), content_digest, self._chain, used_bytes, packed_view
                )
                return OutgoingFrame(message, covered_bytes)
        message = Data(tuple(segments), content_digest, self._chain, None, content)
        return OutgoingFrame(message, covered_bytes)


def _keep_nonzero(
    buffer: bytearray, view: memoryview, start: int, extent: Extent, segments: list[Extent]
) -> int:
    """Append the extent, freshly read to ``start``, as DATA and ZERO segments; close gaps.

    Return where the next content goes.
    """
    write_at = start
    read_at = start
    end = start + extent.length_bytes
    shift_bytes = extent.offset_bytes - start
    while read_at < end:
        run_end = min(end, _block_end(read_at + shift_bytes) - shift_bytes)
        zero = _is_zero(buffer, read_at, run_end)
        while run_end < end:
            block_end = min(end, run_end + ZERO_BLOCK_BYTES)
            if _is_zero(buffer, run_end, block_end) != zero:
                break
            run_end = block_end
        length = run_end - read_at
        segments.append(
            Extent(read_at + shift_bytes, length, ExtentKind.ZERO if zero else ExtentKind.DATA)
        )
        if not zero:
            if write_at != read_at:
                view[write_at : write_at + length] = view[read_at:run_end]
            write_at += length
        read_at = run_end
    return write_at


def _block_end(offset: int) -> int:
    return (offset // ZERO_BLOCK_BYTES + 1) * ZERO_BLOCK_BYTES


def _is_zero(buffer: bytearray, start: int, end: int) -> bool:
    # startswith leaves at the first difference and copies nothing.
    length = end - start
    return buffer.startswith(_ZEROS if length == ZERO_BLOCK_BYTES else _ZEROS[:length], start)
