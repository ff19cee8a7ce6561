"""Comparing a local snapshot with a remote one: both hosts digest at the same time.

Then the digests meet.

Digests are spooled (unlinked temporary files beyond 4 MiB), so that volumes of any size are
compared in bounded memory.
"""

from __future__ import annotations

import asyncio
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Self

from blockrep.errors import ProtocolError
from blockrep.model.extents import Extent, merge_adjacent
from blockrep.protocol.messages import Compare, Compared, Digests
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import DIGEST_BYTES, DigestRun, compare_runs

__all__ = ["DigestSpool", "find_differences", "runs_of_table", "send_digests"]

_RECORD = struct.Struct("<QQ?")
_MEMORY_BYTES = 4 * 1024 * 1024
_BATCH_RUNS = 8
_DIGESTS_PER_RUN = 16 * 1024


class DigestSpool:
    """Runs of digests, written once, read in order. A context manager."""

    def __init__(self) -> None:
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES)  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> Self:
        """Return self."""
        return self

    def __exit__(self, *exc: object) -> None:
        """Close the spool."""
        self._file.close()

    def add(self, run: DigestRun) -> None:
        """Append a run."""
        self._file.write(_RECORD.pack(run.first, run.count, run.digests is None))
        if run.digests is not None:
            self._file.write(run.digests)

    def add_all(self, runs: Iterable[DigestRun]) -> None:
        """Append runs."""
        for run in runs:
            self.add(run)

    def __iter__(self) -> Iterator[DigestRun]:
        """Yield the runs in order."""
        self._file.seek(0)
        while record := self._file.read(_RECORD.size):
            first, count, zero = _RECORD.unpack(record)
            yield DigestRun(first, count, None if zero else self._file.read(count * DIGEST_BYTES))


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
) -> list[Extent]:
    """Send COMPARE; return, ascending and merged.

    The DATA extents in which the remote snapshot differs from the local one.

    Args:
        channel: an OPENED session.
        blocking: where local digests are computed.
        request: COMPARE; its block size and seed hold for both ends.
        size_bytes: size of the local snapshot; a remote one of another size differs from the
            shorter end on.
        local_runs: returns the local digests; called in a storage thread.

    Raises:
        ProtocolError: the remote digests have gaps.
    """
    seed = int.from_bytes(request.seed, "big")
    with DigestSpool() as ours, DigestSpool() as theirs:
        await channel.send(request)
        local = asyncio.create_task(blocking.run(lambda: ours.add_all(local_runs())))
        try:
            remote_bytes = await _receive_digests(channel, theirs, request.block_bytes)
            await local
        finally:
            local.cancel()
            await asyncio.gather(local, return_exceptions=True)
        shared_bytes = min(size_bytes, remote_bytes)
        try:
            return await blocking.run(
                lambda: list(
                    merge_adjacent(
                        _with_tail(
                            compare_runs(ours, theirs, shared_bytes, request.block_bytes, seed),
                            shared_bytes,
                            size_bytes,
                        )
                    )
                )
            )
        except ValueError as error:
            raise ProtocolError(str(error), where=channel.peer_address) from error


def _with_tail(extents: Iterator[Extent], shared_bytes: int, size_bytes: int) -> Iterator[Extent]:
    yield from extents
    if shared_bytes < size_bytes:
        yield Extent(shared_bytes, size_bytes - shared_bytes)


async def _receive_digests(channel: Channel, spool: DigestSpool, block_bytes: int) -> int:
    while True:
        message = await channel.receive_any()
        if isinstance(message, Compared):
            return message.size_bytes
        if not isinstance(message, Digests) or message.offset_bytes % block_bytes:
            raise ProtocolError("digests are out of place", where=channel.peer_address)
        digests = None if message.zero else bytes(message.payload)
        if digests is not None:
            channel.release(message.payload)
        spool.add(DigestRun(message.offset_bytes // block_bytes, message.count, digests))


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
