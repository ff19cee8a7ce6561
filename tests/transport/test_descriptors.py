"""Pipes and sockets keep the contract of a transport."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from blockrep.errors import ConnectionLostError
from blockrep.transport.descriptors import DescriptorTransport
from blockrep.transport.interface import PeerInfo
from transport.contract import Pair, TransportContract

CLIENT, SERVER = PeerInfo("origin", "stdio", ""), PeerInfo("replica", "ssh://replica", "")


class TestDescriptors(TransportContract):
    tells_abort = False

    @pytest.fixture(params=["socket", "pipes"])
    async def pair(self, request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
        if request.param == "socket":
            left, right = (end.detach() for end in socket.socketpair())
            ends = (left, left), (right, right)
        else:
            (up_read, up_write), (down_read, down_write) = os.pipe(), os.pipe()
            ends = (down_read, up_write), (up_read, down_write)
        client = DescriptorTransport(*ends[0], SERVER)
        server = DescriptorTransport(*ends[1], CLIENT)
        yield client, server
        await asyncio.gather(client.close(), server.close())


async def test_the_descriptors_are_closed_in_the_end() -> None:
    reading, writing = os.pipe()
    DescriptorTransport(reading, writing, SERVER).abort()
    for descriptor in (reading, writing):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_an_error_names_the_peer() -> None:
    reading, writing = os.pipe()
    unread, other = os.pipe()
    transport = DescriptorTransport(reading, other, SERVER)
    os.close(unread)
    with pytest.raises(ConnectionLostError, match="ssh://replica: broken pipe"):
        await transport.send([b"x"])
    transport.abort()
    os.close(writing)
