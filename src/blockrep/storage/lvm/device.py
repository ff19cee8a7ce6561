"""Block devices: opened only as what they must be, read and written whole, discarded by chunks.

ioctl numbers from linux/fs.h; the form of dm uuids from LVM's source (lib/activate/dev_manager.c).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from pathlib import Path
from typing import Final

from blockrep.errors import NoSpaceError, StorageError, VolumeError
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.reports import LogicalVolume

__all__ = ["BlockDevice", "device_bytes", "device_path"]

_BLKDISCARD: Final = 0x1277
_BLKGETSIZE64: Final = 0x80081272
_RANGE = struct.Struct("=QQ")
_SIZE = struct.Struct("=Q")
_SECTOR_BYTES: Final = 512
_ZEROS = memoryview(bytes(1024 * 1024))


def device_path(volume: LogicalVolume) -> str:
    """Return the path of a volume's device."""
    return f"/dev/mapper/{commands.dm_name(volume.vg, volume.name)}"


def device_bytes(volume: LogicalVolume) -> int:
    """Return the size that the kernel gives an active volume's device; -1 if there is no device.

    Does not open it.
    """
    try:
        number = Path(device_path(volume)).stat().st_rdev
        text = Path(f"{_sysfs(number)}/size").read_text(encoding="ascii")
    except OSError:
        return -1
    return int(text) * _SECTOR_BYTES


class BlockDevice:
    """An open device of a logical volume.

    Never created (a missing node must not become a file in /dev), never a file, and by its dm uuid
    the volume that is meant. Writable: exclusively, which fails if it is mounted or used by another
    device.

    Args:
        volume: must be active.
        writable: also exclusive.

    Raises:
        VolumeError: no such device, another volume's, or in use.
        StorageError: it cannot be opened.
    """

    def __init__(self, volume: LogicalVolume, *, writable: bool) -> None:
        self.path = device_path(volume)
        flags = (os.O_RDWR | os.O_EXCL) if writable else os.O_RDONLY
        try:
            self._fd = os.open(self.path, flags | os.O_CLOEXEC)
        except OSError as error:
            kind = VolumeError if error.errno in {errno.EBUSY, errno.ENOENT} else StorageError
            raise kind(
                f"cannot be opened: {error.strerror}",
                where=self.path,
                safe="nothing was written",
                next_step="close (unmount) the volume, and see whether it is active",
            ) from error
        try:
            self._check_identity(volume)
            self.size_bytes = _SIZE.unpack(fcntl.ioctl(self._fd, _BLKGETSIZE64, bytes(8)))[0]
        except BaseException:
            self.close()
            raise

    def _check_identity(self, volume: LogicalVolume) -> None:
        status = os.fstat(self._fd)
        wanted = f"LVM-{volume.vg_uuid}{volume.uuid}".replace("-", "")
        found = ""
        if stat.S_ISBLK(status.st_mode):
            with contextlib.suppress(OSError):
                path = Path(f"{_sysfs(status.st_rdev)}/dm/uuid")
                found = path.read_text(encoding="ascii").strip().replace("-", "")
        if found != wanted:
            raise VolumeError(
                f"is not the device of {volume.full_name}",
                where=self.path,
                safe="nothing was written",
                next_step="see dmsetup info -c; reactivate the volume (lvchange -an, -ay)",
            )

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill the buffer. Raises StorageError: the read failed, or the device ends early."""
        done = 0
        try:
            while done < len(buffer):
                count = os.preadv(self._fd, [buffer[done:]], offset_bytes + done)
                if not count:
                    raise StorageError(
                        f"the device ends at {offset_bytes + done} bytes", where=self.path
                    )
                done += count
        except OSError as error:
            raise self._failed("reading", offset_bytes, len(buffer), error) from error

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Write all of the data. Raises StorageError, NoSpaceError."""
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._fd, data[done:], offset_bytes + done)
        except OSError as error:
            raise self._failed("writing", offset_bytes, len(data), error) from error

    def write_zeros(self, offset_bytes: int, length_bytes: int) -> None:
        """Write zeros. Raises as :meth:`write`."""
        end = offset_bytes + length_bytes
        while offset_bytes < end:
            count = min(len(_ZEROS), end - offset_bytes)
            self.write(offset_bytes, _ZEROS[:count])
            offset_bytes += count

    def discard(self, offset_bytes: int, length_bytes: int) -> bool:
        """Unmap whole chunks, which then read as zeros; False: the device cannot.

        Of a chunk that the range covers in part, the kernel silently keeps the content: the caller
        aligns. Raises StorageError.
        """
        try:
            fcntl.ioctl(self._fd, _BLKDISCARD, _RANGE.pack(offset_bytes, length_bytes))
        except OSError as error:
            if error.errno in {errno.EOPNOTSUPP, errno.ENOTTY}:
                return False
            raise self._failed("discarding", offset_bytes, length_bytes, error) from error
        return True

    def sync(self) -> None:
        """Put what was written on stable storage; the pool commits its metadata with it.

        Raises:
            StorageError: it failed. A second attempt would say nothing about what was lost.
        """
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise StorageError(
                f"what was written could not be made durable: {error.strerror}",
                where=self.path,
                safe="the replica and its good snapshots are untouched",
                next_step="see the kernel's log and the thin pool's state (lvs), then push again",
            ) from error

    def close(self) -> None:
        """Close; what was not synced may be lost."""
        os.close(self._fd)

    def _failed(
        self, what: str, offset_bytes: int, length_bytes: int, error: OSError
    ) -> StorageError | NoSpaceError:
        kind = NoSpaceError if error.errno == errno.ENOSPC else StorageError
        return kind(
            f"{what} {length_bytes} bytes at offset {offset_bytes} failed: {error.strerror}",
            where=self.path,
            safe="the replica and its good snapshots are untouched",
            next_step="see the kernel's log and the thin pool's state (lvs), then push again",
        )


def _sysfs(number: int) -> str:
    return f"/sys/dev/block/{os.major(number)}:{os.minor(number)}"
