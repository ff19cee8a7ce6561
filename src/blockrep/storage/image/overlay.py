"""Reading a file as it will be once a redo file is copied into it."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

from blockrep.errors import StorageError
from blockrep.model.extents import Extent
from blockrep.storage.image.files import io_errors
from blockrep.storage.image.readers import FileReader
from blockrep.storage.image.redo import Record, RedoLog

__all__ = ["OverlayReader"]


class OverlayReader(FileReader):
    """Reads a base file under the records that a redo file had when the reader was made.

    Past the end of the base there are zeros. The index takes about 200 bytes for each record.
    """

    def __init__(self, base: Path, base_bytes: int, redo: RedoLog, size_bytes: int) -> None:
        super().__init__(base, size_bytes)
        self._base_bytes = min(base_bytes, size_bytes)
        self._redo = redo
        self._records: list[Record] = []  # ascending, without overlaps
        with io_errors("the redo file cannot be read", base):
            for record in redo.records():
                self._insert(record)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See :class:`blockrep.storage.interface.SnapshotReader`."""
        in_base = max(0, min(len(buffer), self._base_bytes - offset_bytes))
        if in_base:
            super().read_into(offset_bytes, buffer[:in_base])
        buffer[in_base:] = bytes(len(buffer) - in_base)
        end_bytes = offset_bytes + len(buffer)
        for record in self._overlapping(offset_bytes, end_bytes):
            start = max(record.offset_bytes, offset_bytes)
            end = min(record.end_bytes, end_bytes)
            part = buffer[start - offset_bytes : end - offset_bytes]
            with io_errors("the redo file cannot be read", self._path):
                if not self._redo.read(record, start - record.offset_bytes, part):
                    raise StorageError("the redo file ends early", where=str(self._path))

    def allocated(self) -> Iterator[Extent]:
        """Yield what the base or the records may hold data for."""
        in_base = (
            Extent(one.offset_bytes, min(one.end_bytes, self._base_bytes) - one.offset_bytes)
            for one in super().allocated()
            if one.offset_bytes < self._base_bytes
        )
        written = (
            Extent(one.offset_bytes, one.length_bytes) for one in self._records if one.data_offset
        )
        position = 0
        for extent in sorted([*in_base, *written]):
            start = max(position, extent.offset_bytes)
            if extent.end_bytes > start:
                yield Extent(start, extent.end_bytes - start)
                position = extent.end_bytes

    def _overlapping(self, start: int, end: int) -> list[Record]:
        first = bisect_right(self._records, start, key=lambda one: one.end_bytes)
        last = bisect_left(self._records, end, key=lambda one: one.offset_bytes)
        return self._records[first:last]

    def _insert(self, record: Record) -> None:
        """Put a record over those before it."""
        if not record.length_bytes:
            return
        if not self._records or self._records[-1].end_bytes <= record.offset_bytes:
            self._records.append(record)
            return
        first = bisect_right(self._records, record.offset_bytes, key=lambda one: one.end_bytes)
        last = bisect_left(self._records, record.end_bytes, key=lambda one: one.offset_bytes)
        covered = self._records[first:last]
        pieces = [record]
        if covered and covered[0].offset_bytes < record.offset_bytes:
            pieces.insert(0, _cut(covered[0], covered[0].offset_bytes, record.offset_bytes))
        if covered and covered[-1].end_bytes > record.end_bytes:
            pieces.append(_cut(covered[-1], record.end_bytes, covered[-1].end_bytes))
        self._records[first:last] = pieces


def _cut(record: Record, start: int, end: int) -> Record:
    data_offset = record.data_offset
    if data_offset:
        data_offset += start - record.offset_bytes
    return Record(start, end - start, data_offset)
