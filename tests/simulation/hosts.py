"""Simulated hosts that crash: after a crash, nothing that ran there has any effect."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from simulation.disks import Disk

P = ParamSpec("P")
T = TypeVar("T")


class CrashedError(Exception):
    """The host is down; whoever sees this is not there any more."""


class SimulatedHost:
    """A host: its disk, its clock, and what runs there until it crashes.

    Attributes:
        crash_in: steps until it crashes; 0: it does not. A step is an await, or what happens
            between two effects on the disk.
        crash_at: the name of the step at which it crashes; empty: at none.
        boots: how often it was started.
        delays_seconds: what a storage call may take.
        slow_in: storage calls until one takes ``slow_seconds``; 0: none does.
        happens_in: steps until ``happens`` is called: what others do there meanwhile; 0: never.
        clock_seconds: what its clock is wrong by.
        keeps_power: only its processes die.
    """

    def __init__(self, name: str, rng: random.Random, look: Callable[[], None]) -> None:
        self.name = name
        self.crash_in = 0
        self.crash_at = ""
        self.boots = 0
        self.delays_seconds = [0.0]
        self.slow_in = 0
        self.slow_seconds = 0.0
        self.happens_in = 0
        self.happens: Callable[[], None] = lambda: None
        self.clock_seconds = 0
        self.keeps_power = False
        self.on_crash: list[Callable[[], None]] = []
        self.disk: Disk
        self._rng = rng
        self._look = look
        self._running_boot = 0

    def crash(self) -> None:
        """Lose what is not on the disk, but for sectors at random; or only the processes."""
        self.boots += 1
        self.crash_in, self.crash_at = 0, ""
        share = self._rng.choice([0.0, 0.5, 0.9])
        if self.keeps_power:
            self.disk.kill()
        else:
            self.disk.crash(lambda: self._rng.random() < share)
        on_crash, self.on_crash = self.on_crash, []
        for happen in on_crash:
            happen()

    def step(self, name: str = "") -> None:
        """Let the checkers look, or crash; whoever ran before a crash gets no further."""
        if self._running_boot != self.boots:
            raise CrashedError
        self._look()
        if name and name == self.crash_at:
            self.crash_in = 1
        self.tick()

    def tick(self) -> None:
        """Let happen what others do, or crash, if it is time."""
        if self.happens_in:
            self.happens_in -= 1
            if not self.happens_in:
                self.happens()
        if self.crash_in:
            self.crash_in -= 1
            if not self.crash_in:
                self.crash()
                raise CrashedError

    def delay_seconds(self) -> float:
        """Return how long the next storage call takes."""
        if self.slow_in:
            self.slow_in -= 1
            if not self.slow_in:
                return self.slow_seconds
        return self._rng.choice(self.delays_seconds)

    def blocking(self) -> SimulatedBlocking:
        """Return where the storage calls of what is started now run."""
        return SimulatedBlocking(self)

    def call(self, boot: int, function: Callable[[], T]) -> T:
        """Run a storage call of a process that was started in that boot."""
        self._running_boot = boot
        self.step()
        result = function()
        self.step()
        return result

    def now_seconds(self) -> int:
        return 1_700_000_000 + self.clock_seconds + int(asyncio.get_running_loop().time())


class SimulatedBlocking:
    """See :class:`blockrep.replication.blocking.Blocking`."""

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._boot = host.boots

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it at once, after a moment; a cancelled wait lasts until it has run."""
        cancelled: asyncio.CancelledError | None = None
        try:
            await asyncio.sleep(self._host.delay_seconds())
        except asyncio.CancelledError as error:
            cancelled = error
        result = self._host.call(self._boot, lambda: function(*args, **kwargs))
        if cancelled is not None:
            raise cancelled
        return result
