"""What may be too much to hold: a temporary file, in memory while it is small."""

from __future__ import annotations

import contextlib
import errno
import tempfile
from collections.abc import Iterator

from blockrep.errors import NoSpaceError, StorageError

__all__ = ["Spool"]

_MEMORY_BYTES = 4 * 1024 * 1024
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


class Spool:
    """Written from the start to the end, then read as often as needed.

    Up to 4 MiB lie in memory, more in an unlinked file. Methods raise NoSpaceError if the temporary
    folder is full, StorageError if it cannot be used.
    """

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - see close

    def write(self, data: bytes) -> None:
        """Append."""
        with _spool_errors():
            self._file.write(data)

    def rewind(self) -> None:
        """Go to the start, to read."""
        with _spool_errors():
            self._file.seek(0)

    def read(self, size_bytes: int) -> bytes:
        """Read on; empty at the end."""
        with _spool_errors():
            return self._file.read(size_bytes)

    def close(self) -> None:
        """Give the room back."""
        with contextlib.suppress(OSError):  # of what was not written yet; nobody wants it
            self._file.close()


@contextlib.contextmanager
def _spool_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in _NO_ROOM else StorageError
        raise kind(
            f"a temporary file cannot be used: {error.strerror or error}",
            where=tempfile.gettempdir(),
            safe="nothing was changed",
            next_step="make room there, or have TMPDIR name another folder; then run it again",
        ) from error
