"""A delta, spooled: read once from storage, its totals and digest known.

Iterated as often as needed in bounded memory.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Self

from blockrep.errors import InternalError
from blockrep.model.extents import (
    Extent,
    ExtentKind,
    ExtentSummary,
    align_outward,
    check_ascending,
    count_chunks,
    merge_adjacent,
    skip_before,
    summarize,
)
from blockrep.replication.spool import Spool

__all__ = ["SpooledPlan"]

_RECORD = struct.Struct("<BQQ")
_RECORDS_PER_READ = 4096


class SpooledPlan:
    """The plan of one transfer, in memory up to 4 MiB.

    In an unlinked temporary file beyond. A context manager.

    Attributes:
        summary: extent count, bytes of DATA and DISCARD, digest.
        new_chunks: chunks of the target, of ``chunk_bytes``, that are written.
        size_bytes: size of the new snapshot.
    """

    def __init__(
        self,
        delta: Iterable[Extent],
        size_bytes: int,
        *,
        align_bytes: int = 1,
        chunk_bytes: int = 1,
    ) -> None:
        self.size_bytes = size_bytes
        self._spool = Spool()
        ordered = merge_adjacent(delta)
        if align_bytes > 1:
            ordered = merge_adjacent(align_outward(ordered, align_bytes, size_bytes))
        try:
            for extent in check_ascending(ordered, size_bytes):
                self._spool.write(
                    _RECORD.pack(extent.kind, extent.offset_bytes, extent.length_bytes)
                )
        except ValueError as error:
            self._spool.close()
            raise InternalError(str(error), where="delta", safe="nothing was sent") from error
        except BaseException:
            self._spool.close()
            raise
        self.summary: ExtentSummary = summarize(self)
        self.new_chunks = count_chunks(self, chunk_bytes)

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the spool."""
        self._spool.close()

    def __iter__(self) -> Iterator[Extent]:
        """Yield the extents, ascending. One iteration at a time."""
        self._spool.rewind()
        while block := self._spool.read(_RECORD.size * _RECORDS_PER_READ):
            for kind, offset_bytes, length_bytes in _RECORD.iter_unpack(block):
                yield Extent(offset_bytes, length_bytes, ExtentKind(kind))

    @property
    def total_bytes(self) -> int:
        """Bytes of the volume that the plan covers."""
        return self.summary.data_bytes + self.summary.discard_bytes

    def done_bytes(self, cursor_bytes: int) -> int:
        """Return how much of :attr:`total_bytes` lies below the cursor."""
        return self.total_bytes - sum(
            extent.length_bytes for extent in skip_before(self, cursor_bytes)
        )
