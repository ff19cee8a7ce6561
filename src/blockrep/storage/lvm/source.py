"""An LVM thin volume as a source: snapshots, and deltas from the pool's metadata."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

from blockrep.errors import StorageError, VolumeError
from blockrep.model.extents import Extent
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot, VolumeInfo
from blockrep.storage.interface import Costs, SnapshotReader, StorageSettings
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata, begun
from blockrep.storage.lvm.planning import (
    check_pool_health,
    check_room_for_snapshot,
    delta_extents,
    mapped_extents,
)
from blockrep.storage.lvm.reading import LvmReader, deactivate_leftovers
from blockrep.storage.lvm.reports import LogicalVolume, PoolStatus
from blockrep.storage.lvm.runner import OutcomeUnknownError, ProcessRunner, Runner
from blockrep.storage.lvm.tags import (
    BASE,
    PENDING,
    Role,
    SourceMark,
    lv_name,
    read_source,
    role_of,
    source_tags,
)
from blockrep.storage.lvm.unmade import find_unmade
from blockrep.storage.lvm.versions import check_thin_tools
from blockrep.storage.lvm.writable import is_estranged, left_alone, warn_of_estranged

__all__ = ["LvmSource", "warn_of_queueing"]

_LOG = logging.getLogger("blockrep.storage")
_WARN_PERCENT = 80


def warn_of_queueing(pool: LogicalVolume, status: PoolStatus) -> None:
    """Warn of a pool that is nearly full and then lets its writers hang for a minute."""
    if pool.queues_when_full and status.used_chunks * 100 > status.total_chunks * _WARN_PERCENT:
        _LOG.warning(
            "%s: used to %d %%; when it is full, every writer hangs for 60 s and then fails"
            " (lvchange --errorwhenfull y makes them fail at once)",
            pool.full_name,
            status.used_chunks * 100 // status.total_chunks,
        )


class LvmSource:
    """A thin volume whose snapshots are taken and read.

    See :class:`blockrep.storage.interface.SourceVolume` for the contract.

    Args:
        name: ``VG/LV``.
        settings: folders and bounds.
        runner: starts programs; None: real ones.
    """

    def __init__(
        self, name: VolumeName, settings: StorageSettings, runner: Runner | None = None
    ) -> None:
        self.runner = runner or ProcessRunner(settings.command_timeout_seconds)
        self._name = name
        self._settings = settings
        self._group = VolumeGroup(name.vg, settings, self.runner)
        self._handed: GroupState | None = None
        self._known: dict[str, SourceMark] = {}
        self._estranged: dict[str, LogicalVolume] = {}
        self._warned: set[str] = set()

    def describe(self) -> VolumeInfo:
        """Look at the live volume; the look serves a call of :meth:`snapshots` that follows."""
        self._handed = None
        state, volume, pool = self._look()
        check_thin_tools(self.runner)
        status = self._group.status(pool)
        if status.mode != "out_of_data_space":  # what is there can still be listed and read
            check_pool_health(status, pool.full_name)
        self._handed = state
        return VolumeInfo("lvm-thin", volume.uuid, volume.size_bytes, pool.chunk_bytes)

    def snapshots(self) -> list[Snapshot]:
        """Return our snapshots of this very volume in this very pool, oldest first."""
        state, volume, pool = self._look()
        marks = list(self._marks_of(state, volume, pool).values())
        unmade = find_unmade(self._group, state, {pool.uuid})
        marks = [mark for mark in marks if mark.volume not in unmade]
        deactivate_leftovers(self._group, [mark.volume for mark in marks])
        return [mark.snapshot for mark in marks]

    def create_snapshot(
        self, lineage: str, snapshot_id: str, sequence: int, target: str, created_seconds: int
    ) -> Snapshot:
        """Take a read-only snapshot: one lvcreate with all tags.

        Raises NoSpaceError: the pool is below its reserve.
        """
        state, volume, pool = self._look()
        for unmade in find_unmade(self._group, state, {pool.uuid}):
            self._group.remove(unmade, unmade=True)
        status = self._group.status(pool)
        check_room_for_snapshot(status, pool.full_name, self._settings)
        warn_of_queueing(pool, status)
        name = lv_name(Role.SOURCE, lineage, sequence, snapshot_id)
        wanted = Snapshot(
            snapshot_id, lineage, sequence, created_seconds, volume.size_bytes, False, name, target
        )
        tags = source_tags(wanted, volume.uuid, pool.uuid)
        argv = commands.create_snapshot(volume.vg, volume.name, name, tags, writable=False)
        try:
            self._group.change(argv)
        except OutcomeUnknownError:
            if self._find(snapshot_id) is None:
                raise
        # Read again: the volume may have grown between the look and the snapshot.
        state, volume, pool = self._look()
        self._handed = state
        mark = self._marks_of(state, volume, pool).get(snapshot_id)
        if mark is None:
            raise _gone(self._name, wanted)
        return mark.snapshot

    def mark_committed(self, snapshot: Snapshot) -> Snapshot:
        """Record that the target holds the snapshot."""
        if not snapshot.committed:
            argv = commands.change_tags(self._name.vg, snapshot.name, [BASE], [PENDING])
            try:
                self._group.change(argv)
            except StorageError:
                # In time or not, or gone: the state tells.
                if not self._mark(snapshot).snapshot.committed:
                    raise
        return replace(snapshot, committed=True)

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        """Delete a snapshot of ours."""
        # The command itself holds uuid and tags against what is there then.
        mark = self._known.get(snapshot.id) or self._find(snapshot.id)
        if mark is None:
            return
        if mark.snapshot.lineage != snapshot.lineage:
            raise VolumeError(
                f"the snapshot {snapshot.id[:8]} is of another lineage",
                where=mark.volume.full_name,
                safe="it was not removed",
            )
        state = self._group.read()
        now = state.with_uuid(mark.volume.uuid)
        if now is not None and is_estranged(now):  # since it was looked at
            warn_of_estranged([now], self._warned)
        else:
            self._group.remove(mark.volume, state)
        self._known.pop(snapshot.id, None)

    def delta(self, base: Snapshot | None, new: Snapshot | None) -> Iterator[Extent]:
        """Yield what differs, from the metadata alone."""
        state, live, pool = self._look()
        marks = self._marks_of(state, live, pool)
        left, right = (live if one is None else self._volume(marks, one) for one in (base, new))
        check_thin_tools(self.runner)
        metadata = PoolMetadata(self._group, pool)
        runs = begun(metadata.dump(right) if base is None else metadata.compare(left, right))
        # What the tool compared was called by thin ids, which are used again: only if both volumes
        # are there afterwards were they what those ids meant all the time. This look also serves
        # the call of open_snapshot that follows.
        after = self._group.read()
        self._handed = after
        for one in (left, right):
            found = after.with_uuid(one.uuid)
            if found is not None and is_estranged(found):
                raise left_alone(found)
            if found is None or (found.thin_id, found.pool_uuid) != (one.thin_id, pool.uuid):
                raise VolumeError(
                    "was removed while it was compared",
                    where=one.full_name,
                    safe="nothing was sent",
                    next_step="push again; without a common base: with --adopt or --full",
                )
        if base is None:
            yield from mapped_extents(runs, right.size_bytes)
        else:
            yield from delta_extents(runs, left.size_bytes, right.size_bytes)

    def open_snapshot(self, snapshot: Snapshot) -> SnapshotReader:
        """Open a snapshot for reading."""
        state, volume, pool = self._look()
        snapshot_volume = self._volume(self._marks_of(state, volume, pool), snapshot)
        return LvmReader(self._group, snapshot_volume, pool, snapshot.size_bytes)

    def stored_digests(self, snapshot: Snapshot) -> tuple[int, int, Iterator[bytes]] | None:
        """Return None: snapshots have their content."""
        del snapshot
        return None

    def has_content(self, snapshot: Snapshot) -> bool:
        """Tell whether it is still read-only."""
        return (self._known.get(snapshot.id) or self._find(snapshot.id)) is not None

    def take_costs(self) -> Costs:
        """Return what the calls since the last of this cost."""
        return self._group.take_costs()

    def _look(self) -> tuple[GroupState, LogicalVolume, LogicalVolume]:
        """Return the state, the live volume and its pool; a look that was handed on serves once."""
        state, self._handed = self._handed or self._group.read(), None
        volume, pool = state.thin_volume(self._name)
        if role_of(volume) is Role.STAGING:
            raise VolumeError(
                "is the staging volume of a transfer",
                where=str(self._name),
                safe="nothing was changed",
                next_step="name the replica, or one of its good snapshots",
            )
        return state, volume, pool

    def _find(self, snapshot_id: str) -> SourceMark | None:
        self._handed = None
        return self._marks_of(*self._look()).get(snapshot_id)

    def _mark(self, snapshot: Snapshot) -> SourceMark:
        mark = self._find(snapshot.id)
        if mark is None:
            raise _gone(self._name, snapshot)
        return mark

    def _volume(self, marks: dict[str, SourceMark], snapshot: Snapshot) -> LogicalVolume:
        if snapshot.id in self._estranged:
            raise left_alone(self._estranged[snapshot.id])
        mark = marks.get(snapshot.id)
        if mark is None:
            raise _gone(self._name, snapshot)
        return mark.volume

    def _marks_of(
        self, state: GroupState, volume: LogicalVolume, pool: LogicalVolume
    ) -> dict[str, SourceMark]:
        """Return our snapshots of this volume by their ids, oldest first.

        One that names another uuid of volume or pool is of a predecessor: comparing it would work,
        and mean nothing. One that somebody made writable is left alone.
        """
        found = []
        self._estranged = {}
        for one in state.volumes:
            mark = read_source(one)
            if mark is None or mark.of_uuid != volume.uuid:
                continue
            if not mark.pool_uuid == pool.uuid == one.pool_uuid:
                continue
            if is_estranged(one):
                self._estranged[mark.snapshot.id] = one
            else:
                found.append(mark)
        warn_of_estranged(self._estranged.values(), self._warned)
        found.sort(key=lambda mark: (mark.snapshot.created_seconds, mark.snapshot.sequence))
        self._known = {mark.snapshot.id: mark for mark in found}
        return self._known


def _gone(name: VolumeName, snapshot: Snapshot) -> VolumeError:
    return VolumeError(
        f"the snapshot #{snapshot.sequence} {snapshot.id[:8]} is gone",
        where=str(name),
        safe="nothing was changed",
        next_step="push again; without a common base: with --adopt or --full",
    )
