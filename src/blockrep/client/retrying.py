"""Trying again: a push or pull whose connection was lost goes on by itself.

The waits double from one second to the longest, and each is shortened by a random part of up to a
half, so that the clients of a server that restarts do not come back all at once ("equal jitter":
M. Brooker, Exponential Backoff And Jitter, AWS Architecture Blog, 2015). What counts is the time
without progress: a transfer of a week over a line that breaks every hour ends.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from blockrep.errors import BlockrepError, BusyError, ConnectionLostError
from blockrep.model.lineage import Wish
from blockrep.replication import events

__all__ = ["Remaining", "RetryPolicy", "retrying"]

T = TypeVar("T")

_FIRST_WAIT_SECONDS: Final = 1.0

# Busy: the server may not yet have noticed that the connection before this one is dead.
_PASSING: Final = (BusyError, ConnectionLostError)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to go on.

    Attributes:
        give_up_seconds: without progress, then the last error is raised.
        longest_wait_seconds: between two attempts.
        rng: where jitter comes from.
    """

    give_up_seconds: float
    longest_wait_seconds: float
    rng: random.Random = field(default_factory=random.SystemRandom)


async def retrying(
    attempt: Callable[[events.EventSink], Awaitable[T]],
    policy: RetryPolicy | None,
    sink: events.EventSink,
) -> T:
    """Return what an attempt returns; after a lost connection wait and make another.

    Args:
        attempt: does the whole thing, from connecting on; told where its events go.
        policy: None: the first attempt is the only one.
        sink: is told of every wait (:class:`blockrep.replication.events.Retrying`).

    Raises:
        BlockrepError: what another attempt does not help against, or the last of them after
            ``give_up_seconds`` without progress.
    """
    if policy is None:
        return await attempt(sink)
    progress = _Progress(sink)
    while True:
        try:
            return await attempt(progress)
        except _PASSING as error:
            wait_seconds = progress.next_wait(policy)
            if progress.idle_seconds() + wait_seconds > policy.give_up_seconds:
                raise _gave_up(error, progress.attempts, policy) from error
            sink(events.Retrying(progress.attempts + 1, round(wait_seconds, 1), str(error)))
            await asyncio.sleep(wait_seconds)


class Remaining:
    """What is left of a wish for the attempts to come: the replica is overwritten but once.

    Args:
        wish: what the user asked for.
    """

    def __init__(self, wish: Wish) -> None:
        self.wish = wish

    def watched(self, sink: events.EventSink) -> events.EventSink:
        """Return a sink that passes an attempt's events on, and notes what was done."""

        def watch(event: events.Event) -> None:
            if isinstance(event, events.Committed):
                self.wish = self.wish.done()
            elif isinstance(event, events.SnapshotTaken):
                self.wish = replace(self.wish, satisfied_by=event.snapshot_id)
            sink(event)

        return watch


class _Progress:
    """Passes events on, and notes when the replica last came nearer."""

    def __init__(self, sink: events.EventSink) -> None:
        self._sink = sink
        self._durable_bytes = 0
        self._clock = asyncio.get_running_loop().time
        self._since = self._clock()
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self.attempts = 0

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, events.Committed):
            self._durable_bytes = 0
            self._came_nearer()
        elif isinstance(event, events.Progress) and event.durable_bytes > self._durable_bytes:
            self._durable_bytes = event.durable_bytes
            self._came_nearer()
        self._sink(event)

    def _came_nearer(self) -> None:
        self._since = self._clock()
        self._wait_seconds = _FIRST_WAIT_SECONDS
        self.attempts = 0

    def idle_seconds(self) -> float:
        return self._clock() - self._since

    def next_wait(self, policy: RetryPolicy) -> float:
        self.attempts += 1
        longest = min(self._wait_seconds, policy.longest_wait_seconds)
        self._wait_seconds = 2 * longest
        return policy.rng.uniform(longest / 2, longest)


def _gave_up(error: BlockrepError, attempts: int, policy: RetryPolicy) -> BlockrepError:
    return type(error)(
        f"{error.what} (gave up: no progress for {policy.give_up_seconds:g} s, "
        f"{attempts} attempts since)",
        where=error.where,
        safe=error.safe,
        next_step=error.next_step,
    )
