"""A thin pool is not filled, whatever a transfer was said to need (I8)."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.errors import NoSpaceError
from blockrep.model.extents import Extent, ExtentKind, summarize
from blockrep.storage.interface import Staging
from storage.lvm.builders import simulated_volumes
from storage.lvm_simulation import SimulatedGroup
from storage.transfers import Transfer, push

CHUNK, MIB = 64 * 1024, 1024 * 1024


def test_a_resume_that_allocates_nothing_fits_into_what_is_left(tmp_path: Path) -> None:
    """What was written back after the last cursor is written once more."""
    with simulated_volumes(tmp_path) as volumes:
        pool = volumes.replica
        volumes.write_live(0, b"\xaa" * len(volumes.read_live()))
        base = push(volumes, None)
        volumes.write_live(0, b"\xbb" * 2 * MIB)
        transfer = Transfer(volumes, base)
        data = memoryview(b"\xbb" * MIB)
        staging = transfer.target.begin(transfer.request)
        staging.write(0, data)
        staging.sync()
        staging.save_cursor(MIB, bytes(32))
        staging.write(MIB, data)
        staging.sync()
        staging.close()
        leave(pool, volumes.settings.data_reserve_percent, 8)
        staging = volumes.target().begin(transfer.request)
        used = len(pool.blocks())
        staging.write(MIB, data)
        assert len(pool.blocks()) == used
        staging.close()


def test_others_who_fill_a_pool_are_noticed_at_the_next_sync(tmp_path: Path) -> None:
    with simulated_volumes(tmp_path) as volumes:
        pool = volumes.replica
        size_bytes = len(volumes.read_live())
        volumes.write_live(0, b"\xaa" * size_bytes)
        transfer = Transfer(volumes, None)
        staging = transfer.target.begin(transfer.request)
        staging.write(0, memoryview(bytes(CHUNK)))
        leave(pool, volumes.settings.data_reserve_percent, 4)
        staging.sync()
        with pytest.raises(NoSpaceError):
            fill(staging, size_bytes, ExtentKind.DATA)
        staging.close()
        assert above_reserve(pool, volumes.settings.data_reserve_percent) >= 0


def leave(pool: SimulatedGroup, reserve_percent: int, free_chunks: int) -> None:
    """Let others take all but so many chunks above the reserve."""
    pool.total_chunks = len(pool.blocks())
    while above_reserve(pool, reserve_percent) < free_chunks:
        pool.total_chunks += 1


def above_reserve(pool: SimulatedGroup, reserve_percent: int) -> int:
    """Return how many chunks are free above the reserve; negative below it."""
    reserve = -(-pool.total_chunks * reserve_percent // 100)
    return pool.total_chunks - reserve - len(pool.blocks())


def fill(staging: Staging, size_bytes: int, kind: ExtentKind) -> None:
    """Write to all of it; a ZERO extent may be as long as that."""
    if kind is ExtentKind.ZERO:
        staging.clear(Extent(0, size_bytes, kind))
        return
    for offset in range(0, size_bytes, CHUNK):
        staging.write(offset, memoryview(bytes(CHUNK)))


@pytest.mark.parametrize("kind", [ExtentKind.DATA, ExtentKind.ZERO])
def test_a_sender_that_says_too_little_does_not_fill_the_pool(
    tmp_path: Path, kind: ExtentKind
) -> None:
    with simulated_volumes(tmp_path, discards="ignore") as volumes:
        size_bytes = len(volumes.read_live())
        volumes.write_live(0, b"\xaa" * size_bytes)
        base = push(volumes, None)
        pool = volumes.replica
        volumes.write_live(0, b"\xbb")
        transfer = Transfer(volumes, base)
        pool.total_chunks = len(pool.blocks()) + size_bytes // CHUNK // 2
        staging = transfer.target.begin(transfer.request)
        with pytest.raises(NoSpaceError):
            fill(staging, size_bytes, kind)
        staging.close()
        assert above_reserve(pool, volumes.settings.data_reserve_percent) >= 0


def test_a_pool_that_ignores_discards_needs_room_for_zeros(tmp_path: Path) -> None:
    with simulated_volumes(tmp_path, discards="ignore") as volumes:
        size_bytes = len(volumes.read_live())
        volumes.write_live(0, b"\xaa" * size_bytes)
        base = push(volumes, None)
        volumes.discard_live(0, size_bytes)
        transfer = Transfer(volumes, base)
        assert summarize(transfer.plan).discard_bytes == size_bytes
        volumes.replica.total_chunks = len(volumes.replica.blocks()) + 4
        with pytest.raises(NoSpaceError):
            transfer.target.begin(transfer.request)
        assert volumes.target().inspect().staging is None
