"""Only the device that is meant is ever opened, and nothing is written beside it (trap 10)."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path

import pytest

from blockrep.errors import BlockrepError, NoSpaceError, StorageError, VolumeError
from blockrep.storage.lvm import device as module
from blockrep.storage.lvm.device import BlockDevice, device_bytes, device_path
from storage.lvm.builders import volume

KIB = 1024


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of the device: what it is asked for as a device is answered for it."""
    path = tmp_path / "device"
    path.write_bytes(bytes(64 * KIB))
    sysfs = tmp_path / "sysfs"
    (sysfs / "dm").mkdir(parents=True)
    (sysfs / "dm" / "uuid").write_text("LVM-vguuidvolumeuuid\n")
    (sysfs / "size").write_text("128\n")
    monkeypatch.setattr(module, "device_path", lambda _volume: str(path))
    monkeypatch.setattr(module, "_sysfs", lambda _number: str(sysfs))
    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: True)
    real = fcntl.ioctl

    def ioctl(fd: int, request: int, argument: bytes) -> bytes:
        if request == 0x80081272:
            return path.stat().st_size.to_bytes(8, "little")
        return real(fd, request, argument)

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    return path


def test_reading_and_writing(file: Path) -> None:
    device = BlockDevice(volume(), writable=True)
    assert device.size_bytes == 64 * KIB
    device.write(100, memoryview(b"content"))
    device.write_zeros(102, 2)
    device.sync()
    buffer = bytearray(9)
    device.read_into(99, memoryview(buffer))
    assert buffer == b"\0co\0\0ent\0"
    device.close()
    assert file.read_bytes()[99:108] == buffer


@pytest.mark.usefixtures("file")
def test_the_end_of_the_device_is_an_error() -> None:
    device = BlockDevice(volume(), writable=False)
    with pytest.raises(StorageError, match="the device ends at 65536 bytes"):
        device.read_into(64 * KIB - 4, memoryview(bytearray(8)))
    device.close()


@pytest.mark.usefixtures("file")
def test_another_volumes_device_is_refused_and_closed() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(VolumeError, match="is not the device of volg/thin_volume"):
        BlockDevice(volume(uuid="another"), writable=True)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_who_writes_has_the_device_alone(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses O_EXCL for a device that is mounted, or part of another one."""
    real, asked = os.open, []

    def busy(path: str, flags: int, *arguments: int) -> int:
        if path != str(file):
            return real(path, flags, *arguments)
        asked.append(flags)
        if flags & os.O_EXCL:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return real(path, flags, *arguments)

    monkeypatch.setattr(os, "open", busy)
    with pytest.raises(VolumeError, match="cannot be opened: Device or resource busy"):
        BlockDevice(volume(), writable=True)
    BlockDevice(volume(), writable=False).close()
    assert not any(flags & os.O_CREAT for flags in asked)


def test_a_missing_device_never_becomes_a_file(file: Path) -> None:
    file.unlink()
    with pytest.raises(VolumeError, match="No such file"):
        BlockDevice(volume(), writable=True)
    assert not file.exists()


@pytest.mark.usefixtures("file")
def test_a_plain_file_is_no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stat, "S_ISBLK", lambda _mode: False)
    with pytest.raises(VolumeError, match="is not the device"):
        BlockDevice(volume(), writable=False)


@pytest.mark.parametrize(
    ("call", "number", "error", "words"),
    [
        ("pwrite", errno.EIO, StorageError, "writing 4 bytes at offset 8192 failed"),
        ("pwrite", errno.ENOSPC, NoSpaceError, "writing 4 bytes"),
        ("preadv", errno.EIO, StorageError, "reading 4 bytes at offset 8192 failed"),
        ("fdatasync", errno.EIO, StorageError, "could not be made durable"),
    ],
)
def test_errors_name_the_range(
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    number: int,
    error: type[BlockrepError],
    words: str,
) -> None:
    device = BlockDevice(volume(), writable=True)

    def fail(*_arguments: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, fail)
    uses = {
        "pwrite": lambda: device.write(8192, memoryview(b"data")),
        "preadv": lambda: device.read_into(8192, memoryview(bytearray(4))),
        "fdatasync": device.sync,
    }
    with pytest.raises(error, match=words) as caught:
        uses[call]()
    assert str(file) in str(caught.value)
    device.close()


@pytest.mark.usefixtures("file")
def test_a_device_that_cannot_discard_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    device = BlockDevice(volume(), writable=True)
    assert device.discard(0, 4096) is False  # a file: ENOTTY

    def fail(*_arguments: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "ioctl", fail)
    with pytest.raises(StorageError, match="discarding 4096 bytes at offset 0"):
        device.discard(0, 4096)
    monkeypatch.setattr(fcntl, "ioctl", lambda *_arguments: b"")
    assert device.discard(0, 4096) is True
    device.close()


def test_the_size_that_the_kernel_gives(file: Path) -> None:
    assert device_bytes(volume()) == 64 * KIB
    file.unlink()
    assert device_bytes(volume()) == -1


def test_hyphens_in_the_path() -> None:
    assert device_path(volume(vg="a-b", name="c-d")) == "/dev/mapper/a--b-c--d"
