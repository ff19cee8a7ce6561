"""The safeguards, each as a patch that takes it away, and the checker that must notice.

No switch for them exists in the product.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from blockrep.model import lineage
from blockrep.model.snapshots import Replica, Snapshot, Space
from blockrep.protocol.messages import Ack, Committed
from blockrep.replication import writing
from blockrep.replication.channel import Channel
from blockrep.replication.page_delta import PageDelta
from blockrep.replication.receiving import StreamReceiver
from blockrep.replication.sender import Pusher
from blockrep.replication.writing import Position, StagingWriter
from blockrep.server.gate import TargetGate
from blockrep.storage.allowance import Allowance
from blockrep.storage.locks import VolumeLock
from blockrep.storage.lvm import group, planning, source, staging, tags, target
from blockrep.storage.lvm.metadata import PoolMetadata
from blockrep.storage.lvm.recovery import view_target
from blockrep.storage.lvm.reports import PoolStatus
from blockrep.storage.lvm.staging import LvmStaging
from blockrep.storage.lvm.target import LvmTarget
from blockrep.storage.memory.target import MemoryStaging, MemoryTarget

Patch = pytest.MonkeyPatch
Result = tuple[int, Committed]
_MEMORY = ("memory", "memory")
_LVM = ("lvm", "lvm")


@dataclass(frozen=True)
class Safeguard:
    """``remove`` takes it away; on disks of these kinds a checker then says what matches.

    ``link_fault``: nothing else happens (see :mod:`simulation.network`); empty: everything does.
    """

    remove: Callable[[Patch], None]
    noticed: str
    kinds: tuple[str, str]
    link_fault: str


SAFEGUARDS: list[Safeguard] = []


def safeguard(
    noticed: str, *kinds: tuple[str, str], link_fault: str = ""
) -> Callable[[Callable[[Patch], None]], Callable[[Patch], None]]:
    """Add a function to the list."""

    def add(remove: Callable[[Patch], None]) -> Callable[[Patch], None]:
        SAFEGUARDS.extend(Safeguard(remove, noticed, one, link_fault) for one in kinds)
        return remove

    return add


# -- I1, I6: what is acknowledged is durable


@safeguard("I1", _MEMORY, _LVM)
def acknowledge_what_is_only_received(patch: Patch) -> None:
    async def make_durable(self: StreamReceiver) -> None:
        received = self._writer.received
        await self._channel.send(Ack(received.cursor_bytes, received.cursor_bytes))

    patch.setattr(StreamReceiver, "_is_sync_due", lambda _self: True)
    patch.setattr(StreamReceiver, "_make_durable", make_durable)
    patch.setattr(StagingWriter, "check_complete", lambda *_: None)


@safeguard("I1", _MEMORY)
def record_a_cursor_without_a_sync_in_memory(patch: Patch) -> None:
    patch.setattr(MemoryStaging, "sync", lambda _self: None)


@safeguard("I1", _LVM)
def record_a_cursor_without_a_sync(patch: Patch) -> None:
    patch.setattr(LvmStaging, "sync", lambda _self: None)


@safeguard("I1|on the disk", _LVM)
def commit_without_a_sync(patch: Patch) -> None:
    def make_durable(self: StagingWriter) -> Position:
        self.durable = self.received
        return self.durable

    patch.setattr(StagingWriter, "make_durable", make_durable)
    patch.setattr(LvmStaging, "sync", lambda _self: None)


@safeguard("I1|on the disk", _LVM)
def sync_again_after_a_failed_sync(patch: Patch) -> None:
    """And believe the second one."""

    def sync(self: LvmStaging) -> None:
        try:
            self._device.sync()
        except Exception:  # noqa: BLE001
            self._device.sync()

    patch.setattr(LvmStaging, "sync", sync)


# -- I2: what is good equals its source


@safeguard("I2", _MEMORY, link_fault="flip")
def write_without_looking_at_the_digest(patch: Patch) -> None:
    class Blind:
        @staticmethod
        def xxh3_128_digest(_content: object) -> Any:
            class Anything(bytes):
                def __ne__(self, _other: object) -> bool:
                    return False

                __hash__ = bytes.__hash__

            return Anything()

    patch.setattr(writing, "xxhash", Blind)


@safeguard("I2", _MEMORY, link_fault="lost")
def commit_without_comparing_the_chain(patch: Patch) -> None:
    patch.setattr(StagingWriter, "check_complete", lambda *_: None)


@safeguard("I2", _MEMORY, link_fault="lost")
def acknowledge_beyond_a_frame_that_got_lost(patch: Patch) -> None:
    """Which a resume would not send again."""
    patch.setattr(StagingWriter, "_check_follows", lambda *_: None)


@safeguard("I2|something else than what was sent|does not start this transfer", _LVM)
def write_over_an_abandoned_attempt(patch: Patch) -> None:
    """Trap 6: what it wrote and the next plan does not name stays."""
    patch.setattr(tags.StagingMark, "fits", lambda self, _request: self.ready)


@safeguard("I2|READY|offset", _MEMORY)
def resume_from_what_the_sender_remembers(patch: Patch) -> None:
    real: Any = Pusher._stream

    async def stream(self: Pusher, plan: Any, base: Any, new: Any, ready: Any) -> Result:
        further = dataclasses.replace(ready, cursor_bytes=min(ready.cursor_bytes + 4096, 8192))
        result: Result = await real(self, plan, base, new, further)
        return result

    patch.setattr(Pusher, "_stream", stream)
    patch.setattr(StagingWriter, "check_complete", lambda *_: None)


@safeguard("I2", _LVM)
def forget_the_ragged_edges_of_a_discard(patch: Patch) -> None:
    patch.setattr(LvmStaging, "_write_zeros", lambda *_: None)


@safeguard("I2", _LVM)
def leave_old_data_at_the_end_of_a_chunk(patch: Patch) -> None:
    """In a pool that does not zero new chunks."""
    real = LvmTarget.inspect

    def inspect(self: LvmTarget) -> Replica:
        return dataclasses.replace(real(self), align_bytes=1)

    patch.setattr(LvmTarget, "inspect", inspect)
    patch.setattr(LvmStaging, "_cover", lambda *_: None)
    patch.setattr(LvmStaging, "check_whole", lambda *_: None)


# -- I3, I4, I7: only staging is written, only what is ours is removed


@safeguard("I3", _MEMORY)
def prune_the_newest_good_snapshot_in_memory(patch: Patch) -> None:
    def prune(self: MemoryTarget, *_arguments: object) -> list[Snapshot]:
        dropped = [snapshot for snapshot, _ in self._volume.goods.values()]
        self._volume.goods.clear()
        return dropped

    patch.setattr(MemoryTarget, "prune", prune)


@safeguard("I3", _LVM)
def prune_the_newest_good_snapshot(patch: Patch) -> None:
    def prune(self: LvmTarget, *_arguments: object) -> list[Snapshot]:
        marks = view_target(self._group.read(), self._name.lv).goods
        for mark in marks:
            self._group.remove(mark.volume)
        return [mark.snapshot for mark in marks]

    patch.setattr(LvmTarget, "prune", prune)


@safeguard("overwritten", _MEMORY, _LVM)
def overwrite_a_replica_that_was_written_to(patch: Patch) -> None:
    real = lineage._mode_and_base

    def mode_and_base(ours: Any, local: Any, replica: Any, name: str, wish: Any) -> Any:
        if replica.drifted:
            wish = dataclasses.replace(wish, full=True)
        return real(ours, local, replica, name, wish)

    patch.setattr(lineage, "_mode_and_base", mode_and_base)


@safeguard("overwritten|I2", _LVM)
def do_not_look_whether_the_replica_was_written_to(patch: Patch) -> None:
    patch.setattr(LvmTarget, "_has_drifted", lambda *_: False)


@safeguard("I7|br_._00000000", _LVM)
def take_a_name_for_a_tag(patch: Patch) -> None:
    def role_of(volume: Any) -> Any:
        return next((role for role in tags.Role if role.tag in volume.tags), None)

    patch.setattr(tags, "role_of", role_of)
    patch.setattr(group, "role_of", role_of)


@safeguard("I7", _LVM)
def release_a_metadata_snapshot_of_another_program(patch: Patch) -> None:
    patch.setattr(PoolMetadata, "_is_ours", lambda *_: True)


@safeguard("defect|AssertionError|I1|I2|in use", _LVM, link_fault="cut")
def let_two_sessions_write_one_target(patch: Patch) -> None:
    async def acquire(self: TargetGate, key: str, holder: str) -> VolumeLock:
        return VolumeLock(self._runtime_directory, f"{key}{id(self)}", holder)

    patch.setattr(TargetGate, "_acquire", acquire)


@safeguard("I2", _LVM)
def leave_out_pages_that_were_not_compared(patch: Patch) -> None:
    patch.setattr(PageDelta, "is_same", lambda *_: True)


# -- I5: there is always a common base


@safeguard("I5", _MEMORY, _LVM)
def drop_the_base_before_committed(patch: Patch) -> None:
    real: Any = Pusher._stream

    async def stream(self: Pusher, plan: Any, base: Any, new: Any, ready: Any) -> Result:
        for one in self._superseded(self._source.snapshots(), keep_id=new.id):
            self._source.remove_snapshot(one)
        result: Result = await real(self, plan, base, new, ready)
        return result

    patch.setattr(Pusher, "_stream", stream)


@safeguard("I5", _MEMORY, _LVM)
def drop_the_new_snapshot_when_the_answer_is_lost(patch: Patch) -> None:
    """It may be good already."""
    real: Any = Pusher._stream

    async def stream(self: Pusher, plan: Any, base: Any, new: Any, ready: Any) -> Result:
        for one in self._superseded(self._source.snapshots(), keep_id=new.id):
            if not one.committed:
                self._source.remove_snapshot(one)
        try:
            result: Result = await real(self, plan, base, new, ready)
        except BaseException:
            for one in self._superseded(self._source.snapshots(), keep_id=""):
                self._source.remove_snapshot(one)
            raise
        return result

    patch.setattr(Pusher, "_stream", stream)


# -- I4, I7: the next push goes on, whatever a crash left


@safeguard("already contain thin device", _LVM)
def leave_a_pool_that_lvm_and_it_do_not_agree_on(patch: Patch) -> None:
    patch.setattr(source, "find_unmade", lambda *_: [])
    patch.setattr(target, "find_unmade", lambda *_: [])


# -- I8: a pool is never filled


@safeguard("I8", _LVM)
def write_without_asking_for_room(patch: Patch) -> None:
    patch.setattr(target, "check_room", lambda *_: None)
    patch.setattr(staging, "check_room", lambda *_: None)
    patch.setattr(Allowance, "spend", lambda *_: None)


@safeguard("I8", _LVM)
def write_without_asking_for_metadata(patch: Patch) -> None:
    """It is room, too: a pool without any is read-only until it was checked."""

    def check(status: PoolStatus, *rest: Any) -> None:
        real(dataclasses.replace(status, used_metadata_blocks=0), *rest)

    real = planning.check_room
    for module in (target, staging):
        patch.setattr(module, "check_room", check)
    patch.setattr(Allowance, "spend", lambda *_: None)


@safeguard("I8", _LVM)
def write_without_looking_at_what_others_leave(patch: Patch) -> None:
    """There was room before the first byte."""
    plenty = Space(chunk_bytes=4096, free_bytes=1 << 40, metadata_free_chunks=1 << 30)
    patch.setattr(LvmStaging, "space", lambda _self: plenty)
    patch.setattr(Allowance, "spend", lambda *_: None)


@safeguard("I8", _LVM)
def let_an_allowance_outlive_what_is_seen_of_the_pool(patch: Patch) -> None:
    patch.setattr(Allowance, "note", lambda *_: None)


# -- I10: an early end is an end


@safeguard("busy|ever happen|does not end|timed out|StorageError|BusyError", _MEMORY)
def wait_for_a_dead_peer_for_ever(patch: Patch) -> None:
    async def keep_time(_self: Channel) -> None:
        return

    patch.setattr(Channel, "_keep_time", keep_time)
