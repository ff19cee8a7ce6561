"""What a stream travels through ends after it, and only once."""

from __future__ import annotations

import asyncio
import contextlib

from blockrep.transport.held import HeldTransport
from blockrep.transport.memory import memory_pair


async def test_the_tunnel_outlives_the_stream() -> None:
    order: list[str] = []
    client, server = memory_pair()
    stack = contextlib.AsyncExitStack()
    stack.callback(order.append, "released")
    held = HeldTransport(client, stack)
    await held.send([b"data"])
    buffer = memoryview(bytearray(4))
    assert await server.receive_into(buffer) == 4
    await server.send([b"back"])
    assert await held.receive_into(buffer) == 4
    assert held.peer == client.peer
    assert order == []
    await asyncio.gather(held.close(), server.close())
    assert order == ["released"]
    held.abort()
    await held.close()
    assert order == ["released"]


async def test_an_abort_releases_too() -> None:
    released = asyncio.Event()
    client, server = memory_pair()
    stack = contextlib.AsyncExitStack()
    stack.callback(released.set)
    HeldTransport(client, stack).abort()
    await asyncio.wait_for(released.wait(), 10)
    await server.close()
