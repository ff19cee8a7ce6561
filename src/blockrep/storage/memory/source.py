"""A volume in memory as the source."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from blockrep.errors import VolumeError
from blockrep.model.extents import Extent
from blockrep.model.snapshots import Snapshot, VolumeInfo
from blockrep.storage.interface import Costs
from blockrep.storage.memory.disk import MemoryReader, PagedFile
from blockrep.storage.memory.host import MemoryHost

__all__ = ["MemorySource"]


class MemorySource:
    """See :class:`blockrep.storage.interface.SourceVolume`."""

    def __init__(self, host: MemoryHost, name: str) -> None:
        self._host = host
        self._name = name

    def describe(self) -> VolumeInfo:
        """Look at the volume."""
        live = self._live()
        identity = self._host.volume(self._name).identity
        return VolumeInfo("memory", identity, live.size_bytes, self._host.chunk_bytes)

    def snapshots(self) -> list[Snapshot]:
        """Return our snapshots, oldest first."""
        return [snapshot for snapshot, _ in self._host.volume(self._name).snapshots.values()]

    def create_snapshot(
        self, lineage: str, snapshot_id: str, sequence: int, target: str, created_seconds: int
    ) -> Snapshot:
        """Take a snapshot."""
        content = self._live().copy()
        content.frozen = True
        snapshot = Snapshot(
            id=snapshot_id,
            lineage=lineage,
            sequence=sequence,
            created_seconds=created_seconds,
            size_bytes=content.size_bytes,
            committed=False,
            name=f"{self._name}@{snapshot_id[:8]}",
            target=target,
            allocated_bytes=len(content.pages) * content.page_bytes,
        )
        self._host.volume(self._name).snapshots[snapshot_id] = (snapshot, content)
        return snapshot

    def mark_committed(self, snapshot: Snapshot) -> Snapshot:
        """Record that the target holds the snapshot."""
        found, content = self._find(snapshot)
        committed = dataclasses.replace(found, committed=True)
        self._host.volume(self._name).snapshots[snapshot.id] = (committed, content)
        return committed

    def remove_snapshot(self, snapshot: Snapshot) -> None:
        """Remove a snapshot of ours."""
        if snapshot.id in self._host.volume(self._name).snapshots:
            self._find(snapshot)
            del self._host.volume(self._name).snapshots[snapshot.id]

    def delta(self, base: Snapshot | None, new: Snapshot | None) -> Iterator[Extent]:
        """Yield what differs."""
        content = self._live() if new is None else self._find(new)[1]
        if base is None:
            return content.extents()
        return content.difference(self._find(base)[1])

    def open_snapshot(self, snapshot: Snapshot) -> MemoryReader:
        """Open a snapshot for reading."""
        return MemoryReader(self._find(snapshot)[1])

    def has_content(self, snapshot: Snapshot) -> bool:
        """Tell that it has."""
        del snapshot
        return True

    def take_costs(self) -> Costs:
        """Return nothing: no commands are run."""
        return Costs()

    def stored_digests(self, snapshot: Snapshot) -> tuple[int, int, Iterator[bytes]] | None:
        """Return None: the content itself is kept."""
        self._find(snapshot)
        return None

    def _live(self) -> PagedFile:
        live = self._host.volume(self._name).live
        if live is None:
            raise VolumeError("no such volume", where=self._name, safe="nothing was changed")
        return live

    def _find(self, snapshot: Snapshot) -> tuple[Snapshot, PagedFile]:
        found = self._host.volume(self._name).snapshots.get(snapshot.id)
        if found is None or found[0].lineage != snapshot.lineage:
            raise VolumeError(
                f"snapshot {snapshot.id[:8]} is gone", where=self._name, safe="nothing was changed"
            )
        return found
