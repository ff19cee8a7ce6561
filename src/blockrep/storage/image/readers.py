"""Readers of the image kind.

Of files that nobody writes, and of a live file whose every block is held against its digest table.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from blockrep.errors import BlockrepError, StorageError, VolumeError
from blockrep.model.extents import Extent
from blockrep.storage.image import fiemap, kernel, scanning
from blockrep.storage.image.files import FileStamp, io_errors, read_full, storage_error
from blockrep.storage.image.table import BLOCK_BYTES, DigestTable

__all__ = ["CloneReader", "FileReader", "ResizedReader", "TableReader", "changed_error"]


def changed_error(path: Path) -> VolumeError:
    """Return the error of a source that cannot be snapshotted and did not hold still."""
    return VolumeError(
        "the file changed while it was being read, and its file system has no snapshots",
        where=str(path),
        safe="nothing was committed; the replica and its snapshots are untouched",
        next_step="stop the writer, or use a file system with snapshots (XFS, btrfs) or LVM;"
        " then push again",
    )


class FileReader:
    """Reads a file that nobody writes; opened by the constructor, closed by leaving the context.

    Raises:
        VolumeError: there is no such file.
        StorageError: it cannot be opened.
    """

    def __init__(self, path: Path, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._path = path
        with io_errors("cannot be opened for reading", path):
            try:
                self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except FileNotFoundError:
                raise VolumeError(
                    "the snapshot's file is gone",
                    where=str(path),
                    safe="nothing was changed",
                    next_step="push with --adopt or --full",
                ) from None

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the file."""
        os.close(self._fd)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See :class:`blockrep.storage.interface.SnapshotReader`."""
        try:
            if read_full(self._fd, buffer, offset_bytes):
                return
        except OSError as error:
            raise storage_error(error, self._failed(offset_bytes, buffer), self._path) from error
        raise StorageError(
            f"{self._failed(offset_bytes, buffer)}: the file ends early", where=str(self._path)
        )

    def allocated(self) -> Iterator[Extent]:
        """Yield what is not a hole."""
        with io_errors("its extents cannot be read", self._path):
            for start, end in kernel.data_ranges(self._fd, self.size_bytes):
                yield Extent(start, end - start)

    def remember(self) -> None:
        """Do nothing: nobody writes the file."""

    def confirm(self) -> None:
        """Do nothing: nobody writes the file."""

    @staticmethod
    def _failed(offset_bytes: int, buffer: memoryview) -> str:
        return f"reading {len(buffer)} bytes at offset {offset_bytes} failed"


class CloneReader(FileReader):
    """Reads a clone.

    What it maps comes from its extent map, which does not count preallocated space as data.
    """

    def allocated(self) -> Iterator[Extent]:
        """Yield what the clone maps."""
        with io_errors("its extent map cannot be read", self._path):
            yield from fiemap.mapped_extents(self._fd, self.size_bytes)


class ResizedReader(FileReader):
    """Reads a file as it will be once it is cut, or grown by zeros, to another size.

    Args:
        path: the file.
        file_bytes: its size now.
        size_bytes: that size.
    """

    def __init__(self, path: Path, file_bytes: int, size_bytes: int) -> None:
        super().__init__(path, size_bytes)
        self._file_bytes = file_bytes

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See :class:`blockrep.storage.interface.SnapshotReader`."""
        in_file = max(0, min(len(buffer), self._file_bytes - offset_bytes))
        if in_file:
            super().read_into(offset_bytes, buffer[:in_file])
        buffer[in_file:] = bytes(len(buffer) - in_file)


class TableReader(FileReader):
    """Reads a live file as if it were a snapshot.

    Each block must have the digest that the table knows; one that it does not know becomes known.

    Args:
        path: the live file.
        table: the snapshot's table; closed with the reader.
        stamp: the file's when the snapshot was taken.
        forget: called, before VolumeError is raised, when it turns out that the snapshot cannot be
            read any more.
        resumes: the table is that of an attempt before this one. From where the first read is on,
            all will be sent again, and what it says of that may be torn.
    """

    def __init__(
        self,
        path: Path,
        table: DigestTable,
        stamp: FileStamp,
        forget: Callable[[], None],
        *,
        resumes: bool = False,
    ) -> None:
        super().__init__(path, table.blocks.size_bytes)
        self._table = table
        self._stamp = stamp
        self._forget = forget
        self._resumes = resumes

    def __exit__(self, *exc: object) -> None:
        """Close the file and the table, which the next reader goes on with."""
        try:
            if exc[0] is None:
                self.remember()
        finally:
            self._table.close()
            super().__exit__(*exc)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill the buffer, and hold each whole block in it against the table.

        Raises VolumeError if the file changed.
        """
        try:
            super().read_into(offset_bytes, buffer)
        except BlockrepError:
            if self._is_unchanged():
                raise
            raise self._changed() from None
        first = -(-offset_bytes // BLOCK_BYTES)
        end_bytes = offset_bytes + len(buffer)
        end = self._table.blocks.count if end_bytes == self.size_bytes else end_bytes // BLOCK_BYTES
        if self._resumes:
            self._resumes = False
            with io_errors("the digest table cannot be used", self._path):
                self._table.forget(first)
        if first < end:
            start = first * BLOCK_BYTES - offset_bytes
            stop = min(end * BLOCK_BYTES, self.size_bytes) - offset_bytes
            with io_errors("the digest table cannot be used", self._path):
                self._check(first, buffer[start:stop])
        if first * BLOCK_BYTES != offset_bytes:
            self._check_edge(first - 1, offset_bytes, buffer)
        if end_bytes > max(first, end) * BLOCK_BYTES:
            self._check_edge(max(first, end), offset_bytes, buffer)

    def allocated(self) -> Iterator[Extent]:
        """Yield the whole blocks that may hold data."""
        with io_errors("its holes cannot be found", self._path):
            yield from scanning.data_extents(self._fd, self.size_bytes)

    def remember(self) -> None:
        """Make the table durable as far as it is known."""
        with io_errors("the digest table cannot be written", self._path):
            self._table.sync()

    def confirm(self) -> None:
        """Complete and seal the table.

        Raises VolumeError if the file changed since the snapshot was taken.
        """
        if self._table.sealed:
            return
        with io_errors("the digest table cannot be completed", self._path):
            if self._is_unchanged():
                scanning.fill_unknown(self._fd, self._table)
            if not self._is_unchanged():
                raise self._changed()
            self._table.seal()

    def _check(self, first: int, data: memoryview) -> None:
        if not self._table.learn(first, scanning.digests_of(data, self._table.blocks.seed)):
            raise self._changed()

    def _check_edge(self, number: int, offset_bytes: int, buffer: memoryview) -> None:
        """Check a block of which only a part is wanted.

        The whole of it is read, and the part must be the same again.
        """
        start = number * BLOCK_BYTES
        block = memoryview(bytearray(min(BLOCK_BYTES, self.size_bytes - start)))
        super().read_into(start, block)
        with io_errors("the digest table cannot be used", self._path):
            self._check(number, block)
        shared_start, shared_end = (
            max(start, offset_bytes),
            min(start + len(block), offset_bytes + len(buffer)),
        )
        again = block[shared_start - start : shared_end - start]
        if again != buffer[shared_start - offset_bytes : shared_end - offset_bytes]:
            raise self._changed()

    def _is_unchanged(self) -> bool:
        with io_errors("cannot be looked at", self._path):
            return FileStamp.of(os.fstat(self._fd)) == self._stamp

    def _changed(self) -> VolumeError:
        self._forget()
        return changed_error(self._path)
