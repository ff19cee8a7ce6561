"""A thin pool is not filled, whatever a transfer was said to need (I8)."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from blockrep.errors import NoSpaceError
from blockrep.model.extents import Extent, ExtentKind, summarize
from blockrep.model.snapshots import Space
from blockrep.storage.interface import Staging
from blockrep.storage.lvm.allowance import Allowance
from storage.lvm.builders import simulated_volumes
from storage.lvm_simulation import SimulatedGroup
from storage.transfers import Transfer, push

CHUNK, MIB = 64 * 1024, 1024 * 1024
UNLIMITED = 1 << 40


class Pool:
    """A pool with so much room, all of which is taken by what is written."""

    def __init__(self, free_chunks: int, metadata_free_chunks: int = UNLIMITED) -> None:
        self.free_chunks = free_chunks
        self.metadata_free_chunks = metadata_free_chunks
        self.looks = 0

    def look(self) -> Space:
        self.looks += 1
        return Space(CHUNK, self.free_chunks * CHUNK, self.metadata_free_chunks)


def test_the_last_free_chunk_is_used_and_no_more() -> None:
    pool = Pool(100)
    allowance = Allowance(CHUNK, pool.look, "vg/pool")
    for index in range(100):
        allowance.spend(index * CHUNK, (index + 1) * CHUNK)
        pool.free_chunks -= 1
    with pytest.raises(NoSpaceError, match=r"vg/pool: the thin pool has come down.* -L"):
        allowance.spend(100 * CHUNK, 100 * CHUNK + 1)
    assert pool.looks < 12, "the fuller the pool the more often, but not each time"


def test_frames_that_cut_a_chunk_count_it_once() -> None:
    allowance = Allowance(CHUNK, Pool(1).look, "vg/pool")
    for start in range(0, CHUNK, 4096):
        allowance.spend(start, start + 4096)
    allowance.spend(CHUNK, CHUNK)


def test_room_that_others_took_is_noticed() -> None:
    pool = Pool(100)
    allowance = Allowance(CHUNK, pool.look, "vg/pool")
    allowance.spend(0, CHUNK)
    pool.free_chunks = 0
    with pytest.raises(NoSpaceError):
        allowance.spend(CHUNK, 60 * CHUNK)


def test_a_look_that_was_made_anyway_counts_and_allows_no_more() -> None:
    pool = Pool(1000)
    allowance = Allowance(CHUNK, pool.look, "vg/pool")
    allowance.spend(0, CHUNK)
    pool.free_chunks = 10
    allowance.note(pool.look(), allowance.spent_chunks)
    pool.free_chunks = 0
    allowance.spend(CHUNK, 6 * CHUNK)
    with pytest.raises(NoSpaceError):
        allowance.spend(6 * CHUNK, 7 * CHUNK)
    pool.free_chunks = 1000
    allowance.note(pool.look(), allowance.spent_chunks)
    looks = pool.looks
    allowance.spend(6 * CHUNK, 7 * CHUNK)
    assert pool.looks == looks + 1


def test_what_was_written_while_a_sync_ran_is_not_in_what_was_seen() -> None:
    pool = Pool(1000)
    allowance = Allowance(CHUNK, pool.look, "vg/pool")
    allowance.spend(0, CHUNK)
    before = allowance.spent_chunks
    allowance.spend(CHUNK, 31 * CHUNK)
    pool.free_chunks = 100
    allowance.note(pool.look(), before)
    pool.free_chunks = 0
    allowance.spend(31 * CHUNK, 51 * CHUNK)
    with pytest.raises(NoSpaceError):
        allowance.spend(51 * CHUNK, 52 * CHUNK)


def test_a_write_that_does_not_fit_is_allowed_chunk_by_chunk() -> None:
    """Its chunks may be allocated already: after an interruption they are."""
    pool = Pool(1)
    allowance = Allowance(CHUNK, pool.look, "vg/pool")
    pieces = list(allowance.spend_in_pieces(CHUNK // 2, 6 * CHUNK))
    cuts = [CHUNK // 2, *range(CHUNK, 7 * CHUNK, CHUNK)]
    assert pieces == list(itertools.pairwise(cuts))
    pool.free_chunks = 0
    with pytest.raises(NoSpaceError):
        list(allowance.spend_in_pieces(6 * CHUNK, 9 * CHUNK))


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


def test_metadata_is_room_too() -> None:
    allowance = Allowance(CHUNK, Pool(100, metadata_free_chunks=3).look, "vg/pool")
    allowance.spend(0, 3 * CHUNK)
    with pytest.raises(NoSpaceError, match=r"metadata have come down.* --poolmetadatasize"):
        allowance.spend(3 * CHUNK, 7 * CHUNK)


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


def test_a_long_write_is_allowed_piece_by_piece() -> None:
    """Others may fill the pool while it goes on (I8)."""
    pool = Pool(3 * 16 * MIB // CHUNK)
    allowance = Allowance(CHUNK, pool.look, "vg/pool")
    pieces = allowance.spend_in_pieces(CHUNK, 100 * MIB)
    assert next(pieces) == (CHUNK, CHUNK + 16 * MIB)
    pool.free_chunks = 1
    assert next(pieces) == (CHUNK + 16 * MIB, CHUNK + 32 * MIB), "what was allowed at first"
    assert next(pieces) == (CHUNK + 32 * MIB, 2 * CHUNK + 32 * MIB)
    pool.free_chunks = 0
    with pytest.raises(NoSpaceError):
        list(pieces)
