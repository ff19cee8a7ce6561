"""Snapshots and what is known of a replica: the values that both hosts compare."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Replica", "Snapshot", "Space", "StagingInfo", "VolumeInfo"]


@dataclass(frozen=True, slots=True)
class VolumeInfo:
    """A volume as its host sees it.

    Attributes:
        kind: ``lvm-thin``, ``image`` or ``memory``.
        identity: tells this very volume from every other one (for LVM the lv_uuid); never reused.
        size_bytes: virtual size.
        block_bytes: unit in which the volume detects changes (for LVM the pool's chunk size).
    """

    kind: str
    identity: str
    size_bytes: int
    block_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot that blockrep made, at either end.

    Attributes:
        id: 32 hexadecimal digits, the same at both ends, never reused.
        lineage: 32 hexadecimal digits, the same for all snapshots of one replication.
        sequence: counts the snapshots of a lineage upward from 1.
        created_seconds: when the source took it, seconds since the epoch.
        size_bytes: virtual size of the source when it was taken.
        committed: at the source: the target holds it (it is a *base*); at the target always true
            (it is *good*).
        name: what the host calls it (LV or file name), for people.
        target: at the source: the target it is held for, as the user typed it; empty at the target.
        digest: at the target: digest of the transfer that made it, 64 hexadecimal digits; empty
            at the source.
        allocated_bytes: space that it maps, -1 where that is not known without reading the volume.
    """

    id: str
    lineage: str
    sequence: int
    created_seconds: int
    size_bytes: int
    committed: bool
    name: str = ""
    target: str = ""
    digest: str = ""
    allocated_bytes: int = -1


@dataclass(frozen=True, slots=True)
class StagingInfo:
    """An unfinished transfer at the target, and how far it is durable.

    Attributes:
        identity: uuid of the staging volume.
        lineage: of the snapshot it will become.
        base_id: good snapshot that it started from; empty: from nothing, or an adoption.
        snapshot_id: of the snapshot it will become.
        plan_digest: 32 bytes; see :func:`blockrep.model.extents.digest`.
        cursor_bytes: every extent of the plan below this offset is on stable storage.
        chain: running digest of the DATA frames up to there, 32 bytes.
    """

    identity: str
    lineage: str
    base_id: str
    snapshot_id: str
    plan_digest: bytes
    cursor_bytes: int
    chain: bytes


@dataclass(frozen=True, slots=True)
class Space:
    """Room at the target above its reserve.

    Attributes:
        chunk_bytes: unit of allocation.
        free_bytes: for data.
        metadata_free_chunks: how many chunks more the pool's metadata can map (a very large number
            where that is no limit).
    """

    chunk_bytes: int
    free_bytes: int
    metadata_free_chunks: int


@dataclass(frozen=True, slots=True)
class Replica:
    """The target as the receiver sees it at the start of a session.

    Attributes:
        exists: the volume exists; if not, the other attributes describe what would be created.
        owned: it carries blockrep's tag (or state); False for a foreign volume.
        info: None if it does not exist.
        lineage: empty if not owned.
        snapshots: good snapshots, oldest first.
        staging: the unfinished transfer that could be resumed.
        align_bytes: extents of a plan must be whole aligned blocks of this size (1: any).
        drifted: somebody wrote to the replica since its newest good snapshot was published.
        space: room for new data.
    """

    exists: bool
    owned: bool
    info: VolumeInfo | None
    lineage: str
    space: Space
    snapshots: tuple[Snapshot, ...] = field(default=())
    staging: StagingInfo | None = None
    align_bytes: int = 1
    drifted: bool = False
