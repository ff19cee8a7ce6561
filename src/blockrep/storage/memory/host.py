"""A host whose volumes live in memory, and what may go wrong with it.

Steps of which a real kind promises that they are atomic and durable (a snapshot, a tag, a record)
are so here; what is written to a staging volume is volatile until it is synced.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field

from blockrep.errors import VolumeError
from blockrep.model.snapshots import Snapshot, Space, StagingInfo
from blockrep.storage.interface import BeginRequest
from blockrep.storage.memory.disk import PagedFile

__all__ = ["Lands", "MemoryHost", "Stage", "Volume", "honest"]

_UNLIMITED_CHUNKS = 1 << 62

Lands = Callable[[int, int], int | None]
"""Tells where what is written at an offset, of a length in bytes, lands; None: nowhere."""


def honest(offset_bytes: int, _length_bytes: int) -> int | None:
    """Put everything where it belongs."""
    return offset_bytes


@dataclass(slots=True)
class Stage:
    """What the disk knows of a staging volume.

    ``request`` is what began it. ``replaces``: version of the replica at that time.
    """

    info: StagingInfo
    request: BeginRequest
    content: PagedFile
    replaces: int


@dataclass(slots=True)
class Volume:
    """Everything under one name.

    ``version`` changes whenever somebody else than blockrep writes; ``published_version`` is what
    it was when ``published_id`` was published.
    """

    identity: str
    live: PagedFile | None = None
    version: int = 0
    published_version: int = -1
    published_id: str = ""
    in_use: bool = False
    snapshots: dict[str, tuple[Snapshot, PagedFile]] = field(default_factory=dict)
    goods: dict[str, tuple[Snapshot, PagedFile]] = field(default_factory=dict)
    stage: Stage | None = None


class MemoryHost:
    """A host: volumes by name on one disk.

    Args:
        name: tells volumes of one host from those of another.
        chunk_bytes: unit of allocation and of change detection.
        capacity_bytes: room for distinct chunks of all volumes and snapshots; None: no limit.
        align_bytes: whole blocks of this size are demanded of senders; 1: any.

    Attributes:
        on_step: called, with a name, between any two steps of a target's operations that are each
            atomic (``begun``, ``good``, ``published``); may raise to stop there.
        lands: where the disk puts what is written to a staging volume; it may lie.
    """

    def __init__(
        self,
        name: str,
        *,
        chunk_bytes: int = 4096,
        capacity_bytes: int | None = None,
        align_bytes: int = 1,
    ) -> None:
        self.name = name
        self.chunk_bytes = chunk_bytes
        self.capacity_bytes = capacity_bytes
        self.align_bytes = align_bytes
        self.on_step: Callable[[str], None] = lambda _name: None
        self.lands: Lands = honest
        self.boots = 0
        self.stage_count = 0
        self._sync_failures = 0
        self._volumes: dict[str, Volume] = {}

    def create_volume(self, name: str, size_bytes: int) -> None:
        """Make an empty volume, in place of one that may be there, with an identity of its own."""
        volume = self.volume(name)
        volume.identity = self._new_identity(name, volume.version + 1)
        volume.live = PagedFile(size_bytes, self.chunk_bytes)
        volume.version += 1

    def remove_volume(self, name: str) -> None:
        """Remove a volume's live content; snapshots stay."""
        volume = self.volume(name)
        volume.live = None
        volume.version += 1

    def read(self, name: str) -> bytes:
        """Return the content of a volume."""
        live = self._live(name)
        return live.read(0, live.size_bytes)

    def write(self, name: str, offset_bytes: int, data: bytes) -> None:
        """Write to a volume as its user does, durably."""
        self._edit(name).write(offset_bytes, data)
        self._live(name).sync()

    def discard(self, name: str, offset_bytes: int, length_bytes: int) -> None:
        """Discard a range as a volume's user does."""
        self._edit(name).clear(offset_bytes, length_bytes)
        self._live(name).sync()

    def resize(self, name: str, size_bytes: int) -> None:
        """Change a volume's size."""
        self._edit(name).resize(size_bytes)

    def set_in_use(self, name: str, in_use: bool) -> None:
        """Say that somebody has the volume open (mounted)."""
        self.volume(name).in_use = in_use

    def crash(self, survives: Callable[[int], bool] = lambda _offset: False) -> None:
        """Lose power.

        What was not synced is gone, but for what survives: see :meth:`PagedFile.lose_unsynced`.
        Staging volumes that were open are dead: they must be begun again.
        """
        self.boots += 1
        for volume in self._volumes.values():
            if volume.stage is not None:
                volume.stage.content.lose_unsynced(survives)

    def fail_syncs(self, count: int = 1) -> None:
        """Make the next syncs fail with an I/O error; what they covered stays volatile."""
        self._sync_failures = count

    def take_sync_failure(self) -> bool:
        """Tell whether the sync that asks must fail."""
        if not self._sync_failures:
            return False
        self._sync_failures -= 1
        return True

    def space(self) -> Space:
        """Return the room left."""
        if self.capacity_bytes is None:
            return Space(self.chunk_bytes, _UNLIMITED_CHUNKS, _UNLIMITED_CHUNKS)
        return Space(self.chunk_bytes, self.capacity_bytes - self.used_bytes(), _UNLIMITED_CHUNKS)

    def used_bytes(self) -> int:
        """Return what all distinct chunks take."""
        files: list[PagedFile] = []
        for volume in self._volumes.values():
            files += [one for _, one in (*volume.snapshots.values(), *volume.goods.values())]
            files += [volume.live] if volume.live is not None else []
            files += [volume.stage.content] if volume.stage is not None else []
        return len({id(page) for one in files for page in one.pages.values()}) * self.chunk_bytes

    def volume(self, name: str) -> Volume:
        """Return everything that is known under a name."""
        if name not in self._volumes:
            self._volumes[name] = Volume(self._new_identity(name, 0))
        return self._volumes[name]

    def _new_identity(self, name: str, number: int) -> str:
        return hashlib.sha256(f"{self.name}/{name}/{number}".encode()).hexdigest()[:32]

    def _live(self, name: str) -> PagedFile:
        live = self.volume(name).live
        if live is None:
            raise VolumeError("no such volume", where=name, safe="nothing was changed")
        return live

    def _edit(self, name: str) -> PagedFile:
        volume = self.volume(name)
        live = self._live(name)
        volume.version += 1
        if live.frozen:  # a published replica is a good snapshot's content
            live = volume.live = live.copy()
        return live
