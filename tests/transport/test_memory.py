"""The memory transport keeps the contract, its limit, and can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from blockrep.errors import ConnectionLostError
from blockrep.transport.memory import memory_pair
from transport.contract import Pair, TransportContract, receive_exactly


class TestMemoryTransport(TransportContract):
    @pytest.fixture
    async def pair(self) -> AsyncIterator[Pair]:
        client, server = memory_pair(100_000)
        yield client, server
        await client.close()
        await server.close()


def test_each_end_knows_the_other() -> None:
    client, server = memory_pair(client_name="origin", server_name="replica")
    assert client.peer.identity == "replica"
    assert server.peer.identity == "origin"


async def test_no_more_than_the_limit_is_on_its_way() -> None:
    client, server = memory_pair(10)
    sending = asyncio.create_task(client.send([bytes(25)]))
    buffer = memoryview(bytearray(100))
    sizes: list[int] = []
    while sum(sizes) < 25:
        sizes.append(await server.receive_into(buffer))
    await sending
    assert max(sizes) == 10


async def test_a_cut_breaks_both_ends_and_loses_what_was_on_its_way() -> None:
    client, server = memory_pair()
    await client.send([b"lost"])
    pending = asyncio.create_task(client.receive_into(memoryview(bytearray(4))))
    await asyncio.sleep(0)
    server.cut()
    for call in (pending, receive_exactly(server, 4), client.send([b"x"]), server.send([b"x"])):
        with pytest.raises(ConnectionLostError, match="broke"):
            await call
