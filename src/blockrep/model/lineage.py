"""What a push has to do, decided from both hosts' snapshots alone; nothing here touches a volume.

A conflict is an error that carries the evidence: both lineages, newest snapshot first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

from blockrep.errors import DivergedError, VolumeError
from blockrep.model.snapshots import Replica, Snapshot, StagingInfo, VolumeInfo

__all__ = ["Decision", "Mode", "Wish", "decide", "describe_lineage"]


class Mode(Enum):
    """How the replica is brought up to date."""

    FULL = "full"
    INCREMENTAL = "incremental"
    ADOPT = "adopt"
    RESUME = "resume"


@dataclass(frozen=True, slots=True)
class Wish:
    """What the user asked for beyond the ordinary.

    ``satisfied_by``: a snapshot that an attempt before this one took for it, or empty: if the
        target holds it, ``full`` or ``adopt`` was done, and only its answer lost.
    ``finish_full``: a full transfer over good snapshots that was begun is finished, also if it is
        not asked for again.
    """

    full: bool = False
    adopt: bool = False
    shrink: bool = False
    satisfied_by: str = ""
    finish_full: bool = True

    def done(self) -> Wish:
        """Return what is left of it once the replica was overwritten as asked for."""
        return replace(self, full=False, adopt=False, satisfied_by="")


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do.

    Attributes:
        mode: RESUME goes on with ``pending``; the others take a new snapshot.
        lineage: empty: a new one is to be made up.
        base: the local snapshot that the target holds too; None in modes FULL and ADOPT (and a
            resumed full transfer).
        pending: the local snapshot of the unfinished transfer, in mode RESUME.
        sequence: number of the snapshot to take or resume.
        newly_committed: local snapshots to be marked, since the target holds them (a COMMITTED
            that was lost).
        obsolete: local snapshots that nothing needs any more, safe to remove before the transfer.
        reason: for people.
    """

    mode: Mode
    lineage: str
    base: Snapshot | None
    pending: Snapshot | None
    sequence: int
    reason: str
    newly_committed: tuple[Snapshot, ...] = field(default=())
    obsolete: tuple[Snapshot, ...] = field(default=())


def describe_lineage(snapshots: Sequence[Snapshot]) -> str:
    """Return the newest three snapshots as evidence for people."""
    if not snapshots:
        return "none"
    newest = sorted(snapshots, key=lambda one: one.sequence, reverse=True)[:3]
    return ", ".join(f"#{one.sequence} {one.id[:8]} (lineage {one.lineage[:8]})" for one in newest)


def decide(
    source: VolumeInfo, local: Sequence[Snapshot], replica: Replica, target: str, wish: Wish
) -> Decision:
    """Decide how to push ``source`` to ``target``.

    Args:
        source: the live source volume.
        local: our snapshots of it, all lineages.
        replica: what the receiver told.
        target: as the user typed it: snapshots held for it belong to this push.
        wish: the user's options.

    Raises:
        VolumeError: same volume at both ends; foreign volume; smaller source without consent.
        DivergedError: no common base; the replica was written to; it has something else under the
            id of a snapshot of ours.
    """
    _refuse_same_volume(source, replica)
    _refuse_foreign(replica, target, wish)
    ours = [one for one in local if replica.lineage and one.lineage == replica.lineage]
    held_ids = {one.id for one in replica.snapshots}
    if wish.satisfied_by in held_ids:
        wish = wish.done()
    pending = _resumable(local, replica, target, wish)
    newly_committed = _newly_committed(ours, replica, target, wish)
    obsolete = tuple(
        one
        for one in local
        if not one.committed
        and one.id not in held_ids
        and one.target == target
        and (pending is None or one.id != pending.id)
    )
    if pending is not None:
        base_id = replica.staging.base_id if replica.staging else ""
        base = next((one for one in ours if one.id == base_id), None)
        reason = f"resuming snapshot #{pending.sequence}"
        return Decision(
            Mode.RESUME,
            pending.lineage,
            base,
            pending,
            pending.sequence,
            reason,
            newly_committed,
            obsolete,
        )
    sequence = 1 + max((one.sequence for one in (*ours, *replica.snapshots)), default=0)
    mode, base, reason = _mode_and_base(ours, local, replica, target, wish)
    _refuse_shrinking(source, replica, target, wish)
    lineage = replica.lineage if mode is Mode.INCREMENTAL or ours else ""
    return Decision(mode, lineage, base, None, sequence, reason, newly_committed, obsolete)


def _refuse_same_volume(source: VolumeInfo, replica: Replica) -> None:
    if replica.info is not None and replica.info.identity == source.identity:
        raise VolumeError(
            "source and target are the same volume",
            where=source.identity,
            safe="nothing was changed",
            next_step="name another target",
        )


def _refuse_foreign(replica: Replica, target: str, wish: Wish) -> None:
    if replica.exists and not replica.owned and not wish.adopt:
        raise VolumeError(
            "the volume exists and was not made by blockrep",
            where=target,
            safe="nothing was changed",
            next_step="to make it the replica, overwriting what differs: push again with --adopt",
        )


