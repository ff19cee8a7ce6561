"""Trying again: only what may pass, with waits that grow, for as long as there is progress."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from blockrep.client.retrying import Remaining, RetryPolicy, retrying
from blockrep.errors import (
    BlockrepError,
    BusyError,
    ConnectionLostError,
    DivergedError,
)
from blockrep.model.lineage import Wish
from blockrep.replication import events
from support.virtual_time import in_virtual_time

POLICY = RetryPolicy(600, 60, random.Random(1))
LOST = ConnectionLostError("the connection broke", where="replica:8733", safe="kept")


class Attempts:
    """Fails with each of these errors in turn, then succeeds."""

    def __init__(self, *errors: BlockrepError) -> None:
        self._errors: Iterator[BlockrepError] = iter(errors)
        self.told: list[events.Event] = []
        self.progress: events.Event | None = None

    async def __call__(self, sink: events.EventSink) -> str:
        if self.progress is not None:
            sink(self.progress)
        for error in self._errors:
            raise error
        return "pushed"

    @property
    def waits(self) -> list[float]:
        return [one.wait_seconds for one in self.told if isinstance(one, events.Retrying)]


@in_virtual_time
async def test_what_may_pass_is_tried_again() -> None:
    attempts = Attempts(LOST, BusyError("held"), LOST)
    assert await retrying(attempts, POLICY, attempts.told.append) == "pushed"
    assert [one.attempt for one in attempts.told if isinstance(one, events.Retrying)] == [2, 3, 4]
    assert attempts.told[0] == events.Retrying(2, attempts.waits[0], str(LOST))


@in_virtual_time
async def test_what_will_not_pass_is_told_at_once() -> None:
    attempts = Attempts(DivergedError("no common base"))
    with pytest.raises(DivergedError):
        await retrying(attempts, POLICY, attempts.told.append)
    assert attempts.told == []


@in_virtual_time
async def test_without_a_policy_there_is_one_attempt() -> None:
    attempts = Attempts(LOST)
    with pytest.raises(ConnectionLostError):
        await retrying(attempts, None, attempts.told.append)
    assert attempts.told == []


@in_virtual_time
async def test_waits_double_up_to_the_longest_and_are_shortened_by_chance() -> None:
    attempts = Attempts(*[LOST] * 9)
    await retrying(attempts, POLICY, attempts.told.append)
    for wait, longest in zip(attempts.waits, [1, 2, 4, 8, 16, 32, 60, 60, 60], strict=True):
        assert longest / 2 <= wait <= longest
    assert attempts.waits[6] != attempts.waits[7]


@in_virtual_time
async def test_without_progress_the_last_error_is_told_in_the_end() -> None:
    attempts = Attempts(*[LOST] * 1000)
    with pytest.raises(ConnectionLostError, match="no progress for 600 s") as caught:
        await retrying(attempts, POLICY, attempts.told.append)
    assert 400 < sum(attempts.waits) <= 600
    assert (caught.value.where, caught.value.safe) == (LOST.where, LOST.safe)


@in_virtual_time
@pytest.mark.parametrize(
    "progress",
    [events.Committed("1" * 32, "name", "digest", 0, 0), events.Progress(1, 1, 2, 1)],
    ids=["committed", "durable"],
)
async def test_progress_starts_the_waits_and_the_time_anew(progress: events.Event) -> None:
    class Advancing(Attempts):
        async def __call__(self, sink: events.EventSink) -> str:
            if isinstance(progress, events.Progress):
                count = len(self.told) + 1
                self.progress = events.Progress(count, count, 1000, count)
            else:
                self.progress = progress
            return await super().__call__(sink)

    attempts = Advancing(*[LOST] * 900)
    assert await retrying(attempts, POLICY, attempts.told.append) == "pushed"
    assert max(attempts.waits) <= 1


@in_virtual_time
async def test_the_same_progress_again_is_none() -> None:
    attempts = Attempts(*[LOST] * 1000)
    attempts.progress = events.Progress(5, 5, 10, 5)
    with pytest.raises(ConnectionLostError, match="gave up"):
        await retrying(attempts, POLICY, attempts.told.append)


@in_virtual_time
async def test_what_is_durable_of_the_next_transfer_is_progress() -> None:
    """It counts from nothing again after a commit."""
    steps = iter([events.Progress(9, 9, 9, 9), events.Committed("1" * 32, "name", "digest", 0, 0)])

    class Advancing(Attempts):
        async def __call__(self, sink: events.EventSink) -> str:
            count = len(self.told)
            self.progress = next(steps, events.Progress(1 + count // 100, 1 + count // 100, 9, 9))
            return await super().__call__(sink)

    attempts = Advancing(*[LOST] * 3)
    await retrying(attempts, POLICY, attempts.told.append)
    assert max(attempts.waits) <= 1


@in_virtual_time
async def test_the_attempts_that_are_told_of_are_those_without_progress() -> None:
    class Advancing(Attempts):
        async def __call__(self, sink: events.EventSink) -> str:
            count = min(len(self.waits), 40)
            self.progress = events.Progress(count, count, 1000, count)
            return await super().__call__(sink)

    attempts = Advancing(*[LOST] * 1000)
    with pytest.raises(ConnectionLostError, match="attempts since") as caught:
        await retrying(attempts, POLICY, attempts.told.append)
    (told,) = re.findall(r"(\d+) attempts since", str(caught.value))
    assert int(told) == len(attempts.waits) - 40 + 1


@pytest.mark.parametrize("wish", [Wish(full=True, shrink=True), Wish(adopt=True, shrink=True)])
def test_what_was_committed_is_not_wished_for_again(wish: Wish) -> None:
    told: list[events.Event] = []
    remaining = Remaining(wish)
    sink = remaining.watched(told.append)
    assert remaining.wish == wish
    sink(events.SnapshotTaken("a" * 32, "first"))
    # Its COMMITTED may be lost: the target's snapshots tell.
    assert remaining.wish == replace(wish, satisfied_by="a" * 32)
    sink(events.Committed("a" * 32, "first", "", 0, 0))
    assert remaining.wish == Wish(shrink=True)
    sink(events.SnapshotTaken("b" * 32, "second"))
    assert not remaining.wish.full
    assert not remaining.wish.adopt
    assert len(told) == 3
