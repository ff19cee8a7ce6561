"""How much a transfer may write before its pool, or file system, is looked at again (I8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from blockrep.errors import NoSpaceError
from blockrep.model.snapshots import Space

__all__ = ["Allowance"]

_PIECE_BYTES = 16 * 1024 * 1024


class Allowance:
    """Counts the chunks that a transfer writes, whatever it was said to need.

    Each counts, also one that was allocated before: how many are free, only the pool (or file
    system) knows. It is asked when the allowance is used up, and of what is free then, half is
    allowed: others fill it, too. What is seen of it meanwhile makes the allowance smaller, never
    larger.

    Attributes:
        spent_chunks: what was allowed so far.

    Args:
        chunk_bytes: unit of allocation.
        look: makes what was written so far count, then returns the room above the reserves.
        refusal: returns the error for a write that this room is not enough for.
    """

    def __init__(
        self,
        chunk_bytes: int,
        look: Callable[[], Space],
        refusal: Callable[[Space], NoSpaceError],
    ) -> None:
        self.spent_chunks = 0
        self._chunk_bytes = chunk_bytes
        self._look = look
        self._refusal_for = refusal
        self._left_chunks = 0
        # Noted in one thread, counted in another; each note is an object of its own.
        self._noted: tuple[Space, int] | None = None
        self._counted: tuple[Space, int] | None = None
        self._last_chunk = -1

    def note(self, space: Space, spent_chunks: int) -> None:
        """Take account of a look that was made for another reason; from any thread.

        Args:
            space: what was seen.
            spent_chunks: what had been spent when the sync before it began.
        """
        self._noted = (space, spent_chunks)

    def spend(self, start_bytes: int, end_bytes: int) -> None:
        """Allow a write of this range of the volume, or not.

        Raises:
            NoSpaceError: it could leave less than the reserve.
            StorageError: what was written before could not be made durable.
        """
        if start_bytes >= end_bytes:
            return
        chunks = self._chunks(start_bytes, end_bytes)
        if refusal := self._refusal(chunks):
            raise refusal
        self._left_chunks -= chunks
        self.spent_chunks += chunks
        self._last_chunk = (end_bytes - 1) // self._chunk_bytes

    def spend_in_pieces(self, start_bytes: int, end_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of the pieces of a write, each allowed when it is its turn.

        Of the last chunks each is a piece: that one is allocated already shows only when it is
        written. Raises as :meth:`spend`.
        """
        start = start_bytes
        while start < end_bytes:
            end = min(start + _PIECE_BYTES, end_bytes)
            if self._refusal(self._chunks(start, end)):
                end = min((start // self._chunk_bytes + 1) * self._chunk_bytes, end)
            self.spend(start, end)
            yield start, end
            start = end

    def _chunks(self, start_bytes: int, end_bytes: int) -> int:
        first = start_bytes // self._chunk_bytes
        last = (end_bytes - 1) // self._chunk_bytes
        return last - first + (first != self._last_chunk)

    def _refusal(self, chunks: int) -> NoSpaceError | None:
        """Return why so many more are not allowed, by a look if need be; None: they are."""
        if self._noted is not self._counted:
            self._counted = self._noted
            assert self._counted is not None, "it is only ever replaced"
            space, spent_chunks = self._counted
            allowed = self._free_chunks(space) // 2 - (self.spent_chunks - spent_chunks)
            self._left_chunks = max(min(self._left_chunks, allowed), 0)
        if chunks > self._left_chunks:
            space = self._look()
            free = self._free_chunks(space)
            if chunks > free:
                return self._refusal_for(space)
            self._left_chunks = chunks + (free - chunks) // 2
        return None

    def _free_chunks(self, space: Space) -> int:
        return min(space.free_bytes // self._chunk_bytes, space.metadata_free_chunks)
