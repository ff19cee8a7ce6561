"""A safeguard that is taken away is noticed by a checker: it is defended, and the checker bites."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from blockrep.errors import InternalError
from blockrep.model import lineage
from blockrep.protocol.messages import Ack, Committed
from blockrep.replication.receiving import StreamReceiver
from blockrep.replication.sender import Pusher
from blockrep.replication.writing import Position, StagingWriter
from blockrep.storage.memory.target import MemoryStaging
from simulation.checkers import BrokenPromiseError
from simulation.scenario import simulate

# Who crashed closes nothing.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

Patch = Callable[[pytest.MonkeyPatch], None]


def acknowledge_what_is_only_received(patch: pytest.MonkeyPatch) -> None:
    async def make_durable(self: StreamReceiver) -> None:
        received = self._writer.received
        await self._channel.send(Ack(received.cursor_bytes, received.cursor_bytes))

    patch.setattr(StreamReceiver, "_is_sync_due", lambda _self: True)
    patch.setattr(StreamReceiver, "_make_durable", make_durable)
    patch.setattr(StagingWriter, "check_complete", lambda *_: None)


def record_a_cursor_without_a_sync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MemoryStaging, "sync", lambda _self: None)


def commit_without_a_sync(patch: pytest.MonkeyPatch) -> None:
    def make_durable(self: StagingWriter) -> Position:
        self.durable = self.received
        return self.durable

    patch.setattr(StagingWriter, "make_durable", make_durable)
    patch.setattr(MemoryStaging, "sync", lambda _self: None)


def drop_the_base_before_committed(patch: pytest.MonkeyPatch) -> None:
    real: Any = Pusher._stream

    async def stream(self: Pusher, *arguments: Any) -> tuple[int, Committed]:
        for one in self._superseded(self._source.snapshots(), keep_id=arguments[1].id):
            self._source.remove_snapshot(one)
        result: tuple[int, Committed] = await real(self, *arguments)
        return result

    patch.setattr(Pusher, "_stream", stream)


def resume_from_the_senders_memory(patch: pytest.MonkeyPatch) -> None:
    """Go on further than the receiver's disk says."""
    real: Any = Pusher._stream

    async def stream(self: Pusher, plan: Any, new: Any, ready: Any) -> tuple[int, Committed]:
        further = dataclasses.replace(ready, cursor_bytes=min(ready.cursor_bytes + 4096, 8192))
        result: tuple[int, Committed] = await real(self, plan, new, further)
        return result

    patch.setattr(Pusher, "_stream", stream)
    patch.setattr(StagingWriter, "check_complete", lambda *_: None)


def overwrite_a_replica_that_was_written_to(patch: pytest.MonkeyPatch) -> None:
    real = lineage._mode_and_base

    def mode_and_base(ours: Any, local: Any, replica: Any, target: str, wish: Any) -> Any:
        if replica.drifted:
            wish = dataclasses.replace(wish, full=True)
        return real(ours, local, replica, target, wish)

    patch.setattr(lineage, "_mode_and_base", mode_and_base)


REMOVED: list[Patch] = [
    acknowledge_what_is_only_received,
    record_a_cursor_without_a_sync,
    commit_without_a_sync,
    drop_the_base_before_committed,
    resume_from_the_senders_memory,
    overwrite_a_replica_that_was_written_to,
]


def found(folder: Path) -> Iterator[str]:
    for seed in range(60):
        try:
            simulate(seed, folder / str(seed))
        except (BrokenPromiseError, InternalError) as error:
            yield str(error)


@pytest.mark.parametrize("remove", REMOVED, ids=lambda one: one.__name__)
def test_a_checker_notices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, remove: Patch) -> None:
    remove(monkeypatch)
    assert next(found(tmp_path), ""), "nobody noticed"