def _refuse_shrinking(source: VolumeInfo, replica: Replica, target: str, wish: Wish) -> None:
    if not replica.snapshots or wish.shrink:
        return
    newest = replica.snapshots[-1]
    if source.size_bytes < newest.size_bytes:
        raise VolumeError(
            f"the source has {source.size_bytes} bytes,"
            f" the replica's newest snapshot {newest.size_bytes}",
            where=target,
            safe="nothing was changed",
            next_step="to make the replica smaller: push again with --shrink",
        )


def _newly_committed(
    ours: Sequence[Snapshot], replica: Replica, target: str, wish: Wish
) -> tuple[Snapshot, ...]:
    """Return what the target holds although we never heard so, if it is what we announced.

    A full transfer or an adoption starts from none of them, so that what is not is in nobody's way.
    """
    held = {one.id: one for one in replica.snapshots}
    found = []
    for one in ours:
        if one.committed or one.id not in held:
            continue
        there = held[one.id]
        if _announced(there) == _announced(one):
            found.append(one)
        elif not (wish.full or wish.adopt):
            raise DivergedError(
                f"the replica has something else under the id {one.id[:8]} of our snapshot:"
                f" source has {_evidence(one)}; target has {_evidence(there)}",
                where=target,
                safe="nothing was changed",
                next_step="to make it follow this source: push again with --adopt"
                " (compares, sends what differs) or --full",
            )
    return tuple(found)


def _announced(snapshot: Snapshot) -> tuple[str, int, int]:
    return snapshot.lineage, snapshot.sequence, snapshot.size_bytes


def _evidence(snapshot: Snapshot) -> str:
    return f"{describe_lineage([snapshot])} of {snapshot.size_bytes} bytes"


def _resumable(
    local: Sequence[Snapshot], replica: Replica, target: str, wish: Wish
) -> Snapshot | None:
    """Return the local snapshot of the transfer that the receiver could go on with."""
    pending = _continuable(local, replica, target, wish)
    newest = replica.snapshots[-1] if replica.snapshots else None
    if pending and newest and pending.size_bytes < newest.size_bytes and not wish.shrink:
        return None  # the receiver would refuse it, each time anew
    return pending


def _continuable(
    local: Sequence[Snapshot], replica: Replica, target: str, wish: Wish
) -> Snapshot | None:
    staging = replica.staging
    if staging is None or wish.adopt:
        return None
    if any(one.id == staging.snapshot_id for one in replica.snapshots):
        return None  # it was committed, and only its remains were not removed
    if wish.full:
        # What the replica holds does not matter then, but what was begun must be as full.
        return None if staging.base_id else _pending(local, staging, target)
    if not (staging.base_id or wish.finish_full) and replica.snapshots:
        return None
    if replica.drifted or (replica.lineage and staging.lineage != replica.lineage):
        return None
    if staging.base_id and (not replica.snapshots or replica.snapshots[-1].id != staging.base_id):
        return None
    known_ids = {one.id for one in local}
    if staging.base_id and staging.base_id not in known_ids:
        return None
    return _pending(local, staging)


def _pending(local: Sequence[Snapshot], staging: StagingInfo, target: str = "") -> Snapshot | None:
    """Return the local snapshot that is being staged; with a target: if it is held for that."""
    for one in local:
        if one.id == staging.snapshot_id and one.lineage == staging.lineage and not one.committed:
            return one if target in {"", one.target} else None
    return None


def _mode_and_base(
    ours: Sequence[Snapshot], local: Sequence[Snapshot], replica: Replica, target: str, wish: Wish
) -> tuple[Mode, Snapshot | None, str]:
    if not replica.exists:
        return Mode.FULL, None, "the replica does not exist yet"
    if wish.adopt:
        return Mode.ADOPT, None, "asked for by --adopt: comparing, then sending what differs"
    if wish.full:
        return Mode.FULL, None, "asked for by --full"
    if replica.drifted:
        raise DivergedError(
            "the replica was written to since its last snapshot",
            where=target,
            safe="nothing was changed; the good snapshots are intact",
            next_step="to overwrite what was written there: push again with --adopt"
            " (compares, sends what differs)",
        )
    newest = replica.snapshots[-1] if replica.snapshots else None
    base = next((one for one in ours if newest is not None and one.id == newest.id), None)
    if base is not None:
        return Mode.INCREMENTAL, base, f"changes since snapshot #{base.sequence}"
    evidence = (
        f"source has {describe_lineage(local)}; target has {describe_lineage(replica.snapshots)}"
    )
    what = "the base snapshot is gone at one end" if ours else "the replica is of another origin"
    raise DivergedError(
        f"{what}: {evidence}",
        where=target,
        safe="nothing was changed",
        next_step="to make it follow this source: push again with --adopt"
        " (compares, sends what differs) or --full",
    )
