"""Two ends that differ are told apart, exactly where they do, however zeros are described (I2)."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.extents import Extent
from blockrep.replication.comparing import DigestRun, compare_runs, digest_blocks
from support.readers import BytesReader

BLOCK = 4096
SEED = 0x1234_5678_9ABC_DEF0


def runs(content: bytes, allocated: list[Extent] | None = None) -> Iterator[DigestRun]:
    return digest_blocks(BytesReader(content, allocated), len(content), BLOCK, SEED)


def differing_blocks(left: bytes | bytearray, right: bytes | bytearray) -> set[int]:
    result = set()
    for start in range(0, len(left), BLOCK):
        if left[start : start + BLOCK] != right[start : start + BLOCK]:
            result.add(start // BLOCK)
    return result


@given(
    data=st.data(),
    blocks=st.integers(1, 40),
    tail=st.integers(0, BLOCK - 1),
    seed=st.integers(0, 1000),
)
def test_exactly_the_differing_blocks_are_found(
    data: st.DataObject, blocks: int, tail: int, seed: int
) -> None:
    chooser = random.Random(seed)
    size = blocks * BLOCK + tail
    left = bytearray(size)
    for block in range(blocks):
        if chooser.random() < 0.5:
            left[block * BLOCK : (block + 1) * BLOCK] = chooser.randbytes(BLOCK)
    right = bytearray(left)
    for position in data.draw(st.lists(st.integers(0, size - 1), max_size=6)):
        right[position] ^= data.draw(st.integers(1, 255))
    found = compare_runs(runs(bytes(left)), runs(bytes(right)), size, BLOCK, SEED)
    blocks_found = {
        block
        for extent in found
        for block in range(extent.offset_bytes // BLOCK, -(-extent.end_bytes // BLOCK))
    }
    assert blocks_found == differing_blocks(left, right)


def test_unallocated_and_written_zeros_are_equal() -> None:
    content = bytes(10 * BLOCK + 100)
    sparse = runs(content, [])
    dense = runs(content)
    assert list(compare_runs(sparse, dense, len(content), BLOCK, SEED)) == []


def test_unallocated_ranges_are_not_read() -> None:
    reader = BytesReader(bytes(100 * BLOCK), [Extent(3 * BLOCK + 1, 10)])
    list(digest_blocks(reader, reader.size_bytes, BLOCK, SEED))
    assert reader.reads == [(3 * BLOCK, BLOCK)]


def test_a_difference_in_the_short_last_block_is_found() -> None:
    left = bytes(3 * BLOCK + 7)
    right = left[:-1] + b"\x01"
    assert list(compare_runs(runs(left, []), runs(right), len(left), BLOCK, SEED)) == [
        Extent(3 * BLOCK, 7)
    ]


@pytest.mark.parametrize("theirs", [[], [DigestRun(0, 1, None)], [DigestRun(1, 3, None)]])
def test_missing_digests_are_an_error_not_equality(theirs: list[DigestRun]) -> None:
    with pytest.raises(ValueError, match="missing"):
        list(compare_runs([DigestRun(0, 4, None)], theirs, 4 * BLOCK, BLOCK, SEED))
