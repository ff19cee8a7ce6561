"""Volumes in memory for the contract: a host for each end."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Literal

from blockrep.storage.interface import SourceVolume, TargetVolume
from blockrep.storage.memory import MemoryHost, MemorySource, MemoryTarget
from storage.volumes import CrashError

KIB = 1024


class MemoryVolumes:
    """See :class:`storage.volumes.Volumes`."""

    sizes: tuple[int, ...] = (512 * KIB, 1024 * KIB, 1500 * KIB)
    source_has_snapshots = True
    keeps_many = True
    crash_stride = 1

    def __init__(self, source_chunk_bytes: int, target_chunk_bytes: int, align_bytes: int) -> None:
        self.origin = MemoryHost("origin", chunk_bytes=source_chunk_bytes)
        self.replica = MemoryHost(
            "replica", chunk_bytes=target_chunk_bytes, align_bytes=align_bytes
        )
        self.unit_bytes = source_chunk_bytes
        self.origin.create_volume("disk", self.sizes[1])
        self._steps_left = 0

    def source(self) -> SourceVolume:
        return MemorySource(self.origin, "disk")

    def target(self) -> TargetVolume:
        self.replica.capacity_bytes = None
        return MemoryTarget(self.replica, "copy")

    def target_without_room(self) -> TargetVolume:
        self.replica.capacity_bytes = self.replica.used_bytes()
        return MemoryTarget(self.replica, "copy")

    def missing_source(self) -> SourceVolume:
        return MemorySource(self.origin, "nothing")

    def write_live(self, offset_bytes: int, data: bytes) -> None:
        self.origin.write("disk", offset_bytes, data)

    def discard_live(self, offset_bytes: int, length_bytes: int) -> None:
        self.origin.discard("disk", offset_bytes, length_bytes)

    def resize_live(self, size_bytes: int) -> None:
        self.origin.resize("disk", size_bytes)

    def read_live(self) -> bytes:
        return self.origin.read("disk")

    def read_replica(self) -> bytes:
        return self.replica.read("copy")

    def tamper(self, offset_bytes: int, data: bytes) -> None:
        self.replica.write("copy", offset_bytes, data)

    def make_foreign(self, content: bytes) -> None:
        self.replica.create_volume("copy", len(content))
        self.replica.write("copy", 0, content)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        self.replica.set_in_use("copy", in_use=True)
        yield
        self.replica.set_in_use("copy", in_use=False)

    @contextlib.contextmanager
    def failing(self, what: Literal["write", "sync"]) -> Iterator[None]:
        if what == "sync":
            self.replica.fail_syncs()
        else:
            self.replica.capacity_bytes = self.replica.used_bytes()
        yield
        self.replica.capacity_bytes = None

    def crash_at(self, step: int) -> AbstractContextManager[object]:
        return self._crashing(step)

    @contextlib.contextmanager
    def _crashing(self, step: int) -> Iterator[None]:
        self._steps_left = step

        def count(name: str) -> None:
            self._steps_left -= 1
            if not self._steps_left:
                raise CrashError(name)

        self.replica.on_step = count
        try:
            yield
        finally:
            self.replica.on_step = lambda _name: None

    def reboot(self) -> None:
        self.replica.crash()

    def plant_unowned(self) -> Callable[[], bool]:
        self.replica.create_volume("other", 4096)
        self.replica.write("other", 0, b"not ours")
        return lambda: self.replica.read("other").startswith(b"not ours")
