"""Frames carry exactly the snapshot's content, zeros without payload, within limits (I2, I9)."""

from __future__ import annotations

import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.limits import MAX_FRAME_SPAN_BYTES, MAX_SEGMENTS
from blockrep.replication.page_delta import PAGE_BYTES, PageDelta
from blockrep.replication.reading import (
    BATCH_FRAMES,
    ZERO_BLOCK_BYTES,
    FrameBuilder,
    OutgoingFrame,
)
from support.readers import BytesReader

KIB, MIB = 1024, 1024 * 1024
PAYLOAD = 64 * KIB * 4


def apply(frames: list[OutgoingFrame], start: bytes) -> bytearray:
    image = bytearray(start)
    position = 0
    for frame in frames:
        message = frame.message
        content = message.payload
        assert xxhash.xxh3_128_digest(content) == message.content_digest
        at = 0
        for part in message.segments:
            assert part.offset_bytes >= position
            position = part.end_bytes
            if part.kind is ExtentKind.DATA:
                piece = bytes(content[at : at + part.length_bytes])
                assert len(piece) == part.length_bytes
                image[part.offset_bytes : part.end_bytes] = piece
                at += part.length_bytes
            else:
                image[part.offset_bytes : part.end_bytes] = bytes(part.length_bytes)
        assert at == len(content)
    return image


def build(
    content: bytes,
    extents: list[Extent],
    payload: int = PAYLOAD,
    *,
    base: bytes | None = None,
) -> list[OutgoingFrame]:
    delta = None if base is None else PageDelta(BytesReader(base), payload, always=True)
    # Buffers for all of them: what was built is looked at after the last.
    batches = len(content) // (64 * KIB) + 20
    builder = FrameBuilder(extents, BytesReader(content), payload, batches, bytes(32), delta)
    frames: list[OutgoingFrame] = []
    while (batch := builder.next_batch()) is not None:
        assert len(batch) <= BATCH_FRAMES
        frames += batch
    return frames


def mixed_content(seed: int, blocks: int, extra: int) -> bytes:
    chooser = random.Random(seed)
    parts = [
        chooser.choice(
            [bytes(ZERO_BLOCK_BYTES), chooser.randbytes(ZERO_BLOCK_BYTES), b"text" * 16384]
        )
        for _ in range(blocks)
    ]
    return b"".join(parts) + chooser.randbytes(extra)


@given(
    seed=st.integers(0, 10_000),
    blocks=st.integers(1, 12),
    extra=st.integers(0, 5000),
    cuts=st.lists(st.integers(1, 200_000), min_size=1, max_size=12),
)
def test_frames_rebuild_exactly_what_the_plan_covers(
    seed: int, blocks: int, extra: int, cuts: list[int]
) -> None:
    content = mixed_content(seed, blocks, extra)
    extents = []
    position = 0
    for index, length in enumerate(cuts):
        end = min(len(content), position + length)
        if end > position and index % 3 != 2:
            extents.append(Extent(position, end - position, ExtentKind.DATA))
        position = end
    frames = build(content, extents)
    start = b"\xee" * len(content)
    expected = bytearray(start)
    for extent in extents:
        expected[extent.offset_bytes : extent.end_bytes] = content[
            extent.offset_bytes : extent.end_bytes
        ]
    assert apply(frames, start) == expected
    assert sum(frame.covered_bytes for frame in frames) == sum(one.length_bytes for one in extents)
    for frame in frames:
        assert len(frame.message.payload) <= PAYLOAD
        assert 1 <= len(frame.message.segments) <= MAX_SEGMENTS


@given(
    seed=st.integers(0, 10_000),
    blocks=st.integers(1, 12),
    changed=st.lists(st.integers(0, 12 * 16 - 1), max_size=40),
    grown=st.integers(0, 3),
    cursor=st.integers(0, 300_000),
)
def test_what_equals_the_base_is_left_out_and_the_rest_rebuilds_the_new_content(
    seed: int, blocks: int, changed: list[int], grown: int, cursor: int
) -> None:
    base = mixed_content(seed, blocks, 0)
    new = bytearray(base + mixed_content(seed + 1, grown, 777))
    chooser = random.Random(seed)
    for page in changed:
        offset = page * PAGE_BYTES % len(base)
        new[offset : offset + 8] = chooser.choice([chooser.randbytes(8), bytes(8)])
    content = bytes(new)
    cursor %= len(content)
    # What lies below the cursor is the new content already; above it stands the base.
    start = content[:cursor] + base.ljust(len(content), b"\0")[cursor:]
    frames = build(content, [Extent(cursor, len(content) - cursor)], base=base)
    assert apply(frames, start) == content
    sent = sum(frame.message.content_bytes for frame in frames)
    pages = {page * PAGE_BYTES % len(base) for page in changed}
    assert sent <= len(pages) * 2 * PAGE_BYTES + len(content) - len(base) + PAYLOAD


