"""What the image kind writes down: one small JSON file per fact, whose existence is the fact.

::

    source/<id>.json       a snapshot exists; its content: <id>.img, a clone, or <id>.table, digests
    target/<id>.json       a good snapshot exists; its content: <id>.img, or the replica itself
                           under what <id>.redo holds
    target/staging.json    an unfinished transfer; its content: staging.img or staging.redo
    target/published.json  which good snapshot the replica shows
    target/copying.img     the replica, while a redo file is copied into it
    target/lock            held by whoever changes any of these (see holding.py)
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from blockrep.errors import VolumeError
from blockrep.model.extents import ExtentSummary
from blockrep.model.snapshots import Snapshot, StagingInfo
from blockrep.storage.files import write_durably
from blockrep.storage.image.files import FileStamp, io_errors
from blockrep.storage.interface import BeginRequest

__all__ = [
    "GoodRecord",
    "Published",
    "SourceRecord",
    "StagingRecord",
    "read_record",
    "write_record",
]

_FORMAT = 1
_NESTED = {
    "snapshot": Snapshot,
    "stamp": FileStamp,
    "replaces": FileStamp,
    "placed": FileStamp,
}

T = TypeVar("T", "SourceRecord", "GoodRecord", "StagingRecord", "Published")


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """A snapshot at the source.

    ``content``: ``img`` or ``table``; ``stamp``: of the live file when it was taken (tables).
    """

    snapshot: Snapshot
    content: str
    stamp: FileStamp


@dataclass(frozen=True, slots=True)
class GoodRecord:
    """A good snapshot at the target.

    ``order`` counts commits upward. ``content``: ``clone``, an <id>.img that stays; ``file``, an
    <id>.img that is yet to be renamed into the replica's place; ``replica``, the replica itself.
    ``replaces``: stamp of the file in the replica's place when it was committed: what publishing
    may replace or write. ``redo_key``, ``redo_bytes``: of the redo file that is to be
    copied in, empty if it was, or there never was one.
    """

    snapshot: Snapshot
    order: int
    content: str
    replaces: FileStamp | None
    redo_key: str = ""
    redo_bytes: int = 0


@dataclass(frozen=True, slots=True)
class StagingRecord:
    """An unfinished transfer.

    ``plan_digest`` and ``chain`` are hexadecimal. ``durable_bytes``: how much of a redo file the
    cursor relies on. ``replaces``: stamp of the file in the replica's place when the transfer
    began. ``content``: ``clone`` or ``file``, both a staging.img, or ``redo``.
    """

    identity: str
    lineage: str
    base_id: str
    snapshot_id: str
    sequence: int
    created_seconds: int
    size_bytes: int
    mode: str
    content: str
    replaces: FileStamp | None
    plan_digest: str = ""
    cursor_bytes: int = 0
    chain: str = ""
    durable_bytes: int = 0

    @property
    def info(self) -> StagingInfo:
        """As the drivers see it."""
        return StagingInfo(
            identity=self.identity,
            lineage=self.lineage,
            base_id=self.base_id,
            snapshot_id=self.snapshot_id,
            plan_digest=bytes.fromhex(self.plan_digest),
            cursor_bytes=self.cursor_bytes,
            chain=bytes.fromhex(self.chain),
        )

    def fits(self, request: BeginRequest, plan: ExtentSummary) -> bool:
        """Tell whether the request goes on with this very transfer."""
        return (
            self.lineage == request.lineage
            and self.base_id == request.base_id
            and self.snapshot_id == request.snapshot_id
            and self.sequence == request.sequence
            and self.size_bytes == request.size_bytes
            and self.plan_digest == plan.digest.hex()
        )

    def good(self, digest: bytes, order: int, name: str, replaces: FileStamp | None) -> GoodRecord:
        """Return the record of the good snapshot that this transfer becomes."""
        snapshot = Snapshot(
            id=self.snapshot_id,
            lineage=self.lineage,
            sequence=self.sequence,
            created_seconds=self.created_seconds,
            size_bytes=self.size_bytes,
            committed=True,
            name=name,
            digest=digest.hex(),
        )
        if self.content == "redo":
            key, size = self.identity, self.durable_bytes
            return GoodRecord(snapshot, order, "replica", replaces, key, size)
        return GoodRecord(snapshot, order, self.content, replaces)


@dataclass(frozen=True, slots=True)
class Published:
    """Which good snapshot the replica shows.

    ``stamp`` None: publishing is under way; ``placed`` then is of the file, complete, that is put
    in the replica's place.
    """

    snapshot_id: str
    stamp: FileStamp | None
    placed: FileStamp | None = None


def write_record(path: Path, record: SourceRecord | GoodRecord | StagingRecord | Published) -> None:
    """Write a record, atomically and durably. Raises OSError."""
    fields = {"format": _FORMAT, **dataclasses.asdict(record)}
    write_durably(path, json.dumps(fields, indent=1, sort_keys=True).encode() + b"\n")


def read_record(path: Path, kind: type[T]) -> T | None:
    """Return a record, None if there is none.

    Raises:
        VolumeError: it is damaged, or a newer blockrep wrote it.
    """
    try:
        with io_errors("cannot be read", path):
            try:
                text = path.read_bytes()
            except FileNotFoundError:
                return None
        fields = json.loads(text)
        _check_format(fields.pop("format"))
        for name in _NESTED.keys() & fields.keys():
            if isinstance(fields[name], dict):
                fields[name] = _NESTED[name](**fields[name])
        return kind(**fields)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise VolumeError(
            f"the record is damaged, or was written by another version of blockrep: {error}",
            where=str(path),
            safe="nothing was changed",
            next_step="use the version that wrote it, or restore the file from a backup",
        ) from error


def _check_format(number: object) -> None:
    if number != _FORMAT:
        msg = f"its format is {number}"
        raise ValueError(msg)
