"""What is recorded of a target: its good snapshots, its staging volume, what the replica shows."""

from __future__ import annotations

from pathlib import Path

from blockrep.storage.files import sync_directory
from blockrep.storage.image.files import io_errors, remove_file
from blockrep.storage.image.records import (
    GoodRecord,
    Published,
    StagingRecord,
    read_record,
    write_record,
)
from blockrep.storage.image.sidecar import ImageFile

__all__ = ["Catalogue"]


class Catalogue:
    """The records in a target's directory; each change is atomic and durable when it returns."""

    def __init__(self, image: ImageFile) -> None:
        self._image = image
        self._staging_path = image.directory / "staging.json"
        self._published_path = image.directory / "published.json"

    @property
    def staging_path(self) -> Path:
        """Where the record of the staging volume lies."""
        return self._staging_path

    @property
    def copying_path(self) -> Path:
        """Where the replica lies while a redo file is copied into it."""
        return self._image.directory / "copying.img"

    def staging_content(self, content: str) -> Path:
        """Where the staging volume's content lies."""
        return self._image.directory / ("staging.redo" if content == "redo" else "staging.img")

    def content(self, snapshot_id: str, suffix: str = "img") -> Path:
        """Where a good snapshot's content lies, unless it is the replica."""
        return self._image.directory / f"{snapshot_id}.{suffix}"

    def goods(self) -> list[GoodRecord]:
        """Return the good snapshots, oldest first."""
        found = (read_record(self._good_path(one), GoodRecord) for one in self._image.ours())
        return sorted((one for one in found if one is not None), key=lambda one: one.order)

    def write_good(self, record: GoodRecord) -> None:
        """Record a good snapshot: the commit point if it is a new one."""
        path = self._good_path(record.snapshot.id)
        with io_errors("the snapshot cannot be recorded", path):
            write_record(path, record)

    def drop_good(self, record: GoodRecord) -> None:
        """Remove a good snapshot: its record, then its content."""
        snapshot_id = record.snapshot.id
        names = [
            self._good_path(snapshot_id),
            self.content(snapshot_id),
            self.content(snapshot_id, "redo"),
        ]
        self._remove(names)

    def staging(self) -> StagingRecord | None:
        """Return the unfinished transfer, if its content is there, too."""
        record = read_record(self._staging_path, StagingRecord)
        if record is not None and not self.staging_content(record.content).exists():
            return None
        return record

    def drop_staging(self) -> None:
        """Remove the unfinished transfer, or what a crash left of one."""
        names = [self._staging_path, *(self.staging_content(one) for one in ("redo", "file"))]
        self._remove(names)

    def published(self) -> Published | None:
        """Return what the replica shows."""
        return read_record(self._published_path, Published)

    def is_published(self, record: GoodRecord) -> bool:
        """Tell whether the replica shows a good snapshot, or did when we last wrote it."""
        published = self.published()
        return (
            published is not None
            and published.snapshot_id == record.snapshot.id
            and published.stamp is not None
        )

    def needs_replica(self, record: GoodRecord) -> bool:
        """Tell whether the content of a good snapshot is the replica, or rests on it."""
        if record.content == "file":
            return not self.content(record.snapshot.id).exists()
        return record.content == "replica" and not self.copying_path.exists()

    def write_published(self, record: Published) -> None:
        """Record what the replica shows."""
        with io_errors("publishing cannot be recorded", self._published_path):
            write_record(self._published_path, record)

    def sweep(self) -> None:
        """Remove what a crash left: files of ours that no record speaks of."""
        if not self._image.directory.is_dir():
            return
        staging = self.staging()
        # One that is good already, by a commit that a crash ended, is not to be gone on with.
        if staging is None or self._good_path(staging.snapshot_id).exists():
            self.drop_staging()
        names = ("staging.json", "published.json", "publishing.img")
        stale = [self._image.directory / f"{one}.tmp" for one in names]
        stale.append(self._image.directory / "publishing.img")
        known = {one.snapshot.id for one in self.goods()}
        for snapshot_id, paths in self._image.ours().items():
            stale += [one for one in paths if snapshot_id not in known or one.suffix == ".tmp"]
        self._remove(stale)

    def _remove(self, paths: list[Path]) -> None:
        """Remove files, the first of which is a record if any is.

        Without it, the others mean nothing.
        """
        present = [one for one in paths if one.is_symlink() or one.exists()]
        with io_errors("cannot be removed", self._image.directory):
            for path in present:
                remove_file(path)
                if path.suffix == ".json":
                    sync_directory(path.parent)
            if present:
                sync_directory(self._image.directory)

    def _good_path(self, snapshot_id: str) -> Path:
        return self._image.directory / f"{snapshot_id}.json"
