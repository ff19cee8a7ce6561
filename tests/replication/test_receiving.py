"""What is acknowledged as durable was synced and recorded before (I1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import ParamSpec, TypeVar

import pytest

from blockrep.errors import ConnectionLostError, ProtocolError, StorageError
from blockrep.protocol.chain import advance_chain
from blockrep.protocol.messages import Ack, Commit, Data, Message
from blockrep.replication.blocking import Blocking, ThreadBlocking
from blockrep.replication.channel import Channel
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.receiving import StreamReceiver, Tally
from support.journal import CHAIN, ID, SIZE, JournalStaging, data_message
from support.sessions import connected, start_stream
from support.virtual_time import InlineBlocking, run_virtual

P = ParamSpec("P")
T = TypeVar("T")

BLOCK = 4096


def messages(count: int) -> list[Data]:
    found = [data_message(0, b"\x01" * BLOCK)]
    for index in range(1, count):
        content = bytes([index % 255 + 1]) * BLOCK
        found.append(data_message(index * BLOCK, content, found[-1].chain))
    return found


class SlowBlocking(InlineBlocking):
    """Each call takes a second; notes how much was written by then."""

    def __init__(self, staging: JournalStaging) -> None:
        self._staging = staging
        self.written: list[int] = []

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        await asyncio.sleep(1)
        result = function(*args, **kwargs)
        self.written.append(sum(entry[0] == "write" for entry in self._staging.journal))
        return result


def receiver_of(
    server: Channel,
    staging: JournalStaging,
    bytes_per_second: int = 0,
    window_bytes: int = 8 * BLOCK,
    blocking: Blocking | None = None,
) -> StreamReceiver:
    limiter = RateLimiter(bytes_per_second)
    tally = Tally(SIZE, lambda _event: None)
    blocking = blocking or InlineBlocking()
    return StreamReceiver(server, blocking, staging, SIZE, window_bytes, None, limiter, tally)


def chain_of(sent: list[Data]) -> bytes:
    chain = CHAIN
    for message in sent:
        chain = advance_chain(chain, message.segments, message.content_digest)
    return chain


def receive(
    staging: JournalStaging,
    sent: list[Data],
    digest: bytes | None = None,
    pause_seconds: float = 0,
    window_bytes: int = 8 * BLOCK,
) -> list[Ack]:
    """Send frames and COMMIT to a receiver; return its acknowledgements."""

    async def scenario() -> list[Ack]:
        acknowledged: list[Ack] = []
        async with connected() as (client, server, _, _):
            await start_stream(client, server)

            def listen(message: Message) -> bool:
                if isinstance(message, Ack):
                    acknowledged.append(message)
                return isinstance(message, Ack)

            client.listen(listen)
            receiver = receiver_of(server, staging, window_bytes=window_bytes)
            receiving = asyncio.create_task(receiver.receive_all())
            for message in sent:
                await client.send(message)
                await asyncio.sleep(pause_seconds)
            await client.send(Commit(ID, chain_of(sent) if digest is None else digest))
            try:
                await receiving
            finally:
                await asyncio.sleep(0.1)
        return acknowledged

    return run_virtual(scenario())


def test_everything_is_durable_before_commit_is_accepted() -> None:
    staging = JournalStaging()
    acknowledged = receive(staging, messages(10))
    assert acknowledged[-1] == Ack(10 * BLOCK, 10 * BLOCK)
    assert staging.journal[-1][0] == "cursor"
    assert bytes(staging.content[: 10 * BLOCK]) == b"".join(
        bytes([index + 1]) * BLOCK for index in range(10)
    )


def test_an_acknowledgement_follows_a_sync_and_a_record_that_cover_it() -> None:
    staging = JournalStaging()
    acknowledged = receive(staging, messages(20), pause_seconds=0.01)
    recorded = [entry[1] for entry in staging.journal if entry[0] == "cursor"]
    assert [one.durable_bytes for one in acknowledged] == recorded
    written = 0
    covered = 0
    for entry in staging.journal:
        if entry[0] == "write":
            written = int(str(entry[1])) + int(str(entry[2]))
        elif entry[0] == "sync":
            covered = written
        elif entry[0] == "cursor":
            assert int(str(entry[1])) <= covered


def test_a_pause_of_the_sender_is_used_to_become_durable() -> None:
    staging = JournalStaging()
    acknowledged = receive(staging, messages(1), pause_seconds=5)
    assert acknowledged == [Ack(BLOCK, BLOCK)]


def test_on_a_slow_link_what_arrived_becomes_durable_after_seconds() -> None:
    """It never pauses, and a quarter of the window takes long: a cut must not cost minutes."""
    staging = JournalStaging()
    sent = messages(20)
    acknowledged = receive(staging, sent, pause_seconds=0.9, window_bytes=1000 * BLOCK)
    durable = [one.durable_bytes // BLOCK for one in acknowledged]
    assert durable[-1] == len(sent)
    assert all(after - before <= 8 for before, after in zip([0, *durable], durable, strict=False))


def test_what_arrives_while_storage_is_at_work_is_written_by_the_same_call() -> None:
    """In its order; but a call ends now and then, so that a sync can begin."""
    staging = JournalStaging()
    sent = messages(40)
    blocking = SlowBlocking(staging)

    async def scenario() -> None:
        async with connected() as (client, server, _, _):
            await start_stream(client, server)
            client.listen(lambda message: isinstance(message, Ack))
            receiver = receiver_of(server, staging, window_bytes=1000 * BLOCK, blocking=blocking)
            receiving = asyncio.create_task(receiver.receive_all())
            await client.send(sent[0])
            await asyncio.sleep(0.5)  # the call for the first has begun
            for message in sent[1:]:
                await client.send(message)
            await client.send(Commit(ID, chain_of(sent)))
            await receiving

    run_virtual(scenario())
    assert blocking.written[0] > 1
    assert all(after - before <= 16 for before, after in pairwise([0, *blocking.written]))
    assert [entry[1] for entry in staging.journal if entry[0] == "write"] == [
        index * BLOCK for index in range(40)
    ]


def test_the_storage_thread_and_the_loop_hand_over_in_order_with_few_buffers() -> None:
    """With real threads: what arrives is whole, and neither waits for the other for ever."""
    staging = JournalStaging()
    sent = messages(240)

    async def scenario(blocking: Blocking) -> None:
        async with connected() as (client, server, _, _):
            server._pool._budget_bytes = 6 * BLOCK
            await start_stream(client, server)
            client.listen(lambda message: isinstance(message, Ack))
            receiving = asyncio.create_task(
                receiver_of(server, staging, blocking=blocking).receive_all()
            )
            for message in sent:
                await client.send(message)
            await client.send(Commit(ID, chain_of(sent)))
            await receiving

    with ThreadBlocking() as blocking:
        asyncio.run(scenario(blocking))
    assert bytes(staging.content[: 240 * BLOCK]) == b"".join(bytes(one.payload) for one in sent)


def test_a_wrong_digest_is_not_committed() -> None:
    with pytest.raises(ProtocolError, match="digest"):
        receive(JournalStaging(), messages(3), digest=bytes(32))


def test_a_failed_sync_ends_the_transfer_without_an_acknowledgement() -> None:
    staging = JournalStaging()
    staging.sync_error = StorageError("EIO")
    with pytest.raises(StorageError):
        receive(staging, messages(3))
    assert [entry[0] for entry in staging.journal].count("sync") == 1, "a sync is never retried"
    assert "cursor" not in [entry[0] for entry in staging.journal]


def test_a_lost_connection_keeps_what_is_durable() -> None:
    staging = JournalStaging()

    async def scenario() -> None:
        async with connected() as (client, server, cable, _):
            await start_stream(client, server)
            receiver = receiver_of(server, staging)
            receiving = asyncio.create_task(receiver.receive_all())
            for message in messages(4):
                await client.send(message)
            await asyncio.sleep(3)
            cable.cut()
            with pytest.raises(ConnectionLostError):
                await receiving

    run_virtual(scenario())
    assert staging.journal[-1][:2] == ("cursor", 4 * BLOCK)


def test_a_rate_is_kept_by_reading_slowly_and_loses_nothing() -> None:
    staging = JournalStaging()

    async def scenario() -> float:
        async with connected() as (client, server, _, _):
            await start_stream(client, server)
            client.listen(lambda message: isinstance(message, Ack))
            start = asyncio.get_running_loop().time()
            sent = messages(20)
            receiving = asyncio.create_task(receiver_of(server, staging, BLOCK).receive_all())
            for message in sent:
                await client.send(message)
            await client.send(Commit(ID, chain_of(sent)))
            await receiving
            return asyncio.get_running_loop().time() - start

    # A block a second, and a little more for the frames' own cost; heartbeats keep it alive.
    assert 19.5 <= run_virtual(scenario()) <= 22
    assert bytes(staging.content[: 20 * BLOCK]) == b"".join(
        bytes([index + 1]) * BLOCK for index in range(20)
    )
