"""Establishing a session: TLS, HELLO, WELCOME.

Connected means that the server answered HELLO, not that TLS came up.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from blockrep import __version__
from blockrep.protocol.limits import PROTOCOL_VERSION
from blockrep.protocol.messages import Hello, Welcome
from blockrep.protocol.transitions import Side
from blockrep.replication import events
from blockrep.replication.channel import Channel
from blockrep.transport.interface import Transport

__all__ = ["established"]


@contextlib.asynccontextmanager
async def established(
    transport: Transport,
    features: tuple[str, ...],
    sink: events.EventSink,
    handshake_seconds: float,
) -> AsyncIterator[Channel]:
    """Run the handshake over a fresh transport; yield the channel in state IDLE; end both on exit.

    Raises:
        BlockrepError: the server refused us, or does not speak our protocol.
    """
    channel = Channel(transport, Side.CLIENT, handshake_seconds=handshake_seconds)
    async with channel:
        versions = (PROTOCOL_VERSION, PROTOCOL_VERSION)
        await channel.send(Hello(versions, features, f"blockrep {__version__}"))
        welcome = await channel.receive(Welcome)
        sink(events.Connected(transport.peer.address, welcome.identity))
        yield channel
