"""Frames carry exactly the snapshot's content, zeros without payload, within limits (I2, I9)."""

from __future__ import annotations

import random

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.limits import MAX_FRAME_SPAN_BYTES, MAX_SEGMENTS
from blockrep.replication.compression import ZstdCompressor, zstd_decompress
from blockrep.replication.reading import (
    ZERO_BLOCK_BYTES,
    FrameBuilder,
    OutgoingFrame,
    group_for_frames,
)
from support.readers import BytesReader

KIB = 1024
PAYLOAD = 64 * KIB * 4


def apply(frames: list[OutgoingFrame], size: int) -> bytearray:
    image = bytearray(b"\xee" * size)
    for frame in frames:
        message = frame.message
        content = message.payload
        if message.unpacked_bytes is not None:
            content = memoryview(zstd_decompress(content, message.unpacked_bytes))
        assert xxhash.xxh3_128_digest(content) == message.content_digest
        at = 0
        for part in message.segments:
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
    compressor: ZstdCompressor | None = None,
) -> list[OutgoingFrame]:
    reader = BytesReader(content)
    groups = list(group_for_frames(extents, payload))
    builder = FrameBuilder(reader, payload, len(groups) or 1, bytes(32), compressor)
    return builder.build_batch(groups)


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
    compress=st.booleans(),
)
def test_frames_rebuild_exactly_what_the_plan_covers(
    seed: int, blocks: int, extra: int, cuts: list[int], compress: bool
) -> None:
    content = mixed_content(seed, blocks, extra)
    extents = []
    position = 0
    for index, length in enumerate(cuts):
        end = min(len(content), position + length)
        if end > position and index % 3 != 2:
            extents.append(Extent(position, end - position, ExtentKind.DATA))
        position = end
    frames = build(content, extents, compressor=ZstdCompressor() if compress else None)
    expected = bytearray(b"\xee" * len(content))
    for extent in extents:
        expected[extent.offset_bytes : extent.end_bytes] = content[
            extent.offset_bytes : extent.end_bytes
        ]
    assert apply(frames, len(content)) == expected
    assert sum(frame.covered_bytes for frame in frames) == sum(one.length_bytes for one in extents)
    for frame in frames:
        assert len(frame.message.payload) <= PAYLOAD
        assert 1 <= len(frame.message.segments) <= MAX_SEGMENTS


def test_zero_blocks_cost_no_payload() -> None:
    content = bytes(4 * ZERO_BLOCK_BYTES) + b"x" * ZERO_BLOCK_BYTES + bytes(ZERO_BLOCK_BYTES)
    (first, second) = build(content, [Extent(0, len(content))])
    assert [part.kind for part in first.message.segments] == [ExtentKind.ZERO]
    assert len(first.message.payload) == 0
    assert [part.kind for part in second.message.segments] == [ExtentKind.DATA, ExtentKind.ZERO]
    assert bytes(second.message.payload) == b"x" * ZERO_BLOCK_BYTES


def test_discards_are_cut_to_a_gibibyte_a_frame() -> None:
    groups = list(
        group_for_frames([Extent(0, 5 * MAX_FRAME_SPAN_BYTES // 2, ExtentKind.DISCARD)], PAYLOAD)
    )
    assert [sum(part.length_bytes for part in group) for group in groups] == [
        MAX_FRAME_SPAN_BYTES,
        MAX_FRAME_SPAN_BYTES,
        MAX_FRAME_SPAN_BYTES // 2,
    ]


def test_many_tiny_extents_share_frames_and_keep_to_the_segment_limit() -> None:
    extents = [Extent(index * 8192, 4096) for index in range(5000)]
    groups = list(group_for_frames(extents, PAYLOAD))
    assert [part for group in groups for part in group] == extents
    assert max(len(group) for group in groups) == PAYLOAD // 4096


@pytest.mark.parametrize("payload", [64 * KIB, 512 * KIB])
def test_buffers_are_reused_only_after_a_full_round(payload: int) -> None:
    content = random.Random(7).randbytes(payload * 6)
    reader = BytesReader(content)
    groups = group_for_frames([Extent(0, len(content))], payload)
    builder = FrameBuilder(reader, payload, 3, bytes(32))
    first = builder.build_batch([next(groups), next(groups), next(groups)])
    assert apply(first, payload * 3) == content[: payload * 3]
