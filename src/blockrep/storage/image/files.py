"""Files as the image kind needs them.

Errors that users understand, state that survives a crash, whole reads and writes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blockrep.errors import BlockrepError, NoSpaceError, StorageError
from blockrep.model.snapshots import Space
from blockrep.storage.files import opened_fd, write_full
from blockrep.storage.image import kernel

__all__ = [
    "FileStamp",
    "clear_range",
    "clone_file",
    "io_errors",
    "read_full",
    "remove_file",
    "settled_stat",
    "space_of",
    "storage_error",
]

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}
_ZEROS = bytes(1024 * 1024)
_SECOND_NS = 1_000_000_000
#: Longer than a second, for clocks of a second.
_SETTLE_SECONDS = 1.5
_COARSE_CLOCK = 5  # CLOCK_REALTIME_COARSE of clock_gettime(2): what file systems stamp files with
_UNLIMITED_CHUNKS = 1 << 62


@dataclass(frozen=True, slots=True)
class FileStamp:
    """What changes when a file's content does (or when another file takes its place).

    The device number is left out: a reboot may renumber devices.
    """

    inode: int
    size_bytes: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, result: os.stat_result) -> FileStamp:
        """Take the stamp from a stat."""
        return cls(result.st_ino, result.st_size, result.st_mtime_ns, result.st_ctime_ns)

    def has_content_of(self, other: FileStamp) -> bool:
        """Tell whether it is the same file, not written to; its name and mode may differ."""
        mine = (self.inode, self.size_bytes, self.modified_ns)
        return mine == (other.inode, other.size_bytes, other.modified_ns)


def settled_stat(look: Callable[[], os.stat_result]) -> os.stat_result:
    """Return a stat from which every later write will differ.

    Not while the clock shows the time of the last change. There are file systems that know no
    parts of a second (ext4 with inodes of 128 bytes).
    """
    deadline = time.monotonic() + _SETTLE_SECONDS
    while True:
        result = look()
        step_ns = 1 if result.st_ctime_ns % _SECOND_NS else _SECOND_NS
        now_ns = time.clock_gettime_ns(_COARSE_CLOCK)
        if now_ns >= result.st_ctime_ns + step_ns or time.monotonic() > deadline:
            return result
        time.sleep(0.001)


def storage_error(
    error: OSError, what: str, where: str | Path, safe: str | None = None
) -> BlockrepError:
    """Turn a failed system call into NoSpaceError (no room, no quota) or StorageError."""
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return NoSpaceError(
            f"{what}: {reason}",
            where=str(where),
            safe=safe or "the replica and its snapshots are untouched",
            next_step="make room, then run the same command again",
        )
    return StorageError(
        f"{what}: {reason}",
        where=str(where),
        safe=safe or "what was committed is untouched",
        next_step="check the permissions, the file system and the kernel's log",
    )


@contextlib.contextmanager
def io_errors(what: str, where: str | Path, safe: str | None = None) -> Iterator[None]:
    """Turn OSError into blockrep's errors (see :func:`storage_error`).

    Not for paths where microseconds count.
    """
    try:
        yield
    except OSError as error:
        raise storage_error(error, what, where, safe) from error


def remove_file(path: Path) -> None:
    """Remove a file that may be gone already."""
    path.unlink(missing_ok=True)


def clone_file(source: Path, target: Path) -> None:
    """Make ``target``, durably and whatever was there, share all blocks of ``source``.

    Raises OSError.
    """
    with (
        opened_fd(source, os.O_RDONLY) as source_fd,
        opened_fd(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC) as target_fd,
    ):
        if not stat.S_ISREG(os.fstat(source_fd).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        kernel.clone(source_fd, target_fd)
        os.fsync(target_fd)


def read_full(fd: int, buffer: memoryview, offset_bytes: int) -> bool:
    """Fill the buffer; False if the file ends early."""
    done = os.preadv(fd, [buffer], offset_bytes)
    while done < len(buffer):
        count = os.preadv(fd, [buffer[done:]], offset_bytes + done)
        if not count:
            return False
        done += count
    return True


def clear_range(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """Make a range read as zeros, by a hole where the file system can."""
    if kernel.punch_hole(fd, offset_bytes, length_bytes):
        return
    zeros = memoryview(_ZEROS)
    end = offset_bytes + length_bytes
    while offset_bytes < end:
        count = min(len(zeros), end - offset_bytes)
        write_full(fd, zeros[:count], offset_bytes)
        offset_bytes += count


def space_of(path: str | Path | int, reserve_percent: int) -> Space:
    """Return the room of a file system above its reserve, as this user may use it."""
    result = os.statvfs(path)
    reserve_bytes = result.f_blocks * result.f_frsize * reserve_percent // 100
    free_bytes = result.f_bavail * result.f_frsize - reserve_bytes
    return Space(max(result.f_frsize, 1), max(free_bytes, 0), _UNLIMITED_CHUNKS)
