"""Reads a snapshot: its device is active for as long as somebody reads it, and no longer.

Who reads is told by a shared file lock per snapshot, which the kernel drops with its process: what
a killed reader left active is deactivated by the next one who looks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Self

from blockrep.errors import BlockrepError, InternalError, UnsupportedHostError
from blockrep.model.extents import Extent
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.device import BlockDevice
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.planning import mapped_extents
from blockrep.storage.lvm.reports import LogicalVolume

__all__ = ["LvmReader", "Usage", "deactivate_leftovers"]


class Usage:
    """The lock of one snapshot, held in common by all who read it.

    Args:
        runtime_directory: of the settings.
        uuid: lv_uuid of the snapshot.

    Raises:
        UnsupportedHostError: the lock file cannot be made.
    """

    def __init__(self, runtime_directory: Path, uuid: str) -> None:
        self._path = runtime_directory / "readers" / uuid
        while True:
            try:
                self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except OSError as error:
                raise UnsupportedHostError(
                    f"the lock file cannot be opened: {error.strerror}",
                    where=str(self._path),
                    safe="nothing was changed",
                    next_step="set storage.runtime_directory to a folder of root's",
                ) from error
            fcntl.flock(self._fd, fcntl.LOCK_SH)
            if self._is_current():
                return
            os.close(self._fd)  # the last reader removed the file while we waited

    def become_last(self) -> bool:
        """Hold the lock alone; False: somebody else reads."""
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return self._is_current()

    def release(self, *, last: bool) -> None:
        """Let go; the last one removes the file."""
        try:
            if last:
                self._path.unlink(missing_ok=True)
        finally:
            os.close(self._fd)

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._fd))
        except FileNotFoundError:
            return False


class LvmReader:
    """Reads one snapshot. A context manager, which its device is active for.

    Args:
        group: its volume group.
        volume: the snapshot.
        pool: its pool.
        size_bytes: how much of it counts.
    """

    def __init__(
        self, group: VolumeGroup, volume: LogicalVolume, pool: LogicalVolume, size_bytes: int
    ) -> None:
        self.size_bytes = size_bytes
        self._group = group
        self._volume = volume
        self._pool = pool
        self._usage: Usage | None = None
        self._device: BlockDevice | None = None

    def __enter__(self) -> Self:
        """Activate and open. Raises VolumeError, StorageError."""
        self._usage = Usage(self._group.settings.runtime_directory, self._volume.uuid)
        try:
            self._group.change(commands.activate(self._group.vg, self._volume.name))
            self._device = BlockDevice(self._volume, writable=False)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        """Close, and deactivate unless somebody else reads it too."""
        if self._device is not None:
            self._device.close()
            self._device = None
        if self._usage is not None:
            usage, self._usage = self._usage, None
            _leave(self._group, self._volume, usage)

    def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
        """See :class:`blockrep.storage.interface.SnapshotReader`."""
        if self._device is None:
            raise InternalError("the snapshot is read before it is opened")
        self._device.read_into(offset_bytes, buffer)

    def allocated(self) -> Iterator[Extent]:
        """Yield what the snapshot maps."""
        runs = PoolMetadata(self._group, self._pool).dump(self._volume)
        yield from mapped_extents(runs, self.size_bytes)

    def remember(self) -> None:
        """Do nothing: it is a snapshot."""

    def confirm(self) -> None:
        """Do nothing: nobody writes a snapshot."""


def deactivate_leftovers(group: VolumeGroup, volumes: Iterable[LogicalVolume]) -> None:
    """Deactivate snapshots that a reader left active when it was killed."""
    for volume in volumes:
        if volume.active and not volume.open:
            usage = Usage(group.settings.runtime_directory, volume.uuid)
            _leave(group, volume, usage)


def _leave(group: VolumeGroup, volume: LogicalVolume, usage: Usage) -> None:
    last = usage.become_last()
    try:
        if last:
            # It may be in use otherwise, by hand: then it stays active.
            with contextlib.suppress(BlockrepError):
                group.attempt(commands.deactivate(group.vg, volume.name))
    finally:
        usage.release(last=last)
