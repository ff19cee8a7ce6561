"""A volume whose creation was cut short: LVM has it, and its pool does not, or not for LVM.

LVM writes its own metadata first, with the messages that the pool is to get; then it sends them:
make this device, and this is now the number of my transaction. Each is durable by itself. A power
cut in between leaves

- a volume that no activation makes ("No data available"). LVM sends the messages with its next
  change of the pool, and gives the volume what its origin holds by then.
- or one that the pool has made. It can be activated, and may be after a boot. But LVM has it made
  again with its next change of the pool, which fails, and so does every later one, whoever asks
  ("Thin pool already contain thin device", libdm-deptree.c of LVM 2.03).

Such a volume counts as not there, and goes before anything else is changed in its pool.
"""

from __future__ import annotations

from collections.abc import Collection

from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import Role, role_of
from blockrep.storage.lvm.writable import is_estranged

__all__ = ["find_unmade"]

#: Not a replica: it was made long before it became one.
_ROLES = frozenset({Role.SOURCE, Role.STAGING, Role.GOOD})


def find_unmade(
    group: VolumeGroup, state: GroupState, pool_uuids: Collection[str]
) -> list[LogicalVolume]:
    """Return the volumes of ours in these pools whose creation was cut short: of each one at most.

    Of any source or target: LVM's own lock is held while one is made, so that it is not another
    process of ours that is at it. Remove them by :meth:`VolumeGroup.remove`, as unmade.

    Raises StorageError: a pool cannot be asked.
    """
    found = []
    for volume in state.volumes:
        if volume.pool_uuid not in pool_uuids or role_of(volume) not in _ROLES:
            continue
        if is_estranged(volume):
            continue
        pool = state.pool_of(volume)
        # Only the newest can be outstanding: LVM sends its messages before it notes another one.
        if volume.transaction != pool.transaction - 1:
            continue
        status = group.status(pool)
        # A pool that failed does not say how far it came.
        if status.mode == "rw" and status.transaction <= volume.transaction:
            found.append(volume)
    return found
