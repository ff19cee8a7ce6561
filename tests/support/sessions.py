"""A client and a server joined in memory, brought to the state that a test starts from."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace

from blockrep.protocol.messages import Begin, Hello, Open, Ready, Volume, Welcome
from blockrep.protocol.transitions import Side
from blockrep.replication.channel import Channel
from blockrep.transport.memory import MemoryTransport, memory_pair

HELLO = Hello((1, 1), (), "test")
WELCOME = Welcome(1, (), "test", "origin", 65536, 4 * 65536, 5000, 30000)
VOLUME = Volume(
    exists=False,
    owned=False,
    drifted=False,
    kind="",
    identity="",
    size_bytes=0,
    block_bytes=0,
    align_bytes=1,
    lineage="",
    chunk_bytes=65536,
    free_bytes=1 << 40,
    metadata_free_chunks=1 << 30,
    staging=None,
)
ID = "0" * 31 + "1"
BEGIN = Begin(ID, ID, 1, 0, "", "full", 1 << 40, 1, 1, 0, bytes(32), 1, allow_shrink=False)
READY = Ready("staging", 0, bytes(32))


@contextlib.asynccontextmanager
async def connected(
    *features: str,
) -> AsyncIterator[tuple[Channel, Channel, MemoryTransport, MemoryTransport]]:
    """Yield client and server after the handshake, and their transports."""
    left, right = memory_pair(1 << 13)
    async with Channel(left, Side.CLIENT) as client, Channel(right, Side.SERVER) as server:
        await client.send(replace(HELLO, features=features))
        await server.receive(Hello)
        await server.send(replace(WELCOME, features=features))
        await client.receive(Welcome)
        yield client, server, left, right


async def start_stream(client: Channel, server: Channel, ready: Ready | None = None) -> None:
    await client.send(Open("push", "vg/lv", "x"))
    await server.receive(Open)
    await server.send(VOLUME)
    await client.receive(Volume)
    await client.send(BEGIN)
    await server.receive(Begin)
    await server.send(ready or READY)
    await client.receive(Ready)
