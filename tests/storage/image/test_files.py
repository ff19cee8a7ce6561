"""Files: errors say what to do, reads and writes are whole."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import cast
from unittest import mock

import pytest

from blockrep.errors import NoSpaceError, StorageError
from blockrep.storage.files import opened_fd, write_full
from blockrep.storage.image import files, kernel
from blockrep.storage.image.files import settled_stat


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, NoSpaceError),
        (errno.EDQUOT, NoSpaceError),
        (errno.EIO, StorageError),
        (errno.EACCES, StorageError),
    ],
)
def test_errors_have_their_class(number: int, expected: type[Exception]) -> None:
    with pytest.raises(expected, match="writing failed"), files.io_errors("writing failed", "x"):
        raise OSError(number, os.strerror(number))


def test_a_file_that_ends_early_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"12345")
    with opened_fd(path, os.O_RDONLY) as fd:
        buffer = memoryview(bytearray(5))
        assert files.read_full(fd, buffer, 0)
        assert bytes(buffer) == b"12345"
        assert not files.read_full(fd, buffer, 3)
        assert not files.read_full(fd, buffer, 9)


def test_short_reads_and_writes_go_on(tmp_path: Path) -> None:
    path = tmp_path / "file"
    preadv, pwrite = os.preadv, os.pwrite
    with (
        opened_fd(path, os.O_RDWR | os.O_CREAT) as fd,
        mock.patch.object(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:3], at)),
        mock.patch.object(os, "preadv", lambda fd, parts, at: preadv(fd, [parts[0][:2]], at)),
    ):
        write_full(fd, memoryview(b"0123456789"), 5)
        buffer = memoryview(bytearray(10))
        assert files.read_full(fd, buffer, 5)
        assert bytes(buffer) == b"0123456789"


@pytest.mark.parametrize("can_punch", [True, False])
def test_a_cleared_range_reads_as_zeros(tmp_path: Path, *, can_punch: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 3_000_000)
    punch_hole = kernel.punch_hole if can_punch else lambda *_args: False
    with (
        opened_fd(path, os.O_RDWR) as fd,
        mock.patch.object(kernel, "punch_hole", punch_hole),
    ):
        files.clear_range(fd, 1000, 2_500_001)
    assert path.read_bytes() == b"x" * 1000 + bytes(2_500_001) + b"x" * 498_999


def test_the_reserve_is_left_out(tmp_path: Path) -> None:
    free = files.space_of(tmp_path, 0).free_bytes
    assert files.space_of(tmp_path, 1).free_bytes < free
    assert files.space_of(tmp_path, 100).free_bytes == 0


def test_a_stamp_changes_with_content_and_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    stamp = files.FileStamp.of(path.stat())
    assert files.FileStamp.of(path.stat()) == stamp
    os.utime(path, ns=(0, stamp.modified_ns + 1))
    os.utime(path, ns=(0, stamp.modified_ns))
    assert files.FileStamp.of(path.stat()) != stamp, "setting the time back is noticed"


def test_a_stat_is_settled_once_the_clock_has_gone_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file system knows no parts of a second."""
    second = 1_000_000_000
    for changed_ns, fits_at in ((5 * second + 7, 5 * second + 8), (5 * second, 6 * second)):
        now = [5 * second + 7]
        monkeypatch.setattr(time, "clock_gettime_ns", lambda _clock, now=now: now[0])
        monkeypatch.setattr(time, "monotonic", lambda now=now: now[0] / second)

        def sleep(_seconds: float, now: list[int] = now) -> None:
            now[0] += second // 4 if now[0] > 5 * second + 7 else 1

        monkeypatch.setattr(time, "sleep", sleep)
        result = cast("os.stat_result", SimpleNamespace(st_ctime_ns=changed_ns))
        settled_stat(lambda result=result: result)  # type: ignore[misc]
        assert now[0] >= fits_at
