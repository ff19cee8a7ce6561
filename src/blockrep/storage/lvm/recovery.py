"""What a target is, and what must be done to it next, decided from the state alone. Pure.

The life of a transfer, by what exists (T staging, G its good snapshot, R the replica)::

    T                    unfinished: kept for a resume if it is ready and bound to a plan
    T G      no R yet    T gets the replica's tags and read-only permission, then its name
    T G R    R foreign   (adopted) R gets our tags and read-only permission, then:
    T G R                T is merged into R: one step of LVM, after which T is gone
    T G R    R is open   LVM has noted the merge, and does it once R is closed
    T G R    R promoted  (somebody made it writable) while it is open, it is left alone
    T G R    R written   T goes: R keeps what was written to it, and counts as written to
    T   R    T detached  T goes: LVM cannot merge it into R any more; likewise with G
    G R                  published

A crash may leave T G R for as long as the host is down or the server is not asked; whoever needs
the replica meanwhile uses it as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from blockrep.errors import VolumeError
from blockrep.storage.lvm.group import GroupState
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import (
    GoodMark,
    Role,
    StagingMark,
    read_good,
    read_staging,
    replica_name,
    role_of,
)
from blockrep.storage.lvm.writable import is_estranged

__all__ = ["Action", "Step", "TargetView", "next_step", "view_target"]


@dataclass(frozen=True, slots=True)
class TargetView:
    """One target among the volumes of its group.

    Attributes:
        name: of the replica.
        replica: the volume of that name, if there is one.
        owned: it carries our tags.
        goods: its good snapshots, oldest first.
        estranged: those that somebody made writable: good no more, and left alone.
        stagings: its staging volumes; more than one only after a crash.
        unnamed: the replica-to-be that lacks only its name.
        committed: (id, lineage, sequence) of the good snapshots of the replica, and of what is to
            become it, writable or not.
    """

    name: str
    replica: LogicalVolume | None
    owned: bool
    goods: tuple[GoodMark, ...]
    estranged: tuple[GoodMark, ...]
    stagings: tuple[StagingMark, ...]
    unnamed: LogicalVolume | None
    committed: frozenset[tuple[str, str, int]]

    def is_committed(self, mark: StagingMark) -> bool:
        """Tell whether the good snapshot of that very transfer exists."""
        return (mark.snapshot_id, mark.lineage, mark.sequence) in self.committed

    def is_detached(self, mark: StagingMark) -> bool:
        """Tell whether LVM cannot merge a staging volume into the replica that it was made of.

        When somebody merges a snapshot of his own into the replica, LVM takes the origin away from
        all others.
        """
        if not mark.of_uuid or self.replica is None or mark.volume.merging:
            return False
        return mark.volume.origin != self.replica.name

    def good_with(self, snapshot_id: str) -> GoodMark | None:
        """Return the good snapshot of that id."""
        return next((mark for mark in self.goods if mark.snapshot.id == snapshot_id), None)

    @property
    def newest(self) -> GoodMark | None:
        """The good snapshot that the replica equals."""
        return self.goods[-1] if self.goods else None

    @property
    def staging(self) -> StagingMark | None:
        """The unfinished staging volume."""
        return next((mark for mark in self.stagings if not self.is_committed(mark)), None)

    @property
    def unpublished(self) -> StagingMark | None:
        """What is committed, and is to be merged into the replica."""
        for mark in self.stagings:
            if mark.of_uuid and not mark.volume.merging and self.is_committed(mark):
                return mark
        return None

    @property
    def merge_pending(self) -> bool:
        """The newest good snapshot becomes the replica's content when the replica is closed."""
        return any(mark.volume.merging for mark in self.stagings)


class Action(Enum):
    """What to do with a volume."""

    FINISH_MERGE = "finish merge"
    CLAIM = "give it the replica's tags, read-only"
    MERGE = "merge"
    BECOME_REPLICA = "make it the replica, read-only"
    NAME = "give it the replica's name"
    REMOVE = "remove"
    REMOVE_UNMADE = "remove what the pool was not told of"


