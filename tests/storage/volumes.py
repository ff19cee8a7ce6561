"""What the contract needs of a kind of storage.

A live source volume, a target, and what may happen to them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Literal, Protocol

from blockrep.storage.interface import SourceVolume, TargetVolume


class CrashError(BaseException):
    """The host stopped. Not an Exception: nothing that handles errors may handle it."""


class Volumes(Protocol):
    """One source volume and the name of one target, fresh for each test.

    Attributes:
        sizes: sizes that the source may have, ascending; it begins with the second.
        unit_bytes: what discards are aligned to.
        source_has_snapshots: a snapshot stays readable when the live volume changes.
        keeps_many: the target can keep more than one good snapshot.
        crash_stride: crashes are tried at each step (1), or at every so many of them.
    """

    sizes: tuple[int, ...]
    unit_bytes: int
    source_has_snapshots: bool
    keeps_many: bool
    crash_stride: int

    def source(self) -> SourceVolume:
        """Open the source as a new process would."""

    def target(self) -> TargetVolume:
        """Open the target as a new process would."""

    def target_without_room(self) -> TargetVolume:
        """Open the target with all of the room reserved."""

    def missing_source(self) -> SourceVolume:
        """Open a source that does not exist."""

    def write_live(self, offset_bytes: int, data: bytes) -> None:
        """Write to the source volume."""

    def discard_live(self, offset_bytes: int, length_bytes: int) -> None:
        """Discard a range of the source volume."""

    def resize_live(self, size_bytes: int) -> None:
        """Grow or shrink the source volume."""

    def read_live(self) -> bytes:
        """Return the content of the source volume."""

    def read_replica(self) -> bytes:
        """Return the content of the replica, as its user sees it."""

    def tamper(self, offset_bytes: int, data: bytes) -> None:
        """Write to the replica behind blockrep's back."""

    def make_foreign(self, content: bytes) -> None:
        """Put a volume that is not blockrep's in the replica's place."""

    def in_use(self) -> AbstractContextManager[object]:
        """Have the replica open for writing, as a mount or a virtual machine has."""

    def failing(self, what: Literal["write", "sync"]) -> AbstractContextManager[object]:
        """Make writing to staging (no room) or syncing it (an I/O error) fail."""

    def crash_at(self, step: int) -> AbstractContextManager[object]:
        """Raise CrashError instead of the step with that number (from 1), if it comes that far."""

    def reboot(self) -> None:
        """After a CrashError: take back what a crash takes back."""

    def plant_unowned(self) -> Callable[[], bool]:
        """Put things that are not ours where ours are.

        Return what tells that they are untouched.
        """
