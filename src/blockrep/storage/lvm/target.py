"""An LVM thin volume as a replica: staging, commit, publication, recovery."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection

from blockrep.errors import (
    ConfigurationError,
    InternalError,
    NoSpaceError,
    StorageError,
    VolumeError,
)
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Replica, Snapshot, VolumeInfo
from blockrep.storage.interface import (
    BeginRequest,
    Costs,
    SnapshotReader,
    Staging,
    StorageSettings,
)
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.device import device_bytes
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.planning import (
    check_pool_health,
    check_room,
    chunks_needed,
    leaves_discarded,
    new_chunk_count,
    space_of,
)
from blockrep.storage.lvm.preparing import Preparation, check_request, prepare_staging
from blockrep.storage.lvm.reading import LvmReader, deactivate_leftovers
from blockrep.storage.lvm.recovery import Action, Step, TargetView, next_step, view_target
from blockrep.storage.lvm.replica import (
    allowed_step,
    differs,
    drifted,
    refuse_dependents,
    refuse_other_base,
)
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.runner import ProcessRunner, Runner
from blockrep.storage.lvm.source import warn_of_queueing
from blockrep.storage.lvm.staging import LvmStaging, cursor_of, staging_info
from blockrep.storage.lvm.tags import (
    MARK,
    REPLICA_TAGS,
    GoodMark,
    Role,
    StagingMark,
    good_tags,
    lv_name,
    replica_tag,
)
from blockrep.storage.lvm.unmade import find_unmade
from blockrep.storage.lvm.versions import check_thin_tools
from blockrep.storage.lvm.writable import warn_of_estranged

__all__ = ["LvmTarget"]

_LOG = logging.getLogger("blockrep.storage")
_MAX_STEPS = 12
_MAX_REPEATS = 3
# udev opens a device for a moment after every change to it.
_OPEN_LOOKS = 5
_OPEN_POLL_SECONDS = 0.3


class LvmTarget:
    """The replica's side of a transfer into a thin pool.

    See :class:`blockrep.storage.interface.TargetVolume` for the contract. The caller holds the
    volume's lock.

    Args:
        name: ``VG/LV`` of the replica, which need not exist.
        settings: folders, bounds, and the pool for a new replica.
        runner: starts programs; None: real ones.
    """

    def __init__(
        self, name: VolumeName, settings: StorageSettings, runner: Runner | None = None
    ) -> None:
        self.runner = runner or ProcessRunner(settings.command_timeout_seconds)
        self._name = name
        self._settings = settings
        self._group = VolumeGroup(name.vg, settings, self.runner)
        self._proven = ""
        self._warned: set[str] = set()
        self._handed: tuple[GroupState, TargetView] | None = None

    # -- what is there

    def inspect(self) -> Replica:
        """Finish or roll back what a crash left, then describe the replica."""
        check_thin_tools(self.runner)
        state, view = self._recover()
        if view.replica is not None and not view.replica.read_only:
            # Read-only (as ours is between pushes), it may be mounted: begin refuses then.
            state, view = self._closed_replica(state, view)
        warn_of_estranged((mark.volume for mark in view.estranged), self._warned)
        deactivate_leftovers(self._group, [mark.volume for mark in view.goods])
        pool = self._pool(state, view)
        status = self._group.status(pool)
        if status.mode != "out_of_data_space":
            check_pool_health(status, pool.full_name)
        staging = view.staging
        if staging is not None and (view.merge_pending or staging.mode == "adopt"):
            staging = None  # published, or an adoption, whose comparison starts over
        newest = view.newest if view.owned else None
        return Replica(
            exists=view.replica is not None,
            owned=view.owned,
            info=None if view.replica is None else _info(view.replica, pool, newest),
            lineage="" if newest is None else newest.snapshot.lineage,
            space=space_of(status, pool.chunk_bytes, self._settings),
            snapshots=tuple(mark.snapshot for mark in view.goods) if view.owned else (),
            staging=None if staging is None else staging_info(staging, self._settings),
            align_bytes=1 if pool.zeroes else pool.chunk_bytes,
            drifted=self._has_drifted(view, pool),
        )

    def open_snapshot(self, snapshot_id: str) -> SnapshotReader:
        """Open a good snapshot for reading."""
        state = self._group.read()
        view = view_target(state, self._name.lv)
        for mark in view.goods:
            if mark.snapshot.id == snapshot_id:
                pool = state.pool_of(mark.volume)
                return LvmReader(self._group, mark.volume, pool, mark.snapshot.size_bytes)
        raise VolumeError(
            f"there is no good snapshot {snapshot_id[:8]}",
            where=str(self._name),
            safe="nothing was changed",
            next_step="see which there are: blockrep list",
        )

    def take_costs(self) -> Costs:
        """Return what the calls since the last of this cost."""
        return self._group.take_costs()

    # -- a transfer

    def begin(self, request: BeginRequest) -> Staging:
        """Return the staging volume for the request, resumed or new."""
        state, view = self._recover()
        if view.replica is not None:
            state, view = self._closed_replica(state, view)
            if view.replica is not None:
                refuse_dependents(state, view.replica)
        check_request(self._name, view, request)
        pool = self._pool(state, view)
        existing = view.staging
        # What inspect proved, commit proves again: not a third time between them.
        if request.base_id and self._proven != request.base_id and self._has_drifted(view, pool):
            raise drifted(str(self._name))
        if existing is not None and existing.fits(request):
            return self._resume(view, existing, pool, request)
        preparation = None
        if view.replica is not None:
            base = None if not request.base_id or view.newest is None else view.newest
            preparation = Preparation.of(request, view.replica, base)
        need = chunks_needed(request.plan, request.new_chunks, pool)
        shared = 0
        if view.replica is not None:
            shared = self._group.mapped_bytes(view.replica) // pool.chunk_bytes
        if preparation is not None:
            need += preparation.chunks_needed(pool, shared)
        self._make_room(pool, need, shared, leaves_discarded(request.plan, pool), existing)
        mark = prepare_staging(self._group, request, view, pool, preparation)
        return LvmStaging(self._group, mark, pool, shared)

    def commit(self, staging: Staging, digest: bytes) -> Snapshot:
        """Make the good snapshot, then publish it."""
        if not isinstance(staging, LvmStaging):
            raise InternalError("a staging volume of another kind")
        state = self._group.read()
        view = view_target(state, self._name.lv)
        proven_id = ""
        if view.good_with(staging.mark.snapshot_id) is None:
            staging.sync()
            staging.check_whole()
            if view.replica is not None:
                refuse_dependents(state, view.replica)
                if view.replica.open_for_writing:
                    state, view = self._closed_replica(state, view)
            if staging.mark.base_id:
                refuse_other_base(str(self._name), view, staging.mark.base_id)
                if self._has_drifted(view, self._pool(state, view)):
                    raise drifted(str(self._name))
            self._create_good(view, staging.mark, digest)
            proven_id = self._proven
        staging.close()
        state, view = self._recover(proven_id)
        good = view.good_with(staging.mark.snapshot_id)
        if good is None or good.snapshot.digest != digest.hex():
            raise StorageError(
                "the good snapshot is not there, or is of another transfer",
                where=str(self._name),
                safe="the replica and its older good snapshots are untouched",
                next_step="push again",
            )
        if view.merge_pending or view.unpublished:
            _LOG.warning("%s: is open; it shows its new content once it is closed", self._name)
        cursor_of(staging.mark.volume, self._settings).remove()
        self._handed = state, view
        return good.snapshot

    def abandon(self) -> None:
        """Remove the staging volume, if any."""
        _, view = self._recover()
        for mark in view.stagings:
            if not (mark.volume.merging or view.is_committed(mark)):
                self._remove(mark)

    def prune(self, keep: int, protected_ids: Collection[str]) -> list[Snapshot]:
        """Remove the oldest good snapshots beyond ``keep``; right after a commit as it saw them."""
        handed, self._handed = self._handed, None
        if handed is None:
            state = self._group.read()
            handed = state, view_target(state, self._name.lv)
        state, view = handed
        needed = {mark.base_id for mark in view.stagings} | set(protected_ids)
        removed = []
        for mark in view.goods[: -max(keep, 1)]:
            if mark.snapshot.id in needed:
                continue
            if dependents := state.dependents(mark.volume):
                names = ", ".join(one.full_name for one in dependents)
                _LOG.warning(
                    "%s is kept: LVM would remove %s with it", mark.volume.full_name, names
                )
                continue
            state = self._group.remove(mark.volume, state)
            removed.append(mark.snapshot)
        return removed

    # -- recovery

    def _recover(self, proven_id: str = "") -> tuple[GroupState, TargetView]:
        """Take steps until there is none to take.

        ``proven_id``: the good snapshot that the replica was just proven to equal.
        """
        repeats: list[Step] = []
        for _ in range(_MAX_STEPS):
            state = self._group.read()
            view = view_target(state, self._name.lv)
            unmade = find_unmade(self._group, state, self._pool_uuids(state, view))
            step = Step(Action.REMOVE_UNMADE, unmade[0]) if unmade else next_step(view)
            if step is not None:
                step = allowed_step(self._group, state, view, step, proven_id)
            if step is not None and step.action is Action.FINISH_MERGE:
                repeats.append(step)
            if step is None or len(repeats) > _MAX_REPEATS:
                if view.replica is not None and view.replica.active:
                    self._refresh_size(view.replica)
                return state, view
            self._take(step, state)
        raise StorageError(
            "recovery does not come to an end",
            where=str(self._name),
            safe="the good snapshots are untouched",
            next_step="see lvs -a -o +lv_tags, and what LVM says about these volumes",
        )

    def _take(self, step: Step, state: GroupState) -> None:
        volume = step.volume
        vg, name = volume.vg, volume.name
        match step.action:
            case Action.REMOVE:
                self._group.remove(volume, state)
                cursor_of(volume, self._settings).remove()
            case Action.REMOVE_UNMADE:
                self._group.remove(volume, state, unmade=True)
            case Action.FINISH_MERGE if not volume.active:
                # There is nothing to reload: it merges when it is activated.
                self._group.change(commands.activate(vg, name))
            case Action.FINISH_MERGE:
                # The first reload merges; of a volume whose size changes it loads the old size.
                self._group.change(commands.refresh(vg, name))
                self._group.change(commands.refresh(vg, name))
            case Action.CLAIM:
                change = commands.change_tags if volume.read_only else commands.read_only
                self._group.change(change(vg, name, REPLICA_TAGS))
            case Action.MERGE:
                # While it is open, LVM would only note the merge. udev may hold it for a moment.
                self._group.attempt(commands.deactivate(vg, name))
                self._group.change(commands.merge(vg, name))
            case Action.BECOME_REPLICA:
                keep = {MARK, replica_tag(self._name.lv)}
                change = commands.change_tags if volume.read_only else commands.read_only
                self._group.change(change(vg, name, REPLICA_TAGS, sorted(volume.tags - keep)))
            case Action.NAME:
                self._group.change(commands.rename(vg, name, self._name.lv))

    def _refresh_size(self, replica: LogicalVolume) -> None:
        """Reload a replica whose device kept its old size when a merge was finished by others."""
        if device_bytes(replica) not in {-1, replica.size_bytes}:
            self._group.change(commands.refresh(replica.vg, replica.name))

    # -- parts of inspect and begin

    def _pool_uuids(self, state: GroupState, view: TargetView) -> set[str]:
        """Return the pools that the target is in, or else may come into."""
        volumes = [] if view.replica is None else [view.replica]
        volumes += [mark.volume for mark in view.stagings]
        volumes += [mark.volume for mark in view.goods]
        found = {one.pool_uuid for one in volumes}
        return found or {one.uuid for one in self._pools_for_new(state)}

    def _pools_for_new(self, state: GroupState) -> list[LogicalVolume]:
        pools = [one for one in state.volumes if one.kind == "pool"]
        return [one for one in pools if self._settings.pool in {"", one.full_name}]

    def _pool(self, state: GroupState, view: TargetView) -> LogicalVolume:
        """Return the replica's pool, or the one for a new replica."""
        if view.replica is not None:
            return state.pool_of(view.replica)
        pools = self._pools_for_new(state)
        if len(pools) == 1:
            return pools[0]
        names = ", ".join(one.full_name for one in pools)
        raise ConfigurationError(
            f"several thin pools could take a new replica: {names}"
            if pools
            else "there is no thin pool for a new replica",
            where=self._settings.pool or self._name.vg,
            safe="nothing was changed",
            next_step="set storage.pool to VG/POOL, a thin pool of the replica's volume group",
        )

    def _closed_replica(self, state: GroupState, view: TargetView) -> tuple[GroupState, TargetView]:
        """Return the state as soon as nobody has the replica open. Raises VolumeError."""
        for look in range(_OPEN_LOOKS):
            if view.replica is not None and not view.replica.open and not view.merge_pending:
                break
            if look:
                time.sleep(_OPEN_POLL_SECONDS)
            state, view = self._recover()
        else:
            waiting = view.merge_pending or view.unpublished is not None
            waits = "; its newest snapshot waits to be shown" if waiting else ""
            raise VolumeError(
                f"the replica is in use (mounted, or open in another program){waits}",
                where=str(self._name),
                safe="nothing was changed",
                next_step="unmount or close it, then push again",
            )
        return state, view

    def _resume(
        self, view: TargetView, mark: StagingMark, pool: LogicalVolume, request: BeginRequest
    ) -> Staging:
        """Open an unfinished staging volume, if the pool has room for the rest of the transfer."""
        shared = 0
        if mark.of_uuid and view.replica is not None:
            runs = PoolMetadata(self._group, pool).compare(view.replica, mark.volume)
            present = new_chunk_count(runs, pool.chunk_bytes)
            shared = self._group.mapped_bytes(view.replica) // pool.chunk_bytes
        else:
            present = self._group.mapped_bytes(mark.volume) // pool.chunk_bytes
        need = max(chunks_needed(request.plan, request.new_chunks, pool) - present, 0)
        leaves = leaves_discarded(request.plan, pool)
        check_room(self._group.status(pool), pool, self._settings, need, shared, leaves)
        if not mark.volume.active:
            self._group.change(commands.activate(mark.volume.vg, mark.volume.name))
        return LvmStaging(self._group, mark, pool, shared)

    def _make_room(
        self,
        pool: LogicalVolume,
        need: int,
        shared: int,
        discarded_leaves: int,
        existing: StagingMark | None,
    ) -> None:
        """Remove a staging volume that does not fit. Raises NoSpaceError.

        It goes first: nobody can resume it, and it may be what takes the room.
        """
        if existing is not None:
            self._remove(existing)
        status = self._group.status(pool)
        try:
            check_room(status, pool, self._settings, need, shared, discarded_leaves)
        except NoSpaceError as error:
            if existing is not None:
                error.safe = "only an unfinished transfer was removed; the replica is untouched"
            raise
        warn_of_queueing(pool, status)

    def _has_drifted(self, view: TargetView, pool: LogicalVolume) -> bool:
        """Tell whether the replica is something else than its newest good snapshot."""
        self._proven = ""
        if view.replica is None or not view.owned or view.newest is None or view.merge_pending:
            return False
        if differs(self._group, view.replica, view.newest, pool):
            return True
        self._proven = view.newest.snapshot.id
        return False

    def _create_good(self, view: TargetView, mark: StagingMark, digest: bytes) -> None:
        """The commit point: one lvcreate; what it left is judged by the state read afterwards."""
        there = [one for one in view.stagings if one.volume.uuid == mark.volume.uuid]
        if not there or view.is_detached(there[0]):
            raise StorageError(
                "the staging volume is gone, or no snapshot of the replica any more: somebody"
                " merged another one into that",
                where=mark.volume.full_name,
                safe="the replica and its good snapshots are untouched",
                next_step="push again",
            )
        order = 1 + max((one.order for one in (*view.goods, *view.estranged)), default=0)
        name = lv_name(Role.GOOD, mark.lineage, mark.sequence, mark.snapshot_id)
        tags = good_tags(mark, digest, order)
        argv = commands.create_snapshot(
            mark.volume.vg, mark.volume.name, name, tags, writable=False
        )
        try:
            self._group.change(argv)
        except (StorageError, NoSpaceError):
            left = view_target(self._group.read(), self._name.lv)
            if left.good_with(mark.snapshot_id) is None:
                raise

    def _remove(self, mark: StagingMark) -> None:
        self._group.remove(mark.volume)
        cursor_of(mark.volume, self._settings).remove()


def _info(replica: LogicalVolume, pool: LogicalVolume, newest: GoodMark | None) -> VolumeInfo:
    size_bytes = replica.size_bytes if newest is None else newest.snapshot.size_bytes
    return VolumeInfo("lvm-thin", replica.uuid, size_bytes, pool.chunk_bytes)
