"""Comparing a local snapshot with a remote one: both hosts digest at the same time.

Then the digests meet.

Digests are spooled (unlinked temporary files beyond 4 MiB), so that volumes of any size are
compared in bounded memory.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Iterable, Iterator
from typing import Self

from blockrep.errors import ProtocolError
from blockrep.model.extents import Extent
from blockrep.protocol.messages import Compare, Compared, Digests
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import DIGEST_BYTES, DigestRun, compare_runs
from blockrep.replication.plan import SpooledPlan
from blockrep.replication.spool import Spool

__all__ = ["DigestSpool", "find_differences", "runs_of_table", "send_digests"]

_RECORD = struct.Struct("<QQ?")
_BATCH_RUNS = 8
_DIGESTS_PER_RUN = 16 * 1024


class DigestSpool:
    """Runs of digests, written once, read in order. A context manager."""

    def __init__(self) -> None:
        self._spool = Spool()

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the spool."""
        self._spool.close()

    def add(self, run: DigestRun) -> None:
        """Append a run."""
        self._spool.write(_RECORD.pack(run.first, run.count, run.digests is None))
        if run.digests is not None:
            self._spool.write(run.digests)

    def add_all(self, runs: Iterable[DigestRun]) -> None:
        """Append runs."""
        for run in runs:
            self.add(run)

    def __iter__(self) -> Iterator[DigestRun]:
        """Yield the runs in order."""
        self._spool.rewind()
        while record := self._spool.read(_RECORD.size):
            first, count, zero = _RECORD.unpack(record)
            yield DigestRun(first, count, None if zero else self._spool.read(count * DIGEST_BYTES))


def runs_of_table(digests: Iterable[bytes]) -> Iterator[DigestRun]:
    """Yield a stored digest table as runs."""
    first = 0
    collected: list[bytes] = []
    for digest in digests:
        collected.append(digest)
        if len(collected) == _DIGESTS_PER_RUN:
            yield DigestRun(first, len(collected), b"".join(collected))
            first += len(collected)
            collected = []
    if collected:
        yield DigestRun(first, len(collected), b"".join(collected))


async def find_differences(
    channel: Channel,
    blocking: Blocking,
    request: Compare,
    size_bytes: int,
    local_runs: Callable[[], Iterator[DigestRun]],
) -> SpooledPlan:
    """Send COMPARE; return the DATA extents in which the remote snapshot differs from ours.

    Args:
        channel: an OPENED session.
        blocking: where local digests are computed.
        request: COMPARE; its block size and seed hold for both ends.
        size_bytes: size of the snapshot; of it, what a shorter remote one lacks differs.
        local_runs: returns the local digests; called in a storage thread.

    Raises:
        ProtocolError: the remote digests have gaps, or reach past the end.
    """
    with DigestSpool() as ours, DigestSpool() as theirs:
        await channel.send(request)
        local = asyncio.create_task(blocking.run(lambda: ours.add_all(local_runs())))
        try:
            remote_bytes = await _receive_digests(channel, theirs, size_bytes, request.block_bytes)
            await local
        finally:
            local.cancel()
            await asyncio.gather(local, return_exceptions=True)
        seed = int.from_bytes(request.seed, "big")

        def compare() -> SpooledPlan:
            found = compare_runs(ours, theirs, remote_bytes, request.block_bytes, seed)
            return SpooledPlan(_with_tail(found, remote_bytes, size_bytes), size_bytes)

        return await blocking.run(compare)


def _with_tail(extents: Iterator[Extent], shared_bytes: int, size_bytes: int) -> Iterator[Extent]:
    yield from extents
    if shared_bytes < size_bytes:
        yield Extent(shared_bytes, size_bytes - shared_bytes)


async def _receive_digests(
    channel: Channel, spool: DigestSpool, size_bytes: int, block_bytes: int
) -> int:
    """Spool the remote digests, which come without gaps; return the size of what they cover.

    That is at most ``size_bytes``: the peer decides nothing about the room that they take.
    """
    next_block = 0
    while True:
        message = await channel.receive_any()
        if isinstance(message, Compared):
            if -(-message.size_bytes // block_bytes) != next_block:
                raise ProtocolError("digests are missing", where=channel.peer_address)
            if message.size_bytes > size_bytes:
                raise ProtocolError("more was compared than there is", where=channel.peer_address)
            return message.size_bytes
        if not isinstance(message, Digests) or message.offset_bytes != next_block * block_bytes:
            raise ProtocolError("digests are out of place", where=channel.peer_address)
        if next_block + message.count > -(-size_bytes // block_bytes):
            raise ProtocolError("digests reach past the end", where=channel.peer_address)
        digests = None if message.zero else bytes(message.payload)
        if digests is not None:
            channel.release(message.payload)
        spool.add(DigestRun(next_block, message.count, digests))
        next_block += message.count


async def send_digests(
    channel: Channel,
    blocking: Blocking,
    runs: Iterator[DigestRun],
    size_bytes: int,
    block_bytes: int,
) -> None:
    """Answer COMPARE: DIGESTS for each run, then COMPARED."""
    while batch := await blocking.run(_take, runs, _BATCH_RUNS):
        for run in batch:
            payload = memoryview(run.digests or b"")
            await channel.send(
                Digests(run.first * block_bytes, run.count, run.digests is None, payload)
            )
    await channel.send(Compared(size_bytes))


def _take(runs: Iterator[DigestRun], count: int) -> list[DigestRun]:
    taken = []
    for run in runs:
        taken.append(run)
        if len(taken) == count:
            break
    return taken
