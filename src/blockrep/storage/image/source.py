"""An image file as the source.

Where files can share blocks (XFS, btrfs; found out by trying), a snapshot is a clone and a delta
is read from extent maps. Elsewhere a snapshot is the promise that the file has not changed since
(its stat), and a table of digests of what was read; the delta is found by reading the file.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from blockrep.errors import BlockrepError, VolumeError
from blockrep.model.extents import Extent
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot, VolumeInfo
from blockrep.storage.files import opened_fd, sync_directory
from blockrep.storage.image import fiemap, kernel, scanning
from blockrep.storage.image.files import (
    FileStamp,
    clone_file,
    io_errors,
    remove_file,
    settled_stat,
)
from blockrep.storage.image.holding import held_briefly
from blockrep.storage.image.readers import CloneReader, FileReader, TableReader, changed_error
from blockrep.storage.image.records import SourceRecord, read_record, write_record
from blockrep.storage.image.sidecar import ImageFile
from blockrep.storage.image.table import (
    BLOCK_BYTES,
    Blocks,
    DigestTable,
    refuse_without_table_room,
)
from blockrep.storage.interface import Costs, StorageSettings

__all__ = ["ImageSource"]

_CLONE_BLOCK_BYTES = 4096

_logger = logging.getLogger("blockrep.storage")


class ImageSource:
    """See :class:`blockrep.storage.interface.SourceVolume`.

    Args:
        name: the path.
        settings: not needed by this kind: all records lie beside the file.
    """

    def __init__(self, name: VolumeName, settings: StorageSettings) -> None:
        del settings
        self._image = ImageFile(name, "source")
        self._clones: bool | None = None
        self._filling: set[str] = set()  # snapshots whose tables we fill

    def describe(self) -> VolumeInfo:
        """Look at the file."""
        result = self._stat()
        block_bytes = _CLONE_BLOCK_BYTES if self._can_clone() else BLOCK_BYTES
        return VolumeInfo("image", self._image.identity(), result.st_size, block_bytes)

    def snapshots(self) -> list[Snapshot]:
        """Return our snapshots.

        One without content, and without a whole table, is gone once the file has changed.
        """
        return [one.snapshot for one in self._records() if self._is_usable(one)]

    def create_snapshot(
        self, lineage: str, snapshot_id: str, sequence: int, target: str, created_seconds: int
    ) -> Snapshot:
        """Take a snapshot. What earlier runs left unfinished is removed first."""
        self._stat()
        self._image.make_directory()
        with held_briefly(self._image):
            self._sweep()
            return self._create_snapshot(lineage, snapshot_id, sequence, target, created_seconds)

    def _create_snapshot(
        self, lineage: str, snapshot_id: str, sequence: int, target: str, created_seconds: int
    ) -> Snapshot:
        content = "img" if self._can_clone() else "table"
        path = self._content_path(snapshot_id, content)
        with io_errors("the snapshot cannot be made", path):
            if content == "img":
                clone_file(self._image.path, path)
                result = path.stat()
                allocated_bytes = result.st_blocks * 512
            else:
                self._warn_of_writers()
                result = settled_stat(self._stat)
                refuse_without_table_room(result.st_size, path.parent)
                allocated_bytes = -1
            snapshot = Snapshot(
                id=snapshot_id,
                lineage=lineage,
                sequence=sequence,
                created_seconds=created_seconds,
                size_bytes=result.st_size,
                committed=False,
                name=path.name,
                target=target,
                allocated_bytes=allocated_bytes,
            )
            write_record(
                self._record_path(snapshot_id),
                SourceRecord(snapshot, content, FileStamp.of(result)),
            )
        return snapshot

    def mark_committed(self, snapshot: Snapshot) -> Snapshot:
        """Record that the target holds the snapshot."""
        record = self._record(snapshot)
        if record.content == "table":
            self._sealed_table(record.snapshot).close()
        committed = dataclasses.replace(record.snapshot, committed=True)
        if not record.snapshot.committed:
            path = self._record_path(snapshot.id)
            with held_briefly(self._image), io_errors("cannot be written", path):
                write_record(path, dataclasses.replace(record, snapshot=committed))
        return committed

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        """Delete a snapshot of ours: first its record, then its content."""
        record = read_record(self._record_path(snapshot.id), SourceRecord)
        if record is not None and record.snapshot.lineage != snapshot.lineage:
            raise self._image.error(
                "the snapshot is of another lineage than expected", "look again"
            )
        with held_briefly(self._image):
            self._remove_files(self._image.ours().get(snapshot.id, []))

    def delta(self, base: Snapshot | None, new: Snapshot | None) -> Iterator[Extent]:
        """Yield what differs.

        Where files cannot share blocks, this reads the whole file and fills the table of
        ``new``.
        """
        base_record = None if base is None else self._record(base)
        new_record = None if new is None else self._record(new)
        contents = {one.content for one in (base_record, new_record) if one is not None}
        if len(contents) > 1:
            raise self._image.error(
                "its file system came to support snapshots, or ceased to, since the base was taken",
                "push with --adopt: it compares both ends and sends what differs",
            )
        if contents == {"table"} or (not contents and not self._can_clone()):
            return self._scanned_delta(base_record, new_record)
        return self._cloned_delta(base_record, new_record)

    def open_snapshot(self, snapshot: Snapshot) -> FileReader:
        """Open a snapshot for reading.

        Without a clone, the live file is read, and every block held against the table.
        """
        record = self._record(snapshot)
        if record.content == "img":
            return CloneReader(self._content_path(snapshot.id, "img"), snapshot.size_bytes)
        self._check_unchanged(record)
        resumes = snapshot.id not in self._filling
        table = self._table_to_read(record.snapshot)
        try:
            return TableReader(
                self._image.path,
                table,
                record.stamp,
                lambda: self._forget(record),
                resumes=resumes and not table.sealed,
            )
        except BaseException:
            table.close()
            raise

    def has_content(self, snapshot: Snapshot) -> bool:
        """Tell whether it is a clone."""
        return self._record(snapshot).content != "table"

    def take_costs(self) -> Costs:
        """Return nothing: no commands are run."""
        return Costs()

    def stored_digests(self, snapshot: Snapshot) -> tuple[int, int, Iterator[bytes]] | None:
        """Return the table of a snapshot that has one."""
        record = self._record(snapshot)
        if record.content != "table":
            return None
        table = self._whole_table(record.snapshot)
        if table is None:
            return None

        def digests() -> Iterator[bytes]:
            with table:
                yield from table.digests()

        return BLOCK_BYTES, table.blocks.seed, digests()

    # Clones.

    def _cloned_delta(
        self, base: SourceRecord | None, new: SourceRecord | None
    ) -> Iterator[Extent]:
        path = self._image.path if new is None else self._content_path(new.snapshot.id, "img")
        with io_errors("its extent map cannot be read", path), contextlib.ExitStack() as stack:
            fd = stack.enter_context(opened_fd(path, os.O_RDONLY))
            size_bytes = os.fstat(fd).st_size if new is None else new.snapshot.size_bytes
            if base is None:
                yield from fiemap.mapped_extents(fd, size_bytes)
                return
            base_path = self._content_path(base.snapshot.id, "img")
            base_fd = stack.enter_context(opened_fd(base_path, os.O_RDONLY))
            yield from fiemap.clone_delta(base_fd, base.snapshot.size_bytes, fd, size_bytes)

    # Tables.

    def _scanned_delta(
        self, base: SourceRecord | None, new: SourceRecord | None
    ) -> Iterator[Extent]:
        if new is not None:
            self._check_unchanged(new)
        with io_errors("cannot be read", self._image.path), contextlib.ExitStack() as stack:
            fd = stack.enter_context(opened_fd(self._image.path, os.O_RDONLY))
            size_bytes = os.fstat(fd).st_size
            if base is None:
                yield from scanning.planned_extents(fd, size_bytes)
                return
            base_table = stack.enter_context(self._sealed_table(base.snapshot))
            table: DigestTable | None = None
            if new is not None:
                table = self._growing_table(new.snapshot, base_table.blocks.seed)
                stack.enter_context(table)
            blocks = Blocks(size_bytes, base_table.blocks.seed)
            changed = False
            try:
                yield from scanning.scan_changes(fd, blocks, base_table, table)
            except scanning.ChangedError:
                changed = True
            except BlockrepError:
                if new is None or FileStamp.of(os.fstat(fd)) == new.stamp:
                    raise
            if new is not None and (changed or FileStamp.of(os.fstat(fd)) != new.stamp):
                self._forget(new)
                raise changed_error(self._image.path)
            if table is not None:
                table.sync()

    def _growing_table(self, snapshot: Snapshot, seed: int | None = None) -> DigestTable:
        """Return the table that is filled while the snapshot is sent, with a seed if one is given.

        What an attempt before this one sent stands in it, and must be the same now: the receiver
        keeps it.
        """
        self._filling.add(snapshot.id)
        path = self._content_path(snapshot.id, "table")
        with io_errors("the digest table cannot be used", path):
            table = DigestTable.reopen(path, snapshot.id, snapshot.size_bytes)
            if table is not None and seed in {None, table.blocks.seed}:
                return table
            if table is not None:
                table.close()
            if seed is None:
                seed = secrets.randbits(64)
            return DigestTable.create(path, snapshot.id, snapshot.size_bytes, seed)

    def _may_grow(self, snapshot: Snapshot) -> bool:
        """Tell whether nothing was sent of it yet, or it is known what that was.

        The file's times alone prove nothing of what lies below the receiver's cursor: writes
        through memory maps, and those shortly before a power cut, may leave them as they were.
        """
        path = self._content_path(snapshot.id, "table")
        with io_errors("the digest table cannot be used", path):
            if not path.exists():
                return True
            table = DigestTable.reopen(path, snapshot.id, snapshot.size_bytes)
            if table is not None:
                table.close()
            return table is not None

    def _whole_table(self, snapshot: Snapshot) -> DigestTable | None:
        path = self._content_path(snapshot.id, "table")
        with io_errors("the digest table cannot be read", path):
            return DigestTable.open_sealed(path, snapshot.id, snapshot.size_bytes)

    def _table_to_read(self, snapshot: Snapshot) -> DigestTable:
        """Return the table to hold against what is read, one to be filled if there is none yet."""
        try:
            if table := self._whole_table(snapshot):
                return table
        except VolumeError:
            if snapshot.committed:
                raise
            # A crash tore what a push had not finished: it is begun again.
        return self._growing_table(snapshot)

    def _sealed_table(self, snapshot: Snapshot) -> DigestTable:
        table = self._whole_table(snapshot)
        if table is None:
            raise self._image.error(
                f"the digest table of snapshot {snapshot.id[:8]} is missing or incomplete",
                "push with --adopt: it compares both ends and makes a new table",
            )
        return table

    def _warn_of_writers(self) -> None:
        if kernel.is_open_for_writing(str(self._image.path)):
            _logger.warning(
                "%s is open for writing, and its file system has no snapshots: if it changes during"
                " the push, the push ends, but writes through memory maps may go unnoticed; stop"
                " the writer, or use XFS, btrfs or LVM",
                self._image.path,
            )

    def _check_unchanged(self, record: SourceRecord) -> None:
        if FileStamp.of(self._stat()) != record.stamp:
            self._forget(record)
            raise changed_error(self._image.path)

    def _forget(self, record: SourceRecord) -> None:
        """Drop a pending snapshot that cannot be read any more: the next push takes another one."""
        if not record.snapshot.committed:
            self.remove_snapshot(record.snapshot)

    # Records.

    def _stat(self) -> os.stat_result:
        result = self._image.stat()
        if result is None:
            raise self._image.error("no such file", "check the path")
        if not result.st_size:
            raise self._image.error("it is empty: there is nothing to replicate", "check the path")
        return result

    def _can_clone(self) -> bool:
        if self._clones is None:
            self._clones = self._image.can_clone()
        return self._clones

    def _records(self) -> list[SourceRecord]:
        found = (read_record(self._record_path(one), SourceRecord) for one in self._image.ours())
        records = [one for one in found if one is not None]
        return sorted(
            records, key=lambda one: (one.snapshot.created_seconds, one.snapshot.sequence)
        )

    def _record(self, snapshot: Snapshot) -> SourceRecord:
        record = read_record(self._record_path(snapshot.id), SourceRecord)
        if record is None or record.snapshot.lineage != snapshot.lineage:
            raise self._image.error(f"snapshot {snapshot.id[:8]} is gone", "push again")
        return record

    def _is_usable(self, record: SourceRecord) -> bool:
        if record.snapshot.committed or record.content == "img":
            return True
        if FileStamp.of(self._stat()) == record.stamp and self._may_grow(record.snapshot):
            return True
        # A whole table: the target may hold the snapshot without our knowing it yet.
        try:
            table = self._whole_table(record.snapshot)
        except VolumeError as error:
            _logger.warning("snapshot %s is lost: %s", record.snapshot.id[:8], error)
            return False
        if table is not None:
            table.close()
        return table is not None

    def _sweep(self) -> None:
        """Remove what a crash left, and pending snapshots that were lost."""
        usable = {one.snapshot.id for one in self._records() if self._is_usable(one)}
        for snapshot_id, paths in self._image.ours().items():
            stale = [one for one in paths if snapshot_id not in usable or one.suffix == ".tmp"]
            self._remove_files(stale)

    def _remove_files(self, paths: list[Path]) -> None:
        if not paths:
            return
        with io_errors("cannot be removed", self._image.directory):
            for path in sorted(paths, key=lambda one: one.suffix != ".json"):
                remove_file(path)
                if path.suffix == ".json":
                    sync_directory(path.parent)
            sync_directory(self._image.directory)

    def _record_path(self, snapshot_id: str) -> Path:
        return self._image.directory / f"{snapshot_id}.json"

    def _content_path(self, snapshot_id: str, suffix: str) -> Path:
        return self._image.directory / f"{snapshot_id}.{suffix}"
