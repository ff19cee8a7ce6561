"""An image file as the target.

Where files can share blocks (found out by trying), good snapshots are clones beside the file,
staging is a clone of the newest, and publishing renames one more clone over the replica, which is
never written in place. Elsewhere the replica itself is the one good
snapshot: a full transfer replaces it by a rename, an incremental one is kept in a redo file and
    copied in after its commit. There
``keep`` has no effect beyond 1: the snapshot before cannot outlive the copying.

A good snapshot exists when its record does. :meth:`ImageTarget.inspect` finishes publishing what
was committed before it describes anything.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import secrets
from collections.abc import Collection

from blockrep.errors import DivergedError, InternalError, NoSpaceError
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Replica, Snapshot, VolumeInfo
from blockrep.protocol.chain import first_chain
from blockrep.storage.files import opened_fd, sync_directory
from blockrep.storage.image import fiemap, kernel
from blockrep.storage.image.catalogue import Catalogue
from blockrep.storage.image.files import FileStamp, clone_file, io_errors, remove_file, space_of
from blockrep.storage.image.holding import Hold
from blockrep.storage.image.publishing import Publisher, WrittenReplicaError
from blockrep.storage.image.readers import CloneReader, FileReader
from blockrep.storage.image.records import GoodRecord, StagingRecord, write_record
from blockrep.storage.image.redo import DamagedRedoError, RedoLog
from blockrep.storage.image.sidecar import ImageFile
from blockrep.storage.image.staging import (
    Content,
    FileContent,
    ImageStaging,
    RedoContent,
    refuse_without_room,
)
from blockrep.storage.image.table import BLOCK_BYTES
from blockrep.storage.interface import BeginRequest, Costs, Staging, StorageSettings

__all__ = ["ImageTarget"]

_LOG = logging.getLogger("blockrep.storage")


class ImageTarget:
    """See :class:`blockrep.storage.interface.TargetVolume`.

    Args:
        name: the path of the replica.
        settings: ``data_reserve_percent`` of the file system is left free; all records lie beside
            the file.
    """

    def __init__(self, name: VolumeName, settings: StorageSettings) -> None:
        self._image = ImageFile(name, "target")
        self._catalogue = Catalogue(self._image)
        self._publisher = Publisher(self._image, self._catalogue)
        self._hold = Hold(self._image)
        self._reserve_percent = settings.data_reserve_percent

    def inspect(self) -> Replica:
        """Finish what a crash left, then describe the replica."""
        current = self._image.stat()
        with self._hold:
            self._refuse_in_use(current)
            self._catalogue.sweep()
            self._recover()
            goods = self._present_goods()
            current = self._image.stat()
            staging = self._catalogue.staging()
        with io_errors("its file system cannot be looked at", self._image.path.parent):
            space = space_of(self._image.path.parent, self._reserve_percent)
        return Replica(
            exists=current is not None,
            owned=self._is_ours(current, goods),
            info=None if current is None else self._describe(current),
            lineage=goods[-1].snapshot.lineage if goods else "",
            space=space,
            snapshots=tuple(one.snapshot for one in self._readable(goods)),
            # An adoption is not resumed: its comparison starts over.
            staging=staging.info if staging is not None and staging.mode != "adopt" else None,
            drifted=bool(goods) and self._is_drifted(goods[-1], current),
        )

    def begin(self, request: BeginRequest) -> Staging:
        """Return the staging volume for the request, and hold the target until it is closed."""
        self._image.stat()  # looks whether the directory to be held is to be trusted
        self._hold.take()
        try:
            return self._begin(request)
        except BaseException:
            self._hold.release()
            raise

    def _begin(self, request: BeginRequest) -> ImageStaging:
        current = self._image.stat()
        with io_errors("cannot be looked at", self._image.directory):
            self._image.check_one_file_system()
        self._refuse_in_use(current)
        goods = self._present_goods()
        self._check_request(request, current, goods)
        record = self._catalogue.staging()
        if record is not None and self._can_resume(record, request, current):
            try:
                return self._staging(record)
            except DamagedRedoError as error:
                _LOG.warning("the unfinished transfer starts over: %s", error)
        content = (
            "clone" if self._image.can_clone() else "file" if request.mode == "full" else "redo"
        )
        if request.plan is not None:
            self._make_room(request, content, record)
        if self._hold.make():
            return self._begin(request)
        self._catalogue.drop_staging()
        identity = secrets.token_hex(16)
        plan_digest = b"" if request.plan is None else request.plan.digest
        record = StagingRecord(
            identity=identity,
            lineage=request.lineage,
            base_id=request.base_id,
            snapshot_id=request.snapshot_id,
            sequence=request.sequence,
            created_seconds=request.created_seconds,
            size_bytes=request.size_bytes,
            mode=request.mode,
            content=content,
            replaces=None if current is None else FileStamp.of(current),
            plan_digest=plan_digest.hex(),
            chain=first_chain(request.snapshot_id, plan_digest).hex(),
        )
        with io_errors("the staging volume cannot be made", self._image.directory):
            self._make_content(record)
            write_record(self._catalogue.staging_path, record)
        return self._staging(record)

    def commit(self, staging: Staging, digest: bytes) -> Snapshot:
        """Turn staging into the newest good snapshot, and the replica into that."""
        if not isinstance(staging, ImageStaging):
            msg = f"{type(staging).__name__} is no staging volume of an image"
            raise InternalError(msg)
        with self._hold:
            return self._commit(staging, digest)

    def _commit(self, staging: ImageStaging, digest: bytes) -> Snapshot:
        goods = self._catalogue.goods()
        already = next(
            (one for one in goods if one.snapshot.id == staging.record.snapshot_id), None
        )
        if already is not None and already.snapshot.digest == digest.hex():
            self._finish(already)
            return already.snapshot
        self._refuse_present(staging.record.snapshot_id, goods)
        record = staging.synced_record()
        self._refuse_in_use(self._image.stat())  # staging stays: the next push resumes
        replaces = self._unchanged_replica(record)  # after that: whoever wrote has closed it
        self._refuse_replaced(staging)
        staging.refuse_without_room_to_publish()
        staging.close()
        order = 1 + max((one.order for one in goods), default=0)
        suffix = "redo" if record.content == "redo" else "img"
        path = self._catalogue.content(record.snapshot_id, suffix)
        name = path.name if record.content == "clone" else self._image.path.name
        good = record.good(digest, order, name, replaces)
        with io_errors("the snapshot cannot be made", path):
            remove_file(path)  # of an attempt that a crash ended before its record was written
            os.link(self._catalogue.staging_content(record.content), path)
            sync_directory(path.parent)
        self._catalogue.write_good(good)  # the commit point
        self._catalogue.drop_staging()
        self._finish(good)
        return good.snapshot

    def abandon(self) -> None:
        """Remove the staging volume, if any."""
        if self._image.directory.is_dir():
            with self._hold:
                self._catalogue.drop_staging()

    def prune(self, keep: int, protected_ids: Collection[str]) -> list[Snapshot]:
        """Remove the oldest good snapshots beyond ``keep``."""
        with self._hold:
            goods = self._readable(self._present_goods())[: -max(keep, 1)]
            removed = [one for one in goods if one.snapshot.id not in protected_ids]
            for record in removed:
                self._catalogue.drop_good(record)
        return [one.snapshot for one in removed]

    def take_costs(self) -> Costs:
        """Return nothing: no commands are run."""
        return Costs()

    def open_snapshot(self, snapshot_id: str) -> FileReader:
        """Open a good snapshot for reading."""
        for record in self._catalogue.goods():
            if record.snapshot.id == snapshot_id:
                if record.content == "clone":
                    path = self._catalogue.content(snapshot_id)
                    return CloneReader(path, record.snapshot.size_bytes)
                self._finish(record)
                return FileReader(self._image.path, record.snapshot.size_bytes)
        raise self._image.error(
            f"there is no good snapshot {snapshot_id[:8]}", "list the snapshots"
        )

    # Looking.

    def _describe(self, current: os.stat_result) -> VolumeInfo:
        return VolumeInfo("image", self._image.identity(), current.st_size, BLOCK_BYTES)

    def _present_goods(self) -> list[GoodRecord]:
        """Return the good snapshots whose content exists.

        Where that is the replica, it goes with it.
        """
        goods = self._catalogue.goods()
        if self._image.stat() is not None:
            return goods
        return [one for one in goods if not self._catalogue.needs_replica(one)]

    def _readable(self, goods: list[GoodRecord]) -> list[GoodRecord]:
        """Return those whose content can be had: where it is the replica, that must show it."""
        return [one for one in goods if one.content == "clone" or self._catalogue.is_published(one)]

    def _recover(self) -> None:
        """Publish what was committed; forget what cannot be published any more.

        A snapshot whose redo file is damaged, or whose replica was written to meanwhile, stays: it
        tells that the replica is ours, and that it is not what it should be.
        """
        newest = next(reversed(self._catalogue.goods()), None)
        if newest is None:
            return
        lost = self._image.stat() is None and self._catalogue.needs_replica(newest)
        if lost and not self._catalogue.is_published(newest):
            _LOG.warning(
                "%s is gone: snapshot %s was to be copied into it, and is lost, too",
                self._image.path,
                newest.snapshot.id[:8],
            )
            self._catalogue.drop_good(newest)
            self._recover()
            return
        try:
            self._finish(newest)
        except (DamagedRedoError, WrittenReplicaError) as error:
            _LOG.warning("a snapshot cannot be published: %s", error)

    def _finish(self, newest: GoodRecord) -> None:
        """Publish what was committed.

        A clone is also published again if somebody removed the replica.
        """
        gone = self._image.stat() is None
        if not gone or not self._catalogue.is_published(newest):
            self._publisher.publish(newest)
        elif newest.content == "clone":
            self._publisher.publish_again(newest)

    def _is_drifted(self, newest: GoodRecord, current: os.stat_result | None) -> bool:
        published = self._catalogue.published()
        if published is None or current is None or not self._catalogue.is_published(newest):
            return True
        if FileStamp.of(current) == published.stamp:
            return False
        if newest.content != "clone" or current.st_size != newest.snapshot.size_bytes:
            return True
        path = self._catalogue.content(newest.snapshot.id)
        with (
            io_errors("its extent map cannot be read", self._image.path),
            opened_fd(path, os.O_RDONLY) as good_fd,
            opened_fd(self._image.path, os.O_RDONLY) as replica_fd,
        ):
            size_bytes = current.st_size
            differing = fiemap.clone_delta(good_fd, size_bytes, replica_fd, size_bytes)
            return next(differing, None) is not None

    # Refusing.

    def _refuse_in_use(self, current: os.stat_result | None) -> None:
        away = self._catalogue.copying_path
        if current is None and not away.exists():
            return
        path = str(away if current is None else self._image.path)
        if kernel.is_open_for_writing(path):
            raise self._image.error(
                "it is open for writing", "stop what has it open (a virtual machine? a mount?)"
            )
        if kernel.is_open_elsewhere(path) and not self._image.can_clone():
            raise self._image.error(
                "it is open, and on this file system it is updated in place",
                "close or unmount it (losetup -j tells whether it is mounted)",
            )

    def _check_request(
        self, request: BeginRequest, current: os.stat_result | None, goods: list[GoodRecord]
    ) -> None:
        is_ours = self._is_ours(current, goods)
        if current is not None and not is_ours and request.mode != "adopt":
            raise self._image.error(
                "it exists and was not made by blockrep", "push with --adopt to take it over"
            )
        has_names = current is not None and not is_ours and current.st_nlink > 1
        if has_names and not self._image.can_clone():
            raise self._image.error(
                "it has other names (hard links), whose content would change with it",
                "adopt a copy of it: cp, then mv that into its place",
            )
        if current is None and request.mode == "adopt":
            raise self._image.error("there is no file to adopt", "push without --adopt")
        self._refuse_present(request.snapshot_id, goods)
        if request.mode == "incremental":
            self._check_base(request, current, goods)
        size_bytes = max(
            0 if current is None else current.st_size,
            goods[-1].snapshot.size_bytes if goods else 0,
        )
        if size_bytes > request.size_bytes and not request.allow_shrink:
            raise self._image.error(
                f"it has {size_bytes} bytes, the new content only {request.size_bytes}",
                "to make it smaller: push again with --shrink",
            )

    def _is_ours(self, current: os.stat_result | None, goods: list[GoodRecord]) -> bool:
        """Tell whether there are good snapshots, and no other file lies where one was published."""
        published = self._catalogue.published()
        if current is None or published is None or published.stamp is None:
            return bool(goods)
        return bool(goods) and published.stamp.inode == current.st_ino

    def _refuse_present(self, snapshot_id: str, goods: list[GoodRecord]) -> None:
        """A good snapshot is never written again (I3)."""
        if any(one.snapshot.id == snapshot_id for one in goods):
            raise self._image.error(f"the snapshot {snapshot_id[:8]} is here already", "push again")

    def _check_base(
        self, request: BeginRequest, current: os.stat_result | None, goods: list[GoodRecord]
    ) -> None:
        base = next((one for one in goods if one.snapshot.id == request.base_id), None)
        if base is None or (base.content != "clone" and base != goods[-1]):
            raise self._diverged("the base snapshot is not here", "--adopt or --full")
        if self._is_drifted(goods[-1], current):
            raise self._diverged("the replica was written to since its last snapshot", "--adopt")

    def _unchanged_replica(self, record: StagingRecord) -> FileStamp | None:
        """Return the stamp of what is in the replica's place, if its content is that of begin."""
        current = self._image.stat()
        stamp = None if current is None else FileStamp.of(current)
        if stamp == record.replaces:
            return stamp
        goods = self._present_goods()
        if goods and not self._is_drifted(goods[-1], current):
            return stamp
        raise self._diverged("the replica was written to during the transfer", "--adopt")

    def _refuse_replaced(self, staging: ImageStaging) -> None:
        """Refuse to commit what another process put in the place of what was written (I2)."""
        record = self._catalogue.staging()
        path = self._catalogue.staging_content(staging.record.content)
        if record is None or record.identity != staging.record.identity or not staging.is_at(path):
            raise self._image.error(
                "its staging volume was replaced during the transfer",
                "see that one blockrep at a time works on it, then push again",
            )

    def _diverged(self, what: str, options: str) -> DivergedError:
        return DivergedError(
            what,
            where=str(self._image.path),
            safe="nothing was changed",
            next_step=f"push again with {options}",
        )

    # Staging.

    def _can_resume(
        self, record: StagingRecord, request: BeginRequest, current: os.stat_result | None
    ) -> bool:
        return (
            request.plan is not None
            and record.mode == request.mode
            and record.mode != "adopt"
            and record.fits(request, request.plan)
            and (None if current is None else FileStamp.of(current)) == record.replaces
        )

    def _make_room(
        self, request: BeginRequest, content: str, abandoned: StagingRecord | None
    ) -> None:
        """Refuse what does not fit; where it does not, an abandoned transfer has to go first."""
        try:
            self._check_room(request, content, abandoned)
        except NoSpaceError:
            if abandoned is None:
                raise
            self._catalogue.drop_staging()
            self._check_room(request, content, None)

    def _check_room(
        self, request: BeginRequest, content: str, abandoned: StagingRecord | None
    ) -> None:
        assert request.plan is not None
        with io_errors("its file system cannot be looked at", self._image.path.parent):
            space = space_of(self._image.path.parent, self._reserve_percent)
            # Of a clone, blocks may be another's, too.
            if abandoned is not None and (abandoned.content != "clone" or abandoned.mode == "full"):
                freed = self._catalogue.staging_content(abandoned.content).stat().st_blocks * 512
                space = dataclasses.replace(space, free_bytes=space.free_bytes + freed)
        refuse_without_room(content, request.plan, request.new_chunks, space, self._image.path)

    def _make_content(self, record: StagingRecord) -> None:
        path = self._catalogue.staging_content(record.content)
        if record.content == "redo":
            RedoLog(path, record.identity, 0).close()
            return
        if record.mode == "adopt":
            clone_file(self._image.path, path)
        elif record.mode == "incremental":
            base = self._catalogue.content(record.base_id)
            clone_file(base if base.exists() else self._image.path, path)
        with opened_fd(path, os.O_RDWR | os.O_CREAT) as fd:
            os.ftruncate(fd, record.size_bytes)
            os.fsync(fd)

    def _staging(self, record: StagingRecord) -> ImageStaging:
        path = self._catalogue.staging_content(record.content)
        with io_errors("the staging volume cannot be opened", path):
            block_bytes = space_of(path.parent, self._reserve_percent).chunk_bytes
            if record.content != "redo":
                content: Content = FileContent(path, record.size_bytes)
            else:
                redo = RedoLog(path, record.identity, record.durable_bytes)
                replica_bytes = record.replaces.size_bytes if record.replaces else 0
                content = RedoContent(redo, self._image.path, replica_bytes, record.size_bytes)
        return ImageStaging(
            record,
            self._catalogue.staging_path,
            content,
            self._reserve_percent,
            block_bytes,
            self._hold.release,
        )
