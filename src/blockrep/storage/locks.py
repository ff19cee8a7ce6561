"""One holder at a time for a volume, across processes: flock on a file that also says who holds it.

The kernel drops an flock with its process, so a crash never leaves a lock behind.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from pathlib import Path
from typing import Self

from blockrep.errors import BusyError, UnsupportedHostError

__all__ = ["VolumeLock"]

_MAX_HOLDER_BYTES = 512


class VolumeLock:
    """Holds a lock until :meth:`release`; also a context manager.

    Args:
        runtime_directory: where lock files live; created if missing.
        key: what is locked; any text.
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
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise UnsupportedHostError(
                f"the lock file cannot be opened: {error.strerror}",
                where=str(path),
                safe="nothing was changed",
                next_step="run as a user who may write there, or set storage.runtime_directory",
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = os.pread(self._fd, _MAX_HOLDER_BYTES, 0).decode(errors="replace").strip()
            os.close(self._fd)
            raise BusyError(
                f"in use by {other or 'another process'}",
                where=key,
                safe="nothing was changed",
                next_step="wait for it to end, then try again",
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, holder.encode(errors="replace")[:_MAX_HOLDER_BYTES], 0)

    def release(self) -> None:
        """Let go of the lock. The file stays: removing it would race with whoever opens it next."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Release."""
        self.release()
