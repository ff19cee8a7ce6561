"""System calls: what they tell must be true, or OSError."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from blockrep.storage.image import kernel

UNWRITTEN = 0x800


def test_a_hole_is_found_and_reads_as_zeros(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 300_000)
    with path.open("r+b") as file:
        assert kernel.punch_hole(file.fileno(), 65536, 131072)
        ranges = list(kernel.data_ranges(file.fileno(), 300_000))
        assert ranges == [(0, 65536), (196608, 300_000)]
        assert list(kernel.data_ranges(file.fileno(), 200_000))[-1] == (196608, 200_000)
    assert path.read_bytes()[65536:196608] == bytes(131072)
    with path.open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        kernel.punch_hole(file.fileno(), 0, 4096)


def test_an_empty_or_sparse_file_has_no_data(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.truncate(path, 1 << 40)
    with path.open("rb") as file:
        assert not list(kernel.data_ranges(file.fileno(), 1 << 40))


def test_cloning_to_another_file_system_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file, Path(os.devnull).open("wb") as other, pytest.raises(OSError):
        kernel.clone(file.fileno(), other.fileno())


def test_birth_time_tells_inodes_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    with path.open("rb") as file:
        before = kernel.birth_time_ns(file.fileno())
        assert kernel.birth_time_ns(file.fileno()) == before
    if not before:
        pytest.skip("this file system has no birth times")
    path.write_bytes(b"changed")
    with path.open("rb") as file:
        assert kernel.birth_time_ns(file.fileno()) == before


def test_writers_and_readers_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert not kernel.is_open_for_writing(str(path))
    assert not kernel.is_open_elsewhere(str(path))
    with path.open("rb"):
        assert not kernel.is_open_for_writing(str(path))
        assert kernel.is_open_elsewhere(str(path))
    with path.open("r+b"):
        assert kernel.is_open_for_writing(str(path))
    assert not kernel.is_open_for_writing(str(tmp_path / "nothing"))
    # The signal that a broken lease sends must not end the process.
    assert signal.getsignal(signal.SIGURG) in {signal.SIG_DFL, signal.SIG_IGN}


@pytest.mark.root
def test_maps_longer_than_one_call_are_whole(mounted_directory: Path) -> None:
    path = mounted_directory / "file"
    with path.open("wb") as file:
        for number in range(1300):
            file.seek(number * 8192)
            file.write(b"x" * 4096)
        file.truncate(1300 * 8192)
        file.flush()
        # XFS preallocates between what was written.
        every = kernel.raw_extents(file.fileno(), 1300 * 8192)
        extents = [one for one in every if not one.flags & UNWRITTEN]
        assert [one.logical_bytes for one in extents] == [one * 8192 for one in range(1300)]
        first = list(kernel.raw_extents(file.fileno(), 10 * 8192))
        assert max(one.logical_bytes for one in first) < 10 * 8192


@pytest.mark.parametrize(("kind", "is_open"), [("ext4", True), ("nfs4", False), ("cifs", False)])
def test_where_leases_need_the_servers_leave_their_lack_tells_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_open: bool
) -> None:
    path, mounts = tmp_path / "file", tmp_path / "mountinfo"
    path.write_bytes(b"x")
    device = path.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    mounts.write_text(
        "21 1 0:5 / /proc rw - proc proc rw\n"
        f"36 1 {number} / /data rw shared:1 - {kind} server rw\n"
    )
    monkeypatch.setattr(kernel, "_MOUNTS", mounts)
    with path.open("rb"):
        assert kernel.is_open_elsewhere(str(path)) is is_open