def test_every_second_page_keeps_to_the_segment_limit() -> None:
    base = random.Random(3).randbytes(4 * MIB)
    new = bytearray(base)
    for offset in range(0, len(new), 2 * PAGE_BYTES):
        new[offset] ^= 1
    frames = build(bytes(new), [Extent(0, len(new))], 4 * MIB, base=base)
    assert apply(frames, base) == new
    assert sum(frame.message.content_bytes for frame in frames) == len(new) // 2
    assert max(len(frame.message.segments) for frame in frames) <= MAX_SEGMENTS


def test_zero_blocks_cost_no_payload() -> None:
    content = bytes(4 * ZERO_BLOCK_BYTES) + b"x" * ZERO_BLOCK_BYTES + bytes(ZERO_BLOCK_BYTES)
    (frame,) = build(content, [Extent(0, len(content))])
    kinds = [part.kind for part in frame.message.segments]
    assert kinds == [ExtentKind.ZERO, ExtentKind.DATA, ExtentKind.ZERO]
    assert bytes(frame.message.payload) == b"x" * ZERO_BLOCK_BYTES


def test_a_long_run_of_zeros_is_told_from_time_to_time() -> None:
    """What was read is durable at the receiver soon, and need not be read again."""
    size = 80 * MIB
    frames = build(bytes(size), [Extent(0, size)])
    assert [frame.message.segments[0].length_bytes // MIB for frame in frames] == [32, 32, 16]


def test_discards_are_cut_to_a_gibibyte_a_frame() -> None:
    frames = build(b"", [Extent(0, 5 * MAX_FRAME_SPAN_BYTES // 2, ExtentKind.DISCARD)])
    assert [frame.covered_bytes for frame in frames] == [
        MAX_FRAME_SPAN_BYTES,
        MAX_FRAME_SPAN_BYTES,
        MAX_FRAME_SPAN_BYTES // 2,
    ]


def test_many_tiny_extents_share_frames_and_keep_to_the_segment_limit() -> None:
    extents = [Extent(index * 8192, 4096) for index in range(5000)]
    content = random.Random(4).randbytes(5000 * 8192)
    frames = build(content, extents)
    assert [part for frame in frames for part in frame.message.segments] == extents
    assert max(len(frame.message.segments) for frame in frames) == PAYLOAD // 4096


@pytest.mark.parametrize("payload", [64 * KIB, 512 * KIB])
def test_buffers_are_reused_only_after_a_full_round(payload: int) -> None:
    content = random.Random(7).randbytes(payload * 4 * BATCH_FRAMES)
    builder = FrameBuilder([Extent(0, len(content))], BytesReader(content), payload, 2, bytes(32))
    first, second = builder.next_batch(), builder.next_batch()
    assert first is not None
    assert second is not None
    start = bytes(payload * 2 * BATCH_FRAMES)
    assert apply([*first, *second], start) == content[: len(start)]
    builder.next_batch()
    assert apply(second, start)[len(start) // 2 :] == content[len(start) // 2 : len(start)]


def test_pieces_end_with_whole_blocks() -> None:
    """A source without snapshots checks whole blocks; a part of one costs it a second read."""
    content = random.Random(8).randbytes(40 * ZERO_BLOCK_BYTES)
    reader = BytesReader(content)
    extents = [Extent(4096, 8192), Extent(ZERO_BLOCK_BYTES, 39 * ZERO_BLOCK_BYTES)]
    builder = FrameBuilder(extents, reader, PAYLOAD, 40, bytes(32))
    while builder.next_batch() is not None:
        pass
    ends = [offset + length for offset, length in reader.reads[1:]]
    assert all(end % ZERO_BLOCK_BYTES == 0 for end in ends)
