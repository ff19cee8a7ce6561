"""Redo files: the writes of one transfer, in order, to be copied in once it is committed.

Each record is a header and, for a write, the data. The header holds an XXH3-128 digest of its own
fields and the data, keyed with a number of this file, so that reading stops at the first record
that a crash tore. Replaying all of it again gives the same content.

::

    0 kind u8 (0 write, 1 clear)  1 offset u64  9 length u64  17 digest (16 bytes)  33 ... data
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import xxhash

from blockrep.errors import StorageError
from blockrep.storage.files import write_full
from blockrep.storage.image.files import clear_range, read_full

__all__ = ["MAX_RECORD_BYTES", "DamagedRedoError", "RedoLog"]

MAX_RECORD_BYTES = 1024 * 1024

_WRITE = 0
_CLEAR = 1
_FIELDS = struct.Struct("<BQQ")
_DIGEST_BYTES = 16
_HEADER_BYTES = _FIELDS.size + _DIGEST_BYTES


class DamagedRedoError(StorageError):
    """Of what was synced, not all is intact."""


class RedoLog:
    """An open redo file.

    Args:
        path: the file, created if missing.
        key: 16 hexadecimal digits or more, the first of which key the digests.
        durable_bytes: what was synced and must be intact; what follows is dropped. 0: a new file.

    Raises:
        DamagedRedoError: less than that is intact.
        OSError: the file cannot be used.
    """

    def __init__(self, path: Path, key: str, durable_bytes: int) -> None:
        self._path = path
        self._seed = int(key[:16], 16)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._fd = os.open(path, flags, 0o600)
        try:
            self._check_durable(durable_bytes)
            # What follows reads well, perhaps, but only from memory: a sync may have failed on it.
            os.ftruncate(self._fd, durable_bytes)
            self.end_bytes = durable_bytes
        except BaseException:
            os.close(self._fd)
            raise

    def _check_durable(self, durable_bytes: int) -> None:
        intact_bytes = 0
        for _, _, _, end in self._replay():
            if intact_bytes >= durable_bytes:
                break
            intact_bytes = end
        if intact_bytes != durable_bytes:
            raise self._damaged(intact_bytes)

    def _damaged(self, intact_bytes: int) -> DamagedRedoError:
        return DamagedRedoError(
            f"what was synced is damaged from byte {intact_bytes} on",
            where=str(self._path),
            safe="the good snapshot is untouched unless this very file was being copied in",
            next_step="check the disk; then push with --adopt",
        )

    def is_at(self, path: Path) -> bool:
        """Tell whether this file is what lies there. Raises OSError."""
        return os.path.samestat(os.fstat(self._fd), path.lstat())

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Append a write. Raises OSError."""
        for start in range(0, len(data), MAX_RECORD_BYTES):
            part = data[start : start + MAX_RECORD_BYTES]
            fields = _FIELDS.pack(_WRITE, offset_bytes + start, len(part))
            header = fields + self._digest(fields, part)
            done = os.pwritev(self._fd, [header, part], self.end_bytes)
            if done < _HEADER_BYTES + len(part):
                write_full(self._fd, memoryview(header + bytes(part))[done:], self.end_bytes + done)
            self.end_bytes += _HEADER_BYTES + len(part)

    def clear(self, offset_bytes: int, length_bytes: int) -> None:
        """Append a clear. Raises OSError."""
        fields = _FIELDS.pack(_CLEAR, offset_bytes, length_bytes)
        header = fields + self._digest(fields, memoryview(b""))
        write_full(self._fd, memoryview(header), self.end_bytes)
        self.end_bytes += len(header)

    def sync(self) -> int:
        """Make durable what was appended before.

        Return how many bytes of the file that is. Raises OSError.
        """
        covered_bytes = self.end_bytes
        os.fdatasync(self._fd)
        return covered_bytes

    def copy_into(self, fd: int) -> None:
        """Do all that the records say to a file.

        Raises:
            DamagedRedoError: not all of them can be read any more.
            OSError: writing failed.
        """
        done_bytes = 0
        for offset, length, data, done_bytes in self._replay():  # noqa: B007 - where it ended
            if data is None:
                clear_range(fd, offset, length)
            else:
                write_full(fd, data, offset)
        if done_bytes != self.end_bytes:
            raise self._damaged(done_bytes)

    def _replay(self) -> Iterator[tuple[int, int, memoryview | None, int]]:
        """Yield (offset, length, data, end) of each intact record.

        The data, None for a clear, is valid until the next; ``end`` is in the redo file.
        """
        view = memoryview(bytearray(MAX_RECORD_BYTES))
        position = 0
        while True:
            header = os.pread(self._fd, _HEADER_BYTES, position)
            if len(header) < _HEADER_BYTES:
                return
            kind, offset, length = _FIELDS.unpack_from(header)
            data_bytes = length if kind == _WRITE else 0
            if kind not in {_WRITE, _CLEAR} or data_bytes > MAX_RECORD_BYTES:
                return
            data = view[:data_bytes]
            if not read_full(self._fd, data, position + _HEADER_BYTES):
                return
            if self._digest(header[: _FIELDS.size], data) != header[_FIELDS.size :]:
                return
            position += _HEADER_BYTES + data_bytes
            yield offset, length, data if kind == _WRITE else None, position

    def _digest(self, fields: bytes, data: memoryview) -> bytes:
        # In two steps: joining the fields and the data would copy the data.
        state = xxhash.xxh3_128(fields, self._seed)
        state.update(data)
        return state.digest()
