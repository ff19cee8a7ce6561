"""The staging volume while a transfer writes into it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Self

from blockrep.errors import BlockrepError, InternalError, NoSpaceError, StorageError
from blockrep.model.extents import Extent, ExtentSummary
from blockrep.model.snapshots import Space, StagingInfo
from blockrep.protocol.chain import first_chain
from blockrep.storage.allowance import Allowance
from blockrep.storage.interface import SnapshotReader, StorageSettings
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.cursors import Cursor, CursorFile
from blockrep.storage.lvm.device import BlockDevice
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.planning import (
    at_reserve,
    check_room,
    chunks_needed,
    leaves_discarded,
    mapped_extents,
    refuse_extended,
    round_up,
    space_of,
)
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import READY, StagingMark, plan_tag

__all__ = ["LvmStaging", "cursor_of", "staging_info"]


def cursor_of(volume: LogicalVolume, settings: StorageSettings) -> CursorFile:
    """Return where the progress of a staging volume is recorded."""
    return CursorFile(settings.state_directory, volume.uuid, volume.vg_uuid)


def staging_info(mark: StagingMark, settings: StorageSettings) -> StagingInfo:
    """Return what is known of a staging volume; without a cursor, it starts over."""
    cursor = cursor_of(mark.volume, settings).load(mark.plan_digest)
    if cursor is None:
        cursor = Cursor(0, first_chain(mark.snapshot_id, mark.plan_digest))
    return StagingInfo(
        identity=mark.volume.uuid,
        lineage=mark.lineage,
        base_id=mark.base_id,
        snapshot_id=mark.snapshot_id,
        plan_digest=mark.plan_digest,
        cursor_bytes=cursor.cursor_bytes,
        chain=cursor.chain,
    )


class LvmStaging:
    """An open staging volume; see :class:`blockrep.storage.interface.Staging`.

    Args:
        group: its volume group.
        mark: the staging volume.
        pool: its pool.
        shared_chunks: how many of its chunks it shares with the replica.
    """

    def __init__(
        self, group: VolumeGroup, mark: StagingMark, pool: LogicalVolume, shared_chunks: int
    ) -> None:
        self.mark = mark
        self._group = group
        self._pool = pool
        self._shared_chunks = shared_chunks
        self._cursors = cursor_of(mark.volume, group.settings)
        self.info = staging_info(mark, group.settings)
        self._chunk_bytes = pool.chunk_bytes
        self._can_discard = pool.can_discard
        self._status = group.status(pool)
        self._discards = self._confirmed_discards = 0
        self._poison: BlockrepError | None = None
        # An error is told to one sync only: two at once, and the other would call it durable.
        self._syncing = threading.Lock()
        self._allowance = Allowance(pool.chunk_bytes, self._synced_space, partial(at_reserve, pool))
        #: Ends of what was written or cleared, and of what of that was synced: both ascend.
        self._written_bytes = self._synced_bytes = self.info.cursor_bytes
        self._open = True
        self._edge = self._edge_at(self.info.cursor_bytes)
        self._device = BlockDevice(mark.volume, writable=True)

    def set_plan(self, plan: ExtentSummary, new_chunks: int) -> None:
        """Bind an adoption's staging volume to its plan."""
        status = self._group.status(self._pool)
        need = chunks_needed(plan, new_chunks, self._pool)
        leaves = leaves_discarded(plan, self._pool)
        check_room(status, self._pool, self._group.settings, need, self._shared_chunks, leaves)
        volume = self.mark.volume
        self._group.change(commands.change_tags(volume.vg, volume.name, [plan_tag(plan.digest)]))
        self.mark = replace(self.mark, plan_digest=plan.digest)
        self.info = staging_info(self.mark, self._group.settings)

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Write DATA."""
        self._check_usable()
        end_bytes = offset_bytes + len(data)
        if end_bytes > self.mark.size_bytes:
            raise InternalError(f"a write up to {end_bytes} of {self.mark.size_bytes} bytes")
        try:
            self._cover(offset_bytes, end_bytes)
            for start, end in self._allowance.spend_in_pieces(offset_bytes, end_bytes):
                self._device.write(start, data[start - offset_bytes : end - offset_bytes])
            self._pad(end_bytes)
            self._written_bytes = end_bytes
        except (StorageError, NoSpaceError) as error:
            self._poison = error
            raise

    def clear(self, extent: Extent) -> None:
        """Discard the whole chunks of the extent, write zeros to the rest of it."""
        self._check_usable()
        start, end = extent.offset_bytes, extent.end_bytes
        if end > self.mark.size_bytes:
            raise InternalError(f"{extent} of {self.mark.size_bytes} bytes")
        try:
            self._cover(start, end)
            first = round_up(start, self._chunk_bytes)
            last = end // self._chunk_bytes * self._chunk_bytes
            if first < last and self._can_discard:
                self._discards += 1
                self._can_discard = self._device.discard(first, last - first)
            if first < last and self._can_discard:
                self._write_zeros(start, first)
                self._write_zeros(last, end)
            else:
                self._write_zeros(start, end)
            self._pad(end)
            self._written_bytes = end
        except (StorageError, NoSpaceError) as error:
            self._poison = error
            raise

    def sync(self) -> None:
        """Put all that was written on stable storage; the first error is final."""
        with self._syncing:
            self._check_usable()
            # Writes go on meanwhile: of those, what is seen of the pool says nothing.
            discards, written_bytes = self._discards, self._written_bytes
            spent_chunks = self._allowance.spent_chunks
            try:
                self._device.sync()
            except StorageError as error:
                self._poison = error
                self._forbid_resume()
                raise
            try:
                self._confirm(discards)
            except StorageError as error:
                self._poison = error  # for us; what was durable before is good for a resume
                raise
            self._synced_bytes = written_bytes
            self._allowance.note(self.space(), spent_chunks)

    def _confirm(self, discards: int) -> None:
        """Prove that what was synced took effect. Raises StorageError: it may not have."""
        before, self._status = self._status, self._group.confirmed_status(self._pool)
        if self._discards > self._confirmed_discards:
            refuse_extended(before, self._status, self._pool.full_name)
        self._confirmed_discards = discards

    def _forbid_resume(self) -> None:
        """Let nobody resume from here: what the kernel dropped, nobody knows."""
        volume = self.mark.volume
        try:
            self._group.change(commands.change_tags(volume.vg, volume.name, [], [READY]))
        except BlockrepError:
            self._cursors.remove()  # it starts over at least

    def save_cursor(self, cursor_bytes: int, chain: bytes) -> None:
        """Record how far the transfer is durable."""
        self._check_usable()
        self._cursors.save(self.mark.plan_digest, Cursor(cursor_bytes, chain))
        self.info = replace(self.info, cursor_bytes=cursor_bytes, chain=chain)

    def space(self) -> Space:
        """Return the pool's room above its reserves, as of the last sync."""
        ahead = round_up(self.mark.size_bytes - self._synced_bytes, self._chunk_bytes)
        shared_chunks = min(self._shared_chunks, ahead // self._chunk_bytes)
        return space_of(self._status, self._chunk_bytes, self._group.settings, shared_chunks)

    def _synced_space(self) -> Space:
        """Return the room; what is only in memory has not taken its chunks yet."""
        self.sync()
        return self.space()

    def reader(self) -> SnapshotReader:
        """Read the present content."""
        return _StagingReader(self)

    def close(self) -> None:
        """Close the device; the staging volume stays active for a resume."""
        if self._open:
            self._open = False
            self._device.close()

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill the buffer with what was written, durable or not."""
        self._check_usable()
        self._device.read_into(offset_bytes, buffer)

    def allocated(self) -> Iterator[Extent]:
        """Yield what the volume maps once everything is written."""
        self.sync()
        runs = PoolMetadata(self._group, self._pool).dump(self.mark.volume)
        yield from mapped_extents(runs, self.mark.size_bytes)

    def _check_usable(self) -> None:
        if self._poison is not None:
            raise StorageError(
                f"the staging volume failed before: {self._poison.what}",
                where=self._device.path,
                safe="the replica and its good snapshots are untouched",
                next_step="see the kernel's log and the thin pool's state (lvs), then push again",
            ) from self._poison
        if not self._open:
            raise InternalError("the staging volume is used after it was closed")

    def check_whole(self) -> None:
        """Raise InternalError if the transfer ended inside of a chunk that shows old content."""
        if not self._pool.zeroes and self._edge % self._chunk_bytes:
            raise self._unwritten(self._edge)

    def _cover(self, start: int, end: int) -> None:
        """Hold a transfer into a pool that does not zero new chunks to whole chunks.

        What is not written of a new chunk shows what it held before. Frames cut a chunk anywhere;
        but then the next one must go on where the last one ended.
        """
        if self._pool.zeroes:
            return
        leaves_gap = start > self._edge and self._edge % self._chunk_bytes
        if start != self._edge and (start % self._chunk_bytes or leaves_gap):
            raise self._unwritten(start)
        self._edge = self._edge_at(end)

    def _edge_at(self, end: int) -> int:
        """Return what the next write has to go on from; 0 at the end, whose chunk is padded."""
        return 0 if end == self.mark.size_bytes else end

    def _unwritten(self, offset_bytes: int) -> InternalError:
        return InternalError(
            f"the plan leaves a part of the chunk at {offset_bytes} unwritten,"
            f" though chunks are {self._chunk_bytes} bytes and not zeroed",
            where=self._pool.full_name,
        )

    def _write_zeros(self, start: int, end: int) -> None:
        for piece_start, piece_end in self._allowance.spend_in_pieces(start, end):
            self._device.write_zeros(piece_start, piece_end - piece_start)

    def _pad(self, end_bytes: int) -> None:
        """Zero the rest of the last chunk, where the volume goes on after the source's size."""
        if self._pool.zeroes or end_bytes != self.mark.size_bytes:
            return
        chunk_end = min(round_up(end_bytes, self._chunk_bytes), self._device.size_bytes)
        self._device.write_zeros(end_bytes, chunk_end - end_bytes)


class _StagingReader:
    """Reads through the open staging volume, and does not close it."""

    def __init__(self, staging: LvmStaging) -> None:
        self.size_bytes = staging.mark.size_bytes
        self.read_into = staging.read_into
        self.allocated = staging.allocated

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        """Leave the staging volume open."""

    def remember(self) -> None:
        """Do nothing: it is a snapshot."""

    def confirm(self) -> None:
        """Do nothing: only we write it."""
