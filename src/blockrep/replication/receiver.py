"""The receiver's half of a session: answers OPEN, COMPARE and BEGIN, receives and commits.

It is the server's half or, after PULL, the client's.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from blockrep import __version__
from blockrep.errors import BlockrepError, InternalError, ProtocolError
from blockrep.model.extents import ExtentSummary
from blockrep.model.snapshots import Replica, Snapshot
from blockrep.protocol.limits import MAX_SEQUENCE_STEP, PROTOCOL_VERSION
from blockrep.protocol.messages import (
    Begin,
    Bye,
    Committed,
    Compare,
    Hello,
    Open,
    Prune,
    Pruned,
    Pull,
    Ready,
    Release,
    StageRequest,
    Welcome,
)
from blockrep.replication import events
from blockrep.replication.allowing import Access, AuditSink, OpenedVolume
from blockrep.replication.blocking import Blocking, held, opened
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import digest_blocks
from blockrep.replication.describe import volume_from
from blockrep.replication.digest_exchange import send_digests
from blockrep.replication.receiving import StreamReceiver, Tally
from blockrep.replication.writing import Decompressor
from blockrep.storage.interface import BeginRequest, SnapshotReader, Staging

__all__ = ["Access", "AuditSink", "Receiver", "ReceiverLimits", "VolumeGate"]

_log = logging.getLogger("blockrep.receiver")


class VolumeGate(Protocol):
    """Decides who may open what, and lets one session at a time work on a volume."""

    def open(
        self, identity: str, volume: str, operation: str
    ) -> AbstractAsyncContextManager[Access]:
        """Enter to hold the volume.

        Raises RefusedError (unknown and forbidden alike), BusyError (names the holder).
        """


@dataclass(frozen=True, slots=True)
class ReceiverLimits:
    """What WELCOME announces."""

    max_payload_bytes: int
    window_bytes: int
    heartbeat_seconds: float
    timeout_seconds: float


class Receiver:
    """Serves one session to its end.

    Args:
        channel: a fresh channel on the server's side.
        identity: who the transport says the client is.
        gate: decides about volumes.
        blocking: where storage calls run.
        limits: announced to the client.
        features: what this server offers (``zstd``).
        audit: told what must be on record.
        sink: told how a transfer gets on; None: nobody.
    """

    def __init__(
        self,
        channel: Channel,
        identity: str,
        gate: VolumeGate,
        blocking: Blocking,
        limits: ReceiverLimits,
        features: tuple[str, ...],
        audit: AuditSink,
        sink: events.EventSink | None = None,
    ) -> None:
        self._channel = channel
        self._sink = sink or (lambda _event: None)
        self._identity = identity
        self._gate = gate
        self._blocking = blocking
        self._limits = limits
        self._features = features
        self._agreed: tuple[str, ...] = ()
        self._audit = audit

    async def serve(self) -> Pull | None:
        """Greet, and answer until the client says BYE, or PULL, which is returned.

        Raises BlockrepError for whatever ends the session early.
        """
        await self._greet()
        return await self.answer()

    async def answer(self) -> Pull | None:
        """Answer in a session that is established, as :meth:`serve`."""
        limits = self._channel.session.limits
        assert limits is not None, "it is established"
        self._agreed = limits.features
        while True:
            message = await self._channel.receive_any()
            if isinstance(message, Bye):
                return None
            if isinstance(message, Pull):
                return message
            if not isinstance(message, Open):
                msg = f"{message.TYPE.name} passed the state machine but has no meaning here"
                raise InternalError(msg)
            if not await self._serve_volume(message):
                return None

    async def _greet(self) -> None:
        hello = await self._channel.receive(Hello)
        lowest, highest = hello.versions
        if not lowest <= PROTOCOL_VERSION <= highest:
            raise ProtocolError(
                f"this server speaks protocol {PROTOCOL_VERSION}, the client {lowest} to {highest}",
                safe="nothing was changed",
                next_step="install the same version of blockrep on both hosts",
            )
        agreed = tuple(feature for feature in self._features if feature in hello.features)
        await self._channel.send(
            Welcome(
                version=PROTOCOL_VERSION,
                features=agreed,
                software=f"blockrep {__version__}",
                identity=self._identity,
                max_payload_bytes=self._limits.max_payload_bytes,
                window_bytes=self._limits.window_bytes,
                heartbeat_milliseconds=int(self._limits.heartbeat_seconds * 1000),
                timeout_milliseconds=int(self._limits.timeout_seconds * 1000),
            )
        )

    async def _serve_volume(self, request: Open) -> bool:
        """Serve one opened volume; False if the session ended with it."""
        async with contextlib.AsyncExitStack() as stack:
            access = await stack.enter_async_context(
                self._gate.open(self._identity, request.volume, request.operation)
            )
            volume = OpenedVolume(request, access, self._audit)
            replica = await self._blocking.run(access.target.inspect)
            await self._channel.send(volume_from(replica))
            adopting: Staging | None = None
            stage: StageRequest | None = None
            while True:
                message = await self._channel.receive_any()
                if isinstance(message, Bye):
                    return False
                if isinstance(message, Release):
                    return True
                volume.check_operation(message)
                if isinstance(message, Compare) and message.stage is None:
                    open_snapshot = functools.partial(
                        access.target.open_snapshot, message.snapshot_id
                    )
                    await self._compare(message, open_snapshot)
                elif isinstance(message, Compare) and message.stage is not None:
                    if adopting is not None:
                        msg = "a second COMPARE with stage"
                        raise ProtocolError(msg, where=self._channel.peer_address)
                    stage = message.stage
                    self._check_sequence(stage.sequence, replica)
                    begin = _adoption_request(stage)
                    volume.check_transfer(
                        replica, "adopt", begin.size_bytes, allow_shrink=begin.allow_shrink
                    )
                    adopting = await stack.enter_async_context(self._staged(access, begin))
                    await self._compare(message, adopting.reader)
                elif isinstance(message, Prune):
                    replica = await self._prune_to(message.keep, volume, replica)
                elif isinstance(message, Begin):
                    self._check_sequence(message.sequence, replica)
                    self._check_staged(message, stage)
                    volume.check_transfer(
                        replica, message.mode, message.size_bytes, allow_shrink=message.allow_shrink
                    )
                    volume.record_force(replica, message)
                    self._report(message, replica)
                    staging = await self._begin(message, access, adopting, stack)
                    await self._receive(volume, message, staging)
                    return True
                else:
                    msg = f"{message.TYPE.name} passed the state machine but has no meaning here"
                    raise InternalError(msg)

    def _check_sequence(self, sequence: int, replica: Replica) -> None:
        """Refuse a number after which there might be none left for the transfers to come."""
        newest = replica.snapshots[-1].sequence if replica.snapshots else 0
        if sequence > newest + MAX_SEQUENCE_STEP:
            raise ProtocolError(
                f"snapshot #{sequence} was announced, and the replica's newest is #{newest}",
                where=self._channel.peer_address,
                safe="nothing was changed",
            )

    def _check_staged(self, message: Begin, stage: StageRequest | None) -> None:
        """Refuse to begin another adoption than was staged, since that is committed."""
        if message.mode != "adopt":
            return
        begun = StageRequest(
            message.lineage,
            message.snapshot_id,
            message.sequence,
            message.created_seconds,
            message.size_bytes,
            message.allow_shrink,
        )
        if begun != stage:
            what = "without" if stage is None else "of another snapshot than that of"
            raise ProtocolError(
                f"BEGIN of an adoption {what} COMPARE",
                where=self._channel.peer_address,
                safe="nothing was changed",
            )

    def _report(self, message: Begin, replica: Replica) -> None:
        self._sink(events.Decided(message.mode, message.base_id, _reason(message, replica)))
        self._sink(
            events.Planned(
                message.extent_count,
                message.data_bytes,
                message.discard_bytes,
                message.new_chunks,
                replica.space.chunk_bytes,
            )
        )

    # What is done.

    async def _compare(self, message: Compare, open_reader: Callable[[], SnapshotReader]) -> None:
        seed = int.from_bytes(message.seed, "big")
        async with opened(self._blocking, open_reader) as reader:
            runs = digest_blocks(reader, reader.size_bytes, message.block_bytes, seed)
            await send_digests(
                self._channel, self._blocking, runs, reader.size_bytes, message.block_bytes
            )

    def _staged(self, access: Access, begin: BeginRequest) -> AbstractAsyncContextManager[Staging]:
        return held(
            self._blocking, lambda: access.target.begin(begin), lambda staging: staging.close()
        )

    async def _begin(
        self,
        message: Begin,
        access: Access,
        adopting: Staging | None,
        stack: contextlib.AsyncExitStack,
    ) -> Staging:
        plan = ExtentSummary(
            message.extent_count, message.data_bytes, message.discard_bytes, message.plan_digest
        )
        if message.mode == "adopt":
            assert adopting is not None, "BEGIN was held against what was staged"
            await self._blocking.run(adopting.set_plan, plan, message.new_chunks)
            return adopting
        begin = BeginRequest(
            lineage=message.lineage,
            snapshot_id=message.snapshot_id,
            sequence=message.sequence,
            created_seconds=message.created_seconds,
            base_id=message.base_id,
            mode=message.mode,
            size_bytes=message.size_bytes,
            plan=plan,
            new_chunks=message.new_chunks,
            allow_shrink=message.allow_shrink,
        )
        return await stack.enter_async_context(self._staged(access, begin))

    async def _receive(self, volume: OpenedVolume, message: Begin, staging: Staging) -> None:
        info = staging.info
        await self._channel.send(Ready(info.identity, info.cursor_bytes, info.chain))
        receiver = StreamReceiver(
            self._channel,
            self._blocking,
            staging,
            message.size_bytes,
            self._limits.window_bytes,
            self._decompressor(),
            volume.access.limiter,
            Tally(message.data_bytes + message.discard_bytes, self._sink),
        )
        commit = await receiver.receive_all()
        if commit.snapshot_id != message.snapshot_id:
            raise ProtocolError("COMMIT of another snapshot", where=self._channel.peer_address)
        digest = commit.digest

        def commit_on_record() -> Snapshot:
            # In one call: a session that is cancelled meanwhile still has its line.
            snapshot = volume.access.target.commit(staging, digest)
            volume.record("committed", id=snapshot.id, name=snapshot.name, digest=digest.hex())
            return snapshot

        snapshot = await self._blocking.run(commit_on_record)
        pruned = await self._retain(volume)
        # It has happened, whether or not the answer arrives.
        self._sink(
            events.Committed(
                snapshot.id, snapshot.name, digest.hex(), receiver.tally.wire_bytes, pruned
            )
        )
        costs = volume.access.target.take_costs()
        spent = (costs.command_count, round(costs.command_seconds * 1000))
        await self._channel.send(Committed(snapshot.id, digest, snapshot.name, pruned, *spent))

    async def _retain(self, volume: OpenedVolume) -> int:
        """Drop good snapshots beyond what is kept; the transfer stands even if that fails."""
        try:
            return len(await self._drop(volume, volume.access.keep, ()))
        except BlockrepError as error:
            keep = volume.access.keep
            _log.warning("snapshots beyond %s could not be dropped: %s", keep, error)
            return 0

    async def _prune_to(self, keep: int, volume: OpenedVolume, replica: Replica) -> Replica:
        """Answer PRUNE; return the replica as it is then."""
        volume.check_keep(keep)
        needed = () if replica.staging is None else (replica.staging.base_id,)
        dropped: set[str] = set()
        # One by one: what was dropped before a failure is on record.
        for count in range(len(replica.snapshots) - 1, keep - 1, -1):
            dropped |= await self._drop(volume, count, needed)
        left = tuple(one for one in replica.snapshots if one.id not in dropped)
        await self._channel.send(Pruned(len(dropped), len(left)))
        return dataclasses.replace(replica, snapshots=left)

    async def _drop(self, volume: OpenedVolume, keep: int, needed: tuple[str, ...]) -> set[str]:
        operation = volume.request.operation

        def drop_on_record() -> set[str]:
            dropped = volume.access.target.prune(keep, needed)
            for one in dropped:
                volume.record("deleted", operation=operation, id=one.id, name=one.name)
            return {one.id for one in dropped}

        return await self._blocking.run(drop_on_record)

    def _decompressor(self) -> Decompressor | None:
        return _decompress if "zstd" in self._agreed else None


def _decompress(payload: memoryview, unpacked_bytes: int) -> bytes:
    # Loaded by the first payload that needs it: most sessions see none.
    from blockrep.replication.compression import zstd_decompress  # noqa: PLC0415

    return zstd_decompress(payload, unpacked_bytes)


def _reason(message: Begin, replica: Replica) -> str:
    """Return why the sender chose that mode, as far as the replica tells."""
    staging = replica.staging
    if message.mode == "adopt":
        return "asked for by --adopt: compared, sending what differs"
    if staging is not None and staging.snapshot_id == message.snapshot_id:
        return f"resuming snapshot #{message.sequence}"
    for base in replica.snapshots:
        if base.id == message.base_id:
            return f"changes since snapshot #{base.sequence}"
    return "asked for by --full" if replica.exists else "the replica does not exist yet"


def _adoption_request(stage: StageRequest) -> BeginRequest:
    return BeginRequest(
        lineage=stage.lineage,
        snapshot_id=stage.snapshot_id,
        sequence=stage.sequence,
        created_seconds=stage.created_seconds,
        base_id="",
        mode="adopt",
        size_bytes=stage.size_bytes,
        plan=None,
        new_chunks=0,
        allow_shrink=stage.allow_shrink,
    )
