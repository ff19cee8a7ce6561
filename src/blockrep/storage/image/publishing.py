"""Making the newest good snapshot the replica: after its commit, and after a crash again.

What lies in the replica's place is replaced or written only if it is, unchanged, what was there
at the commit, or what an interrupted attempt put there (I7).
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
from blockrep.storage.image.files import (
    FileStamp,
    clone_file,
    io_errors,
    remove_file,
    settled_stat,
)
from blockrep.storage.image.records import GoodRecord, Published
from blockrep.storage.image.redo import DamagedRedoError, RedoLog
from blockrep.storage.image.sidecar import ImageFile

__all__ = ["Publisher", "WrittenReplicaError"]

_NEW_MODE = 0o400
_WRITE_BITS = 0o222
_COPYING_SAFE = "the new content is kept; the next run copies it in, and puts the replica back"


class WrittenReplicaError(VolumeError):
    """Somebody wrote to the replica after the commit of what is to be published."""


class Publisher:
    """Publishes good snapshots of one target."""

    def __init__(self, image: ImageFile, catalogue: Catalogue) -> None:
        self._image = image
        self._catalogue = catalogue

    def publish(self, good: GoodRecord) -> None:
        """Make the replica show the newest good snapshot, unless it does already.

        Raises:
            WrittenReplicaError: the replica was written to since the commit.
            VolumeError: something else is in the replica's place.
            DamagedRedoError: its content is lost; nothing was changed.
            NoSpaceError, StorageError: it could not be finished; the snapshot stays committed.
        """
        if not self._catalogue.is_published(good):
            self.publish_again(good)
        self._tidy(good)

    def publish_again(self, good: GoodRecord) -> None:
        """Put the newest good snapshot into the replica's place. Raises as :meth:`publish`."""
        with io_errors("publishing failed", self._image.path):
            if good.content == "clone":
                fresh = self._image.directory / "publishing.img"
                clone_file(self._catalogue.content(good.snapshot.id), fresh)
                self._rename(fresh, good)
            elif good.content == "replica":
                self._copy_in(good)
            elif (fresh := self._catalogue.content(good.snapshot.id)).exists():
                self._drop_older(good)
                self._rename(fresh, good)
            else:  # an interrupted attempt came as far as the rename
                self._check_place(self._placed(good))
            # Whoever wrote to it since it was placed did so before it has a stamp.
            placed = self._placed(good)
            stamp = FileStamp.of(settled_stat(lambda: self._unwritten(placed)))
        self._catalogue.write_published(Published(good.snapshot.id, stamp))

    def _drop_older(self, good: GoodRecord) -> None:
        """Forget the snapshot that is the replica, which is about to change: there is a newer."""
        for older in self._catalogue.goods():
            if older.order < good.order and older.content != "clone":
                self._catalogue.drop_good(older)

    def _rename(self, fresh: Path, good: GoodRecord) -> None:
        current = self._check_place(good.replaces, self._placed(good))
        with opened_fd(fresh, os.O_RDONLY) as fd:
            if current is None:
                os.fchmod(fd, _NEW_MODE)
            else:
                with contextlib.suppress(PermissionError):
                    os.fchown(fd, current.st_uid, current.st_gid)
                os.fchmod(fd, stat.S_IMODE(current.st_mode) & ~_WRITE_BITS)
            os.fsync(fd)
            self._note_placed(good, fd)
        fresh.replace(self._image.path)
        sync_directory(self._image.path.parent)
        sync_directory(self._image.directory)

    def _copy_in(self, good: GoodRecord) -> None:
        """Copy a redo file into the replica, which meanwhile lies where nobody else looks.

        So nobody sees it half done, and what was written to it is not taken for ours.
        """
        away, here = self._catalogue.copying_path, self._image.stat()
        if here is not None and away.exists() and os.path.samestat(here, away.lstat()):
            remove_file(away)  # an interrupted attempt came as far as putting it back
        if (placed := self._placed(good)) is not None:
            if not away.exists():
                self._check_place(placed)
                return
            if FileStamp.of(away.lstat()).has_content_of(placed):
                self._put_back()
                return
        redo_path = self._catalogue.content(good.snapshot.id, "redo")
        try:
            redo = RedoLog(redo_path, good.redo_key, good.redo_bytes)
        except DamagedRedoError:
            self._put_back()
            raise
        with contextlib.closing(redo):
            if not away.exists():
                self._take_away(good)
            with (
                io_errors("the new content cannot be copied in", away, _COPYING_SAFE),
                self._opened_away() as fd,
            ):
                os.ftruncate(fd, good.snapshot.size_bytes)
                redo.copy_into(fd)
                os.fsync(fd)
                self._note_placed(good, fd)
        self._put_back()

    def _take_away(self, good: GoodRecord) -> None:
        if self._check_place(good.replaces) is None:
            raise self._image.error("the replica is gone", "push with --full")
        self._drop_older(good)
        self._image.path.rename(self._catalogue.copying_path)
        sync_directory(self._image.directory)
        sync_directory(self._image.path.parent)

    @contextlib.contextmanager
    def _opened_away(self) -> Iterator[int]:
        """Open the replica, which is read-only for everybody, for writing."""
        path = self._catalogue.copying_path
        mode = stat.S_IMODE(path.lstat().st_mode) & ~_WRITE_BITS
        path.chmod(mode | stat.S_IWUSR | stat.S_IRUSR)
        with opened_fd(path, os.O_RDWR) as fd:
            os.fchmod(fd, mode)
            yield fd

    def _put_back(self) -> None:
        """Put the replica back in its place, which must be empty."""
        away = self._catalogue.copying_path
        if not away.exists():
            return
        try:
            os.link(away, self._image.path)
        except FileExistsError:
            raise self._foreign() from None
        sync_directory(self._image.path.parent)
        remove_file(away)
        sync_directory(self._image.directory)

    def _placed(self, good: GoodRecord) -> FileStamp | None:
        """Return the stamp of what an interrupted attempt put in the replica's place, or may."""
        published = self._catalogue.published()
        if published is None or published.snapshot_id != good.snapshot.id:
            return None
        return published.placed

    def _note_placed(self, good: GoodRecord, fd: int) -> None:
        """Take note of the file, complete, that is about to be put in the replica's place."""
        stamp = FileStamp.of(settled_stat(lambda: os.fstat(fd)))
        self._catalogue.write_published(Published(good.snapshot.id, None, stamp))

    def _tidy(self, good: GoodRecord) -> None:
        """Record that the replica itself is the snapshot now; drop the redo file."""
        if good.content == "file" or good.redo_key:
            self._catalogue.write_good(
                dataclasses.replace(good, content="replica", redo_key="", redo_bytes=0)
            )
            with io_errors("cannot be removed", self._image.directory):
                remove_file(self._catalogue.content(good.snapshot.id, "redo"))
                sync_directory(self._image.directory)

    def _check_place(self, *expected: FileStamp | None) -> os.stat_result | None:
        """Return the stat of what is in the replica's place, which must be one of these or none."""
        current = self._image.stat()
        if current is None:
            return None
        stamp, known = FileStamp.of(current), [one for one in expected if one is not None]
        if any(stamp.has_content_of(one) for one in known):
            return current
        if any(stamp.inode == one.inode for one in known):
            raise WrittenReplicaError(
                "the replica was written to after its new content was committed",
                where=str(self._image.path),
                safe="it was not touched since",
                next_step="push with --adopt: it compares both ends and sends what differs",
            )
        raise self._foreign()

    def _foreign(self) -> VolumeError:
        return VolumeError(
            "another file was put in the replica's place before its new content was published",
            where=str(self._image.path),
            safe="that file was not touched, and the new content is kept",
            next_step="move that file away, then run the same command again",
        )

    def _unwritten(self, placed: FileStamp | None) -> os.stat_result:
        result = self._check_place(placed)
        if result is None:
            raise self._image.error("the replica is gone", "run the same command again")
        return result
