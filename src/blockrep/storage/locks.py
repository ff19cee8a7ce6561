"""One holder at a time for a volume, across processes: flock on a file that also says who holds it.

The kernel drops an flock with its process, so a crash never leaves a lock behind. All roles of one
volume that exclude each other use the key of :func:`lock_key`, however the volume was named.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from pathlib import Path
from typing import Self

from blockrep.errors import BusyError, UnsupportedHostError
from blockrep.model.names import VolumeName

__all__ = ["FileLock", "VolumeLock", "lock_key"]

_MAX_HOLDER_BYTES = 512


def lock_key(role: str, name: VolumeName, held_for: str = "") -> str:
    """Return what a :class:`VolumeLock` is taken on, the same for every spelling of a path.

    Args:
        role: ``source``, ``target``, or what else is done one by one.
        name: the volume; symbolic links in a path are followed now.
        held_for: of a source, the target: others may read it for other targets meanwhile.
    """
    volume = os.path.realpath(name.path) if name.path else str(name)
    return f"{role} {volume} to {held_for}" if held_for else f"{role} {volume}"


class FileLock:
    """Holds a lock file until :meth:`release`; also a context manager.

    Args:
        path: the lock file, created if missing; its directory exists.
        what: what is locked, for messages.
        holder: who we are, for whoever finds the lock taken.

    Raises:
        BusyError: somebody else holds it; names the holder.
        UnsupportedHostError: the file system has no such locks.
        OSError: the lock file cannot be opened.
    """

    def __init__(self, path: Path, what: str, holder: str) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            self._take(path, what)
            self._sign(holder)
        except BaseException:
            os.close(self._fd)
            raise

    def _sign(self, holder: str) -> None:
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, holder.encode(errors="replace")[:_MAX_HOLDER_BYTES], 0)
        except OSError as error:
            # On a full file system what frees room must be possible; only the name is missing.
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise

    def _take(self, path: Path, what: str) -> None:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(self._fd, _MAX_HOLDER_BYTES, 0).decode(errors="replace").strip()
            raise BusyError(
                f"in use by {other or 'another process'}",
                where=what,
                safe="nothing was changed",
                next_step="wait for it to end, then try again",
            ) from None
        except OSError as error:
            raise UnsupportedHostError(
                f"files there cannot be locked: {error.strerror}",
                where=str(path),
                safe="nothing was changed",
                next_step="use a file system that has flock(2)",
            ) from error

    def release(self) -> None:
        """Let go of the lock. The file stays: removing it would race with whoever opens it next."""
        try:
            os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Release."""
        self.release()


class VolumeLock(FileLock):
    """The lock of a volume.

    Args:
        runtime_directory: where lock files live; created if missing.
        key: what is locked; any text, see :func:`lock_key`.
        holder: who we are, for whoever finds the lock taken.

    Raises:
        BusyError: somebody else holds it; names the holder.
        UnsupportedHostError: the lock file cannot be made.
    """

    def __init__(self, runtime_directory: Path, key: str, holder: str) -> None:
        name = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()[:32]
        path = runtime_directory / "locks" / f"{name}.lock"
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            super().__init__(path, key, holder)
        except OSError as error:
            raise UnsupportedHostError(
                f"the lock file cannot be opened: {error.strerror}",
                where=str(path),
                safe="nothing was changed",
                next_step="run as a user who may write there, or set storage.runtime_directory",
            ) from error
