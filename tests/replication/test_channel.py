"""A channel ends as a clear error whatever the peer does (I10), within bounded memory (I9)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from blockrep.errors import (
    BlockrepError,
    ConnectionLostError,
    ProtocolError,
    VolumeError,
)
from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.messages import (
    Bye,
    Data,
    Hello,
    Open,
    Volume,
    Welcome,
    encode_message,
)
from blockrep.protocol.transitions import Side, State
from blockrep.replication.channel import Channel
from blockrep.transport.memory import memory_pair
from support.sessions import HELLO, VOLUME, WELCOME, connected, start_stream
from support.virtual_time import run_virtual


def zero_frame(index: int) -> Data:
    return Data((Extent(index * 65536, 65536, ExtentKind.ZERO),), bytes(16), bytes(32))


def data_frame(index: int) -> Data:
    return Data(
        (Extent(index * 65536, 65536),), bytes(16), bytes(32), None, memoryview(bytes(65536))
    )


def test_bye_ends_both_ends_without_an_error() -> None:
    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            await client.send(Bye())
            await server.receive(Bye)
            assert client.session.error is None
            assert server.session.error is None

    run_virtual(scenario())


def test_an_error_of_one_end_is_the_error_of_the_other() -> None:
    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            server.session.fail(VolumeError("no such volume", where="vg/lv", next_step="check"))
            with contextlib.suppress(BlockrepError):
                await server.send(VOLUME)
            await server.__aexit__(None, VolumeError("no such volume"), None)
            with pytest.raises(VolumeError) as caught:
                await client.receive(Volume)
            assert caught.value.what == "no such volume"
            assert caught.value.where == f"{client.peer_address}: vg/lv", "it is missing there"

    run_virtual(scenario())


def test_a_cut_connection_is_lost_not_ended() -> None:
    async def scenario() -> None:
        async with connected() as (client, server, left, _):
            left.cut()
            for end in (client, server):
                with pytest.raises(ConnectionLostError):
                    await end.receive(Volume)

    run_virtual(scenario())


def test_end_of_stream_without_bye_is_never_success() -> None:
    async def scenario() -> None:
        async with connected() as (_, server, left, _):
            await left.close()
            with pytest.raises(ConnectionLostError):
                await server.receive(Open)

    run_virtual(scenario())


def test_idle_ends_keep_each_other_alive_for_an_hour() -> None:
    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            await asyncio.sleep(3600)
            assert client.session.error is None
            assert server.session.error is None

    run_virtual(scenario())


def test_a_silent_peer_is_given_up_after_the_announced_time() -> None:
    async def scenario() -> None:
        left, right = memory_pair(1 << 16)
        async with Channel(left, Side.CLIENT) as client:
            await client.send(HELLO)
            await right.receive_into(memoryview(bytearray(4096)))
            await right.send(list(encode_message(WELCOME)))  # and nothing after that
            await client.receive(Welcome)
            before = asyncio.get_running_loop().time()
            with pytest.raises(ConnectionLostError, match="30 seconds"):
                await client.receive(Volume)
            assert asyncio.get_running_loop().time() - before == pytest.approx(30, abs=0.1)

    run_virtual(scenario())


def test_a_silent_peer_that_takes_nothing_either_is_given_up_after_the_announced_time() -> None:
    """A cut line: a sign of life that nothing takes must not stop the clock."""

    async def scenario() -> None:
        left, right = memory_pair(1 << 16)
        async with Channel(left, Side.CLIENT) as client:
            await client.send(HELLO)
            await right.receive_into(memoryview(bytearray(4096)))
            await right.send(list(encode_message(WELCOME)))
            await client.receive(Welcome)
            left._outgoing.limit_bytes = 0
            before = asyncio.get_running_loop().time()
            with pytest.raises(ConnectionLostError, match="30 seconds"):
                await client.receive(Volume)
            assert asyncio.get_running_loop().time() - before == pytest.approx(30, abs=0.1)

    run_virtual(scenario())


def test_a_client_that_never_says_hello_is_dropped_in_time() -> None:
    async def scenario() -> None:
        _, right = memory_pair(1 << 16)
        async with Channel(right, Side.SERVER, handshake_seconds=10) as server:
            with pytest.raises(ConnectionLostError, match="handshake"):
                await server.receive(Hello)
            assert asyncio.get_running_loop().time() == pytest.approx(10, abs=0.1)

    run_virtual(scenario())


def test_garbage_is_answered_by_one_abort() -> None:
    async def scenario() -> None:
        left, right = memory_pair(1 << 16)
        async with Channel(right, Side.SERVER) as server:
            await left.send([b"GET / HTTP/1.1\r\n\r\n" * 10])
            with pytest.raises(ProtocolError, match="magic"):
                await server.receive(Hello)
            async with Channel(left, Side.CLIENT) as client:
                client.session.state = State.GREETED
                with pytest.raises(ProtocolError, match="magic"):
                    await client.receive(Welcome)

    run_virtual(scenario())


@pytest.mark.parametrize("frame", [zero_frame, data_frame])
def test_a_flood_stops_at_the_budget_until_the_receiver_takes_it(
    frame: Callable[[int], Data],
) -> None:
    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            await start_stream(client, server)
            sent = 0

            async def flood() -> None:
                nonlocal sent
                for index in range(2000):
                    await client.send(frame(index))
                    sent += 1

            flooding = asyncio.create_task(flood())
            await asyncio.sleep(20)
            held = sent
            assert held < 2000
            taken = 0
            while taken < 2000:
                message = await server.receive(Data)
                if len(message.payload):
                    server.release(message.payload)
                taken += 1
            await flooding
            assert held <= 300

    run_virtual(scenario())


def test_time_spent_not_reading_is_not_the_peers_silence() -> None:
    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            await start_stream(client, server)
            flooding = asyncio.create_task(_send_all(client, 400))
            await asyncio.sleep(300)  # the receiver's disk hangs for ten timeouts
            for _ in range(400):
                server.release((await server.receive(Data)).payload)
            await flooding

    run_virtual(scenario())


async def _send_all(client: Channel, count: int) -> None:
    for index in range(count):
        await client.send(data_frame(index))


def test_cancelling_one_end_tells_the_other_that_it_can_resume() -> None:
    async def scenario() -> None:
        left, right = memory_pair(1 << 16)
        async with Channel(left, Side.CLIENT) as client:

            async def serve() -> None:
                async with Channel(right, Side.SERVER) as server:
                    await server.receive(Hello)
                    await server.send(WELCOME)
                    await server.receive(Open)

            serving = asyncio.create_task(serve())
            await client.send(HELLO)
            await client.receive(Welcome)
            serving.cancel()
            with pytest.raises(ConnectionLostError, match="interrupted"):
                await client.receive(Volume)
            with contextlib.suppress(asyncio.CancelledError):
                await serving

    run_virtual(scenario())
