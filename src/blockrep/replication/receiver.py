"""The server's half of a session: answers OPEN, COMPARE and BEGIN, receives transfers.

Commits them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from blockrep import __version__
from blockrep.errors import BlockrepError, InternalError, ProtocolError, RefusedError
from blockrep.model.extents import ExtentSummary
from blockrep.model.snapshots import Replica
from blockrep.protocol.limits import PROTOCOL_VERSION
from blockrep.protocol.messages import (
    Begin,
    Bye,
    Committed,
    Compare,
    Hello,
    Open,
    Ready,
    Release,
    StageRequest,
    Welcome,
)
from blockrep.replication.blocking import Blocking, opened
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import digest_blocks
from blockrep.replication.describe import volume_from
from blockrep.replication.digest_exchange import send_digests
from blockrep.replication.receiving import StreamReceiver
from blockrep.replication.writing import Decompressor
from blockrep.storage.interface import BeginRequest, SnapshotReader, Staging, TargetVolume

__all__ = ["Access", "AuditSink", "Receiver", "ReceiverLimits", "VolumeGate"]

_log = logging.getLogger("blockrep.receiver")

AuditSink = Callable[[str, dict[str, object]], None]
"""Told (event, fields): refused, committed, deleted, forced."""


@dataclass(frozen=True, slots=True)
class Access:
    """An opened target and what this client may do with it. ``keep``: good snapshots to retain."""

    target: TargetVolume
    may_create: bool
    may_adopt: bool
    keep: int


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
    ) -> None:
        self._channel = channel
        self._identity = identity
        self._gate = gate
        self._blocking = blocking
        self._limits = limits
        self._features = features
        self._agreed: tuple[str, ...] = ()
        self._audit = audit

    async def serve(self) -> None:
        """Answer until the client says BYE.

        Raises BlockrepError for whatever ends the session early.
        """
        await self._greet()
        while True:
            message = await self._channel.receive_any()
            if isinstance(message, Bye):
                return
            if not isinstance(message, Open):
                msg = f"{message.TYPE.name} passed the state machine but has no meaning here"
                raise InternalError(msg)
            if not await self._serve_volume(message):
                return

    async def _greet(self) -> None:
        hello = await self._channel.receive(Hello)
        lowest, highest = hello.versions
        if not lowest <= PROTOCOL_VERSION <= highest:
            raise ProtocolError(
                f"this server speaks protocol {PROTOCOL_VERSION}, the client {lowest} to {highest}",
                safe="nothing was changed",
                next_step="install the same version of blockrep on both hosts",
            )
        self._agreed = tuple(feature for feature in self._features if feature in hello.features)
        await self._channel.send(
            Welcome(
                version=PROTOCOL_VERSION,
                features=self._agreed,
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
            replica = await self._blocking.run(access.target.inspect)
            await self._channel.send(volume_from(replica))
            adopting: Staging | None = None
            while True:
                message = await self._channel.receive_any()
                if isinstance(message, Bye):
                    return False
                if isinstance(message, Release):
                    return True
                if isinstance(message, Compare):
                    if message.stage is None:
                        open_snapshot = functools.partial(
                            access.target.open_snapshot, message.snapshot_id
                        )
                        await self._compare(message, open_snapshot)
                        continue
                    self._check_allowed(request, access, replica, "adopt")
                    begin = _adoption_request(message.stage)
                    adopting = await stack.enter_async_context(self._staged(access, begin))
                    await self._compare(message, adopting.reader)
                elif isinstance(message, Begin):
                    self._check_allowed(request, access, replica, message.mode)
                    staging = await self._begin(message, access, adopting, stack)
                    await self._receive(message, access, staging)
                    return True
                else:
                    msg = f"{message.TYPE.name} passed the state machine but has no meaning here"
                    raise InternalError(msg)

    def _check_allowed(self, request: Open, access: Access, replica: Replica, mode: str) -> None:
        if request.operation != "push":
            raise RefusedError("the volume was not opened for a push", where=request.volume)
        if not replica.exists and not access.may_create:
            raise RefusedError(
                "the replica does not exist and this client may not create it",
                where=request.volume,
                safe="nothing was changed",
                next_step="create it on the server, or allow create in the server's configuration",
            )
        if mode == "adopt" and not replica.owned and not access.may_adopt:
            raise RefusedError(
                "this client may not adopt volumes",
                where=request.volume,
                safe="nothing was changed",
                next_step="allow adopt in the server's configuration",
            )
        if mode in {"adopt", "full"} and replica.owned and replica.snapshots:
            self._audit(
                "forced",
                {"volume": request.volume, "mode": mode, "newest": replica.snapshots[-1].id},
            )

    async def _compare(self, message: Compare, open_reader: Callable[[], SnapshotReader]) -> None:
        seed = int.from_bytes(message.seed, "big")
        async with opened(self._blocking, open_reader) as reader:
            runs = digest_blocks(reader, reader.size_bytes, message.block_bytes, seed)
            await send_digests(
                self._channel, self._blocking, runs, reader.size_bytes, message.block_bytes
            )

    @contextlib.asynccontextmanager
    async def _staged(self, access: Access, begin: BeginRequest) -> AsyncIterator[Staging]:
        staging = await self._blocking.run(access.target.begin, begin)
        try:
            yield staging
        finally:
            await self._blocking.run(staging.close)

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
            if adopting is None or adopting.info.snapshot_id != message.snapshot_id:
                raise ProtocolError(
                    "BEGIN of an adoption without COMPARE", where=self._channel.peer_address
                )
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

    async def _receive(self, message: Begin, access: Access, staging: Staging) -> None:
        info = staging.info
        await self._channel.send(Ready(info.identity, info.cursor_bytes, info.chain))
        receiver = StreamReceiver(
            self._channel,
            self._blocking,
            staging,
            message.size_bytes,
            self._limits.window_bytes,
            self._decompressor(),
        )
        commit = await receiver.receive_all()
        if commit.snapshot_id != message.snapshot_id:
            raise ProtocolError("COMMIT of another snapshot", where=self._channel.peer_address)
        snapshot = await self._blocking.run(access.target.commit, staging, commit.digest)
        digest = commit.digest
        self._audit("committed", {"id": snapshot.id, "name": snapshot.name, "digest": digest.hex()})
        pruned = await self._prune(access)
        await self._channel.send(Committed(snapshot.id, digest, snapshot.name, pruned))

    async def _prune(self, access: Access) -> int:
        """Drop good snapshots beyond what is kept; the transfer stands even if that fails."""
        try:
            pruned = await self._blocking.run(access.target.prune, access.keep, ())
        except BlockrepError as error:
            _log.warning("snapshots beyond %s could not be dropped: %s", access.keep, error)
            return 0
        for one in pruned:
            self._audit("deleted", {"id": one.id, "name": one.name})
        return len(pruned)

    def _decompressor(self) -> Decompressor | None:
        if "zstd" not in self._agreed:
            return None
        from blockrep.replication.compression import zstd_decompress  # noqa: PLC0415 - start-up

        return zstd_decompress


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
