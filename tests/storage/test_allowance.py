"""Neither a pool nor a file system is filled, whatever a transfer was said to need (I8)."""

from __future__ import annotations

import itertools

import pytest

from blockrep.errors import NoSpaceError
from blockrep.model.snapshots import Space
from blockrep.storage.allowance import Allowance

CHUNK, MIB = 64 * 1024, 1024 * 1024
UNLIMITED = 1 << 40


def full(space: Space) -> NoSpaceError:
    return NoSpaceError(f"{space.free_bytes // CHUNK} and {space.metadata_free_chunks} chunks left")


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
    allowance = Allowance(CHUNK, pool.look, full)
    for index in range(100):
        allowance.spend(index * CHUNK, (index + 1) * CHUNK)
        pool.free_chunks -= 1
    with pytest.raises(NoSpaceError, match=r"^0 and"):
        allowance.spend(100 * CHUNK, 100 * CHUNK + 1)
    assert pool.looks < 12, "the fuller the pool the more often, but not each time"


def test_frames_that_cut_a_chunk_count_it_once() -> None:
    allowance = Allowance(CHUNK, Pool(1).look, full)
    for start in range(0, CHUNK, 4096):
        allowance.spend(start, start + 4096)
    allowance.spend(CHUNK, CHUNK)


def test_room_that_others_took_is_noticed() -> None:
    pool = Pool(100)
    allowance = Allowance(CHUNK, pool.look, full)
    allowance.spend(0, CHUNK)
    pool.free_chunks = 0
    with pytest.raises(NoSpaceError):
        allowance.spend(CHUNK, 60 * CHUNK)


def test_a_look_that_was_made_anyway_counts_and_allows_no_more() -> None:
    pool = Pool(1000)
    allowance = Allowance(CHUNK, pool.look, full)
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
    allowance = Allowance(CHUNK, pool.look, full)
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
    allowance = Allowance(CHUNK, pool.look, full)
    pieces = list(allowance.spend_in_pieces(CHUNK // 2, 6 * CHUNK))
    cuts = [CHUNK // 2, *range(CHUNK, 7 * CHUNK, CHUNK)]
    assert pieces == list(itertools.pairwise(cuts))
    pool.free_chunks = 0
    with pytest.raises(NoSpaceError):
        list(allowance.spend_in_pieces(6 * CHUNK, 9 * CHUNK))


def test_metadata_is_room_too() -> None:
    allowance = Allowance(CHUNK, Pool(100, metadata_free_chunks=3).look, full)
    allowance.spend(0, 3 * CHUNK)
    with pytest.raises(NoSpaceError, match=r"^100 and 3 chunks left"):
        allowance.spend(3 * CHUNK, 7 * CHUNK)


def test_a_long_write_is_allowed_piece_by_piece() -> None:
    """Others may fill the pool while it goes on (I8)."""
    pool = Pool(3 * 16 * MIB // CHUNK)
    allowance = Allowance(CHUNK, pool.look, full)
    pieces = allowance.spend_in_pieces(CHUNK, 100 * MIB)
    assert next(pieces) == (CHUNK, CHUNK + 16 * MIB)
    pool.free_chunks = 1
    assert next(pieces) == (CHUNK + 16 * MIB, CHUNK + 32 * MIB), "what was allowed at first"
    assert next(pieces) == (CHUNK + 32 * MIB, 2 * CHUNK + 32 * MIB)
    pool.free_chunks = 0
    with pytest.raises(NoSpaceError):
        list(pieces)
