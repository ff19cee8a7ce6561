"""Two simulated hosts that crash: after a crash, nothing that ran there has any effect."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from blockrep.storage.memory import MemoryHost

P = ParamSpec("P")
T = TypeVar("T")


class CrashedError(Exception):
    """The host is down; whoever sees this is not there any more."""


class SimulatedHost:
    """A host: its disk, and what runs there until it crashes.

    Attributes:
        memory: the disk.
        crash_in: storage calls until it crashes; 0: it does not.
        boots: how often it was started.
    """

    def __init__(self, memory: MemoryHost, rng: random.Random, look: Callable[[], None]) -> None:
        self.memory = memory
        self.crash_in = 0
        self.boots = 0
        self.on_crash: list[Callable[[], None]] = []
        self._rng = rng
        self._look = look
        memory.on_step = self._step

    def crash(self) -> None:
        """Lose what is not on the disk; of that, pages at random."""
        self.boots += 1
        self.crash_in = 0
        share = self._rng.random()
        self.memory.crash(lambda _page: self._rng.random() < share)
        on_crash, self.on_crash = self.on_crash, []
        for happen in on_crash:
            happen()

    def _step(self, _name: str = "") -> None:
        """Between two steps that are each atomic, the checkers look, or it crashes."""
        self._look()
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                self.crash()
                raise CrashedError

    def blocking(self) -> SimulatedBlocking:
        """Return where the storage calls of what is started now run."""
        return SimulatedBlocking(self, self._rng, self._step)


class SimulatedBlocking:
    """See :class:`blockrep.replication.blocking.Blocking`."""

    def __init__(self, host: SimulatedHost, rng: random.Random, step: Callable[[], None]) -> None:
        self._host = host
        self._boot = host.boots
        self._rng = rng
        self._step = step

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it at once, after a moment; a cancelled wait lasts until it has run."""
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.sleep(self._rng.choice([0, 0, 0.001, 0.5]))
        except asyncio.CancelledError as error:
            cancelled = error
        self._check()
        self._step()
        result = function(*args, **kwargs)
        self._check()
        self._step()
        if cancelled is not None:
            raise cancelled
        return result

    def _check(self) -> None:
        if self._boot != self._host.boots:
            raise CrashedError