@dataclass(frozen=True, slots=True)
class Step:
    """One action on one volume."""

    action: Action
    volume: LogicalVolume


def view_target(state: GroupState, name: str) -> TargetView:
    """Find what belongs to the target ``name``.

    Raises:
        VolumeError: the volume of that name is another one of ours, or no thin volume.
    """
    replica = state.find(name)
    role = None if replica is None else role_of(replica)
    if replica is not None:
        state.pool_of(replica)
        if role not in {None, Role.REPLICA}:
            raise VolumeError(
                "is a snapshot or staging volume of blockrep's own",
                where=replica.full_name,
                safe="nothing was changed",
                next_step="name another target",
            )
    uuid = "" if replica is None else replica.uuid
    stagings = [mark for one in state.volumes if (mark := read_staging(one)) is not None]
    # What is to become the replica knows its name; what is to be merged into it, its uuid.
    stagings = [
        mark
        for mark in stagings
        if (mark.of_uuid == uuid if mark.of_uuid else mark.replica == name)
    ]
    stagings.sort(key=lambda mark: mark.sequence, reverse=True)
    unnamed = next(
        (
            one
            for one in state.volumes
            if role_of(one) is Role.REPLICA
            and replica_name(one) == name
            # Only while it still has the name of a staging volume: it may have been renamed since.
            and one.name.startswith("br_t_")
        ),
        None,
    )
    to_be = {mark.volume.uuid for mark in stagings if not mark.of_uuid}
    to_be.update([unnamed.uuid] if unnamed is not None else [])
    families = {uuid} if uuid else to_be
    goods = [good for one in state.volumes if (good := read_good(one)) is not None]
    mine = sorted((good for good in goods if good.of_uuid in families), key=lambda good: good.order)
    return TargetView(
        name=name,
        replica=replica,
        owned=role is Role.REPLICA,
        goods=tuple(good for good in mine if not is_estranged(good.volume)),
        estranged=tuple(good for good in mine if is_estranged(good.volume)),
        stagings=tuple(stagings),
        unnamed=unnamed,
        committed=frozenset(
            (good.snapshot.id, good.snapshot.lineage, good.snapshot.sequence)
            for good in goods
            if good.of_uuid in {uuid, *to_be}
        ),
    )


def next_step(view: TargetView) -> Step | None:
    """Return what to do next to bring the target into order; None: nothing.

    Each step, done, changes the state; asking again after each ends after a few.
    """
    for mark in view.stagings:
        step = _step_for(view, mark, done=view.is_committed(mark))
        if step is not None:
            return step
    if view.unnamed is not None and view.replica is None:
        return Step(Action.NAME, view.unnamed)
    unfinished = [mark for mark in view.stagings if not view.is_committed(mark)]
    for mark in unfinished[1:]:
        return Step(Action.REMOVE, mark.volume)
    return None


def _step_for(view: TargetView, mark: StagingMark, *, done: bool) -> Step | None:
    if mark.volume.merging:
        # While the replica is open LVM waits, and so do we.
        if view.replica is None or view.replica.open:
            return None
        return Step(Action.FINISH_MERGE, view.replica)
    if not done:
        fit = mark.ready and mark.plan_digest and not view.is_detached(mark)
        return None if fit else Step(Action.REMOVE, mark.volume)
    if not mark.of_uuid:
        # If somebody has taken the name meanwhile, what was committed waits for it.
        return Step(Action.BECOME_REPLICA, mark.volume) if view.replica is None else None
    assert view.replica is not None
    newest = view.newest
    if newest is None or newest.snapshot.id != mark.snapshot_id:
        # Not merged while it was the newest: what came after it would be taken back.
        return Step(Action.REMOVE, mark.volume)
    if view.is_detached(mark):
        return Step(Action.REMOVE, mark.volume)
    if view.replica.open_for_writing:
        return None
    if not (view.owned and view.replica.read_only):
        return Step(Action.CLAIM, view.replica)
    return Step(Action.MERGE, mark.volume)
