"""What one client's pulls may leave at a source: snapshots for so many targets, and no more.

Each target holds its base until the next pull to it is committed, and how targets are called is the
client's choice: without a bound, one right to pull would fill the pool.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from blockrep.errors import BusyError, RefusedError
from blockrep.model.extents import Extent
from blockrep.model.snapshots import Snapshot, VolumeInfo
from blockrep.replication.pulling import held_by
from blockrep.replication.receiver import AuditSink
from blockrep.storage.interface import Costs, SnapshotReader, SourceVolume
from blockrep.storage.locks import VolumeLock

__all__ = ["BoundedSource"]

#: One is enough in good times. A client that loses each answer to its COMMIT gathers more.
_MOST_PER_TARGET: Final = 8
_POLL_SECONDS: Final = 0.05


class BoundedSource:
    """A source that counts what it holds for a client before it makes another snapshot.

    Args:
        source: the volume.
        requested: as the client named it, for errors.
        identity: of the client.
        most_targets: for so many of its targets snapshots may be held.
        lock: of the runtime directory, and the key for what sessions of the client do one by one.
        wait_seconds: how long another session of the client is waited for.
        audit: told a refusal.
    """

    def __init__(
        self,
        source: SourceVolume,
        requested: str,
        identity: str,
        most_targets: int,
        lock: tuple[Path, str],
        wait_seconds: float,
        audit: AuditSink,
    ) -> None:
        self._source = source
        self._requested = requested
        self._identity = identity
        self._most_targets = most_targets
        self._lock = lock
        self._wait_seconds = wait_seconds
        self._audit = audit

    def describe(self) -> VolumeInfo:
        """Look at the live volume."""
        return self._source.describe()

    def snapshots(self) -> list[Snapshot]:
        """Return our snapshots."""
        return self._source.snapshots()

    def create_snapshot(
        self, lineage: str, snapshot_id: str, sequence: int, target: str, created_seconds: int
    ) -> Snapshot:
        """Take a snapshot, if this client may have another one for this target.

        Raises RefusedError: it may not; BusyError: another session of the client takes too long.
        """
        # Counting and making are one act, also for sessions that are processes of their own.
        with self._alone():
            self._check(target)
            return self._source.create_snapshot(
                lineage, snapshot_id, sequence, target, created_seconds
            )

    def mark_committed(self, snapshot: Snapshot) -> Snapshot:
        """Record that the target holds the snapshot."""
        return self._source.mark_committed(snapshot)

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        """Delete a snapshot of ours."""
        self._source.remove_snapshot(snapshot)

    def delta(self, base: Snapshot | None, new: Snapshot | None) -> Iterator[Extent]:
        """Yield what differs."""
        return self._source.delta(base, new)

    def open_snapshot(self, snapshot: Snapshot) -> SnapshotReader:
        """Open a snapshot for reading."""
        return self._source.open_snapshot(snapshot)

    def has_content(self, snapshot: Snapshot) -> bool:
        """Tell whether a snapshot can be read beside a newer one."""
        return self._source.has_content(snapshot)

    def take_costs(self) -> Costs:
        """Return what the calls since the last of this cost."""
        return self._source.take_costs()

    def stored_digests(self, snapshot: Snapshot) -> tuple[int, int, Iterator[bytes]] | None:
        """Return the snapshot's digest table, if it has one."""
        return self._source.stored_digests(snapshot)

    def _check(self, target: str) -> None:
        begin = held_by(self._identity)
        held = [one.target for one in self._source.snapshots() if one.target.startswith(begin)]
        others = sorted(set(held) - {target})
        if len(others) >= self._most_targets:
            names = ", ".join(other.removeprefix(begin) for other in others)
            self._refuse(
                f"snapshots are held for {len(others)} other targets of this client: {names}",
                "pull to one of these, or raise max_pull_targets in the server's configuration",
            )
        if held.count(target) >= _MOST_PER_TARGET:
            self._refuse(
                f"{held.count(target)} snapshots are held for this target, none was committed",
                "ask who administers the server to remove the older ones",
            )

    def _refuse(self, what: str, next_step: str) -> None:
        self._audit("refused", {"volume": self._requested, "operation": "pull", "what": what})
        raise RefusedError(
            what, where=self._requested, safe="nothing was changed", next_step=next_step
        )

    def _alone(self) -> VolumeLock:
        deadline = time.monotonic() + self._wait_seconds
        while True:
            try:
                return VolumeLock(*self._lock, f"pull by {self._identity}")
            except BusyError:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL_SECONDS)
