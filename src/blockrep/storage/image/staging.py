"""The staging volume of an image.

A file of its own (fresh, or a clone), or a redo file over the replica.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from blockrep.errors import BlockrepError, InternalError, NoSpaceError, StorageError
from blockrep.model.extents import Extent, ExtentSummary
from blockrep.model.snapshots import Space, StagingInfo
from blockrep.protocol.chain import first_chain
from blockrep.storage.allowance import Allowance
from blockrep.storage.files import write_full
from blockrep.storage.image import kernel
from blockrep.storage.image.files import (
    clear_range,
    io_errors,
    remove_file,
    space_of,
    storage_error,
)
from blockrep.storage.image.readers import FileReader, ResizedReader
from blockrep.storage.image.records import StagingRecord, write_record
from blockrep.storage.image.redo import RedoLog

__all__ = ["Content", "FileContent", "ImageStaging", "RedoContent", "refuse_without_room"]


class Content(Protocol):
    """Where the data goes. Methods raise OSError."""

    @property
    def to_copy_bytes(self) -> int:
        """How much of it will be copied to where it belongs."""

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Write."""

    def clear(self, offset_bytes: int, length_bytes: int) -> None:
        """Make a range read as zeros."""

    def sync(self) -> int:
        """Make durable what was written before.

        Return how many bytes of a redo file that is, else 0.
        """

    def settle(self) -> None:
        """Have the file system count what was synced."""

    def reader(self) -> FileReader:
        """Read the present content."""

    def is_at(self, path: Path) -> bool:
        """Tell whether the open file is what lies there."""

    def close(self) -> None:
        """Close the file."""


class FileContent:
    """A file that becomes the snapshot as it is."""

    def __init__(self, path: Path, size_bytes: int) -> None:
        self._path = path
        self._size_bytes = size_bytes
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    @property
    def to_copy_bytes(self) -> int:
        """See :class:`Content`."""
        return 0

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """See :class:`Content`."""
        write_full(self._fd, data, offset_bytes)

    def clear(self, offset_bytes: int, length_bytes: int) -> None:
        """See :class:`Content`."""
        clear_range(self._fd, offset_bytes, length_bytes)

    def sync(self) -> int:
        """See :class:`Content`."""
        os.fdatasync(self._fd)
        return 0

    def settle(self) -> None:
        """See :class:`Content`."""
        kernel.commit_transaction(self._fd)

    def reader(self) -> FileReader:
        """See :class:`Content`."""
        return FileReader(self._path, self._size_bytes)

    def is_at(self, path: Path) -> bool:
        """See :class:`Content`."""
        return os.path.samestat(os.fstat(self._fd), path.lstat())

    def close(self) -> None:
        """See :class:`Content`."""
        os.close(self._fd)


class RedoContent:
    """A redo file, and the replica that it will be copied into."""

    def __init__(self, redo: RedoLog, replica: Path, replica_bytes: int, size_bytes: int) -> None:
        self._redo = redo
        self._replica = replica
        self._replica_bytes = replica_bytes
        self._size_bytes = size_bytes

    @property
    def to_copy_bytes(self) -> int:
        """See :class:`Content`."""
        return self._redo.end_bytes

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """See :class:`Content`."""
        self._redo.write(offset_bytes, data)

    def clear(self, offset_bytes: int, length_bytes: int) -> None:
        """See :class:`Content`."""
        self._redo.clear(offset_bytes, length_bytes)

    def sync(self) -> int:
        """See :class:`Content`."""
        return self._redo.sync()

    def settle(self) -> None:
        """Do nothing: where files are not cloned, what was synced counts."""

    def reader(self) -> FileReader:
        """See :class:`Content`: an adoption reads before it writes."""
        if self._redo.end_bytes:
            raise InternalError("a redo file cannot be read as a volume", where=str(self._replica))
        return ResizedReader(self._replica, self._replica_bytes, self._size_bytes)

    def is_at(self, path: Path) -> bool:
        """See :class:`Content`."""
        return self._redo.is_at(path)

    def close(self) -> None:
        """See :class:`Content`."""
        self._redo.close()


