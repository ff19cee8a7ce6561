"""The server's half of a pull: a push towards the client, who asked for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from blockrep.model.lineage import Wish
from blockrep.protocol.messages import Pull
from blockrep.replication import events
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.push import PushOptions
from blockrep.replication.receiver import AuditSink
from blockrep.replication.sender import Pusher
from blockrep.replication.sending import Compression, new_zstd_compressor
from blockrep.storage.interface import SourceVolume

__all__ = ["SourceAccess", "SourceGate", "held_by", "serve_pull"]


@dataclass(frozen=True, slots=True)
class SourceAccess:
    """An opened source. ``bytes_per_second``: 0 is no limit."""

    source: SourceVolume
    bytes_per_second: int


class SourceGate(Protocol):
    """Decides who may pull what, and lets one session at a time work for one target."""

    def open_source(
        self, identity: str, volume: str, target: str
    ) -> AbstractAsyncContextManager[SourceAccess]:
        """Enter to hold the volume for the target.

        Raises RefusedError (unknown and forbidden alike), BusyError (names the holder).
        """


def held_by(identity: str) -> str:
    """Return how the targets begin for which snapshots are held when this client pulls."""
    return f"pull by {identity}: "


async def serve_pull(
    channel: Channel,
    request: Pull,
    identity: str,
    gate: SourceGate,
    blocking: Blocking,
    audit: AuditSink,
    now_seconds: Callable[[], int],
) -> None:
    """Send what the client asked for, to its end.

    Args:
        channel: a session that PULL has just turned.
        request: it.
        identity: of the client.
        gate: decides about volumes.
        blocking: where storage calls run.
        audit: told what must be on record.
        now_seconds: the wall clock, seconds since the epoch.

    Raises:
        BlockrepError: whatever ended it early.
    """
    # Snapshots are held for whoever pulls, and for what he calls his replica.
    target = held_by(identity) + request.target

    def record(event: events.Event) -> None:
        if isinstance(event, events.Committed):
            fields = {"id": event.snapshot_id, "digest": event.digest}
            audit("pulled", {"volume": request.volume, **fields})

    async with gate.open_source(identity, request.volume, target) as access:
        options = PushOptions(
            target=target,
            volume=request.target,
            # Whoever pulls refuses a full transfer over good snapshots, unless asked for.
            wish=Wish(
                full=request.full,
                adopt=request.adopt,
                shrink=request.shrink,
                finish_full=request.full,
            ),
            bytes_per_second=access.bytes_per_second,
            compression=Compression(new_zstd_compressor) if request.compress else None,
        )
        pusher = Pusher(channel, access.source, blocking, options, record, now_seconds)
        await pusher.push()
        await pusher.say_bye()
