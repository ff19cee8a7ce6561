"""The sender of one push: from OPEN to COMMITTED, and the housekeeping of its snapshots.

Order, which is the point (I5): the new snapshot exists and is held before anything is sent; it is
marked committed only after COMMITTED was checked; only then the old base is removed.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
from collections.abc import Callable, Iterable, Iterator

from blockrep.errors import BlockrepError, ProtocolError, VolumeError
from blockrep.model.extents import Extent, clip
from blockrep.model.lineage import Decision, Mode, Wish, decide
from blockrep.model.snapshots import Replica, Snapshot, VolumeInfo
from blockrep.protocol.chain import first_chain
from blockrep.protocol.limits import MAX_U64
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
from blockrep.replication.describe import replica_from
from blockrep.replication.digest_exchange import find_differences
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.page_delta import PAGE_BYTES, PageDelta
from blockrep.replication.phases import Phases
from blockrep.replication.plan import SpooledPlan
from blockrep.replication.push import DryRun, PushOptions, Transfer, Verification
from blockrep.replication.sending import StreamSender
from blockrep.replication.verifying import COMPARE_BLOCK_BYTES, compare_newest, digest_snapshot
from blockrep.storage.interface import SourceVolume

__all__ = ["Pusher", "SourceLook", "look_at_source"]

_LOG = logging.getLogger("blockrep.sender")

#: Below this the commands that activate the base take longer than sending all of it.
_PAGE_DELTA_MIN_BYTES = 32 * 1024 * 1024

SourceLook = tuple[VolumeInfo, list[Snapshot]]
"""A source volume and our snapshots of it."""


def look_at_source(source: SourceVolume) -> SourceLook:
    """Look at a source volume. Raises BlockrepError: there is none that can be used."""
    return source.describe(), source.snapshots()


class Pusher:
    """Pushes one source volume over an established session.

    Args:
        channel: a session in state IDLE.
        source: the volume; its calls run on ``blocking``.
        options: what the user asked for.
        sink: told what happens.
        now_seconds: the wall clock, for the snapshots' creation time.
        looked: the source and its snapshots as they were just seen; None: look.
    """

    def __init__(
        self,
        channel: Channel,
        source: SourceVolume,
        blocking: Blocking,
        options: PushOptions,
        sink: events.EventSink,
        now_seconds: Callable[[], int],
        looked: SourceLook | None = None,
    ) -> None:
        self._channel = channel
        self._source = source
        self._blocking = blocking
        self._options = options
        self._sink = sink
        self._now_seconds = now_seconds
        self._limiter = RateLimiter(options.bytes_per_second)
        self._phases = Phases()
        self._looked = looked

    async def push(self) -> list[Transfer]:
        """Bring the replica to the source's present content.

        An unfinished transfer is finished first.

        Raises:
            BlockrepError: of any class; what the receiver acknowledged is kept.
        """
        transfers = [await self._push_once(self._options.wish)]
        if transfers[0].mode is Mode.RESUME:
            transfers.append(await self._push_once(self._options.wish.done()))
        return transfers

    async def dry_run(self) -> DryRun:
        """Tell what a push would do; changes nothing at either end."""
        info, replica, local = await self._look("push")
        decision = self._decide(info, local, replica, self._options.wish)
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
            DivergedError: there is none; or it is equal, and is not what the replica shows.
        """
        _, replica, local = await self._look("verify")
        found = await compare_newest(
            self._channel, self._blocking, self._source, local, replica, self._options.target
        )
        await self._channel.send(Release())
        self._sink(
            events.Verified(
                found.snapshot.id,
                found.compared_bytes,
                found.different_bytes,
                tuple((one.offset_bytes, one.length_bytes) for one in found.different),
            )
        )
        return found

    async def say_bye(self) -> None:
        """End the session in an orderly way."""
        await self._channel.send(Bye())

    # One transfer.

    async def _look(self, operation: str) -> tuple[VolumeInfo, Replica, list[Snapshot]]:
        looked, self._looked = self._looked, None
        if looked is None:
            looked = await self._blocking.run(look_at_source, self._source)
        info, local = looked
        await self._channel.send(Open(operation, self._options.volume, info.identity))
        return info, replica_from(await self._channel.receive(Volume)), local

    def _decide(
        self, info: VolumeInfo, local: list[Snapshot], replica: Replica, wish: Wish
    ) -> Decision:
        target = self._options.target
        decision = decide(info, local, replica, target, wish)
        if decision.sequence > MAX_U64:
            raise ProtocolError(
                f"the receiver has a snapshot #{decision.sequence - 1}, and no number follows it",
                where=target,
                safe="nothing was changed",
                next_step="no blockrep numbers so high: find out who wrote that replica; then push"
                " to another one, or have this one removed on its host",
            )
        return decision

    async def _push_once(self, wish: Wish) -> Transfer:
        with self._phases.phase("look"):
            info, replica, local = await self._look("push")
        decision = self._decide(info, local, replica, wish)
        base_id = decision.base.id if decision.base else ""
        self._sink(events.Decided(decision.mode.value, base_id, decision.reason))
        with self._phases.phase("tidy"):
            obsolete = [*await self._mark_committed(decision), *decision.obsolete]
            await self._remove_all(obsolete)
        new = decision.pending
        if new is None:
            with self._phases.phase("snapshot"):
                new = await self._blocking.run(
                    self._source.create_snapshot,
                    decision.lineage or secrets.token_hex(16),
                    secrets.token_hex(16),
                    decision.sequence,
                    self._options.target,
                    self._now_seconds(),
                )
            self._sink(events.SnapshotTaken(new.id, new.name))
        left = [one for one in local if one not in obsolete]
        return await self._transfer(decision, info, new, replica, left)

    async def _mark_committed(self, decision: Decision) -> list[Snapshot]:
        """Mark what the target holds; return what is no base for anything, where none is needed."""
        useless = []
        for snapshot in decision.newly_committed:
            try:
                await self._blocking.run(self._source.mark_committed, snapshot)
            except VolumeError:
                if decision.mode not in {Mode.ADOPT, Mode.FULL}:
                    raise
                useless.append(snapshot)
        return useless

    async def _transfer(
        self,
        decision: Decision,
        info: VolumeInfo,
        new: Snapshot,
        replica: Replica,
        local: list[Snapshot],
    ) -> Transfer:
        ready: Ready | None = None
        try:
            with self._phases.phase("delta"):
                plan = await self._plan(decision, new, replica)
            with plan:
                self._report_plan(plan, replica)
                with self._phases.phase("begin"):
                    await self._channel.send(self._begin(decision, new, plan))
                    ready = await self._channel.receive(Ready)
                _check_ready(ready, new, plan, replica)
                base = self._comparable_base(decision, info, plan, replica)
                wire_bytes, committed = await self._stream(plan, base, new, ready)
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
        with self._phases.phase("tidy"):
            new = await self._blocking.run(self._source.mark_committed, new)
            await self._remove_all(self._superseded(local, keep_id=new.id))
        self._report_costs(committed)
        return Transfer(decision.mode, new, total_bytes, wire_bytes, committed.digest.hex())

    def _report_costs(self, committed: Committed) -> None:
        costs = self._source.take_costs()
        self._sink(
            events.Spent(
                phases=self._phases.take(),
                commands=costs.commands,
                metadata_snapshot_seconds=round(costs.metadata_snapshot_seconds, 6),
                target_command_count=committed.command_count,
                target_command_seconds=committed.command_milliseconds / 1000,
            )
        )

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
        request = Compare("", stage, COMPARE_BLOCK_BYTES, seed.to_bytes(8, "big"))
        with await find_differences(
            self._channel,
            self._blocking,
            request,
            new.size_bytes,
            lambda: digest_snapshot(self._source, new, COMPARE_BLOCK_BYTES, seed),
        ) as found:
            return await self._blocking.run(
                self._spool_extents, iter(found), new.size_bytes, replica
            )

    async def _spool(
        self, decision: Decision, new: Snapshot | None, size_bytes: int, replica: Replica
    ) -> SpooledPlan:
        def spool() -> SpooledPlan:
            delta = self._source.delta(decision.base, new)
            if new is None:  # the live volume, which may have grown meanwhile
                delta = clip(delta, size_bytes)
            return self._spool_extents(delta, size_bytes, replica)

        return await self._blocking.run(spool)

    @staticmethod
    def _spool_extents(extents: Iterator[Extent], size_bytes: int, replica: Replica) -> SpooledPlan:
        return SpooledPlan(
            extents,
            size_bytes,
            align_bytes=replica.align_bytes,
            chunk_bytes=replica.space.chunk_bytes,
        )

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

    def _comparable_base(
        self, decision: Decision, info: VolumeInfo, plan: SpooledPlan, replica: Replica
    ) -> Snapshot | None:
        """Return the base, if pages that equal it may be left out, and that may pay.

        Not where the target's pool wants whole chunks, nor where changes are known by the page.
        """
        wanted = self._options.page_delta
        if wanted is None:
            wanted = plan.summary.data_bytes >= _PAGE_DELTA_MIN_BYTES
        fit = info.block_bytes > PAGE_BYTES and replica.align_bytes == 1
        return decision.base if wanted and fit else None

    async def _stream(
        self, plan: SpooledPlan, base: Snapshot | None, new: Snapshot, ready: Ready
    ) -> tuple[int, Committed]:
        sender = StreamSender(self._channel, self._blocking, plan, ready, self._limiter, self._sink)
        limits = self._channel.session.limits
        agreed = limits is not None and "zstd" in limits.features
        async with contextlib.AsyncExitStack() as stack:
            with self._phases.phase("open"):
                reader = await stack.enter_async_context(
                    opened(self._blocking, lambda: self._source.open_snapshot(new))
                )
                page_delta = await self._open_base(base, stack)
            with self._phases.phase("stream"):
                digest = await sender.send_all(
                    reader, self._options.compression if agreed else None, page_delta
                )
                await self._blocking.run(reader.confirm)
        with self._phases.phase("commit"):
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

    async def _open_base(
        self, base: Snapshot | None, stack: contextlib.AsyncExitStack
    ) -> Callable[[int], PageDelta] | None:
        """Open the base for comparison; None: there is none, or it cannot be read."""
        if base is None:
            return None
        try:
            if not await self._blocking.run(self._source.has_content, base):
                return None
            reader = await stack.enter_async_context(
                opened(self._blocking, lambda: self._source.open_snapshot(base))
            )
        except BlockrepError as error:
            _LOG.warning("changed chunks are sent whole: the base cannot be opened: %s", error)
            return None
        always = self._options.page_delta is True
        return lambda buffer_bytes: PageDelta(reader, buffer_bytes, always=always)

    async def _remove_all(self, snapshots: Iterable[Snapshot]) -> None:
        """Remove what can be removed, then raise the first error: no other stays because of it."""
        errors = []
        for snapshot in snapshots:
            try:
                await self._remove(snapshot)
            except BlockrepError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    async def _remove(self, snapshot: Snapshot) -> None:
        await self._blocking.run(self._source.remove_snapshot, snapshot)
        self._sink(events.SnapshotRemoved(snapshot.id, snapshot.name))

    async def _remove_quietly(self, snapshot: Snapshot) -> None:
        """Remove a snapshot while another error is on its way.

        What remains is removed by the next push.
        """
        with contextlib.suppress(BlockrepError):
            await self._remove(snapshot)


def _check_ready(ready: Ready, new: Snapshot, plan: SpooledPlan, replica: Replica) -> None:
    staging = replica.staging
    if ready.cursor_bytes and (staging is None or staging.snapshot_id != new.id):
        # What lies below it would never be sent.
        msg = f"READY: cursor {ready.cursor_bytes} of a transfer that was never begun"
        raise ProtocolError(msg)
    if ready.cursor_bytes > new.size_bytes:
        msg = f"READY: cursor {ready.cursor_bytes} lies past the end of the volume"
        raise ProtocolError(msg)
    if ready.cursor_bytes == 0 and ready.chain != first_chain(new.id, plan.summary.digest):
        msg = "READY: the chain does not start this transfer"
        raise ProtocolError(msg)
