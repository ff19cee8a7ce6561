"""How much a transfer may write before its pool is looked at again (I8)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from blockrep.errors import NoSpaceError
from blockrep.model.snapshots import Space

__all__ = ["Allowance"]

_PIECE_BYTES = 16 * 1024 * 1024


class Allowance:
    """Counts the chunks that a transfer writes, whatever it was said to need.

    Each counts, also one that was allocated before: how many are free, only the pool knows. It is
    asked when the allowance is used up, and of what is free then, half is allowed: others fill the
    pool, too. What is seen of it meanwhile makes the allowance smaller, never larger.

    Args:
        chunk_bytes: of the pool.
        look: makes what was written so far count, then returns the room above the reserves.
        where: the pool, for people.
    """

    def __init__(self, chunk_bytes: int, look: Callable[[], Space], where: str) -> None:
        self._chunk_bytes = chunk_bytes
        self._look = look
        self._where = where
        self._left_chunks = 0
        # Noted in one thread, counted in another; each look is an object of its own.
        self._noted: Space | None = None
        self._counted: Space | None = None
        self._last_chunk = -1

    def note(self, space: Space) -> None:
        """Take account of a look that was made for another reason; from any thread."""
        self._noted = space

    def spend(self, start_bytes: int, end_bytes: int) -> None:
        """Allow a write of this range of the volume, or not.

        Raises:
            NoSpaceError: it could take the pool below its reserve.
            StorageError: what was written before could not be made durable.
        """
        if start_bytes >= end_bytes:
            return
        first = start_bytes // self._chunk_bytes
        last = (end_bytes - 1) // self._chunk_bytes
        chunks = last - first + (first != self._last_chunk)
        noted = self._noted
        if noted is not None and noted is not self._counted:
            self._counted = noted
            self._left_chunks = min(self._left_chunks, self._free_chunks(noted) // 2)
        if chunks > self._left_chunks:
            space = self._look()
            free = self._free_chunks(space)
            if chunks > free:
                raise self._no_space(space)
            self._left_chunks = chunks + (free - chunks) // 2
        self._left_chunks -= chunks
        self._last_chunk = last

    def _no_space(self, space: Space) -> NoSpaceError:
        what, option = "the thin pool has", "-L"
        if space.metadata_free_chunks < space.free_bytes // self._chunk_bytes:
            what, option = "the thin pool's metadata have", "--poolmetadatasize "
        return NoSpaceError(
            f"{what} come down to the reserve",
            where=self._where,
            safe="what was durable is kept; the replica and its snapshots are untouched",
            next_step=f"extend it (lvextend {option}+SIZE {self._where}), then push again:"
            " it resumes",
        )

    def _free_chunks(self, space: Space) -> int:
        return min(space.free_bytes // self._chunk_bytes, space.metadata_free_chunks)

    def spend_in_pieces(self, start_bytes: int, end_bytes: int) -> Iterator[tuple[int, int]]:
        """Yield start and end of the pieces of a long write, each allowed when it is its turn.

        Raises as :meth:`spend`.
        """
        for start in range(start_bytes, end_bytes, _PIECE_BYTES):
            end = min(start + _PIECE_BYTES, end_bytes)
            self.spend(start, end)
            yield start, end
