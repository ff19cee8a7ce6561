"""What every transport promises; each kind's test file runs it over pairs of its own."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from blockrep.errors import BlockrepError, ConnectionLostError
from blockrep.transport.interface import Transport

Pair = tuple[Transport, Transport]


async def receive_exactly(transport: Transport, size: int) -> bytes:
    buffer = memoryview(bytearray(size))
    filled = 0
    while filled < size:
        count = await transport.receive_into(buffer[filled:])
        assert count > 0, f"the stream ended after {filled} of {size} bytes"
        filled += count
    return bytes(buffer)


async def receive_until_end(transport: Transport) -> bytes:
    received = bytearray()
    buffer = memoryview(bytearray(70_000))
    while count := await transport.receive_into(buffer):
        received += buffer[:count]
    return bytes(received)


async def send_for_ever(transport: Transport) -> None:
    while True:
        await transport.send([bytes(1024 * 1024)])


class TransportContract:
    """Subclasses have a fixture ``pair``: both ends of a connection, closed afterwards.

    ``tells_abort``: the peer of an abort can tell it from an end; where it cannot, the session
    does, which knows whether the end was due.
    """

    tells_abort = True

    async def test_bytes_arrive_in_order_whatever_the_sizes(self, pair: Pair) -> None:
        client, server = pair
        pattern = bytes(range(256)) * 8192  # 2 MiB
        pieces: list[bytes | bytearray | memoryview] = [
            pattern[:1],
            b"",
            bytearray(pattern[1:5000]),
            memoryview(pattern)[5000:600_000],
        ]
        await asyncio.gather(
            client.send([*pieces, pattern[600_000:]]),
            _expect(server, pattern),
        )
        await asyncio.gather(server.send([pattern]), _expect(client, pattern))

    async def test_both_directions_at_once(self, pair: Pair) -> None:
        client, server = pair
        data = bytes(range(251)) * 40_000
        async with asyncio.timeout(60):
            await asyncio.gather(
                client.send([data]),
                server.send([data[::-1]]),
                _expect(server, data),
                _expect(client, data[::-1]),
            )

    async def test_a_sent_buffer_may_be_reused(self, pair: Pair) -> None:
        client, server = pair
        buffer = bytearray(300_000)

        async def send_all() -> None:
            for number in range(10):
                buffer[:] = bytes([number]) * len(buffer)
                await client.send([memoryview(buffer)])

        expected = b"".join(bytes([number]) * len(buffer) for number in range(10))
        await asyncio.gather(send_all(), _expect(server, expected))

    async def test_a_sender_waits_for_a_receiver(self, pair: Pair) -> None:
        # Bounded memory (I9): what the peer does not take stays with the sender.
        client, server = pair
        sent = 0
        chunk = bytes(1024 * 1024)

        async def send_and_count() -> None:
            nonlocal sent
            while True:
                await client.send([chunk])
                sent += len(chunk)

        task = asyncio.create_task(send_and_count())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await asyncio.shield(task)
        before = sent
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await asyncio.shield(task)
        assert sent == before
        await receive_exactly(server, 64 * len(chunk))
        assert sent > before
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    async def test_a_cancelled_send_leaves_the_stream_whole(self, pair: Pair) -> None:
        # Half a frame followed by another one (the ABORT that tells why) would read as damage.
        client, server = pair
        data = bytes(range(256)) * 96 * 1024  # 24 MiB, more than all buffers on the way take
        for more in (b"next", b""):
            buffer = bytearray(data)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await client.send([b"header", buffer])
            buffer[:] = bytes(len(buffer))  # it is the caller's again
            receiving = asyncio.create_task(receive_exactly(server, len(data) + 6 + len(more)))
            if more:
                await client.send([more])
                assert await receiving == b"header" + data + more
        _, received = await asyncio.gather(client.close(), receiving)
        assert received == b"header" + data

    async def test_close_delivers_what_was_sent_and_then_the_end(self, pair: Pair) -> None:
        client, server = pair
        await client.send([b"last words"])
        received, _ = await asyncio.gather(_receive_and_close(server), client.close())
        assert received == b"last words"

    async def test_the_end_is_told_again_and_again(self, pair: Pair) -> None:
        client, server = pair
        closing = asyncio.create_task(client.close())
        assert await receive_until_end(server) == b""
        assert await receive_until_end(server) == b""
        await server.close()
        await closing

    async def test_close_may_be_called_twice_and_after_abort(self, pair: Pair) -> None:
        client, server = pair
        await asyncio.gather(client.close(), server.close())
        await client.close()
        server.abort()
        await server.close()

    async def test_a_peer_that_never_closes_delays_close_only_a_little(self, pair: Pair) -> None:
        client, _ = pair
        async with asyncio.timeout(10):
            await client.close()

    async def test_abort_ends_a_pending_receive_on_both_sides(self, pair: Pair) -> None:
        client, server = pair
        own = asyncio.create_task(client.receive_into(memoryview(bytearray(10))))
        peers = asyncio.create_task(server.receive_into(memoryview(bytearray(10))))
        await asyncio.sleep(0)
        client.abort()
        with pytest.raises(ConnectionLostError):
            await asyncio.wait_for(own, 10)
        if self.tells_abort:
            with pytest.raises(ConnectionLostError):
                await asyncio.wait_for(peers, 10)
        else:
            assert await asyncio.wait_for(peers, 10) == 0

    async def test_abort_ends_a_pending_send(self, pair: Pair) -> None:
        client, _ = pair
        task = asyncio.create_task(client.send([bytes(64 * 1024 * 1024)]))
        await _started(task)
        client.abort()
        with pytest.raises(ConnectionLostError):
            await asyncio.wait_for(task, 10)

    async def test_a_send_to_a_peer_that_is_gone_ends_in_an_error(self, pair: Pair) -> None:
        client, server = pair
        server.abort()
        with pytest.raises(ConnectionLostError) as caught:
            await asyncio.wait_for(send_for_ever(client), 10)
        assert client.peer.address in str(caught.value)

    async def test_nothing_works_after_close(self, pair: Pair) -> None:
        client, server = pair
        await asyncio.gather(client.close(), server.close())
        with pytest.raises(BlockrepError):
            await client.send([b"x"])
        with pytest.raises(BlockrepError):
            await client.receive_into(memoryview(bytearray(1)))

    async def test_long_runs_leave_the_loop_to_others(self, pair: Pair) -> None:
        # A heartbeat must get its turn although both directions always have something to do.
        client, server = pair
        turns = 0

        async def heartbeat() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        beating = asyncio.create_task(heartbeat())
        data = bytes(48 * 1024 * 1024)
        await asyncio.gather(client.send([data]), receive_exactly(server, len(data)))
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
        assert turns >= 3


async def _expect(transport: Transport, expected: bytes) -> None:
    assert await receive_exactly(transport, len(expected)) == expected


async def _receive_and_close(transport: Transport) -> bytes:
    received = await receive_until_end(transport)
    await transport.close()
    return received


async def _started(task: asyncio.Task[None]) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await asyncio.shield(task)
