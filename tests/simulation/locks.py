"""Locks of volumes without files, which cost more than everything else of a session."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from blockrep.errors import BusyError


class SimulatedLock:
    """See :class:`blockrep.storage.locks.VolumeLock`.

    A host that booted has another runtime directory, in which nothing is held.
    """

    def __init__(
        self, held: dict[tuple[Path, str], str], runtime_directory: Path, key: str, holder: str
    ) -> None:
        self._held, self._place = held, (runtime_directory, key)
        if self._place in held:
            raise BusyError(
                f"in use by {held[self._place]}",
                where=key,
                safe="nothing was changed",
                next_step="wait for it to end, then try again",
            )
        held[self._place] = holder

    def release(self) -> None:
        del self._held[self._place]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()
