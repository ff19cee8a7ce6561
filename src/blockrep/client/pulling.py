"""Pulling: this host has the replica, and asks the source's host to send."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from blockrep.client.connect import established
from blockrep.client.operations import ClientContext
from blockrep.errors import BlockrepError, ProtocolError, RefusedError, UsageError
from blockrep.model.lineage import Wish
from blockrep.model.names import Target, VolumeName
from blockrep.protocol.limits import MAX_PULL_TARGET_BYTES
from blockrep.protocol.messages import Pull
from blockrep.replication import events
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.receiver import Access, Receiver, ReceiverLimits
from blockrep.storage.interface import TargetVolume
from blockrep.storage.locks import VolumeLock, lock_key

__all__ = ["PullOptions", "pull"]

_FEATURES = ("zstd",)


@dataclass(frozen=True, slots=True)
class PullOptions:
    """What the user asked for.

    ``keep``: good snapshots to retain; ``bytes_per_second``: 0 is no limit.
    """

    limits: ReceiverLimits
    keep: int = 3
    wish: Wish = field(default_factory=Wish)
    compress: bool = False
    bytes_per_second: int = 0


class _OneTarget:
    """A gate to the one volume that is pulled to: the server may ask for nothing else."""

    def __init__(self, target: TargetVolume, options: PullOptions) -> None:
        self._target = target
        self._options = options

    @contextlib.asynccontextmanager
    async def open(self, identity: str, volume: str, operation: str) -> AsyncIterator[Access]:
        """See :class:`blockrep.replication.receiver.VolumeGate`."""
        del identity
        if operation != "push":
            raise RefusedError(f"{operation} was not asked for", where=volume)
        options, wish = self._options, self._options.wish
        yield Access(
            self._target,
            may_create=True,
            may_adopt=wish.adopt,
            keep=options.keep,
            keep_min=1,
            quota_bytes=0,
            limiter=RateLimiter(options.bytes_per_second),
            may_replace=wish.full or wish.adopt,
            may_shrink=wish.shrink,
        )


async def pull(
    context: ClientContext,
    source: Target,
    target: VolumeName,
    options: PullOptions,
    sink: events.EventSink,
) -> None:
    """Bring the local replica ``target`` to the present content of ``source``.

    Raises:
        UsageError: the target's name is too long for the server to keep.
        RefusedError: the server does not allow it, or asks for what the user did not.
        ProtocolError: the server ended the session without having sent anything.
        BlockrepError: whatever ended the pull early; the next one resumes.
    """
    if len(str(target).encode()) > MAX_PULL_TARGET_BYTES:
        raise UsageError(
            f"the name of the target has more than {MAX_PULL_TARGET_BYTES} bytes",
            where=str(target),
            next_step="name it by a shorter path",
        )
    committed: list[events.Committed] = []

    def watch(event: events.Event) -> None:
        if isinstance(event, events.Committed):
            committed.append(event)
        sink(event)

    # The same key as the server's: nobody pushes to it meanwhile.
    key, holder = lock_key("target", target), f"pull of {source} to {target}"
    with _advice_for_who_pulls(), VolumeLock(context.runtime_directory, key, holder):
        volume = context.open_target(target)
        # What is wrong here is told before anybody is called.
        await context.blocking.run(volume.inspect)
        transport = await context.connect(source)
        features = _FEATURES if options.compress else ()
        async with established(
            transport, features, sink, context.handshake_seconds(source)
        ) as channel:
            await channel.send(
                Pull(
                    volume=str(source.volume),
                    target=str(target),
                    full=options.wish.full,
                    adopt=options.wish.adopt,
                    shrink=options.wish.shrink,
                    compress=options.compress,
                    max_payload_bytes=options.limits.max_payload_bytes,
                    window_bytes=options.limits.window_bytes,
                )
            )
            receiver = Receiver(
                channel,
                transport.peer.identity,
                _OneTarget(volume, options),
                context.blocking,
                options.limits,
                features,
                lambda _event, _fields: None,
                watch,
            )
            await receiver.answer()
        if not committed:
            raise ProtocolError(
                "the server ended the session and had sent nothing",
                where=str(source),
                safe="the replica is as it was before",
                next_step="pull again; if it recurs, see the log of the server",
            )


@contextlib.contextmanager
def _advice_for_who_pulls() -> Iterator[None]:
    """Most advice is for who pushes; from here a push would overwrite what is pulled from."""
    try:
        yield
    except BlockrepError as error:
        error.next_step = error.next_step and re.sub(r"\bpush\b", "pull", error.next_step)
        raise
