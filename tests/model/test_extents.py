"""Extent maps against a model that knows every byte: nothing is lost, added, or kept in memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import count, islice, pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blockrep.model.extents import (
    Extent,
    ExtentKind,
    align_outward,
    check_ascending,
    clip,
    count_chunks,
    digest,
    merge_adjacent,
    skip_before,
    summarize,
)
from support import plain_decoder

SIZE_BYTES = 200
NOTHING = 0xFF
DATA, ZERO, DISCARD = ExtentKind


@st.composite
def extent_maps(draw: st.DrawFn, size_bytes: int = SIZE_BYTES) -> list[Extent]:
    """Draw an extent map within ``size_bytes``, mostly of small extents close together."""
    extents: list[Extent] = []
    position = draw(st.integers(0, 20))
    while position < size_bytes and len(extents) < 30:
        longest = min(draw(st.sampled_from([1, 3, 40])), size_bytes - position)
        length = draw(st.integers(1, longest))
        extents.append(Extent(position, length, draw(st.sampled_from(ExtentKind))))
        position = extents[-1].end_bytes + draw(st.sampled_from([0, 0, 1, 2, 17]))
    return extents


def painted(extents: list[Extent], size_bytes: int = SIZE_BYTES) -> bytearray:
    """Return the kind of each byte, NOTHING where no extent is."""
    picture = bytearray([NOTHING]) * size_bytes
    for extent in extents:
        before = picture[extent.offset_bytes : extent.end_bytes]
        assert before == bytes([NOTHING]) * extent.length_bytes, "overlap, or outside"
        picture[extent.offset_bytes : extent.end_bytes] = bytes([extent.kind]) * extent.length_bytes
    return picture


def checked(extents: Iterator[Extent]) -> list[Extent]:
    """Return an extent map as a list, proven to be one."""
    return list(check_ascending(extents, SIZE_BYTES))


@given(extent_maps())
def test_an_extent_map_passes_the_check_unchanged(extents: list[Extent]) -> None:
    assert checked(iter(extents)) == extents


@pytest.mark.parametrize(
    "extents",
    [
        [Extent(0, 0)],
        [Extent(0, -1)],
        [Extent(-1, 2)],
        [Extent(0, 2), Extent(1, 2)],
        [Extent(8, 2), Extent(0, 2)],
        [Extent(SIZE_BYTES - 1, 2)],
        [Extent(SIZE_BYTES, 1)],
    ],
)
def test_what_is_no_extent_map_is_refused(extents: list[Extent]) -> None:
    with pytest.raises(ValueError, match="out of order or outside"):
        checked(iter(extents))


@given(extent_maps())
def test_merging_changes_no_byte_and_leaves_nothing_to_merge(extents: list[Extent]) -> None:
    merged = checked(merge_adjacent(extents))
    assert painted(merged) == painted(extents)
    for left, right in pairwise(merged):
        assert left.end_bytes < right.offset_bytes or left.kind is not right.kind


@example([Extent(0, 4), Extent(8, 4)], 6)
@example([Extent(0, 4), Extent(8, 4)], 10)
@example([Extent(0, 4), Extent(8, 4)], 12)
@given(extent_maps(), st.integers(0, SIZE_BYTES + 20))
def test_clipping_keeps_exactly_what_is_inside(extents: list[Extent], size_bytes: int) -> None:
    clipped = checked(clip(extents, size_bytes))
    kept = min(size_bytes, SIZE_BYTES)
    assert painted(clipped) == painted(extents)[:kept].ljust(SIZE_BYTES, bytes([NOTHING]))


@given(extent_maps(), st.integers(0, SIZE_BYTES + 20))
def test_skipping_keeps_exactly_what_is_not_done(extents: list[Extent], cursor_bytes: int) -> None:
    rest = checked(skip_before(extents, cursor_bytes))
    done = min(cursor_bytes, SIZE_BYTES)
    assert painted(rest) == bytes([NOTHING]) * done + painted(extents)[done:]


@given(extent_maps(), st.integers(1, 64))
def test_aligned_blocks_are_whole_and_of_one_kind(extents: list[Extent], block_bytes: int) -> None:
    """A block that one kind covers keeps it; one that is touched otherwise is read as DATA."""
    merged = list(merge_adjacent(extents))
    aligned = checked(align_outward(merged, block_bytes, SIZE_BYTES))
    for extent in aligned:
        assert extent.offset_bytes % block_bytes == 0
        assert extent.end_bytes % block_bytes == 0 or extent.end_bytes == SIZE_BYTES
    before, after = painted(extents), painted(aligned)
    for start in range(0, SIZE_BYTES, block_bytes):
        kinds = set(before[start : start + block_bytes])
        expected = kinds.pop() if len(kinds) == 1 else DATA
        assert set(after[start : start + block_bytes]) == {expected}


def test_an_empty_map_stays_empty() -> None:
    for stream in (
        merge_adjacent([]),
        clip([], SIZE_BYTES),
        skip_before([], 5),
        align_outward([], 8, SIZE_BYTES),
    ):
        assert checked(stream) == []
    assert count_chunks([], 8) == summarize([]).extent_count == 0


def test_small_extents_before_data_in_one_block_do_not_overlap_it() -> None:
    """Several of them were once forgotten but for the last."""
    extents = [Extent(0, 1, ZERO), Extent(2, 1, DISCARD), Extent(4, 1, ZERO), Extent(6, 1)]
    assert checked(align_outward(extents, 8, SIZE_BYTES)) == [Extent(0, 8)]


@given(extent_maps(), st.integers(1, 64))
def test_chunks_are_counted_once_each(extents: list[Extent], chunk_bytes: int) -> None:
    """Those with DATA, and those of which another extent covers a part."""
    written = set()
    for extent in extents:
        for chunk in range(extent.offset_bytes // chunk_bytes, -(-extent.end_bytes // chunk_bytes)):
            start, end = chunk * chunk_bytes, (chunk + 1) * chunk_bytes
            if extent.kind == DATA or extent.offset_bytes > start or extent.end_bytes < end:
                written.add(chunk)
    assert count_chunks(extents, chunk_bytes) == len(written)


@given(extent_maps())
def test_a_summary_counts_what_is_there_and_names_it(extents: list[Extent]) -> None:
    summary = summarize(extents)
    picture = painted(extents)
    assert summary.extent_count == len(extents)
    assert summary.data_bytes == picture.count(DATA)
    assert summary.discard_bytes == picture.count(ZERO) + picture.count(DISCARD)
    records = [(one.kind, one.offset_bytes, one.length_bytes) for one in extents]
    assert summary.digest == digest(extents) == plain_decoder.plan_digest(records)


def test_a_delta_of_any_length_takes_no_memory() -> None:
    """Everything is lazy, also where many small extents lie in one huge block (I9)."""
    alternating = (Extent(4 * index, 2, ExtentKind(index % 3)) for index in count())
    size_bytes = 4 * 50_000
    tracemalloc.start()
    try:
        stream = merge_adjacent(islice(alternating, 50_000))
        stream = clip(skip_before(stream, 1000), size_bytes)
        stream = align_outward(stream, 1 << 40, size_bytes)
        assert count_chunks(check_ascending(stream, size_bytes), 4096) == -(-size_bytes // 4096)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 64 * 1024
