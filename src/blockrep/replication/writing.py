"""The receiver's data path: DATA frames -> staging.

Runs in a storage thread; no asyncio here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import xxhash

from blockrep.errors import InternalError, NoSpaceError, ProtocolError
from blockrep.model.extents import ExtentKind
from blockrep.protocol.chain import advance_chain
from blockrep.protocol.messages import Data
from blockrep.storage.interface import Staging

__all__ = ["Decompressor", "Position", "StagingWriter"]

Decompressor = Callable[[memoryview, int], bytes]
"""Expands one zstd frame to exactly the given number of bytes, or raises ProtocolError."""


@dataclass(frozen=True, slots=True)
class Position:
    """How far a transfer is: the cursor in bytes, and the chain there."""

    cursor_bytes: int
    chain: bytes


class StagingWriter:
    """Applies DATA messages, in order, to a staging volume, and makes them durable.

    ``apply`` and ``make_durable`` may run at the same time, in one thread each: a sync covers what
    was applied before it began.
    """

    def __init__(
        self, staging: Staging, size_bytes: int, decompressor: Decompressor | None
    ) -> None:
        self._staging = staging
        self._size_bytes = size_bytes
        self._decompressor = decompressor
        self.received = Position(staging.info.cursor_bytes, staging.info.chain)
        self.durable = self.received
        # Of the last look; what is here already needs none.
        self._no_room: NoSpaceError | None = None

    def apply(self, message: Data) -> None:
        """Verify and write a frame.

        Raises:
            ProtocolError: content does not match its digest, lies outside of the volume, or does
                not follow what came before. Nothing of the frame was written.
            NoSpaceError: the storage has come down to its reserve; what is durable stays for a
                resume.
            StorageError: from the staging volume.
        """
        if self._no_room is not None:
            raise self._no_room
        content = self._content(message)
        self._check_follows(message)
        at = 0
        for segment in message.segments:
            if segment.kind is ExtentKind.DATA:
                self._staging.write(segment.offset_bytes, content[at : at + segment.length_bytes])
                at += segment.length_bytes
            else:
                self._staging.clear(segment)
        self.received = Position(message.segments[-1].end_bytes, message.chain)

    def _content(self, message: Data) -> memoryview:
        end_bytes = message.segments[-1].end_bytes
        if end_bytes > self._size_bytes:
            msg = f"DATA up to offset {end_bytes} of a volume of {self._size_bytes} bytes"
            raise ProtocolError(msg)
        content = message.payload
        if message.unpacked_bytes is not None:
            if self._decompressor is None:
                msg = "DATA is compressed, which was not agreed on"
                raise ProtocolError(msg)
            content = memoryview(self._decompressor(message.payload, message.unpacked_bytes))
        if xxhash.xxh3_128_digest(content) != message.content_digest:
            first = message.segments[0].offset_bytes
            raise ProtocolError(
                f"content damaged on the way: offsets {first} to {end_bytes}",
                safe="it was not written; the replica and its snapshots are untouched",
                next_step="push again: it resumes; if it recurs, suspect memory or the network",
            )
        return content

    def _check_follows(self, message: Data) -> None:
        """Compare the chains, before the frame is written.

        At COMMIT it would be too late: what is acknowledged before is what a resume builds on.
        """
        chain = advance_chain(self.received.chain, message.segments, message.content_digest)
        if chain != message.chain:
            raise ProtocolError(
                "a frame was lost, doubled or changed on its way, before offset"
                f" {message.segments[-1].end_bytes}",
                safe="it was not written; the replica and its snapshots are untouched",
                next_step="push again: it resumes; if it recurs, suspect memory or the network",
            )

    def make_durable(self) -> Position:
        """Sync, record the cursor, look at the room left; return what is durable now.

        Raises:
            StorageError: the sync failed; the staging volume is poisoned.
        """
        position = self.received
        self._staging.sync()
        self._staging.save_cursor(position.cursor_bytes, position.chain)
        self.durable = position
        self._no_room = self._room_error()
        return position

    def _room_error(self) -> NoSpaceError | None:
        space = self._staging.space()
        if space.free_bytes <= 0:
            what, help_ = "storage has", "make room (for a thin pool: lvextend -L+SIZE VG/POOL)"
        elif space.metadata_free_chunks <= 0:
            what, help_ = "pool's metadata have", "lvextend --poolmetadatasize +SIZE VG/POOL there"
        else:
            return None
        return NoSpaceError(
            f"the target's {what} come down to the reserve",
            safe="what was received is kept; the replica and its snapshots are untouched",
            next_step=f"{help_}, then push again: it resumes",
        )

    def check_complete(self, digest: bytes) -> None:
        """Compare the chain with the digest of COMMIT, after everything was made durable.

        Raises:
            ProtocolError: the sender's and the receiver's frames are not the same.
            InternalError: something received is not durable.
        """
        if self.durable != self.received:
            msg = "commit before everything is durable"
            raise InternalError(msg)
        if self.received.chain != digest:
            raise ProtocolError(
                "the transfer's digest does not match what was received",
                safe="nothing was committed; the replica and its snapshots are untouched",
                next_step="push again: it resumes; if it recurs, suspect memory or the network",
            )
