"""One process at a time in a directory of ours, by whatever name and configuration it came.

The lock of a server or a pull goes by the path as it resolves and by the runtime directory; bind
mounts, renamed folders and a second configuration lead past it. This one lies in the directory
itself. It is held for the life of a transfer, and for each change outside of one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator

from blockrep.errors import BusyError
from blockrep.storage.image.files import storage_error
from blockrep.storage.image.sidecar import ImageFile
from blockrep.storage.locks import FileLock

__all__ = ["Hold", "held_briefly"]

_NAME = "lock"
_WAIT_SECONDS = 60.0
_RETRY_SECONDS = 0.02


@contextlib.contextmanager
def held_briefly(image: ImageFile) -> Iterator[None]:
    """Hold a source's directory for a change: pushes to other targets may change it, too.

    Waits for them: a change takes no longer than a clone does. Raises as :meth:`Hold.take`.
    """
    hold = Hold(image)
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            hold.take()
            break
        except BusyError:
            if time.monotonic() > deadline:
                raise
            time.sleep(_RETRY_SECONDS)
    try:
        yield
    finally:
        hold.release()


class Hold:
    """Counts who holds the directory: it may be taken again by whoever has it. A context manager.

    Args:
        image: whose directory; while that does not exist, there is nothing to hold.
    """

    def __init__(self, image: ImageFile) -> None:
        self._image = image
        self._lock: FileLock | None = None
        self._count = 0

    def take(self) -> None:
        """Hold the directory, once more.

        Raises:
            BusyError: another process holds it.
            UnsupportedHostError: its file system has no locks.
            StorageError: the lock file cannot be opened.
        """
        if self._lock is None and self._image.directory.is_dir():
            self._lock = self._locked()
        self._count += 1

    def make(self) -> bool:
        """Make the directory, and hold it, too; True if it was not held before.

        Then whoever was first may have changed anything since the caller looked. Raises as
        :meth:`take`.
        """
        self._image.make_directory()
        if self._lock is not None:
            return False
        self._lock = self._locked()
        return self._lock is not None

    def release(self) -> None:
        """Undo one :meth:`take`."""
        self._count -= 1
        if not self._count and self._lock is not None:
            lock, self._lock = self._lock, None
            lock.release()

    def __enter__(self) -> None:
        """Take."""
        self.take()

    def __exit__(self, *exc: object) -> None:
        """Release."""
        self.release()

    def _locked(self) -> FileLock | None:
        path = self._image.directory / _NAME
        try:
            return FileLock(path, str(self._image.path), f"process {os.getpid()}")
        except OSError as error:
            if error.errno == errno.EROFS:
                return None  # nothing can be changed there
            raise storage_error(error, "its lock file cannot be opened", path) from error
