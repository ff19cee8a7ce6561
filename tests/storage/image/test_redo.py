"""Redo files: what was appended and synced is replayed; what a crash tore is not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from blockrep.errors import StorageError
from blockrep.storage.files import opened_fd
from blockrep.storage.image.redo import MAX_RECORD_BYTES, DamagedRedoError, RedoLog

KEY = "0123456789abcdef" * 2
SIZE = 300_000


def fill(redo: RedoLog, rng: random.Random, content: bytearray, times: int) -> None:
    for _ in range(times):
        offset = rng.randrange(SIZE - 1)
        length = min(rng.randint(1, 70_000), SIZE - offset)
        if rng.random() < 0.3:
            redo.clear(offset, length)
            content[offset : offset + length] = bytes(length)
        else:
            data = rng.randbytes(length)
            redo.write(offset, memoryview(data))
            content[offset : offset + length] = data


def replayed(path: Path, target: Path, durable_bytes: int = 0) -> bytes:
    target.write_bytes(bytes(SIZE))
    redo = RedoLog(path, KEY, durable_bytes)
    with opened_fd(target, os.O_RDWR) as fd:
        redo.copy_into(fd)
        redo.copy_into(fd)  # as after a crash: again, to the same end
    redo.close()
    return target.read_bytes()


@pytest.mark.parametrize("seed", range(5))
def test_replaying_equals_writing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(SIZE)
    redo = RedoLog(tmp_path / "redo", KEY, 0)
    fill(redo, rng, content, 10)
    durable_bytes = redo.sync()
    redo.close()
    redo = RedoLog(tmp_path / "redo", KEY, durable_bytes)  # a resumed transfer appends
    fill(redo, rng, content, 10)
    durable_bytes = redo.sync()
    redo.close()
    assert replayed(tmp_path / "redo", tmp_path / "file", durable_bytes) == content


def test_what_was_not_synced_is_dropped_before_more_is_appended(tmp_path: Path) -> None:
    """It still reads well from memory, but a sync may have failed on it (I1, I6)."""
    path = tmp_path / "redo"
    redo = RedoLog(path, KEY, 0)
    redo.write(0, memoryview(b"synced"))
    durable_bytes = redo.sync()
    redo.write(6, memoryview(b"never synced"))
    redo.close()
    redo = RedoLog(path, KEY, durable_bytes)
    assert (redo.end_bytes, path.stat().st_size) == (durable_bytes, durable_bytes)
    redo.write(6, memoryview(b"again"))
    durable_bytes = redo.sync()
    redo.close()
    assert replayed(path, tmp_path / "file", durable_bytes)[:12] == b"syncedagain\0"


def test_a_torn_tail_is_cut_off_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "redo"
    redo = RedoLog(path, KEY, 0)
    redo.write(0, memoryview(b"first"))
    durable_bytes = redo.sync()
    redo.write(100, memoryview(b"second"))
    redo.close()
    whole = path.read_bytes()
    for length in range(durable_bytes, len(whole)):
        for tail in (b"", bytes(len(whole) - length)):  # cut short, or extended but not written
            path.write_bytes(whole[:length] + tail)
            redo = RedoLog(path, KEY, durable_bytes)
            assert redo.end_bytes == durable_bytes
            redo.close()
            assert path.stat().st_size == durable_bytes


def test_damage_to_what_was_synced_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "redo"
    redo = RedoLog(path, KEY, 0)
    redo.write(0, memoryview(b"first"))
    redo.clear(4096, 4096)
    durable_bytes = redo.sync()
    redo.close()
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x40
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="damaged"):
            RedoLog(path, KEY, durable_bytes)
    path.write_bytes(whole)
    with pytest.raises(StorageError, match="damaged"):
        RedoLog(path, "f" * 32, durable_bytes)  # another transfer's


def test_long_writes_are_cut_so_that_memory_is_bounded(tmp_path: Path) -> None:
    data = random.Random(0).randbytes(2 * MAX_RECORD_BYTES + 5)
    redo = RedoLog(tmp_path / "redo", KEY, 0)
    redo.write(7, memoryview(data))
    durable_bytes = redo.sync()
    redo.close()
    assert durable_bytes == len(data) + 3 * 33
    assert replayed(tmp_path / "redo", tmp_path / "file", durable_bytes) == bytes(7) + data


def test_what_can_be_read_once_and_not_again_is_not_half_copied_in(tmp_path: Path) -> None:
    """The disk gives the right answer when it is checked, and another one afterwards."""
    redo = RedoLog(tmp_path / "redo", KEY, 0)
    fill(redo, random.Random(1), bytearray(SIZE), 10)
    durable_bytes = redo.sync()
    redo.close()
    redo = RedoLog(tmp_path / "redo", KEY, durable_bytes)
    with (tmp_path / "redo").open("r+b") as file:
        file.seek(durable_bytes // 2)
        file.write(b"misread")
    (tmp_path / "target").write_bytes(bytes(SIZE))
    with opened_fd(tmp_path / "target", os.O_RDWR) as fd, pytest.raises(DamagedRedoError):
        redo.copy_into(fd)
    redo.close()
