"""Contents and changes are the same in every run, and what is compared is really compared."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest

import data
from data import BLOCK_BYTES, MIB, TINY_BYTES


@pytest.mark.parametrize("make", [data.make_mixed, data.make_sparse, data.make_compressible])
def test_a_content_is_the_same_each_time(make: Callable[[Path, int], None], tmp_path: Path) -> None:
    for name in ("one", "other"):
        make(tmp_path / name, 12 * MIB)
    assert (tmp_path / "one").stat().st_size == 12 * MIB
    assert data.same_content(tmp_path / "one", tmp_path / "other")


def test_a_sparse_content_is_mostly_not_allocated(tmp_path: Path) -> None:
    data.make_sparse(tmp_path / "sparse", 20 * MIB)
    assert (tmp_path / "sparse").stat().st_blocks * 512 <= 3 * MIB


def test_tiny_extents_are_as_many_as_there_is_room_for(tmp_path: Path) -> None:
    data.make_tiny(tmp_path / "few", 8 * MIB, 10)
    data.make_tiny(tmp_path / "all", 8 * MIB, 100_000)
    content = (tmp_path / "all").read_bytes()
    zeros = bytes(TINY_BYTES)
    written = [content[at : at + TINY_BYTES] != zeros for at in range(0, 8 * MIB, TINY_BYTES)]
    assert written == [True, False] * 1024
    assert (tmp_path / "few").read_bytes().count(zeros) >= 2000


@pytest.mark.parametrize("length", [TINY_BYTES, BLOCK_BYTES])
def test_lone_extents_do_not_touch(length: int) -> None:
    extents = data.lone_extents(random.Random(1), 64 * MIB, length, 100)
    assert len(extents) == 100
    for (first, _), (second, _) in pairwise(extents):
        assert second - first >= 2 * length
    assert extents[-1][0] + length <= 64 * MIB


def test_changes_differ_between_rounds_and_not_between_runs() -> None:
    for choose in (data.scattered, data.contiguous):
        assert choose(64 * MIB, 1, 1) == choose(64 * MIB, 1, 1)
        assert choose(64 * MIB, 1, 1) != choose(64 * MIB, 1, 2)
        assert sum(length for _, length in choose(64 * MIB, 1, 1)) == 10 * BLOCK_BYTES


def test_a_database_writes_mostly_to_a_fifth_of_the_volume() -> None:
    pages = data.database(64 * MIB, 500, 1)
    assert pages == data.database(64 * MIB, 500, 1) != data.database(64 * MIB, 500, 2)
    offsets = [offset for offset, _ in pages]
    assert offsets == sorted(set(offsets))
    assert {length for _, length in pages} == {8192}
    assert sum(offset < 64 * MIB // 5 for offset in offsets) > len(offsets) * 0.7


def test_overwriting_changes_exactly_the_extents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data.make_mixed(path, 4 * MIB)
    before = path.read_bytes()
    data.overwrite(path, [(BLOCK_BYTES, BLOCK_BYTES), (MIB, 2 * MIB)], 1)
    after = path.read_bytes()
    changed = {at // TINY_BYTES for at in range(0, 4 * MIB, 512) if before[at] != after[at]}
    assert changed == {*range(16, 32), *range(256, 768)}


def test_a_spoilt_file_keeps_its_size_and_nothing_of_its_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    data.make_mixed(path, MIB + 5 * MIB)
    inode = path.stat().st_ino
    data.spoil(path, 6 * MIB)
    assert (path.stat().st_ino, path.stat().st_size) == (inode, 6 * MIB)
    assert set(path.read_bytes()) == {0xA5}


def test_same_content_notices_a_byte_and_a_length(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(3 * MIB))
    other.write_bytes(bytes(3 * MIB))
    assert data.same_content(one, other)
    other.write_bytes(bytes(3 * MIB - 1) + b"x")
    assert not data.same_content(one, other)
    other.write_bytes(bytes(3 * MIB - 1))
    assert not data.same_content(one, other)