class ImageStaging:
    """See :class:`blockrep.storage.interface.Staging`.

    Args:
        record: what is recorded of it.
        path: where that record lies.
        content: where the data goes.
        reserve_percent: of the file system, to be left free.
        block_bytes: in which the file system allocates.
        let_go: called once when it is closed.
    """

    def __init__(
        self,
        record: StagingRecord,
        path: Path,
        content: Content,
        reserve_percent: int,
        block_bytes: int,
        let_go: Callable[[], None],
    ) -> None:
        self.record = record
        self.info: StagingInfo = record.info
        self._path = path
        self._content = content
        self._reserve_percent = reserve_percent
        self._let_go = let_go
        self._allowance = Allowance(block_bytes, self._synced_space, self._at_reserve)
        # An error is told to one sync only: two at once, and the other would call it durable.
        self._syncing = threading.Lock()
        self._durable_bytes = record.durable_bytes
        self._poison: BlockrepError | None = None
        self._closed = False

    def set_plan(self, plan: ExtentSummary, new_chunks: int) -> None:
        """Bind an adoption's staging to its plan."""
        self._check_usable()
        space = self._file_system_space()
        refuse_without_room(self.record.content, plan, new_chunks, space, self._path)
        chain = first_chain(self.record.snapshot_id, plan.digest)
        self._write_record(
            dataclasses.replace(self.record, plan_digest=plan.digest.hex(), chain=chain.hex())
        )

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Write DATA."""
        self._check_usable()
        if offset_bytes + len(data) > self.record.size_bytes:
            msg = f"a write at {offset_bytes} ends past the staging volume's end"
            raise InternalError(msg)
        self._spend(offset_bytes, len(data))
        try:
            self._content.write(offset_bytes, data)
        except OSError as error:
            what = f"writing {len(data)} bytes at offset {offset_bytes} failed"
            raise self._poisoned_by(error, what) from error

    def clear(self, extent: Extent) -> None:
        """Make an extent read as zeros, by a hole."""
        self._check_usable()
        if extent.end_bytes > self.record.size_bytes:
            msg = f"{extent} ends past the staging volume's end"
            raise InternalError(msg)
        # A record in a redo file, or blocks at its edges that were another file's, too.
        self._spend(extent.offset_bytes, 1)
        self._spend(extent.end_bytes - 1, 1)
        try:
            self._content.clear(extent.offset_bytes, extent.length_bytes)
        except OSError as error:
            what = f"clearing {extent.length_bytes} bytes at offset {extent.offset_bytes} failed"
            raise self._poisoned_by(error, what) from error

    def sync(self) -> None:
        """Put on stable storage what was written.

        An I/O error drops the staging volume: what it holds is not known.
        """
        # Writes go on meanwhile: of those, what is seen of the file system says nothing.
        spent_chunks = self._allowance.spent_chunks
        self._sync()
        self._allowance.note(self.space(), spent_chunks)

    def _sync(self) -> None:
        with self._syncing:
            self._check_usable()
            try:
                self._durable_bytes = self._content.sync()
            except OSError as error:
                poison = self._poisoned_by(error, "syncing failed")
                if not isinstance(poison, NoSpaceError):
                    with contextlib.suppress(OSError):
                        remove_file(self._path)
                raise poison from error

    def save_cursor(self, cursor_bytes: int, chain: bytes) -> None:
        """Record how far everything is durable."""
        self._check_usable()
        self._write_record(
            dataclasses.replace(
                self.record,
                cursor_bytes=cursor_bytes,
                chain=chain.hex(),
                durable_bytes=self._durable_bytes,
            )
        )

    def space(self) -> Space:
        """Return the room of the file system above the reserve.

        Of what a redo file holds, as much is needed once more while it is copied in.
        """
        space = self._file_system_space()
        if self.record.content != "redo":
            return space
        left_bytes = max(space.free_bytes - self._content.to_copy_bytes, 0)
        return dataclasses.replace(space, free_bytes=left_bytes // 2)

    def reader(self) -> FileReader:
        """Read the present content."""
        self._check_usable()
        return self._content.reader()

    def close(self) -> None:
        """Close the file. May be called again."""
        if self._closed:
            return
        self._closed = True
        try:
            self._content.close()
        finally:
            self._let_go()

    def is_at(self, path: Path) -> bool:
        """Tell whether what was written lies at a path. Raises StorageError."""
        with io_errors("the staging volume cannot be looked at", path):
            return self._content.is_at(path)

    def synced_record(self) -> StagingRecord:
        """Sync for the last time; return the record with the length of the redo file."""
        self.sync()
        return dataclasses.replace(self.record, durable_bytes=self._durable_bytes)

    def refuse_without_room_to_publish(self) -> None:
        """Raise NoSpaceError unless what is to be copied in fits, whatever of it lies there."""
        need_bytes = self._content.to_copy_bytes
        if need_bytes > self._file_system_space().free_bytes:
            raise NoSpaceError(
                f"the {need_bytes} bytes that are to be copied into the replica do not fit"
                " above the reserve any more",
                where=str(self._path.parent),
                safe="what was received is kept; the replica and its snapshots are untouched",
                next_step="make room, then push again: it resumes",
            )

    def _spend(self, offset_bytes: int, length_bytes: int) -> None:
        """Allow a write of so much, or not: others fill the file system, too (I8)."""
        try:
            self._allowance.spend(offset_bytes, offset_bytes + length_bytes)
        except NoSpaceError as error:
            self._poison = error
            raise

    def _file_system_space(self) -> Space:
        with io_errors("its file system cannot be looked at", self._path):
            return space_of(self._path.parent, self._reserve_percent)

    def _synced_space(self) -> Space:
        self._sync()
        with io_errors("its file system cannot be synced", self._path):
            self._content.settle()
        return self.space()

    def _at_reserve(self, _space: Space) -> NoSpaceError:
        return NoSpaceError(
            "the file system has come down to the reserve",
            where=str(self._path.parent),
            safe="what was durable is kept; the replica and its snapshots are untouched",
            next_step="make room, then push again: it resumes",
        )

    def _check_usable(self) -> None:
        if self._poison is not None:
            raise StorageError(
                f"not used any more after an error: {self._poison.what}",
                where=str(self._path),
                safe="the replica and its snapshots are untouched",
                next_step="run the push again",
            )
        if self._closed:
            msg = "the staging volume is closed"
            raise InternalError(msg)

    def _poisoned_by(self, error: OSError, what: str) -> BlockrepError:
        self._poison = storage_error(error, what, self._path.parent)
        return self._poison

    def _write_record(self, record: StagingRecord) -> None:
        try:
            write_record(self._path, record)
        except OSError as error:
            raise self._poisoned_by(error, "the cursor cannot be recorded") from error
        self.record = record
        self.info = record.info


def refuse_without_room(
    content: str, plan: ExtentSummary, new_chunks: int, space: Space, where: Path
) -> None:
    """Raise NoSpaceError unless the plan fits above the reserve.

    A redo file holds the data a second time while it is copied in.
    """
    need_bytes = max(plan.data_bytes, new_chunks * space.chunk_bytes)
    if content == "redo":
        need_bytes *= 2
    if need_bytes > space.free_bytes:
        raise NoSpaceError(
            f"{need_bytes} bytes are needed, {space.free_bytes} are free above the reserve",
            where=str(where.parent),
            safe="nothing was changed",
            next_step="make room, then push again",
        )
