"""Finer than chunks: which pages of a changed chunk differ from the base, found by reading both.

dm-thin knows which chunks changed, and a chunk of 1 MiB changes as a whole when a database writes
8 KiB of it. The receiver starts from the base, so that what equals it need not be sent. This costs
a second read at the source, and at the target a copy of the chunk that dm-thin would not make for
one that is written as a whole; it pays where most of what changed did not.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

from blockrep.errors import BlockrepError
from blockrep.storage.interface import SnapshotReader

__all__ = ["PAGE_BYTES", "PageDelta"]

_LOG = logging.getLogger("blockrep.sender")

PAGE_BYTES = 4096
_TRIAL_BYTES = 16 * 1024 * 1024
_FIRST_PAUSE_BYTES = 64 * 1024 * 1024
_LONGEST_PAUSE_BYTES = 1024 * 1024 * 1024


class PageDelta:
    """Compares what was read of the new snapshot with the base.

    It never fails: what the base cannot be asked about counts as changed.

    Args:
        base: the open base, which the receiver starts from.
        buffer_bytes: the most that is compared at once.
        always: go on although it does not pay; else, whenever less than half of 16 MiB is
            unchanged, pause for 64 MiB, then for twice as much, up to 1 GiB.
    """

    def __init__(self, base: SnapshotReader, buffer_bytes: int, *, always: bool) -> None:
        self._base = base
        self._view = memoryview(bytearray(buffer_bytes))
        self._always = always
        self._compared_bytes = self._same_bytes = 0
        self._pause_bytes = _FIRST_PAUSE_BYTES
        self._paused_bytes = 0
        self._failed = False

    def load(self, offset_bytes: int, length_bytes: int) -> bool:
        """Read a part of the base; False: it is not to be compared."""
        if self._failed or offset_bytes + length_bytes > self._base.size_bytes:
            return False
        if self._paused_bytes > 0:
            self._paused_bytes -= length_bytes
            return False
        self._judge()
        if self._paused_bytes > 0:
            return False
        try:
            self._base.read_into(offset_bytes, self._view[:length_bytes])
        except BlockrepError as error:
            self._failed = True
            _LOG.warning("changed chunks are sent whole: the base cannot be read: %s", error)
            return False
        self._compared_bytes += length_bytes
        return True

    def is_same(self, content: bytearray, start: int, end: int, base_start: int) -> bool:
        """Tell whether ``content[start:end]`` equals what was loaded, from ``base_start`` on."""
        same = content.startswith(self._view[base_start : base_start + end - start], start)
        if same:
            self._same_bytes += end - start
        return same

    def changed_pages(
        self, content: bytearray, start: int, end: int, base_start: int
    ) -> Iterator[tuple[int, int]]:
        """Yield the start and end of each run of pages that differ, in ``content[start:end]``."""
        run_start = start
        for at in range(start, end, PAGE_BYTES):
            page_end = min(at + PAGE_BYTES, end)
            if self.is_same(content, at, page_end, base_start + at - start):
                if run_start < at:
                    yield run_start, at
                run_start = page_end
        if run_start < end:
            yield run_start, end

    def _judge(self) -> None:
        if self._always or self._compared_bytes < _TRIAL_BYTES:
            return
        if self._same_bytes * 2 < self._compared_bytes:
            self._paused_bytes = self._pause_bytes
            self._pause_bytes = min(2 * self._pause_bytes, _LONGEST_PAUSE_BYTES)
        else:
            self._pause_bytes = _FIRST_PAUSE_BYTES
        self._compared_bytes = self._same_bytes = 0
