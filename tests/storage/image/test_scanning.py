"""A scan finds every block that differs, and its table is of what was read."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from blockrep.errors import StorageError
from blockrep.model.extents import Extent, ExtentKind
from blockrep.storage.files import opened_fd
from blockrep.storage.image import kernel, scanning
from blockrep.storage.image.table import BLOCK_BYTES, Blocks, DigestTable

ID = "0123456789abcdef" * 2
SEED = 99


def table_of(content: bytes) -> bytes:
    return scanning.digests_of(memoryview(content), SEED)


def base_table(path: Path, content: bytes) -> DigestTable:
    table = DigestTable.create(path, ID, len(content), SEED)
    table.put(0, table_of(content))
    return table


def sparse_write(path: Path, content: bytes) -> None:
    """Write only the blocks that are not zeros."""
    with path.open("wb") as file:
        for at in range(0, len(content), BLOCK_BYTES):
            block = content[at : at + BLOCK_BYTES]
            if block.strip(b"\0"):
                file.seek(at)
                file.write(block)
        file.truncate(len(content))


@pytest.mark.parametrize("seed", range(12))
def test_equals_a_comparison_of_blocks(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    pieces = [
        bytes(BLOCK_BYTES),
        rng.randbytes(BLOCK_BYTES),
        b"\0" + rng.randbytes(BLOCK_BYTES - 1),
    ]
    counts = [rng.choice([3, 70, 150]) for _ in range(2)]
    old = b"".join(rng.choices(pieces, k=counts[0])) + rng.randbytes(rng.choice([0, 77]))
    new = bytearray(b"".join(rng.choices(pieces, k=counts[1])) + bytes(rng.choice([0, 77])))
    keep = min(len(old), len(new)) // 2 // BLOCK_BYTES * BLOCK_BYTES
    new[:keep] = old[:keep]
    sparse_write(tmp_path / "file", bytes(new))
    blocks = Blocks(len(new), SEED)
    with (
        base_table(tmp_path / "old", old) as base,
        DigestTable.create(tmp_path / "new", ID, len(new), SEED) as table,
        opened_fd(tmp_path / "file", os.O_RDONLY) as fd,
    ):
        extents = list(scanning.scan_changes(fd, blocks, base, table))
        assert list(scanning.scan_changes(fd, blocks, base, None)) == extents
        assert b"".join(table.digests()) == table_of(bytes(new))
    kinds = {
        number: one.kind
        for one in extents
        for number in range(one.offset_bytes // BLOCK_BYTES, -(-one.end_bytes // BLOCK_BYTES))
    }
    expected = {}
    for number in range(blocks.count):
        part = slice(number * BLOCK_BYTES, (number + 1) * BLOCK_BYTES)
        before = old[part] or bytes(len(new[part]))
        if before != new[part]:
            is_zero = not new[part].strip(b"\0")
            expected[number] = ExtentKind.DISCARD if is_zero else ExtentKind.DATA
    assert kinds == expected
    assert all(one.end_bytes <= len(new) for one in extents)


def test_data_extents_are_whole_blocks(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (10 * BLOCK_BYTES + 5))
    with path.open("r+b") as file:
        kernel.punch_hole(file.fileno(), BLOCK_BYTES + 4096, 3 * BLOCK_BYTES)
        extents = list(scanning.data_extents(file.fileno(), 10 * BLOCK_BYTES + 5))
    assert extents == [
        Extent(0, 2 * BLOCK_BYTES),
        Extent(4 * BLOCK_BYTES, 6 * BLOCK_BYTES + 5),
    ]


def test_a_file_cut_short_meanwhile_is_an_error(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(3 * BLOCK_BYTES)
    (tmp_path / "file").write_bytes(content)
    with (
        base_table(tmp_path / "old", content) as base,
        opened_fd(tmp_path / "file", os.O_RDONLY) as fd,
    ):
        changes = scanning.scan_changes(fd, Blocks(len(content), SEED), base, None)
        os.truncate(tmp_path / "file", BLOCK_BYTES)
        # What is gone is a hole by now; what SEEK_DATA still told is noticed when it is read.
        try:
            found = list(changes)
        except StorageError:
            return
        assert found


def test_only_unknown_blocks_are_filled(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(3 * BLOCK_BYTES) + bytes(200 * BLOCK_BYTES + 9)
    sparse_write(tmp_path / "file", content)
    marker = b"m" * 16
    with (
        DigestTable.create(tmp_path / "new", ID, len(content), SEED) as table,
        opened_fd(tmp_path / "file", os.O_RDONLY) as fd,
    ):
        table.put(1, marker)
        table.put(150, marker)
        scanning.fill_unknown(fd, table)
        expected = bytearray(table_of(content))
        expected[16:32] = expected[150 * 16 : 151 * 16] = marker
        assert b"".join(table.digests()) == expected
