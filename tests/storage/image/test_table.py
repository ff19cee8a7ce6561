"""Digest tables: whole or not there; no entry that was not put."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash

from blockrep.errors import NoSpaceError, VolumeError
from blockrep.storage.image.table import (
    BLOCK_BYTES,
    UNKNOWN,
    Blocks,
    DigestTable,
    refuse_without_table_room,
)

ID = "0123456789abcdef" * 2
SIZE = 5 * BLOCK_BYTES + 100


def make(path: Path, *, sealed: bool = True, synced: bool = False) -> None:
    with DigestTable.create(path, ID, SIZE, 42) as table:
        table.put(0, b"".join(bytes([number + 1]) * 16 for number in range(6)))
        if synced:
            table.sync()
        if sealed:
            table.seal()


def test_a_sealed_table_is_read_as_it_was_made(tmp_path: Path) -> None:
    make(tmp_path / "t")
    table = DigestTable.open_sealed(tmp_path / "t", ID, SIZE)
    assert table is not None
    with table:
        assert table.sealed
        assert (table.blocks.seed, table.blocks.count) == (42, 6)
        assert list(table.digests()) == [bytes([number + 1]) * 16 for number in range(6)]
        assert table.get(5, 3) == b"\x06" * 16 + UNKNOWN * 2
    assert (tmp_path / "t").stat().st_mode & 0o777 == 0o600


def test_an_unsealed_table_is_none(tmp_path: Path) -> None:
    assert DigestTable.open_sealed(tmp_path / "t", ID, SIZE) is None
    make(tmp_path / "t", sealed=False, synced=True)
    assert DigestTable.open_sealed(tmp_path / "t", ID, SIZE) is None
    table = DigestTable.reopen(tmp_path / "t", ID, SIZE)
    assert table is not None
    with table:
        assert table.blocks.seed == 42
        assert table.get(2, 1) == b"\x03" * 16
        table.seal()
    again = DigestTable.open_sealed(tmp_path / "t", ID, SIZE)
    assert again is not None
    again.close()


@pytest.mark.parametrize("offset", [0, 17, 30, 45, 60, 80, 4096, 4096 + 95])
def test_any_damage_is_found(tmp_path: Path, offset: int) -> None:
    make(tmp_path / "t")
    content = bytearray((tmp_path / "t").read_bytes())
    content[offset] ^= 1
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(VolumeError, match="damaged"):
        DigestTable.open_sealed(tmp_path / "t", ID, SIZE)


@pytest.mark.parametrize("length", [10, 88, 4096, 4096 + 95])
def test_a_table_cut_short_is_found(tmp_path: Path, length: int) -> None:
    make(tmp_path / "t")
    (tmp_path / "t").write_bytes((tmp_path / "t").read_bytes()[:length])
    with pytest.raises(VolumeError, match="damaged"):
        DigestTable.open_sealed(tmp_path / "t", ID, SIZE)


def test_another_snapshots_table_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "t")
    with pytest.raises(VolumeError, match="another snapshot"):
        DigestTable.open_sealed(tmp_path / "t", ID[::-1], SIZE)
    with pytest.raises(VolumeError, match="another snapshot"):
        DigestTable.open_sealed(tmp_path / "t", ID, SIZE + 1)


def test_the_last_block_has_zeros_of_its_own_length() -> None:
    blocks = Blocks(SIZE, 42)
    whole, tail = (xxhash.xxh3_128_digest(bytes(one), 42) for one in (BLOCK_BYTES, 100))
    assert blocks.zero_digests(0, 2) == whole * 2
    assert blocks.zero_digests(4, 2) == whole + tail
    assert blocks.zero_digests(6, 0) == b""
    assert Blocks(2 * BLOCK_BYTES, 42).zero_digests(0, 2) == whole * 2


def test_only_what_grows_as_the_table_of_that_snapshot_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "t"
    assert DigestTable.reopen(path, ID, SIZE) is None
    path.write_bytes(b"short")
    assert DigestTable.reopen(path, ID, SIZE) is None
    make(path, sealed=False)
    assert DigestTable.reopen(path, ID, SIZE) is None, "nothing was sent of it"
    make(path, sealed=False, synced=True)
    assert DigestTable.reopen(path, ID[::-1], SIZE) is None
    content = bytearray(path.read_bytes())
    content[512] ^= 1
    path.write_bytes(content)
    assert DigestTable.reopen(path, ID, SIZE) is None


def test_what_is_known_is_never_replaced(tmp_path: Path) -> None:
    with DigestTable.create(tmp_path / "t", ID, SIZE, 42) as table:
        assert table.learn(1, b"\x02" * 16 + b"\x03" * 16)
        assert table.learn(0, b"\x01" * 16 + b"\x02" * 16)
        assert not table.learn(2, b"\xff" * 16 + b"\x04" * 16)
        assert table.get(0, 4) == b"".join(bytes([one]) * 16 for one in (1, 2, 3)) + UNKNOWN


def test_what_is_forgotten_can_be_learnt_anew(tmp_path: Path) -> None:
    with DigestTable.create(tmp_path / "t", ID, SIZE, 42) as table:
        table.put(0, b"".join(bytes([number + 1]) * 16 for number in range(6)))
        table.forget(4)
        assert table.get(3, 3) == b"\x04" * 16 + UNKNOWN * 2
        assert table.learn(4, b"\xff" * 32)


def test_room_for_a_table_is_looked_for(tmp_path: Path) -> None:
    """A sparse file may be a thousand times as large as its file system."""
    refuse_without_table_room(1 << 30, tmp_path)
    with pytest.raises(NoSpaceError, match="its digest table needs 281474976714752 bytes"):
        refuse_without_table_room(1 << 60, tmp_path)


def test_only_what_may_not_be_durable_is_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sync of a file is a flush of the disk's cache, also where nothing was written."""
    synced: list[int] = []
    monkeypatch.setattr(os, "fdatasync", synced.append)

    def syncs(table: DigestTable) -> bool:
        synced.clear()
        table.sync()
        return bool(synced)

    make(tmp_path / "t", sealed=False, synced=True)
    table = DigestTable.reopen(tmp_path / "t", ID, SIZE)
    assert table is not None
    with table:
        assert syncs(table), "what another process put, perhaps without a sync"
        assert table.learn(0, b"\x01" * 16)
        assert not syncs(table), "it was known"
        table.put(0, b"\xff" * 16)
        assert syncs(table)
        table.seal()
        assert not syncs(table)
