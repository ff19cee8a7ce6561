"""System calls that Python's os module lacks: reflinks, extent maps, holes, leases, birth times.

Facts from ioctl_ficlone(2), Documentation/filesystems/fiemap.rst, fallocate(2), statx(2) and
F_SETLEASE in fcntl(2). Failures are OSError; whoever calls says what that means for the volume.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "RawExtent",
    "birth_time_ns",
    "clone",
    "commit_transaction",
    "data_ranges",
    "is_open_elsewhere",
    "is_open_for_writing",
    "punch_hole",
    "raw_extents",
]

_FICLONE = 0x40049409
_BTRFS_IOC_SYNC = 0x9408  # _IO(BTRFS_IOCTL_MAGIC, 8), linux/btrfs.h
_FS_IOC_FIEMAP = 0xC020660B
_FS_IOC_GETFLAGS = 0x80086601
_FS_IOC_SETFLAGS = 0x40086602
_FLAGS = struct.Struct("=L4x")  # the calls' numbers say long, the kernel means int
_FS_NOCOW_FL = 0x00800000
_FIEMAP_FLAG_SYNC = 1
_FIEMAP_EXTENT_LAST = 1
_FIEMAP_HEADER = struct.Struct("=QQLLLL")  # start, length, flags, mapped extents, room for extents
_FIEMAP_EXTENT = struct.Struct("=QQQQQLLLL")  # logical, physical, length, -, -, flags, -, -, -
_EXTENTS_PER_CALL = 512

_PUNCH_HOLE_KEEP_SIZE = 0x02 | 0x01
_MOUNTS = Path("/proc/self/mountinfo")
_REMOTE = {"nfs", "nfs4", "cifs", "smb3"}
_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_BYTES = 256
_STATX_MASK = struct.Struct("=L")
_STATX_BTIME_FIELD = struct.Struct("=qL")
_STATX_BTIME_OFFSET = 80

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]


@dataclass(frozen=True, slots=True)
class RawExtent:
    """One extent as FIEMAP tells it; offsets and length in bytes."""

    logical_bytes: int
    physical_bytes: int
    length_bytes: int
    flags: int


def clone(source_fd: int, target_fd: int) -> None:
    """Make the target, an empty file, share all blocks of the source, as of one moment."""
    try:
        fcntl.ioctl(target_fd, _FICLONE, source_fd)
    except OSError as error:
        # btrfs: files with checksums share nothing with files without (chattr +C).
        if error.errno != errno.EINVAL or not _copy_nocow(source_fd, target_fd):
            raise
        fcntl.ioctl(target_fd, _FICLONE, source_fd)


def _copy_nocow(source_fd: int, target_fd: int) -> bool:
    """Give an empty file the other's attribute "no copy on write"; False: it has that already."""
    flags = [bytearray(_FLAGS.size), bytearray(_FLAGS.size)]
    for fd, raw in zip((source_fd, target_fd), flags, strict=True):
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, raw, True)
    (wanted,), (found,) = (_FLAGS.unpack(raw) for raw in flags)
    if (wanted ^ found) & _FS_NOCOW_FL == 0:
        return False
    fcntl.ioctl(target_fd, _FS_IOC_SETFLAGS, _FLAGS.pack(found ^ _FS_NOCOW_FL))
    return True


def commit_transaction(fd: int) -> None:
    """Have btrfs count in statvfs what was written: fsync leaves that to its next transaction."""
    try:
        fcntl.ioctl(fd, _BTRFS_IOC_SYNC)
    except OSError as error:
        if error.errno not in {errno.ENOTTY, errno.EINVAL, errno.EOPNOTSUPP}:
            raise


def raw_extents(fd: int, size_bytes: int) -> Iterator[RawExtent]:
    """Yield the extents that begin below ``size_bytes``, ascending.

    What was written but not allocated is flushed first.
    """
    buffer = bytearray(_FIEMAP_HEADER.size + _EXTENTS_PER_CALL * _FIEMAP_EXTENT.size)
    start = 0
    flags = _FIEMAP_FLAG_SYNC
    while start < size_bytes:
        _FIEMAP_HEADER.pack_into(
            buffer, 0, start, size_bytes - start, flags, 0, _EXTENTS_PER_CALL, 0
        )
        fcntl.ioctl(fd, _FS_IOC_FIEMAP, buffer, True)
        mapped = _FIEMAP_HEADER.unpack_from(buffer)[3]
        for number in range(mapped):
            fields = _FIEMAP_EXTENT.unpack_from(
                buffer, _FIEMAP_HEADER.size + number * _FIEMAP_EXTENT.size
            )
            extent = RawExtent(fields[0], fields[1], fields[2], fields[5])
            yield extent
            start = extent.logical_bytes + extent.length_bytes
            if extent.flags & _FIEMAP_EXTENT_LAST:
                return
        if not mapped:
            return
        flags = 0


def data_ranges(fd: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of what may hold data, ascending, from SEEK_DATA.

    Everything where that is not known.
    """
    position = 0
    while position < size_bytes:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            end = os.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            if error.errno != errno.EINVAL:
                raise
            start, end = position, size_bytes
        if start >= size_bytes:
            return
        yield start, min(end, size_bytes)
        position = end


def punch_hole(fd: int, offset_bytes: int, length_bytes: int) -> bool:
    """Free a range, which then reads as zeros; False where the file system cannot."""
    while _libc.fallocate(fd, _PUNCH_HOLE_KEEP_SIZE, offset_bytes, length_bytes):
        number = ctypes.get_errno()
        if number in {errno.EOPNOTSUPP, errno.ENOSYS}:
            return False
        if number != errno.EINTR:
            raise OSError(number, os.strerror(number))
    return True


def birth_time_ns(fd: int) -> int:
    """Return when the inode was made, 0 where the file system does not tell.

    Tells a reused inode number from its predecessor.
    """
    result = bytearray(_STATX_BYTES)
    raw = (ctypes.c_char * _STATX_BYTES).from_buffer(result)
    try:
        failed = _libc.statx(fd, b"", _AT_EMPTY_PATH, _STATX_BTIME, raw)
    except AttributeError:  # a C library without statx
        return 0
    if failed or not _STATX_MASK.unpack_from(result)[0] & _STATX_BTIME:
        return 0
    seconds, nanoseconds = _STATX_BTIME_FIELD.unpack_from(result, _STATX_BTIME_OFFSET)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def is_open_for_writing(path: str) -> bool:
    """Tell whether any process has the file open for writing.

    False where that cannot be found out.
    """
    return _lease_refused(path, fcntl.F_RDLCK)


def is_open_elsewhere(path: str) -> bool:
    """Tell whether the file is open at all (a loop device counts).

    False where that cannot be found out.
    """
    return _lease_refused(path, fcntl.F_WRLCK)


def _lease_refused(path: str, lease: int) -> bool:
    # A read lease is refused while anybody has the file open for writing, a write lease while
    # anybody has it open.
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Whoever opens the file while we hold the lease has the kernel signal us: by a signal that
        # is ignored, not SIGIO, which kills.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, lease)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        # Clients of a file server answer so also where the server gave them no delegation.
        return error.errno == errno.EAGAIN and not _is_remote(fd)
    finally:
        os.close(fd)
    return False


def _is_remote(fd: int) -> bool:
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in _MOUNTS.read_text().splitlines() if _MOUNTS.exists() else ():
        fields = line.split()  # proc_pid_mountinfo(5)
        if fields[2] == wanted:
            return fields[fields.index("-") + 1] in _REMOTE
    return False
