"""Both ends' digests meet in bounded memory; missing ones never count as equal (I2, I9)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from blockrep.errors import ProtocolError
from blockrep.model.extents import Extent
from blockrep.protocol.messages import Compare, Compared, Digests, Message, Open
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import DigestRun, digest_blocks
from blockrep.replication.digest_exchange import (
    DigestSpool,
    find_differences,
    runs_of_table,
    send_digests,
)
from support.readers import BytesReader
from support.sessions import VOLUME, connected
from support.virtual_time import InlineBlocking, run_virtual

BLOCK = 4096
SEED = 7
REQUEST = Compare("0" * 31 + "1", None, BLOCK, SEED.to_bytes(8, "big"))


def runs(content: bytes) -> Iterator[DigestRun]:
    return digest_blocks(BytesReader(content), len(content), BLOCK, SEED)


@contextlib.asynccontextmanager
async def opened() -> AsyncIterator[tuple[Channel, Channel]]:
    async with connected() as (client, server, _, _):
        await client.send(Open("verify", "vg/lv", "x"))
        await server.receive(Open)
        await server.send(VOLUME)
        await client.receive_any()
        yield client, server


def compare(ours: bytes, theirs: bytes) -> list[Extent]:
    async def scenario() -> list[Extent]:
        async with opened() as (client, server):

            async def serve() -> None:
                message = await server.receive(Compare)
                blocking = InlineBlocking()
                await send_digests(server, blocking, runs(theirs), len(theirs), message.block_bytes)

            serving = asyncio.create_task(serve())
            with await find_differences(
                client, InlineBlocking(), REQUEST, len(ours), lambda: runs(ours)
            ) as found:
                await serving
                return list(found)

    return run_virtual(scenario())


def test_a_spool_returns_what_was_added() -> None:
    added = [DigestRun(0, 5, None), DigestRun(5, 2, b"x" * 32), DigestRun(7, 1, None)]
    with DigestSpool() as spool:
        spool.add_all(added)
        assert list(spool) == added
        assert list(spool) == added


def test_a_stored_table_becomes_runs_without_gaps() -> None:
    digests = [bytes([n % 256]) * 16 for n in range(40_000)]
    found = list(runs_of_table(digests))
    assert b"".join(run.digests or b"" for run in found) == b"".join(digests)
    assert [run.first for run in found] == [0, 16384, 32768]


def test_equal_ends_have_no_differences() -> None:
    content = bytes(10 * BLOCK) + b"x" * 5000
    assert compare(content, content) == []


def test_differences_are_found_and_merged() -> None:
    ours = bytearray(b"y" * 20 * BLOCK)
    theirs = bytes(ours)
    ours[3 * BLOCK : 5 * BLOCK] = b"z" * 2 * BLOCK
    assert compare(bytes(ours), theirs) == [Extent(3 * BLOCK, 2 * BLOCK)]


def test_what_a_shorter_end_lacks_differs() -> None:
    assert compare(b"y" * 4 * BLOCK, b"y" * 3 * BLOCK) == [Extent(3 * BLOCK, BLOCK)]


@pytest.mark.parametrize(
    "answers",
    [
        [Compared(10 * BLOCK)],
        [Digests(BLOCK, 9, zero=True), Compared(10 * BLOCK)],
        [Digests(0, 5, zero=True), Digests(6 * BLOCK, 4, zero=True), Compared(10 * BLOCK)],
        [Digests(0, 11, zero=True)],
        [Digests(0, 10, zero=True), Digests(10 * BLOCK, 1, zero=True)],
        [Digests(0, 10, zero=True), Compared(10 * BLOCK)],
    ],
)
def test_missing_digests_and_those_past_the_end_end_the_comparison(answers: list[Message]) -> None:
    async def scenario() -> None:
        async with opened() as (client, server):

            async def serve() -> None:
                await server.receive(Compare)
                for answer in answers:
                    await server.send(answer)

            serving = asyncio.create_task(serve())
            with pytest.raises(ProtocolError):
                await find_differences(
                    client,
                    InlineBlocking(),
                    REQUEST,
                    10 * BLOCK - 1,
                    lambda: runs(bytes(10 * BLOCK - 1)),
                )
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    run_virtual(scenario())
