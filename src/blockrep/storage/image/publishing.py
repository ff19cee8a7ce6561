"""Making the newest good snapshot the replica: after its commit, and after a crash again.

What lies in the replica's place is replaced or written only if it is what was there when the
transfer began, what we published last, or what an interrupted attempt put there (I7).
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from blockrep.errors import VolumeError
from blockrep.storage.files import opened_fd, sync_directory
from blockrep.storage.image.catalogue import Catalogue
from blockrep.storage.image.files import FileStamp, clone_file, io_errors, remove_file
from blockrep.storage.image.records import GoodRecord, Published
from blockrep.storage.image.redo import RedoLog
from blockrep.storage.image.sidecar import ImageFile

__all__ = ["Publisher"]

_NEW_MODE = 0o400
_WRITE_BITS = 0o222


class Publisher:
    """Publishes good snapshots of one target."""

    def __init__(self, image: ImageFile, catalogue: Catalogue) -> None:
        self._image = image
        self._catalogue = catalogue

    def publish(self, good: GoodRecord) -> None:
        """Make the replica show the newest good snapshot, unless it does already.

        Raises:
            VolumeError: something else is in the replica's place.
            DamagedRedoError: its content is lost; nothing was changed.
            NoSpaceError, StorageError: it could not be finished; the snapshot stays committed.
        """
        if not self._catalogue.is_published(good):
            with io_errors("publishing failed", self._image.path):
                self._publish(good, self._catalogue.published())
            self._catalogue.write_published(Published(good.snapshot.id, self._stamp()))
        self._tidy(good)

    def publish_again(self, good: GoodRecord) -> None:
        """Put the newest good snapshot, a clone, into the replica's empty place.

        Raises as :meth:`publish`.
        """
        with io_errors("publishing failed", self._image.path):
            self._publish(good, self._catalogue.published())
        self._catalogue.write_published(Published(good.snapshot.id, self._stamp()))

    def _publish(self, good: GoodRecord, published: Published | None) -> None:
        if good.content == "clone":
            fresh = self._image.directory / "publishing.img"
            clone_file(self._catalogue.content(good.snapshot.id), fresh)
            self._rename(fresh, good, published)
        elif good.content == "file":
            fresh = self._catalogue.content(good.snapshot.id)
            if fresh.exists():
                self._drop_older(good)
                self._rename(fresh, good, published)
            else:
                self._check_place(
                    good, published
                )  # an interrupted attempt came as far as the rename
        else:
            self._copy_in(good, published)

    def _drop_older(self, good: GoodRecord) -> None:
        """Forget the snapshot that is the replica, which is about to change: there is a newer."""
        for older in self._catalogue.goods():
            if older.order < good.order:
                self._catalogue.drop_good(older)

    def _rename(self, fresh: Path, good: GoodRecord, published: Published | None) -> None:
        current = self._check_place(good, published)
        with opened_fd(fresh, os.O_RDONLY) as fd:
            if current is None:
                os.fchmod(fd, _NEW_MODE)
            else:
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, current.st_uid, current.st_gid)
                os.fchmod(fd, stat.S_IMODE(current.st_mode) & ~_WRITE_BITS)
            os.fsync(fd)
            inode = os.fstat(fd).st_ino
        here = () if current is None else (current.st_ino,)
        self._catalogue.write_published(Published(good.snapshot.id, None, (inode, *here)))
        fresh.replace(self._image.path)
        sync_directory(self._image.path.parent)
        sync_directory(self._image.directory)

    def _copy_in(self, good: GoodRecord, published: Published | None) -> None:
        current = self._check_place(good, published)
        if current is None:
            raise self._image.error("the replica is gone", "push with --full")
        path = self._catalogue.content(good.snapshot.id, "redo")
        redo = RedoLog(path, good.redo_key, good.redo_bytes)
        with contextlib.closing(redo), self._opened_replica(current) as fd:
            self._drop_older(good)
            os.ftruncate(fd, good.snapshot.size_bytes)
            redo.copy_into(fd)
            os.fsync(fd)

    @contextlib.contextmanager
    def _opened_replica(self, current: os.stat_result) -> Iterator[int]:
        """Open the replica, which is read-only for everybody, for writing."""
        mode = stat.S_IMODE(current.st_mode) & ~_WRITE_BITS
        self._image.path.chmod(mode | stat.S_IWUSR | stat.S_IRUSR)
        with opened_fd(self._image.path, os.O_RDWR) as fd:
            os.fchmod(fd, mode)
            if os.fstat(fd).st_ino != current.st_ino:
                raise self._foreign()
            yield fd

    def _tidy(self, good: GoodRecord) -> None:
        """Record that the replica itself is the snapshot now; drop the redo file."""
        if good.content == "file" or good.redo_key:
            self._catalogue.write_good(
                dataclasses.replace(good, content="replica", redo_key="", redo_bytes=0)
            )
            with io_errors("cannot be removed", self._image.directory):
                remove_file(self._catalogue.content(good.snapshot.id, "redo"))
                sync_directory(self._image.directory)

    def _check_place(self, good: GoodRecord, published: Published | None) -> os.stat_result | None:
        current = self._image.stat()
        expected = {good.replaces}
        if published is not None:
            expected.update(published.inodes)
            if published.stamp is not None:
                expected.add(published.stamp.inode)
        if current is not None and current.st_ino not in expected:
            raise self._foreign()
        return current

    def _foreign(self) -> VolumeError:
        return VolumeError(
            "another file was put in the replica's place before its new content was published",
            where=str(self._image.path),
            safe="that file was not touched, and the new content is kept",
            next_step="move that file away, then run the same command again",
        )

    def _stamp(self) -> FileStamp:
        result = self._image.stat()
        if result is None:
            raise self._image.error("the replica is gone", "run the same command again")
        return FileStamp.of(result)
