"""Content on a simulated disk: pages that snapshots share, and a cache that a crash empties."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from typing import Self

from blockrep.errors import InternalError, StorageError
from blockrep.model.extents import Extent, ExtentKind, merge_adjacent

__all__ = ["MemoryReader", "PagedFile"]

_SECTOR_BYTES = 512  # what a disk writes whole, or not at all


class PagedFile:
    """Content as a map of pages, shared by copies until one writes; what is missing is zeros.

    Attributes:
        size_bytes: the size.
        page_bytes: the unit of sharing.
        pages: the content as a reader sees it, by page number.
        unsynced: numbers of the pages that a crash would take back.
        frozen: nothing may write it any more.
    """

    def __init__(self, size_bytes: int, page_bytes: int) -> None:
        self.size_bytes = size_bytes
        self.page_bytes = page_bytes
        self.pages: dict[int, bytes] = {}
        self.unsynced: set[int] = set()
        self.frozen = False
        self._durable: dict[int, bytes] = {}

    def copy(self, size_bytes: int | None = None) -> PagedFile:
        """Return a durable copy, as of a snapshot; of another size if given."""
        copy = PagedFile(self.size_bytes, self.page_bytes)
        copy.pages = dict(self.pages)
        copy._durable = dict(self.pages)
        if size_bytes is not None:
            copy.resize(size_bytes)
        return copy

    def read(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return a range of the content."""
        zeros = bytes(self.page_bytes)
        first, start = divmod(offset_bytes, self.page_bytes)
        end = -(-(offset_bytes + length_bytes) // self.page_bytes)
        joined = b"".join(map(self.pages.get, range(first, end), repeat(zeros)))
        return joined[start : start + length_bytes]

    def after_crash(self) -> PagedFile:
        """Return what a crash now would leave for certain."""
        left = PagedFile(self.size_bytes, self.page_bytes)
        left.pages = dict(self._durable)
        return left

    def write(self, offset_bytes: int, data: bytes) -> None:
        """Write into the cache."""
        self._check_writable(offset_bytes + len(data))
        end = offset_bytes + len(data)
        position = offset_bytes
        while position < end:
            number, start = divmod(position, self.page_bytes)
            count = min(self.page_bytes - start, end - position)
            page = bytearray(self.pages.get(number, bytes(self.page_bytes)))
            page[start : start + count] = data[
                position - offset_bytes : position - offset_bytes + count
            ]
            self.pages[number] = bytes(page)
            self.unsynced.add(number)
            position += count

    def clear(self, offset_bytes: int, length_bytes: int) -> None:
        """Make a range read as zeros; whole pages are unmapped."""
        self._check_writable(offset_bytes + length_bytes)
        end = offset_bytes + length_bytes
        while offset_bytes < end:
            number, start = divmod(offset_bytes, self.page_bytes)
            count = min(self.page_bytes - start, end - offset_bytes)
            is_last = offset_bytes + count == self.size_bytes
            if count == self.page_bytes or (is_last and not start):
                if self.pages.pop(number, None) is not None:
                    self.unsynced.add(number)
            elif number in self.pages:
                self.write(offset_bytes, bytes(count))
            offset_bytes += count

    def resize(self, size_bytes: int) -> None:
        """Change the size, durably; what is cut off is gone."""
        if size_bytes < self.size_bytes:
            page_count = -(-size_bytes // self.page_bytes)
            for number in [one for one in self.pages if one >= page_count]:
                del self.pages[number]
            tail_bytes = size_bytes % self.page_bytes
            if tail_bytes and page_count - 1 in self.pages:
                kept = self.pages[page_count - 1][:tail_bytes]
                self.pages[page_count - 1] = kept.ljust(self.page_bytes, b"\0")
            self._durable = dict(self.pages)
            self.unsynced.clear()
        self.size_bytes = size_bytes

    def sync(self) -> None:
        """Make durable what is in the cache."""
        for number in list(self.unsynced):
            if number in self.pages:
                self._durable[number] = self.pages[number]
            else:
                self._durable.pop(number, None)
            self.unsynced.discard(number)

    def lose_unsynced(self, survives: Callable[[int], bool]) -> None:
        """Take back what was not synced, but for what survives.

        Asked with an offset in bytes: for each sector of a written page, once for an unmapped page.
        """
        for number in sorted(self.unsynced):
            start = number * self.page_bytes
            old = self._durable.get(number)
            new = self.pages.get(number)
            if new is None:
                if old is not None and not survives(start):
                    self.pages[number] = old
                continue
            page = bytearray(bytes(self.page_bytes) if old is None else old)
            kept = False
            for at in range(0, self.page_bytes, _SECTOR_BYTES):
                if survives(start + at):
                    page[at : at + _SECTOR_BYTES] = new[at : at + _SECTOR_BYTES]
                    kept = True
            if kept:
                self.pages[number] = bytes(page)
            elif old is not None:
                self.pages[number] = old
            else:
                del self.pages[number]
        self._durable = dict(self.pages)
        self.unsynced.clear()

    def extents(self) -> Iterator[Extent]:
        """Yield what is mapped, ascending and merged."""
        return merge_adjacent(self._extent(number) for number in sorted(self.pages))

    def difference(self, base: PagedFile) -> Iterator[Extent]:
        """Yield what differs from ``base``, ascending and merged, page by page.

        By the pages' identity, not their content: as a thin pool does.
        """
        numbers = sorted(
            one for one in {*self.pages, *base.pages} if one * self.page_bytes < self.size_bytes
        )
        changed = (one for one in numbers if self.pages.get(one) is not base.pages.get(one))
        return merge_adjacent(
            self._extent(one, ExtentKind.DATA if one in self.pages else ExtentKind.DISCARD)
            for one in changed
        )

    def _extent(self, number: int, kind: ExtentKind = ExtentKind.DATA) -> Extent:
        start = number * self.page_bytes
        return Extent(start, min(self.page_bytes, self.size_bytes - start), kind)

    def _check_writable(self, end_bytes: int) -> None:
        if self.frozen or end_bytes > self.size_bytes:
            msg = "a write to a snapshot" if self.frozen else "a write past the end"
            raise InternalError(msg, safe="this is a defect of blockrep")


class MemoryReader:
    """Reads content that nobody writes, or staging."""

    def __init__(self, content: PagedFile) -> None:
        self.size_bytes = content.size_bytes
        self._content = content

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Nothing to close."""

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See :class:`blockrep.storage.interface.SnapshotReader`."""
        if offset_bytes + len(buffer) > self.size_bytes:
            raise StorageError(
                f"reading {len(buffer)} bytes at offset {offset_bytes}: past the end"
            )
        buffer[:] = self._content.read(offset_bytes, len(buffer))

    def allocated(self) -> Iterator[Extent]:
        """Yield what is mapped."""
        return self._content.extents()

    def remember(self) -> None:
        """Do nothing: it is a snapshot."""

    def confirm(self) -> None:
        """Do nothing: nobody writes it."""
