"""Small files and names that survive a crash, and writes that are whole. Failures are OSError."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["make_directories", "opened_fd", "sync_directory", "write_durably", "write_full"]


@contextlib.contextmanager
def opened_fd(path: str | Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """Open a file (never through a symbolic link, never blocking on a FIFO) and close it."""
    fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def write_full(fd: int, data: memoryview, offset_bytes: int) -> None:
    """Write all of the data."""
    done = os.pwrite(fd, data, offset_bytes)
    while done < len(data):
        done += os.pwrite(fd, data[done:], offset_bytes + done)


def sync_directory(directory: Path) -> None:
    """Make names that were created, renamed or removed in a directory durable."""
    with opened_fd(directory, os.O_RDONLY | os.O_DIRECTORY) as fd:
        os.fsync(fd)


def make_directories(directory: Path) -> None:
    """Make a directory, and those above it, durably, for our eyes only; it may be there already."""
    if not directory.exists():
        make_directories(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Replace a small file atomically: after a crash it has its old content or this."""
    temporary = path.with_name(path.name + ".tmp")
    with opened_fd(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as fd:
        write_full(fd, memoryview(content), 0)
        os.fsync(fd)
    temporary.replace(path)
    sync_directory(path.parent)
