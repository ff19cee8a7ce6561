"""The delta of two reflink clones: what shares no physical block differs. Nothing is read.

A block that a clone refers to is never overwritten in place, so the same physical place at the
same logical place is the same content
for as long as both clones exist. What has no comparable place (compressed, inline, not yet
allocated) counts as changed; preallocated but unwritten space reads as zeros. Both maps are read
as streams.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blockrep.model.extents import Extent, ExtentKind, merge_adjacent
from blockrep.storage.image import kernel

__all__ = ["clone_delta", "mapped_extents"]

#: UNKNOWN, DELALLOC, ENCODED, DATA_ENCRYPTED, NOT_ALIGNED, DATA_INLINE, DATA_TAIL
_NO_PLACE = 0x002 | 0x004 | 0x008 | 0x080 | 0x100 | 0x200 | 0x400
_UNWRITTEN = 0x800
_BLOCK_BYTES = 4096

_HOLE = None
_INCOMPARABLE = -(1 << 65)  # no difference of two 64-bit offsets


@dataclass(frozen=True, slots=True)
class _Mapping:
    """A mapped range; ``shift`` is its physical minus its logical offset, or ``_INCOMPARABLE``."""

    start: int
    end: int
    shift: int


class _Cursor:
    """Tells what is mapped at ascending positions."""

    def __init__(self, mappings: Iterator[_Mapping], size_bytes: int) -> None:
        self._mappings = mappings
        self._size_bytes = size_bytes
        self._current = next(mappings, None)

    def at(self, position: int) -> tuple[int | None, int]:
        """Return the shift at a position (``_HOLE``.

        Nothing is mapped), and up to where that holds.
        """
        while self._current is not None and self._current.end <= position:
            self._current = next(self._mappings, None)
        if self._current is None:
            return _HOLE, self._size_bytes
        if position < self._current.start:
            return _HOLE, self._current.start
        return self._current.shift, self._current.end


def mapped_extents(fd: int, size_bytes: int) -> Iterator[Extent]:
    """Yield, ascending and merged, what a file maps, as DATA. Raises OSError."""
    return merge_adjacent(
        Extent(one.start, one.end - one.start) for one in _mappings(fd, size_bytes, size_bytes)
    )


def clone_delta(base_fd: int, base_bytes: int, new_fd: int, new_bytes: int) -> Iterator[Extent]:
    """Yield what differs, ascending and merged.

    DATA where ``new`` maps another place than ``base``, DISCARD where it maps nothing any more.

    Args:
        base_fd: a clone that nobody writes.
        base_bytes: its size.
        new_fd: a later clone of the same file, or the live file itself.
        new_bytes: its size; nothing past it is yielded.

    Raises:
        OSError: the file system cannot tell the maps.
    """
    # Bytes past the end of the base lie in its last block, too: nothing but this file knows what
    # they are.
    trusted_bytes = base_bytes
    if new_bytes > base_bytes:
        trusted_bytes = base_bytes // _BLOCK_BYTES * _BLOCK_BYTES
    base = _Cursor(_mappings(base_fd, base_bytes, trusted_bytes), new_bytes)
    new = _Cursor(_mappings(new_fd, new_bytes, new_bytes), new_bytes)
    return merge_adjacent(_sweep(base, new, new_bytes))


def _sweep(base: _Cursor, new: _Cursor, size_bytes: int) -> Iterator[Extent]:
    position = 0
    while position < size_bytes:
        base_shift, base_end = base.at(position)
        new_shift, new_end = new.at(position)
        end = min(base_end, new_end, size_bytes)
        if new_shift is _HOLE:
            if base_shift is not _HOLE:
                yield Extent(position, end - position, ExtentKind.DISCARD)
        elif new_shift != base_shift or new_shift == _INCOMPARABLE:
            yield Extent(position, end - position, ExtentKind.DATA)
        position = end


def _mappings(fd: int, size_bytes: int, trusted_bytes: int) -> Iterator[_Mapping]:
    """Yield what holds data below ``size_bytes``; from ``trusted_bytes`` on as not comparable."""
    for raw in kernel.raw_extents(fd, size_bytes):
        start, end = raw.logical_bytes, min(raw.logical_bytes + raw.length_bytes, size_bytes)
        if raw.flags & _NO_PLACE:
            yield _Mapping(start, end, _INCOMPARABLE)
        elif not raw.flags & _UNWRITTEN and start < end:
            shift = raw.physical_bytes - raw.logical_bytes
            trusted_end = min(max(start, trusted_bytes), end)
            if start < trusted_end:
                yield _Mapping(start, trusted_end, shift)
            if trusted_end < end:
                # The last block of a base that grew: its mapping goes on to the end of the block.
                yield _Mapping(trusted_end, raw.logical_bytes + raw.length_bytes, _INCOMPARABLE)
