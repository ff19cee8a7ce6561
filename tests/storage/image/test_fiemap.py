"""The delta of two extent maps equals a comparison of blocks, and rather sends too much."""

from __future__ import annotations

import random
from collections.abc import Iterator
from unittest import mock

import pytest

from blockrep.model.extents import Extent, ExtentKind
from blockrep.storage.image import fiemap, kernel
from blockrep.storage.image.kernel import RawExtent

BLOCK = 4096
UNWRITTEN = 0x800
OLD, NEW = 1, 2


def delta(
    old: list[RawExtent], old_bytes: int, new: list[RawExtent], new_bytes: int
) -> list[Extent]:
    def raw_extents(fd: int, _size_bytes: int) -> Iterator[RawExtent]:
        return iter(old if fd == OLD else new)

    with mock.patch.object(kernel, "raw_extents", raw_extents):
        return list(fiemap.clone_delta(OLD, old_bytes, NEW, new_bytes))


def extent(logical: int, physical: int, length: int = 1, flags: int = 0) -> RawExtent:
    return RawExtent(logical * BLOCK, physical * BLOCK, length * BLOCK, flags)


def as_map(extents: list[RawExtent], block_count: int) -> list[int | None]:
    places: list[int | None] = [None] * block_count
    for one in extents:
        for number in range(one.length_bytes // BLOCK):
            place = one.physical_bytes // BLOCK + number
            if not one.flags & UNWRITTEN and one.logical_bytes // BLOCK + number < block_count:
                places[one.logical_bytes // BLOCK + number] = place
    return places


def random_map(rng: random.Random, block_count: int) -> list[RawExtent]:
    extents, position = [], 0
    while position < block_count:
        length = rng.randint(1, 6)
        if rng.random() < 0.7:
            place = position + rng.choice([0, 0, 0, 100, 200])
            extents.append(extent(position, place, length, rng.choice([0, 0, 0, UNWRITTEN])))
        position += length
    return extents


@pytest.mark.parametrize("seed", range(200))
def test_equals_a_comparison_of_blocks(seed: int) -> None:
    rng = random.Random(seed)
    old_count, new_count = rng.choice([(40, 40), (30, 45), (45, 30)])
    old, new = random_map(rng, old_count), random_map(rng, new_count)
    before = as_map(old, max(old_count, new_count))
    for number in range(old_count, len(before)):
        before[number] = None
    after = as_map(new, new_count)
    kinds: dict[int, ExtentKind] = {}
    position = 0
    for one in delta(old, old_count * BLOCK, new, new_count * BLOCK):
        assert one.offset_bytes >= position
        position = one.end_bytes
        for block in range(one.offset_bytes // BLOCK, one.end_bytes // BLOCK):
            kinds[block] = one.kind
    assert position <= new_count * BLOCK
    expected = {}
    for block, place in enumerate(after):
        if place is None and before[block] is not None:
            expected[block] = ExtentKind.DISCARD
        elif place is not None and place != before[block]:
            expected[block] = ExtentKind.DATA
    assert kinds == expected


@pytest.mark.parametrize("flag", [0x2, 0x4, 0x8, 0x80, 0x100, 0x200, 0x400, 0x8 | UNWRITTEN])
def test_what_has_no_comparable_place_counts_as_changed(flag: int) -> None:
    same = [extent(0, 7, 2, flag)]
    assert delta(same, 2 * BLOCK, same, 2 * BLOCK) == [Extent(0, 2 * BLOCK)]


def test_the_last_block_of_a_base_that_grew_is_not_trusted() -> None:
    # The bytes past its old end lie in the same block, whoever wrote them.
    old, new = [extent(0, 7, 3)], [extent(0, 7, 4)]
    end = 2 * BLOCK + 100
    assert delta(old, end, new, 4 * BLOCK) == [Extent(2 * BLOCK, 2 * BLOCK)]
    assert delta(old, end, [extent(0, 7, 2)], 4 * BLOCK) == [
        Extent(2 * BLOCK, BLOCK, ExtentKind.DISCARD)
    ]
    assert not delta(old, end, old, end)


def test_nothing_past_the_new_end() -> None:
    old = [extent(0, 7, 8)]
    assert not delta(old, 8 * BLOCK, [extent(0, 7, 8)], 3 * BLOCK + 5)
    assert delta(old, 8 * BLOCK, [extent(0, 9, 8)], 3 * BLOCK + 5) == [Extent(0, 3 * BLOCK + 5)]
