"""Connected means that the server answered HELLO (I10)."""

from __future__ import annotations

import asyncio

import pytest

from blockrep.client.connect import established
from blockrep.errors import ConnectionLostError, ProtocolError
from blockrep.protocol.messages import Hello
from blockrep.protocol.transitions import Side
from blockrep.replication import events
from blockrep.replication.channel import Channel
from blockrep.transport.memory import memory_pair
from support.sessions import WELCOME
from support.virtual_time import run_virtual


def test_the_server_s_answer_is_told() -> None:
    async def scenario() -> None:
        told: list[events.Event] = []
        left, right = memory_pair()
        async with Channel(right, Side.SERVER) as server:

            async def greet() -> None:
                await server.receive(Hello)
                await server.send(WELCOME)

            greeting = asyncio.create_task(greet())
            async with established(left, ("zstd",), told.append, 10):
                await greeting
            assert told == [events.Connected("memory:server", "origin")]

    run_virtual(scenario())


def test_a_silent_server_is_given_up() -> None:
    async def scenario() -> None:
        left, _ = memory_pair()
        with pytest.raises(ConnectionLostError, match="handshake"):
            async with established(left, (), lambda _event: None, 10):
                pass

    run_virtual(scenario())


def test_another_protocol_is_told_as_such() -> None:
    async def scenario() -> None:
        left, right = memory_pair()
        await right.send([b"220 smtp.example.org ESMTP\r\n"])
        with pytest.raises(ProtocolError, match="blockrep"):
            async with established(left, (), lambda _event: None, 10):
                pass

    run_virtual(scenario())
