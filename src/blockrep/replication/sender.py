"""The sender of one push: from OPEN to COMMITTED, and the housekeeping of its snapshots.

Order, which is the point (I5): the new snapshot exists and is held before anything is sent; it is
marked committed only after
COMMITTED was checked; only then the old base is removed.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from blockrep.errors import BlockrepError, ProtocolError, VolumeError
from blockrep.model.extents import Extent
from blockrep.model.lineage import Decision, Mode, Wish, decide
from blockrep.model.snapshots import Replica, Snapshot, VolumeInfo
from blockrep.protocol.chain import first_chain
from blockrep.protocol.messages import (
    Begin,
    Bye,
    Commit,
    Committed,
    Compare,
    Open,
    Ready,
    Release,
    StageRequest,
    Volume,
)
from blockrep.replication import events
from blockrep.replication.blocking import Blocking, opened
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import DigestRun, digest_blocks
from blockrep.replication.describe import replica_from
from blockrep.replication.digest_exchange import find_differences, runs_of_table
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.plan import SpooledPlan
from blockrep.replication.reading import Compressor
from blockrep.replication.sending import StreamSender
from blockrep.storage.interface import SourceVolume

__all__ = ["DryRun", "PushOptions", "Pusher", "Transfer", "Verification"]

_COMPARE_BLOCK_BYTES = 64 * 1024
_REPORTED_EXTENTS = 1000


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What the user asked for.

    ``target``: the target in one form, by which our snapshots remember what they are held for.
        ``volume``: what the server is
    asked for. ``bytes_per_second``: 0 is no limit. ``compressor``: None sends payloads as they are.
    """

    target: str
    volume: str
    wish: Wish = field(default_factory=Wish)
    bytes_per_second: int = 0
    compressor: Compressor | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One finished transfer.

    ``plan_bytes``: what the plan covered; ``wire_bytes``: DATA frames sent in this session.
    """

    mode: Mode
    snapshot: Snapshot
    plan_bytes: int
    wire_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a push would do.

    ``plan`` totals are None where only a comparison could tell (adoption).
    """

    mode: Mode
    base: Snapshot | None
    reason: str
    data_bytes: int | None
    discard_bytes: int | None
    new_chunks: int | None
    chunk_bytes: int
    free_bytes: int
    creates_replica: bool
    dropped: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of comparing the newest common snapshot: equal if ``different_bytes`` is 0.

    ``different``: the first thousand extents that differ, of ``different_count``.
    """

    snapshot: Snapshot
    compared_bytes: int
    different: tuple[Extent, ...]
    different_count: int
    different_bytes: int


class Pusher:
    """Pushes one source volume over an established session.

    Args:
        channel: a session in state IDLE.
        source: the volume; its calls run on ``blocking``.
        options: what the user asked for.
        sink: told what happens.
        now_seconds: the wall clock, for the snapshots' creation time.
    """

    def __init__(
        self,
        channel: Channel,
        source: SourceVolume,
        blocking: Blocking,
        options: PushOptions,
        sink: events.EventSink,
        now_seconds: Callable[[], int],
    ) -> None:
        self._channel = channel
        self._source = source
        self._blocking = blocking
        self._options = options
        self._sink = sink
        self._now_seconds = now_seconds
        self._limiter = RateLimiter(options.bytes_per_second)

    async def push(self) -> list[Transfer]:
        """Bring the replica to the source's present content.

        An unfinished transfer is finished first.

        Raises:
            BlockrepError: of any class; what the receiver acknowledged is kept.
        """
        transfers = [await self._push_once(self._options.wish)]
        if transfers[0].mode is Mode.RESUME:
            transfers.append(await self._push_once(Wish(shrink=self._options.wish.shrink)))
        return transfers

    async def dry_run(self) -> DryRun:
        """Tell what a push would do; changes nothing at either end."""
        info, replica, local = await self._look("push")
        decision = decide(info, local, replica, self._options.target, self._options.wish)
        plan: SpooledPlan | None = None
        if decision.mode is not Mode.ADOPT:
            plan = await self._spool(decision, decision.pending, info.size_bytes, replica)
        await self._channel.send(Release())
        with plan or contextlib.nullcontext():
            return DryRun(
                mode=decision.mode,
                base=decision.base,
                reason=decision.reason,
                data_bytes=plan.summary.data_bytes if plan else None,
                discard_bytes=plan.summary.discard_bytes if plan else None,
                new_chunks=plan.new_chunks if plan else None,
                chunk_bytes=replica.space.chunk_bytes,
                free_bytes=replica.space.free_bytes,
                creates_replica=not replica.exists,
                dropped=tuple(self._superseded(local, keep_id="")),
            )

    async def verify(self) -> Verification:
        """Compare the newest snapshot that both ends hold, block by block.

        Raises:
            VolumeError: there is none.
        """
        _, replica, local = await self._look("verify")
        by_id = {one.id: one for one in local}
        common = [by_id[one.id] for one in replica.snapshots if one.id in by_id]
        if not common:
            raise VolumeError(
                "source and target have no snapshot in common",
                where=self._options.target,
                safe="nothing was changed",
                next_step="push first",
            )
        snapshot = common[-1]
        table = await self._blocking.run(self._source.stored_digests, snapshot)
        seed = secrets.randbits(64) if table is None else table[1]
        block_bytes = _COMPARE_BLOCK_BYTES if table is None else table[0]
        request = Compare(snapshot.id, None, block_bytes, seed.to_bytes(8, "big"))

        def local_runs() -> Iterator[DigestRun]:
            if table is not None:
                yield from runs_of_table(table[2])
            else:
                yield from self._digest(snapshot, block_bytes, seed)

        with await find_differences(
            self._channel, self._blocking, request, snapshot.size_bytes, local_runs
        ) as found:
            different = tuple(islice(found, _REPORTED_EXTENTS))
            summary = found.summary
        await self._channel.send(Release())
        self._sink(
            events.Verified(
                snapshot.id,
                snapshot.size_bytes,
                summary.data_bytes,
                tuple((one.offset_bytes, one.length_bytes) for one in different),
            )
        )
        return Verification(
            snapshot, snapshot.size_bytes, different, summary.extent_count, summary.data_bytes
        )

    async def say_bye(self) -> None:
        """End the session in an orderly way."""
        await self._channel.send(Bye())

    # One transfer.

    async def _look(self, operation: str) -> tuple[VolumeInfo, Replica, list[Snapshot]]:
        info = await self._blocking.run(self._source.describe)
        await self._channel.send(Open(operation, self._options.volume, info.identity))
        replica = replica_from(await self._channel.receive(Volume))
        return info, replica, await self._blocking.run(self._source.snapshots)

    async def _push_once(self, wish: Wish) -> Transfer:
        info, replica, local = await self._look("push")
        decision = decide(info, local, replica, self._options.target, wish)
        base_id = decision.base.id if decision.base else ""
        self._sink(events.Decided(decision.mode.value, base_id, decision.reason))
        for snapshot in decision.newly_committed:
            await self._blocking.run(self._source.mark_committed, snapshot)
        for snapshot in decision.obsolete:
            await self._remove(snapshot)
        if decision.pending is not None:
            return await self._transfer(decision, decision.pending, replica)
        new = await self._blocking.run(
            self._source.create_snapshot,
            decision.lineage or secrets.token_hex(16),
            secrets.token_hex(16),
            decision.sequence,
            self._options.target,
            self._now_seconds(),
        )
        self._sink(events.SnapshotTaken(new.id, new.name))
        return await self._transfer(decision, new, replica)

    async def _transfer(self, decision: Decision, new: Snapshot, replica: Replica) -> Transfer:
        ready: Ready | None = None
        try:
            plan = await self._plan(decision, new, replica)
            with plan:
                self._report_plan(plan, replica)
                await self._channel.send(self._begin(decision, new, plan))
                ready = await self._channel.receive(Ready)
                _check_ready(ready, new, plan)
                wire_bytes, committed = await self._stream(plan, new, ready)
                total_bytes = plan.total_bytes
        except BaseException:
            if ready is None and decision.mode is not Mode.RESUME:
                # The receiver has nothing that a resume could go on with: leave no snapshot behind.
                await self._remove_quietly(new)
            raise
        self._sink(
            events.Committed(
                new.id, committed.name, committed.digest.hex(), wire_bytes, committed.pruned_count
            )
        )
        new = await self._blocking.run(self._source.mark_committed, new)
        for snapshot in self._superseded(
            await self._blocking.run(self._source.snapshots), keep_id=new.id
        ):
            await self._remove(snapshot)
        return Transfer(decision.mode, new, total_bytes, wire_bytes, committed.digest.hex())

    def _superseded(self, local: list[Snapshot], keep_id: str) -> Iterator[Snapshot]:
        """Yield our snapshots that a commit to this target makes unnecessary.

        By target and not by lineage: a copy of the replica has its lineage and needs its base.
        """
        for one in local:
            if one.id != keep_id and one.target == self._options.target:
                yield one

    async def _plan(self, decision: Decision, new: Snapshot, replica: Replica) -> SpooledPlan:
        if decision.mode is not Mode.ADOPT:
            return await self._spool(decision, new, new.size_bytes, replica)
        seed = secrets.randbits(64)
        stage = StageRequest(
            new.lineage,
            new.id,
            new.sequence,
            new.created_seconds,
            new.size_bytes,
            self._options.wish.shrink,
        )
        request = Compare("", stage, _COMPARE_BLOCK_BYTES, seed.to_bytes(8, "big"))
        with await find_differences(
            self._channel,
            self._blocking,
            request,
            new.size_bytes,
            lambda: self._digest(new, _COMPARE_BLOCK_BYTES, seed),
        ) as found:
            return await self._blocking.run(
                self._spool_extents, iter(found), new.size_bytes, replica
            )

    async def _spool(
        self, decision: Decision, new: Snapshot | None, size_bytes: int, replica: Replica
    ) -> SpooledPlan:
        def spool() -> SpooledPlan:
            return self._spool_extents(self._source.delta(decision.base, new), size_bytes, replica)

        return await self._blocking.run(spool)

    @staticmethod
    def _spool_extents(extents: Iterator[Extent], size_bytes: int, replica: Replica) -> SpooledPlan:
        return SpooledPlan(
            extents,
            size_bytes,
            align_bytes=replica.align_bytes,
            chunk_bytes=replica.space.chunk_bytes,
        )

    def _digest(self, snapshot: Snapshot, block_bytes: int, seed: int) -> Iterator[DigestRun]:
        with self._source.open_snapshot(snapshot) as reader:
            yield from digest_blocks(reader, snapshot.size_bytes, block_bytes, seed)

    def _report_plan(self, plan: SpooledPlan, replica: Replica) -> None:
        summary = plan.summary
        self._sink(
            events.Planned(
                summary.extent_count,
                summary.data_bytes,
                summary.discard_bytes,
                plan.new_chunks,
                replica.space.chunk_bytes,
            )
        )

    def _begin(self, decision: Decision, new: Snapshot, plan: SpooledPlan) -> Begin:
        base_id = decision.base.id if decision.base else ""
        mode = decision.mode
        if mode is Mode.RESUME:
            mode = Mode.INCREMENTAL if base_id else Mode.FULL
        return Begin(
            lineage=new.lineage,
            snapshot_id=new.id,
            sequence=new.sequence,
            created_seconds=new.created_seconds,
            base_id=base_id,
            mode=mode.value,
            size_bytes=new.size_bytes,
            extent_count=plan.summary.extent_count,
            data_bytes=plan.summary.data_bytes,
            discard_bytes=plan.summary.discard_bytes,
            plan_digest=plan.summary.digest,
            new_chunks=plan.new_chunks,
            allow_shrink=self._options.wish.shrink,
        )

    async def _stream(
        self, plan: SpooledPlan, new: Snapshot, ready: Ready
    ) -> tuple[int, Committed]:
        sender = StreamSender(self._channel, self._blocking, plan, ready, self._limiter, self._sink)
        async with opened(self._blocking, lambda: self._source.open_snapshot(new)) as reader:
            digest = await sender.send_all(reader, self._options.compressor)
            await self._blocking.run(reader.confirm)
        await self._channel.send(Commit(new.id, digest))
        committed = await self._channel.receive(Committed)
        sender.stop_listening()
        if committed.snapshot_id != new.id or committed.digest != digest:
            raise ProtocolError(
                "the receiver committed something else than what was sent",
                where=self._options.target,
                safe="the base is kept",
                next_step="run blockrep verify",
            )
        return sender.wire_bytes, committed

    async def _remove(self, snapshot: Snapshot) -> None:
        await self._blocking.run(self._source.remove_snapshot, snapshot)
        self._sink(events.SnapshotRemoved(snapshot.id, snapshot.name))

    async def _remove_quietly(self, snapshot: Snapshot) -> None:
        """Remove a snapshot while another error is on its way.

        What remains is removed by the next push.
        """
        with contextlib.suppress(BlockrepError):
            await self._remove(snapshot)


def _check_ready(ready: Ready, new: Snapshot, plan: SpooledPlan) -> None:
    if ready.cursor_bytes > new.size_bytes:
        msg = f"READY: cursor {ready.cursor_bytes} lies past the end of the volume"
        raise ProtocolError(msg)
    if ready.cursor_bytes == 0 and ready.chain != first_chain(new.id, plan.summary.digest):
        msg = "READY: the chain does not start this transfer"
        raise ProtocolError(msg)
