"""What a replica must be before its content is exchanged: as its last snapshot left it.

Whoever promotes a replica (makes it writable, and uses it) need not tell us. A crash may have left
a commit that is still to be shown there: it is not, if anything was written meanwhile.
"""

from __future__ import annotations

import logging

from blockrep.errors import DivergedError, VolumeError
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.recovery import Action, Step, TargetView
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import GoodMark
from blockrep.storage.lvm.thin_xml import RunKind

__all__ = ["allowed_step", "differs", "drifted", "refuse_dependents", "refuse_other_base"]

_LOG = logging.getLogger("blockrep.storage")


def differs(
    group: VolumeGroup, replica: LogicalVolume, good: GoodMark, pool: LogicalVolume
) -> bool:
    """Tell whether the replica maps anything else than a good snapshot.

    Or is smaller: of one that somebody shrank the mappings are what they were.
    """
    if replica.size_bytes < good.volume.size_bytes:
        return True
    runs = PoolMetadata(group, pool).compare(good.volume, replica)
    return any(run.kind is not RunKind.SAME for run in runs)


def refuse_dependents(state: GroupState, replica: LogicalVolume) -> None:
    """Refuse a replica whose content LVM does not exchange: others show what it holds.

    Raises VolumeError.
    """
    dependents = state.dependents(replica)
    if dependents:
        names = ", ".join(one.full_name for one in dependents)
        raise VolumeError(
            f"{names} shows what the replica holds (a thick snapshot, or a thin volume on top of"
            " it): LVM does not let it change",
            where=replica.full_name,
            safe="the replica and its good snapshots are untouched",
            next_step=f"remove {names} if it is not needed any more, then push again",
        )


def refuse_other_base(where: str, view: TargetView, base_id: str) -> None:
    """Refuse a base that is not what the replica was left as. Raises DivergedError."""
    if view.newest is None or view.newest.snapshot.id != base_id:
        raise DivergedError(
            f"the base {base_id[:8]} is not the replica's newest good snapshot",
            where=where,
            safe="the replica and its good snapshots are as they were",
            next_step="push again; without a common base: with --adopt or --full",
        )


def drifted(where: str) -> DivergedError:
    """Return the error of a replica that differs."""
    return DivergedError(
        "the replica was written to since its last snapshot",
        where=where,
        safe="nothing was overwritten; the good snapshots are intact",
        next_step="to overwrite what was written there: push again with --adopt",
    )


def allowed_step(
    group: VolumeGroup, state: GroupState, view: TargetView, step: Step, proven_id: str
) -> Step:
    """Return a step of recovery, or another one where it would take back what was written.

    ``proven_id``: the good snapshot that the replica was just proven to equal.

    Raises:
        VolumeError: LVM has noted a merge, and only LVM's next activation ends that; or see
            :func:`refuse_dependents`.
    """
    replica = view.replica
    if step.action is Action.REMOVE:
        _warn_of_detached(view, step.volume)
    if replica is None or step.action not in {Action.CLAIM, Action.MERGE, Action.FINISH_MERGE}:
        return step
    noted = step.action is Action.FINISH_MERGE
    if not noted:
        refuse_dependents(state, replica)
    mark = next(one for one in view.stagings if one.volume.merging) if noted else view.unpublished
    assert mark is not None
    if noted and replica.read_only:  # as it was made before the merge was noted
        return step
    if not noted and not mark.base_id:  # it is to overwrite whatever is there
        return step
    if replica.read_only and proven_id == mark.base_id:
        return step
    base = view.good_with(mark.base_id)
    if base is not None and not differs(group, replica, base, state.pool_of(replica)):
        return step
    if noted:
        merges = "--refresh" if replica.active else "-ay"
        raise VolumeError(
            f"the replica was made writable while snapshot #{mark.sequence} waits to be merged"
            " into it: LVM does that when it is next activated, over what was written",
            where=replica.full_name,
            safe="nothing was changed; the good snapshots are intact",
            next_step="copy what is to be kept while it is active; then: lvchange"
            f" {merges} {replica.full_name}",
        )
    _LOG.warning(
        "%s: was written to before snapshot #%d was shown there: it keeps what was written, and"
        " the snapshot is kept beside it",
        replica.full_name,
        mark.sequence,
    )
    return Step(Action.REMOVE, mark.volume)


def _warn_of_detached(view: TargetView, volume: LogicalVolume) -> None:
    mark = next((one for one in view.stagings if one.volume.uuid == volume.uuid), None)
    if mark is None or not view.is_detached(mark):
        return
    kept = "the snapshot is kept beside it" if view.is_committed(mark) else "it starts over"
    _LOG.warning(
        "%s: somebody merged a snapshot into the replica, so that LVM cannot merge the transfer of"
        " snapshot #%d into it any more: %s",
        volume.full_name,
        mark.sequence,
        kept,
    )
