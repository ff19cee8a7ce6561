"""Snapshots of ours that somebody made writable: they are his now, and are left alone.

Ours are read-only from the moment that LVM knows them: permission and tags come with one command.
Nothing here makes them writable. Who does may run something on it, under another name perhaps; what
it holds is not known any more, so that it is neither a base nor a good snapshot.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from blockrep.errors import VolumeError
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.tags import MARK, Role, role_of

__all__ = ["is_estranged", "left_alone", "warn_of_estranged"]

_LOG = logging.getLogger("blockrep.storage")
_ROLES = frozenset({Role.SOURCE, Role.GOOD})
_WHAT = "the snapshot was made writable: what it holds is not known any more"


def is_estranged(volume: LogicalVolume) -> bool:
    """Tell whether it is a snapshot of ours that somebody made writable."""
    return role_of(volume) in _ROLES and not volume.read_only


def left_alone(volume: LogicalVolume) -> VolumeError:
    """Return the error of one that is asked for."""
    return VolumeError(
        _WHAT,
        where=volume.full_name,
        safe="it is left alone, and nothing of it is used",
        next_step=f"to keep it: {_keeping(volume)}; if it is not needed: lvremove"
        f" {volume.full_name}; then push again, without a common base with --adopt or --full",
    )


def warn_of_estranged(volumes: Iterable[LogicalVolume], known_uuids: set[str]) -> None:
    """Warn of each, once: ``known_uuids`` are those that were warned of."""
    for volume in volumes:
        if volume.uuid not in known_uuids:
            known_uuids.add(volume.uuid)
            _LOG.warning(
                "%s: %s; it is left alone (to keep it: %s)",
                volume.full_name,
                _WHAT,
                _keeping(volume),
            )


def _keeping(volume: LogicalVolume) -> str:
    return f"lvchange --deltag {MARK} {volume.full_name}"
