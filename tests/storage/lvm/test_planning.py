"""A pool is never taken below its reserves (I8); a delta covers every change, no more."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from blockrep.errors import BlockrepError, NoSpaceError, StorageError, VolumeError
from blockrep.model.extents import Extent, ExtentKind, summarize
from blockrep.storage.interface import StorageSettings
from blockrep.storage.lvm.planning import (
    check_pool_health,
    check_room,
    check_room_for_snapshot,
    delta_extents,
    leaves_discarded,
    mapped_extents,
    new_chunk_count,
    refuse_extended,
    round_up,
    space_of,
)
from blockrep.storage.lvm.reports import PoolStatus
from blockrep.storage.lvm.thin_xml import Run, RunKind
from storage.lvm.builders import POOL

CHUNK = 64 * 1024
SETTINGS = StorageSettings(Path("/s"), Path("/r"), data_reserve_percent=5)


def status(
    used: int = 0, total: int = 1000, mode: str = "rw", *, check: bool = False, blocks: int = 10
) -> PoolStatus:
    return PoolStatus(1, blocks, 1000, used, total, None, mode, check)


@pytest.mark.parametrize(
    ("mode", "check", "error", "words"),
    [
        ("ro", False, VolumeError, "is read-only"),
        ("fail", True, VolumeError, "has failed"),
        ("rw", True, VolumeError, "needs a check"),
        ("out_of_data_space", False, NoSpaceError, "is full"),
    ],
)
def test_pools_in_trouble_are_left_alone(
    mode: str, check: bool, error: type[BlockrepError], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_pool_health(status(mode=mode, check=check), "vg/pool")
    with pytest.raises(error, match=words):
        check_room(status(mode=mode, check=check), POOL, SETTINGS, 0, 0)


def test_a_pool_without_metadata_is_extended_not_repaired() -> None:
    with pytest.raises(NoSpaceError, match="metadata is full") as raised:
        check_pool_health(status(mode="ro", blocks=1000), "vg/pool")
    assert "--poolmetadatasize" in str(raised.value.next_step)


def test_the_reserve_is_never_used() -> None:
    check_room(status(used=900), POOL, SETTINGS, 50, 0)
    with pytest.raises(NoSpaceError, match="above its reserve of 5 %"):
        check_room(status(used=900), POOL, SETTINGS, 51, 0)
    check_room(status(used=990), POOL, SETTINGS, 0, 0)


def test_metadata_is_predicted_too() -> None:
    with pytest.raises(NoSpaceError, match="poolmetadatasize"):
        check_room(status(total=10**9, blocks=890), POOL, SETTINGS, 100_000, 0)
    with pytest.raises(NoSpaceError, match="metadata"):
        # Few chunks, but each write copies a leaf that is shared with the replica.
        check_room(status(total=10**9, blocks=500), POOL, SETTINGS, 1000, 10**6)


def test_discards_copy_leaves_too() -> None:
    """The two at the ends of what they unmap, where the good snapshot shares them."""
    chunk_bytes = POOL.chunk_bytes
    scattered = [Extent(10**9 * n, chunk_bytes, ExtentKind.DISCARD) for n in range(300)]
    for plan, leaves in (
        (summarize(scattered), 600),
        (summarize([Extent(0, 10**6 * chunk_bytes, ExtentKind.DISCARD)]), 2),
        (summarize([Extent(0, 10**6 * chunk_bytes)]), 0),
        (None, 0),
    ):
        assert leaves_discarded(plan, POOL) == leaves
    assert leaves_discarded(summarize(scattered), replace(POOL, discards="ignore")) == 0
    check_room(status(blocks=500), POOL, SETTINGS, 1, 10**6, 2)
    check_room(status(blocks=500), POOL, SETTINGS, 1, 126 * 100, 600)
    with pytest.raises(NoSpaceError, match="metadata"):
        check_room(status(blocks=500), POOL, SETTINGS, 1, 10**6, 600)


def test_metadata_that_was_extended_between_looks_proves_nothing_about_discards() -> None:
    before = status()
    refuse_extended(before, status(blocks=10), "vg/pool")
    after = replace(before, total_metadata_blocks=2 * before.total_metadata_blocks)
    with pytest.raises(StorageError, match="extended between discards"):
        refuse_extended(before, after, "vg/pool")


def test_a_snapshot_is_refused_below_the_reserve() -> None:
    check_room_for_snapshot(status(used=949), "vg/pool", SETTINGS)
    with pytest.raises(NoSpaceError, match="data"):
        check_room_for_snapshot(status(used=951), "vg/pool", SETTINGS)
    with pytest.raises(NoSpaceError, match="metadata"):
        check_room_for_snapshot(status(blocks=950), "vg/pool", SETTINGS)


def test_the_room_that_is_told() -> None:
    space = space_of(status(used=100), CHUNK, SETTINGS)
    assert space.free_bytes == 850 * CHUNK
    assert space_of(status(used=999), CHUNK, SETTINGS).free_bytes == 0


def test_a_first_write_into_a_leaf_that_is_shared_takes_a_block_of_metadata() -> None:
    def mappings(shared_chunks: int) -> int:
        return space_of(status(blocks=800), CHUNK, SETTINGS, shared_chunks).metadata_free_chunks

    free = space_of(status(blocks=800), CHUNK, SETTINGS).metadata_free_chunks
    blocks = free * 40 // 4096
    assert mappings(0) == free
    assert mappings(126 * blocks * 2) == blocks
    assert blocks < mappings(126 * blocks // 2) < free


def test_left_only_is_a_discard_clipped_to_the_volume() -> None:
    runs = [
        Run(RunKind.SAME, 0, CHUNK),
        Run(RunKind.DIFFERENT, CHUNK, CHUNK),
        Run(RunKind.RIGHT_ONLY, 2 * CHUNK, CHUNK),
        Run(RunKind.LEFT_ONLY, 4 * CHUNK, 4 * CHUNK),
    ]
    found = list(delta_extents(runs, 8 * CHUNK, 5 * CHUNK + 512))
    assert found == [
        Extent(CHUNK, 2 * CHUNK, ExtentKind.DATA),
        Extent(4 * CHUNK, CHUNK + 512, ExtentKind.DISCARD),
    ]


def test_what_is_mapped_past_the_end_is_not_read() -> None:
    runs = [Run(RunKind.MAPPED, 0, CHUNK), Run(RunKind.MAPPED, CHUNK, 4 * CHUNK)]
    assert list(mapped_extents(runs, CHUNK + 512)) == [Extent(0, CHUNK + 512, ExtentKind.DATA)]


def test_new_chunks_are_those_that_the_good_snapshot_does_not_share() -> None:
    runs = [
        Run(RunKind.SAME, 0, CHUNK),
        Run(RunKind.DIFFERENT, CHUNK, 2 * CHUNK),
        Run(RunKind.RIGHT_ONLY, 3 * CHUNK, CHUNK),
        Run(RunKind.LEFT_ONLY, 5 * CHUNK, CHUNK),
    ]
    assert new_chunk_count(runs, CHUNK) == 3


@pytest.mark.parametrize(("number", "result"), [(0, 0), (1, 8), (8, 8), (9, 16)])
def test_rounding(number: int, result: int) -> None:
    assert round_up(number, 8) == result
