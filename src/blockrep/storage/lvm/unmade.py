"""A volume whose creation was cut short: LVM has it, and its pool does not, or not for LVM.

LVM writes its own metadata first; then it sends the pool two messages, each durable by itself: make
this device, and this is now the number of my transaction. A power cut in between leaves

- a volume that no activation makes ("No data available"). LVM catches up with its next change of
  the pool, and gives it what its origin holds by then: it must go before that.
- or a device that LVM has made again with its next change of the pool, which fails, and so does
  every change from then on ("Thin pool already contain thin device", libdm-deptree.c of LVM 2.03).
"""

from __future__ import annotations

from collections.abc import Iterable

from blockrep.storage.lvm import commands
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.reports import LogicalVolume

__all__ = ["find_unmade", "finish_creation"]


def find_unmade(
    group: VolumeGroup, state: GroupState, volumes: Iterable[LogicalVolume]
) -> LogicalVolume | None:
    """Return one of these whose creation was cut short; None: all exist. It counts as not there.

    Raises StorageError: the pool cannot be asked.
    """
    for volume in volumes:
        pool = state.pool_of(volume)
        # Only the newest change can be outstanding: LVM delivers it before it notes another.
        if volume.active or volume.transaction != pool.transaction - 1:
            continue
        status = group.status(pool)
        # A pool that failed does not say how far it came.
        if status.mode == "rw" and status.transaction <= volume.transaction:
            return volume
    return None


def finish_creation(group: VolumeGroup, state: GroupState, volume: LogicalVolume) -> None:
    """Make what :func:`find_unmade` found one that can be removed.

    If the pool has made it, it is told LVM's transaction, as LVM would have done next: that changes
    nothing else, and the pool takes it only if it stands where it stood.

    Raises:
        BusyError: somebody else reads the pool's metadata.
        StorageError: the pool cannot be asked, or does not take it.
    """
    pool = state.pool_of(volume)
    # A device of that number from another transaction is somebody else's: LVM's error stays.
    if PoolMetadata(group, pool).made_in(volume) == volume.transaction:
        numbers = (volume.transaction, pool.transaction)
        group.change(commands.tell_transaction(volume.vg, pool.name, *numbers))
