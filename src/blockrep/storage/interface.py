"""What every storage kind offers, as seen by the drivers in :mod:`blockrep.replication`.

All methods block and may be called from any thread, one at a time; the drivers call them through
an executor. The exception: a
:meth:`Staging.sync` and :meth:`Staging.save_cursor` may run while another thread writes. They raise
:class:`blockrep.errors.BlockrepError` subclasses only: ``VolumeError`` for a volume in the wrong
state, ``StorageError`` for
failed I/O, ``NoSpaceError``, ``BusyError``, ``UnsupportedHostError``.

Two roles, each a protocol: a :class:`SourceVolume` is snapshotted and read; a
:class:`TargetVolume` is the replica's side.

The life of a transfer at the target, and what a crash leaves at each step::

    (nothing)  --begin-->  staging  --write*, sync, save_cursor-->  staging, durable up to its
    cursor
               --commit: the good snapshot comes to exist, atomically (the commit point)-->  good,
               not yet published
               --publish (inside commit): the replica becomes the new content, in one step-->  good
               and published

``recover`` (run by ``inspect``) decides from what is on disk alone: good and not published is
published; staging without a good
snapshot stays for a resume; everything else of ours is removed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from blockrep.model.extents import Extent, ExtentSummary
from blockrep.model.snapshots import Replica, Snapshot, Space, StagingInfo, VolumeInfo

__all__ = [
    "BeginRequest",
    "Costs",
    "SnapshotReader",
    "SourceVolume",
    "Staging",
    "StorageSettings",
    "TargetVolume",
]


@dataclass(frozen=True, slots=True)
class StorageSettings:
    """Where storage kinds keep their records, and the bounds they keep to.

    Attributes:
        state_directory: survives a reboot (cursors of LVM staging volumes, the record of a
            metadata snapshot that we reserved); mode 0700, created on first use.
        runtime_directory: locks; emptied by a reboot.
        data_reserve_percent: a thin pool's data, or a file system, is never filled beyond 100
            minus this.
        metadata_reserve_percent: the same for a thin pool's metadata.
        command_timeout_seconds: after this an LVM command's outcome is unknown and the state
            is read again.
        pool: ``VG/POOL`` in which a new replica is created; empty: the only thin pool of the
            volume group.
    """

    state_directory: Path
    runtime_directory: Path
    data_reserve_percent: int = 5
    metadata_reserve_percent: int = 10
    command_timeout_seconds: int = 120
    pool: str = ""


@dataclass(frozen=True, slots=True)
class Costs:
    """What a volume's methods had this host do.

    Attributes:
        commands: (program, how often, seconds), in the order of their first use.
        metadata_snapshot_seconds: how long a pool's metadata snapshot was reserved.
    """

    commands: tuple[tuple[str, int, float], ...] = ()
    metadata_snapshot_seconds: float = 0.0

    @property
    def command_count(self) -> int:
        """How many commands were run."""
        return sum(count for _, count, _ in self.commands)

    @property
    def command_seconds(self) -> float:
        """How long they took."""
        return sum(seconds for _, _, seconds in self.commands)


class SnapshotReader(Protocol):
    """Reads one snapshot.

    A context manager: leaving it closes (and deactivates) the snapshot's device.
    """

    size_bytes: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """Fill the whole of ``buffer`` from ``offset_bytes``.

        Raises:
            StorageError: the device failed (names the extent), or ended early.
            VolumeError: a volume without real snapshots changed while it was being read.
        """

    def allocated(self) -> Iterator[Extent]:
        """Yield, ascending.

        The DATA extents that may hold anything but zeros (allocated ranges; everything if
        unknown).
        """

    def remember(self) -> None:
        """Make durable what is known of the snapshot by what was read: before that is sent.

        A resume goes on from what the receiver has. Kinds with real snapshots have nothing to do.
        Raises StorageError.
        """

    def confirm(self) -> None:
        """Prove that all that was read belongs to the snapshot.

        Called once after the last read, before COMMIT.

        Kinds with real snapshots have nothing to do. Raises VolumeError if the volume changed
        meanwhile.
        """


class SourceVolume(Protocol):
    """The side that is snapshotted and read."""

    def describe(self) -> VolumeInfo:
        """Look at the live volume.

        Raises VolumeError (unknown, thick, pool damaged ...), UnsupportedHostError.
        """

    def snapshots(self) -> list[Snapshot]:
        """Return our snapshots of this volume (all lineages, committed or not), oldest first.

        Right after :meth:`describe`: as of that look.
        """

    def create_snapshot(
        self, lineage: str, snapshot_id: str, sequence: int, target: str, created_seconds: int
    ) -> Snapshot:
        """Take a read-only snapshot, held for ``target``, not committed.

        One atomic step: a crash leaves all or nothing.
        """

    def mark_committed(self, snapshot: Snapshot) -> Snapshot:
        """Record that the target holds the snapshot.

        Idempotent, atomic, durable when it returns.
        """

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        """Delete a snapshot of ours; checks tag and identity first.

        One that is gone already is no error.
        """

    def delta(self, base: Snapshot | None, new: Snapshot | None) -> Iterator[Extent]:
        """Yield, ascending, clipped to the new size: DATA what may differ from ``base``.

        DISCARD what ``new`` no longer maps.

        ``base`` None: everything that ``new`` maps, as DATA (what it does not map is left out: a
        fresh target reads as zeros).
        ``new`` None: the live volume, for a preview; changes nothing that outlasts the call.
        Deterministic for the same two snapshots: a resumed transfer compares the digest of the
        whole delta.
        May be consumed lazily; locks (the pool's metadata snapshot) must not be held while the
        caller consumes: spool first.
        """

    def open_snapshot(self, snapshot: Snapshot) -> SnapshotReader:
        """Open a snapshot for reading. Raises VolumeError if it is gone."""

    def stored_digests(self, snapshot: Snapshot) -> tuple[int, int, Iterator[bytes]] | None:
        """Return the snapshot's digest table.

        Where the kind keeps one instead of the content; else None.

        As (block_bytes, seed, XXH3-128 digests of the blocks in order, 16 bytes each).
        """

    def has_content(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot of ours can be read beside a newer one, and is what it was.

        It is not where only its digests are kept, or if somebody made it writable.
        """

    def take_costs(self) -> Costs:
        """Return what the calls since the last of this cost."""


@dataclass(frozen=True, slots=True)
class BeginRequest:
    """What the sender asks the target to stage.

    ``base_id``: a good snapshot of the target, or empty: start from nothing (``mode`` full) or
        from the existing volume's
    present content (``mode`` adopt). ``plan``: totals and digest; None only when an adoption
    stages before its plan is
    known (then :meth:`Staging.set_plan` follows). ``new_chunks``: see
    :func:`blockrep.model.extents.count_chunks`, in the target's
    chunks. ``allow_shrink``: the user consented to a smaller replica.
    """

    lineage: str
    snapshot_id: str
    sequence: int
    created_seconds: int
    base_id: str
    mode: str  # "full", "incremental" or "adopt"
    size_bytes: int
    plan: ExtentSummary | None
    new_chunks: int
    allow_shrink: bool = False


class Staging(Protocol):
    """The volume a transfer writes into.

    The first failed write or sync poisons it: every later call raises StorageError.
    """

    info: StagingInfo

    def set_plan(self, plan: ExtentSummary, new_chunks: int) -> None:
        """Bind an adoption's staging to its plan. Raises NoSpaceError as begin does."""

    def write(self, offset_bytes: int, data: memoryview) -> None:
        """Write DATA. Received, not durable."""

    def clear(self, extent: Extent) -> None:
        """Make a ZERO or DISCARD extent read as zeros.

        Frees whole chunks where the storage can, writes zeros elsewhere.
        """

    def sync(self) -> None:
        """Put all that was written on stable storage; never retried.

        An error poisons the staging volume for good.
        """

    def save_cursor(self, cursor_bytes: int, chain: bytes) -> None:
        """Record, durably, that everything below ``cursor_bytes`` is durable.

        Only after a sync that covered it.
        """

    def space(self) -> Space:
        """Room left above the reserve, now or at the last sync.

        Cheap: called during the transfer (a driver stops cleanly when it is gone).
        """

    def reader(self) -> SnapshotReader:
        """Read what an adoption starts from, before anything is written."""

    def close(self) -> None:
        """Close the device; the staging volume stays for a resume."""


class TargetVolume(Protocol):
    """The replica's side."""

    def inspect(self) -> Replica:
        """Finish or roll back what a crash left (recovery, idempotent), then describe the replica.

        Raises VolumeError: the volume is in use (mounted, open), of the wrong kind, its pool is
        damaged or read-only.
        """

    def begin(self, request: BeginRequest) -> Staging:
        """Return the staging volume for the request.

        The one to resume if all of its identity fits, else a new one.

        A staging volume that does not fit the request is removed first (trap 6: an abandoned
        attempt is rolled back).
        Everything that can refuse does so before anything is changed: NoSpaceError (need predicted
        against ``space`` and
        the reserve), VolumeError (foreign and not mode adopt; in use; smaller without consent),
        DivergedError (base not
        here, or the replica drifted).
        """

    def commit(self, staging: Staging, digest: bytes) -> Snapshot:
        """Sync, create the good snapshot (commit point), publish it as the replica.

        Idempotent after a crash by recovery.
        """

    def abandon(self) -> None:
        """Remove the staging volume, if any. The replica and its good snapshots are not touched."""

    def prune(self, keep: int, protected_ids: Collection[str]) -> list[Snapshot]:
        """Remove the oldest good snapshots beyond ``keep`` (at least 1), never the newest.

        Never a protected one; return them.
        """

    def open_snapshot(self, snapshot_id: str) -> SnapshotReader:
        """Open a good snapshot for reading (verify).

        Raises VolumeError if there is none with that id.
        """

    def take_costs(self) -> Costs:
        """Return what the calls since the last of this cost."""
