"""A volume in memory as the target: its checkers, and crashes with choices."""

from __future__ import annotations

import random

import pytest

from blockrep.errors import InternalError, NoSpaceError
from blockrep.storage.memory import MemoryTarget
from storage.memory_volumes import KIB, MemoryVolumes
from storage.transfers import Transfer, push
from storage.volumes import CrashError


@pytest.fixture
def volumes() -> MemoryVolumes:
    volumes = MemoryVolumes(4 * KIB, 4 * KIB, 1)
    volumes.write_live(0, random.Random(0).randbytes(900_000))
    return volumes


def test_a_cursor_before_its_sync_is_a_defect(volumes: MemoryVolumes) -> None:
    # I1: no comparison at the end would find an acknowledgement that came too early.
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    staging.write(0, memoryview(b"x" * 8192))
    with pytest.raises(InternalError, match="not durable"):
        staging.save_cursor(8192, bytes(32))
    staging.sync()
    staging.write(8192, memoryview(b"x"))
    staging.save_cursor(8192, bytes(32))


def test_a_crash_leaves_what_the_cursor_says_and_any_of_the_rest(volumes: MemoryVolumes) -> None:
    rng = random.Random(0)
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=7, save_every=3)
    volumes.replica.crash(lambda _page: rng.random() < 0.5)
    with pytest.raises(InternalError, match="before a crash"):
        staging.write(0, memoryview(b"x"))
    resumed = Transfer(volumes, None, new=transfer.new)
    staging = resumed.target.begin(resumed.request)
    cursor_bytes = staging.info.cursor_bytes
    assert cursor_bytes > 0
    buffer = bytearray(cursor_bytes)
    with staging.reader() as reader:
        reader.read_into(0, memoryview(buffer))
    assert buffer == transfer.content[:cursor_bytes]
    resumed.stream(staging)
    resumed.finish(staging)
    assert volumes.read_replica() == transfer.content


def test_steps_are_named(volumes: MemoryVolumes) -> None:
    steps: list[str] = []
    volumes.replica.on_step = steps.append
    push(volumes, None)
    assert steps == ["begun", "good", "published"]


def test_a_crash_between_commit_point_and_publishing(volumes: MemoryVolumes) -> None:
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    with pytest.raises(CrashError), volumes.crash_at(1):
        transfer.target.commit(staging, transfer.digest)
    volumes.reboot()
    replica = MemoryTarget(volumes.replica, "copy").inspect()
    assert replica.snapshots[-1].id == transfer.new.id
    assert volumes.read_replica() == transfer.content


def test_running_out_of_room_stops_at_once(volumes: MemoryVolumes) -> None:
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    volumes.replica.capacity_bytes = 200 * KIB
    with pytest.raises(NoSpaceError):
        transfer.stream(staging)
    assert volumes.replica.used_bytes() <= 300 * KIB
