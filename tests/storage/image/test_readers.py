"""Readers: a live file is read as a snapshot, or not at all."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from blockrep.errors import StorageError, VolumeError
from blockrep.storage.image import scanning
from blockrep.storage.image.files import FileStamp
from blockrep.storage.image.readers import CloneReader, FileReader, ResizedReader, TableReader
from blockrep.storage.image.table import BLOCK_BYTES, DigestTable
from storage.transfers import read_all

ID = "0123456789abcdef" * 2
CONTENT = random.Random(0).randbytes(4 * BLOCK_BYTES + 1000)


class Live:
    """A live file with a table; counts how often the snapshot was given up."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "file"
        self.path.write_bytes(CONTENT)
        self.table = directory / "table"
        self.forgotten = 0
        with DigestTable.create(self.table, ID, len(CONTENT), 5) as table:
            table.sync()

    def reader(self) -> TableReader:
        table = DigestTable.reopen(self.table, ID, len(CONTENT))
        assert table is not None
        return TableReader(self.path, table, FileStamp.of(self.path.stat()), self.forget)

    def forget(self) -> None:
        self.forgotten += 1

    def overwrite_unnoticed(self, offset: int, data: bytes) -> None:
        """Write in a way that no stat shows, as through a memory mapping."""
        stamp = self.path.stat()
        with self.path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        os.utime(self.path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.fixture
def live(tmp_path: Path) -> Live:
    return Live(tmp_path)


def read(reader: FileReader, start: int, end: int) -> bytes:
    buffer = bytearray(end - start)
    reader.read_into(start, memoryview(buffer))
    return bytes(buffer)


@pytest.mark.parametrize("seed", range(5))
def test_any_ranges_make_the_whole_table(live: Live, seed: int) -> None:
    rng = random.Random(seed)
    with live.reader() as reader:
        for _ in range(20):
            start = rng.randrange(len(CONTENT))
            end = min(len(CONTENT), start + rng.choice([1, 100, BLOCK_BYTES, 3 * BLOCK_BYTES]))
            assert read(reader, start, end) == CONTENT[start:end]
        reader.confirm()
    table = DigestTable.open_sealed(live.table, ID, len(CONTENT))
    assert table is not None
    with table:
        assert b"".join(table.digests()) == scanning.digests_of(memoryview(CONTENT), 5)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (BLOCK_BYTES, 2 * BLOCK_BYTES),
        (0, len(CONTENT)),
        (BLOCK_BYTES + 5, BLOCK_BYTES + 6),
        (BLOCK_BYTES - 5, BLOCK_BYTES + 5),
        (2 * BLOCK_BYTES - 1, 3 * BLOCK_BYTES),
    ],
)
def test_a_block_read_twice_must_be_the_same(live: Live, start: int, end: int) -> None:
    # Whole or in part: what is sent is what the table says, though no stat shows the change.
    with live.reader() as reader:
        read(reader, 0, len(CONTENT))
        live.overwrite_unnoticed(BLOCK_BYTES + 50_000, b"changed")
        with pytest.raises(VolumeError, match="changed while it was being read"):
            read(reader, start, end)
    assert live.forgotten == 1


def test_a_changed_file_is_not_confirmed(live: Live) -> None:
    with live.reader() as reader:
        read(reader, 0, BLOCK_BYTES)
        with live.path.open("ab") as file:
            file.write(b"more")
        with pytest.raises(VolumeError, match="XFS, btrfs"):
            reader.confirm()
    assert live.forgotten == 1
    assert DigestTable.open_sealed(live.table, ID, len(CONTENT)) is None


def test_a_file_cut_short_has_changed(live: Live) -> None:
    with live.reader() as reader:
        os.truncate(live.path, 10)
        with pytest.raises(VolumeError, match="changed while it was being read"):
            read(reader, 0, BLOCK_BYTES)


def test_a_snapshots_file_that_is_gone_or_short(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="gone"):
        FileReader(tmp_path / "nothing", 10)
    (tmp_path / "file").write_bytes(b"12345")
    with FileReader(tmp_path / "file", 10) as reader:
        assert read(reader, 1, 3) == b"23"
        with pytest.raises(StorageError, match="ends early"):
            read(reader, 0, 10)


@pytest.mark.root
def test_preallocated_space_is_not_data(mounted_directory: Path) -> None:
    path = mounted_directory / "file"
    with path.open("wb") as file:
        file.write(b"x" * 8192)
        os.posix_fallocate(file.fileno(), 0, 1 << 20)
    with CloneReader(path, 1 << 20) as reader:
        extents = list(reader.allocated())
    assert [(one.offset_bytes, one.length_bytes) for one in extents] == [(0, 8192)]


@pytest.mark.parametrize("size", [500, 1000, 70_000])
def test_a_file_is_read_as_if_it_had_another_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT[:1000])
    with ResizedReader(path, 1000, size) as reader:
        assert read_all(reader) == CONTENT[: min(size, 1000)].ljust(size, b"\0")
        part = memoryview(bytearray(400))
        reader.read_into(size - 400, part)
        assert part == CONTENT[:1000].ljust(size, b"\0")[size - 400 : size]
        assert all(one.end_bytes <= size for one in reader.allocated())
        assert next(reader.allocated()).offset_bytes == 0


def test_what_a_resumed_push_sends_again_is_learnt_again(live: Live) -> None:
    """What an attempt before it read but did not send may be torn in the table."""
    with live.reader() as reader:
        read(reader, 0, len(CONTENT))
    live.overwrite_unnoticed(3 * BLOCK_BYTES, b"torn, in effect")
    table = DigestTable.reopen(live.table, ID, len(CONTENT))
    assert table is not None
    stamp = FileStamp.of(live.path.stat())
    with TableReader(live.path, table, stamp, live.forget, resumes=True) as reader:
        read(reader, 2 * BLOCK_BYTES, 4 * BLOCK_BYTES)
        reader.confirm()
    assert not live.forgotten
