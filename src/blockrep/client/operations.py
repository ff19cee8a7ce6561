"""The client's operations, one coroutine each: connect, do one thing, say bye.

What they need of the outside comes in a :class:`ClientContext`; ``blockrep.cli`` makes one from
the configuration.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blockrep.client.connect import established
from blockrep.errors import VolumeError
from blockrep.model.extents import Extent
from blockrep.model.names import Target, VolumeName
from blockrep.model.snapshots import Replica, Snapshot
from blockrep.protocol.messages import Bye, Open, Prune, Pruned, Release, Volume
from blockrep.replication import events
from blockrep.replication.blocking import Blocking
from blockrep.replication.describe import replica_from
from blockrep.replication.push import DryRun, PushOptions, Transfer, Verification
from blockrep.replication.sender import Pusher, look_at_source
from blockrep.storage.interface import SourceVolume, TargetVolume
from blockrep.storage.locks import VolumeLock, lock_key
from blockrep.transport.interface import Transport

__all__ = [
    "ClientContext",
    "dry_run",
    "list_remote",
    "list_source",
    "preview_delta",
    "prune_remote",
    "push",
    "verify",
]


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What the operations work with.

    Attributes:
        open_source: opens a volume of this host.
        open_target: opens a replica of this host.
        connect: returns an established transport to a target's host.
        blocking: where storage calls run.
        runtime_directory: for locks.
        handshake_seconds: limit for HELLO and WELCOME.
        now_seconds: the wall clock, seconds since the epoch.
    """

    open_source: Callable[[VolumeName], SourceVolume]
    open_target: Callable[[VolumeName], TargetVolume]
    connect: Callable[[Target], Awaitable[Transport]]
    blocking: Blocking
    runtime_directory: Path
    handshake_seconds: Callable[[Target], float]
    now_seconds: Callable[[], int] = lambda: int(time.time())


async def push(
    context: ClientContext,
    source: VolumeName,
    target: Target,
    options: PushOptions,
    sink: events.EventSink,
    *,
    verify_after: bool = False,
) -> tuple[list[Transfer], Verification | None]:
    """Push ``source`` to ``target``; return the transfers, and the comparison if one was asked for.

    Raises:
        BlockrepError: whatever ended the push early.
    """
    with _locked(context, source, target, "push"):
        async with _pusher(context, source, target, options, sink) as pusher:
            transfers = await pusher.push()
            verification = await pusher.verify() if verify_after else None
            await pusher.say_bye()
            return transfers, verification


async def dry_run(
    context: ClientContext,
    source: VolumeName,
    target: Target,
    options: PushOptions,
    sink: events.EventSink,
) -> DryRun:
    """Tell what a push would do; changes nothing at either end."""
    with _locked(context, source, target, "dry run"):
        async with _pusher(context, source, target, options, sink) as pusher:
            result = await pusher.dry_run()
            await pusher.say_bye()
            return result


async def verify(
    context: ClientContext,
    source: VolumeName,
    target: Target,
    options: PushOptions,
    sink: events.EventSink,
) -> Verification:
    """Compare the newest snapshot that both ends hold, block by block."""
    with _locked(context, source, target, "verify"):
        async with _pusher(context, source, target, options, sink) as pusher:
            result = await pusher.verify()
            await pusher.say_bye()
            return result


async def list_remote(context: ClientContext, target: Target, sink: events.EventSink) -> Replica:
    """Return the replica as its host describes it."""
    transport = await context.connect(target)
    async with established(transport, (), sink, context.handshake_seconds(target)) as channel:
        await channel.send(Open("list", str(target.volume), ""))
        replica = replica_from(await channel.receive(Volume))
        await channel.send(Release())
        await channel.send(Bye())
        return replica


async def prune_remote(
    context: ClientContext, target: Target, keep: int, sink: events.EventSink
) -> Pruned:
    """Have the oldest good snapshots of a replica dropped, but for the newest ``keep``.

    Raises:
        RefusedError: the server does not allow it, or not so few.
        VolumeError: there is no replica of that name.
    """
    transport = await context.connect(target)
    async with established(transport, (), sink, context.handshake_seconds(target)) as channel:
        await channel.send(Open("prune", str(target.volume), ""))
        replica = replica_from(await channel.receive(Volume))
        if not (replica.owned or replica.snapshots):
            raise VolumeError(
                "there is no replica of that name",
                where=str(target),
                safe="nothing was changed",
                next_step="see that the name is right",
            )
        await channel.send(Prune(keep))
        pruned = await channel.receive(Pruned)
        await channel.send(Release())
        await channel.send(Bye())
        return pruned


async def list_source(context: ClientContext, source: VolumeName) -> list[Snapshot]:
    """Return our snapshots of a local volume, oldest first. Raises VolumeError: unknown."""
    volume = context.open_source(source)
    await context.blocking.run(volume.describe)
    return await context.blocking.run(volume.snapshots)


async def preview_delta(
    context: ClientContext, source: VolumeName, target: str
) -> tuple[Snapshot | None, Iterator[Extent]]:
    """Return the newest committed snapshot and what changed since it.

    With a target: the newest that is held for it.

    Without one: everything that the volume maps. Consume the iterator in a storage thread.
    """
    volume = context.open_source(source)

    def newest_base() -> Snapshot | None:
        volume.describe()  # an unknown volume is told as such
        held = [one for one in volume.snapshots() if one.committed and target in {"", one.target}]
        return max(held, key=lambda one: one.created_seconds, default=None)

    base = await context.blocking.run(newest_base)
    return base, volume.delta(base, None)


@contextlib.asynccontextmanager
async def _pusher(
    context: ClientContext,
    source: VolumeName,
    target: Target,
    options: PushOptions,
    sink: events.EventSink,
) -> AsyncIterator[Pusher]:
    volume = context.open_source(source)
    # An unknown volume is told before anybody is called.
    looked = await context.blocking.run(look_at_source, volume)
    features = ("zstd",) if options.compression is not None else ()
    transport = await context.connect(target)
    async with established(transport, features, sink, context.handshake_seconds(target)) as channel:
        yield Pusher(channel, volume, context.blocking, options, sink, context.now_seconds, looked)


def _locked(
    context: ClientContext, source: VolumeName, target: Target, operation: str
) -> VolumeLock:
    key = lock_key("source", source, str(target))
    return VolumeLock(context.runtime_directory, key, f"{operation} of {source} to {target}")
