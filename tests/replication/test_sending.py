"""The sender keeps within window and rate; what is durable the receiver alone says (I1)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from blockrep.errors import StorageError
from blockrep.model.extents import Extent
from blockrep.protocol.messages import Ack, Data, Ready
from blockrep.replication import events
from blockrep.replication.channel import Channel
from blockrep.replication.compression import ZstdCompressor
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.plan import SpooledPlan
from blockrep.replication.sending import Compression, StreamSender
from support.readers import BytesReader
from support.sessions import READY, WELCOME, connected, start_stream
from support.virtual_time import InlineBlocking, run_virtual

PAYLOAD = WELCOME.max_payload_bytes
CONTENT = bytes(range(256)) * (PAYLOAD // 256) * 12


@pytest.fixture
def plan() -> Iterator[SpooledPlan]:
    with SpooledPlan(iter([Extent(0, len(CONTENT))]), len(CONTENT)) as plan:
        yield plan


def test_a_full_window_waits_for_durable_not_for_received(plan: SpooledPlan) -> None:
    async def scenario() -> None:
        told: list[events.Event] = []
        async with connected() as (client, server, _, _):
            await start_stream(client, server)
            sender = StreamSender(
                client, InlineBlocking(), plan, READY, RateLimiter(0), told.append
            )
            sending = asyncio.create_task(sender.send_all(BytesReader(CONTENT), None))
            taken = [await server.receive(Data) for _ in range(3)]
            await asyncio.sleep(10)
            assert server.peek() is None, "the window of four payloads holds three frames"
            assert not sending.done()
            await server.send(Ack(taken[-1].segments[-1].end_bytes, 0))
            await asyncio.sleep(10)
            assert server.peek() is None, "received is not durable"
            position = taken[0].segments[-1].end_bytes
            await server.send(Ack(taken[-1].segments[-1].end_bytes, position))
            for _ in range(9):
                message = await server.receive(Data)
                end = message.segments[-1].end_bytes
                await server.send(Ack(end, end))
            await sending
            progress = [one for one in told if isinstance(one, events.Progress)]
            assert progress[-1].done_bytes == len(CONTENT)
            assert all(one.durable_bytes <= one.done_bytes for one in progress)

    run_virtual(scenario())


def test_a_resumed_stream_starts_at_the_cursor(plan: SpooledPlan) -> None:
    async def scenario() -> None:
        told: list[events.Event] = []
        async with connected() as (client, server, _, _):
            cursor = 10 * PAYLOAD + 100
            ready = Ready("staging", cursor, bytes(32))
            await start_stream(client, server, ready)
            sender = StreamSender(
                client, InlineBlocking(), plan, ready, RateLimiter(0), told.append
            )
            await sender.send_all(BytesReader(CONTENT), None)
            first = await server.receive(Data)
            assert first.segments[0].offset_bytes == cursor
            assert told[0] == events.Resumed(cursor, cursor, len(CONTENT))

    run_virtual(scenario())


def test_a_read_error_ends_the_stream_and_nothing_is_sent_in_its_place(
    plan: SpooledPlan,
) -> None:
    class Broken(BytesReader):
        def read_into(self, offset_bytes: int, buffer: memoryview) -> None:
            if offset_bytes >= 5 * PAYLOAD:
                raise StorageError("cannot read", where=f"offset {offset_bytes}")
            super().read_into(offset_bytes, buffer)

    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            await start_stream(client, server)
            sender = StreamSender(
                client, InlineBlocking(), plan, READY, RateLimiter(0), lambda _event: None
            )
            sending = asyncio.create_task(sender.send_all(Broken(CONTENT), None))
            taken = 0
            while not sending.done():
                if server.peek() is None:
                    await asyncio.sleep(0.01)
                    continue
                message = await server.receive(Data)
                taken += 1
                end = message.segments[-1].end_bytes
                await server.send(Ack(end, end))
            with pytest.raises(StorageError, match="cannot read"):
                await sending
            assert taken <= 5

    run_virtual(scenario())


async def _taken(server: Channel, size_bytes: int) -> list[Data]:
    """Take a stream of a volume of this size, each frame durable at once."""
    taken: list[Data] = []
    while not taken or taken[-1].segments[-1].end_bytes < size_bytes:
        taken.append(await server.receive(Data))
        end = taken[-1].segments[-1].end_bytes
        await server.send(Ack(end, end))
    return taken


def test_on_a_slow_link_what_was_read_ahead_is_compressed_too() -> None:
    content = CONTENT * 5

    async def scenario() -> None:
        async with connected("zstd") as (client, server, _, _):
            with SpooledPlan(iter([Extent(0, len(content))]), len(content)) as plan:
                await start_stream(client, server)
                sender = StreamSender(
                    client, InlineBlocking(), plan, READY, RateLimiter(PAYLOAD), lambda _event: None
                )
                sending = asyncio.create_task(
                    sender.send_all(BytesReader(content), Compression(ZstdCompressor))
                )
                taken = await _taken(server, len(content))
                await sending
        packed = [one.unpacked_bytes is not None for one in taken]
        assert len(packed) == 60
        assert packed.index(True) <= 5, "two frames to know the rate, twice, and the first"
        assert all(packed[packed.index(True) :])

    run_virtual(scenario())


def test_a_payload_that_does_not_shrink_travels_as_it_is() -> None:
    content = random.Random(1).randbytes(2 * PAYLOAD) + CONTENT[: 2 * PAYLOAD]

    async def scenario() -> None:
        async with connected("zstd") as (client, server, _, _):
            with SpooledPlan(iter([Extent(0, len(content))]), len(content)) as plan:
                await start_stream(client, server)
                sender = StreamSender(
                    client, InlineBlocking(), plan, READY, RateLimiter(0), lambda _event: None
                )
                sending = asyncio.create_task(
                    sender.send_all(BytesReader(content), Compression(ZstdCompressor, always=True))
                )
                taken = await _taken(server, len(content))
                await sending
        assert [one.unpacked_bytes for one in taken] == [None, None, PAYLOAD, PAYLOAD]
        assert b"".join(one.payload for one in taken[:2]) == content[: 2 * PAYLOAD]

    run_virtual(scenario())
