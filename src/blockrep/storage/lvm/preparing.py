"""Makes the volume that a transfer writes into fit: its size, and what must read as zeros."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import partial

from blockrep.errors import InternalError, StorageError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Space
from blockrep.storage.allowance import Allowance
from blockrep.storage.interface import BeginRequest
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.device import BlockDevice
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.planning import (
    at_reserve,
    mapped_extents,
    refuse_extended,
    round_up,
    space_of,
)
from blockrep.storage.lvm.recovery import TargetView
from blockrep.storage.lvm.replica import refuse_other_base
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.runner import OutcomeUnknownError
from blockrep.storage.lvm.tags import (
    READY,
    GoodMark,
    Role,
    StagingMark,
    lv_name,
    read_staging,
    staging_tags,
)
from blockrep.storage.lvm.writable import left_alone

__all__ = ["Preparation", "check_request", "prepare_staging"]

_SECTOR_BYTES = 512


@dataclass(frozen=True, slots=True)
class Preparation:
    """What a snapshot of the replica still needs before it can be staging.

    Attributes:
        size_bytes: its size, in whole extents of the group.
        clear_from_bytes: from here to its end it must read as zeros; -1: no need.
    """

    size_bytes: int
    clear_from_bytes: int

    @classmethod
    def of(
        cls, request: BeginRequest, replica: LogicalVolume, base: GoodMark | None
    ) -> Preparation:
        """Compare the request with the replica.

        ``base``: between its snapshot's exact size and its volume's end are zeros.
        """
        size_bytes = round_up(request.size_bytes, replica.extent_bytes)
        if request.mode == "full":
            return cls(size_bytes, 0)
        known_bytes = replica.size_bytes
        if base is not None:
            # If somebody has extended the replica since, it shows there what outlived a shrink.
            known_bytes = min(known_bytes, base.volume.size_bytes)
        if base is None or request.size_bytes < base.snapshot.size_bytes:
            # What follows the source's end is an earlier source's, or a foreign volume's.
            known_bytes = min(request.size_bytes, known_bytes)
        return cls(size_bytes, known_bytes if known_bytes < size_bytes else -1)

    def chunks_needed(self, pool: LogicalVolume, shared_chunks: int) -> int:
        """Return the most that clearing allocates.

        Of what the volume shares with the replica (``shared_chunks``), a pool that cannot discard
        copies all that is cleared; others copy the first and the last one, if only in part.
        """
        if self.clear_from_bytes < 0:
            return 0
        if pool.can_discard:
            return 2
        cleared_bytes = self.size_bytes - self.clear_from_bytes
        return min(shared_chunks, -(-cleared_bytes // pool.chunk_bytes) + 1)

    def is_needed(self, replica: LogicalVolume) -> bool:
        """Tell whether there is anything to do."""
        return self.clear_from_bytes >= 0 or self.size_bytes != replica.size_bytes


def check_request(name: VolumeName, view: TargetView, request: BeginRequest) -> None:
    """Refuse what must not be begun, before anything is changed.

    Raises VolumeError, DivergedError.
    """
    if view.replica is not None and not view.owned and request.mode != "adopt":
        raise VolumeError(
            "the volume exists and was not made by blockrep",
            where=str(name),
            safe="nothing was changed",
            next_step="to make it the replica, overwriting what differs: push with --adopt",
        )
    if view.replica is None and request.mode == "adopt":
        raise VolumeError(
            "there is no volume to adopt",
            where=str(name),
            safe="nothing was changed",
            next_step="push without --adopt: the replica will be made",
        )
    for mark in view.estranged:
        if mark.snapshot.id == request.snapshot_id:
            raise left_alone(mark.volume)
    if view.good_with(request.snapshot_id) is not None:
        raise VolumeError(
            f"the snapshot {request.snapshot_id[:8]} is here already",
            where=str(name),
            safe="nothing was changed",
            next_step="push again",
        )
    newest = view.newest
    if request.mode == "incremental":
        refuse_other_base(str(name), view, request.base_id)
    elif request.base_id:
        raise InternalError(f"mode {request.mode} has no base")
    present_bytes = 0
    if newest is not None:
        present_bytes = newest.snapshot.size_bytes
    elif view.replica is not None:
        present_bytes = view.replica.size_bytes - view.replica.extent_bytes + 1
    if request.size_bytes < present_bytes and not request.allow_shrink:
        raise VolumeError(
            f"the source has {request.size_bytes} bytes, less than the replica",
            where=str(name),
            safe="nothing was changed",
            next_step="to make the replica smaller: push again with --shrink",
        )


def prepare_staging(
    group: VolumeGroup,
    request: BeginRequest,
    view: TargetView,
    pool: LogicalVolume,
    preparation: Preparation | None,
) -> StagingMark:
    """Make a staging volume that is ready to be written.

    Args:
        group: the volume group.
        request: the transfer.
        view: the target.
        pool: where a new volume goes.
        preparation: what a snapshot of the replica needs; None: make a new volume.
    """
    name = lv_name(Role.STAGING, request.lineage, request.sequence, request.snapshot_id)
    if preparation is None:
        tags = staging_tags(request, "", pool.uuid, view.name, ready=True)
        size_bytes = round_up(request.size_bytes, _SECTOR_BYTES)
        argv = commands.create_volume(group.vg, pool.name, name, size_bytes, tags)
        return _created(group, argv, name)
    if view.replica is None:
        raise InternalError("a snapshot of a replica that does not exist")
    ready = not preparation.is_needed(view.replica)
    tags = staging_tags(request, view.replica.uuid, pool.uuid, view.name, ready=ready)
    argv = commands.create_snapshot(group.vg, view.replica.name, name, tags, writable=True)
    mark = _created(group, argv, name)
    if ready:
        return mark
    if mark.volume.size_bytes != preparation.size_bytes:
        argv = commands.resize(group.vg, name, mark.volume.size_bytes, preparation.size_bytes)
        if argv[0] == "lvreduce" and _checks_file_systems(group):
            # What is there is the content before; what is to come fits.
            argv[1:1] = ["--fs", "ignore"]
        group.change(argv)
        mark = _find(group.read(), name)
    if preparation.clear_from_bytes >= 0:
        _clear_end(group, mark, pool, preparation.clear_from_bytes)
    group.change(commands.change_tags(group.vg, name, [READY]))
    return _find(group.read(), name)


def _checks_file_systems(group: VolumeGroup) -> bool:
    """Tell whether lvreduce refuses to cut a file system off, as it does since LVM 2.03.17."""
    return b"--fs " in group.attempt(["lvreduce", "--help"]).stdout


def _created(group: VolumeGroup, argv: list[str], name: str) -> StagingMark:
    with contextlib.suppress(OutcomeUnknownError):
        group.change(argv)
    return _find(group.read(), name)


def _find(state: GroupState, name: str) -> StagingMark:
    volume = state.find(name)
    mark = None if volume is None else read_staging(volume)
    if mark is None:
        raise StorageError(
            "the staging volume was not made, or was removed by somebody else",
            where=name,
            safe="the replica and its good snapshots are untouched",
            next_step="push again",
        )
    return mark


def _clear_end(
    group: VolumeGroup, mark: StagingMark, pool: LogicalVolume, start_bytes: int
) -> None:
    """Make everything from ``start_bytes`` on read as zeros, and free it where the pool can.

    Mappings outlive a shrink: growing a volume again can show what it held before.
    """
    before = group.confirmed_status(pool)
    device = BlockDevice(mark.volume, writable=True)

    def look() -> Space:
        device.sync()
        status = group.confirmed_status(pool)
        refuse_extended(before, status, pool.full_name)
        return space_of(status, pool.chunk_bytes, group.settings)

    try:
        first = round_up(start_bytes, pool.chunk_bytes)
        end = device.size_bytes
        last = end // pool.chunk_bytes * pool.chunk_bytes
        _rewrite(device, first - pool.chunk_bytes, start_bytes, min(first, end))
        cleared = first
        if first < last and pool.can_discard and device.discard(first, last - first):
            cleared = last
        look()
        if cleared < end:
            allowance = Allowance(pool.chunk_bytes, look, partial(at_reserve, pool))
            runs = PoolMetadata(group, pool).dump(mark.volume)
            for extent in mapped_extents(runs, end):
                start = max(extent.offset_bytes, cleared)
                for piece_start, piece_end in allowance.spend_in_pieces(start, extent.end_bytes):
                    device.write_zeros(piece_start, piece_end - piece_start)
            look()
    finally:
        device.close()


def _rewrite(device: BlockDevice, chunk_start: int, zeros_start: int, end: int) -> None:
    """Zero the end of a chunk; all of it is written, for pools that do not zero new chunks."""
    if zeros_start >= end or chunk_start < 0:
        return
    content = bytearray(end - chunk_start)
    device.read_into(chunk_start, memoryview(content))
    kept = zeros_start - chunk_start
    if any(content[kept:]):
        content[kept:] = bytes(len(content) - kept)
        device.write(chunk_start, memoryview(content))
