"""Verifying: the newest snapshot that both ends hold is compared, block by block."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from itertools import chain, islice

from blockrep.errors import DivergedError
from blockrep.model.lineage import describe_lineage
from blockrep.model.snapshots import Replica, Snapshot
from blockrep.protocol.messages import Compare
from blockrep.replication.blocking import Blocking, held
from blockrep.replication.channel import Channel
from blockrep.replication.comparing import DigestRun, digest_blocks
from blockrep.replication.digest_exchange import find_differences, runs_of_table
from blockrep.replication.push import Verification
from blockrep.storage.interface import SourceVolume

__all__ = ["COMPARE_BLOCK_BYTES", "compare_newest", "digest_snapshot"]

COMPARE_BLOCK_BYTES = 64 * 1024
_REPORTED_EXTENTS = 1000


def digest_snapshot(
    source: SourceVolume, snapshot: Snapshot, block_bytes: int, seed: int
) -> Iterator[DigestRun]:
    """Yield the digests of a local snapshot's blocks, as it is read."""
    with source.open_snapshot(snapshot) as reader:
        yield from digest_blocks(reader, snapshot.size_bytes, block_bytes, seed)


class _Digests:
    """The digests of a local snapshot: of a stored table, else of its content as it is read.

    Args:
        source: the volume.
        snapshot: the snapshot.
    """

    def __init__(self, source: SourceVolume, snapshot: Snapshot) -> None:
        self._source = source
        self._snapshot = snapshot
        table = source.stored_digests(snapshot)
        self.block_bytes = COMPARE_BLOCK_BYTES if table is None else table[0]
        self.seed = secrets.randbits(64) if table is None else table[1]
        self._stored = None if table is None else table[2]
        # A generator that never began closes nothing: it begins here.
        self._begun = [] if self._stored is None else list(islice(self._stored, 1))

    def runs(self) -> Iterator[DigestRun]:
        """Return the digests as runs."""
        if self._stored is None:
            return digest_snapshot(self._source, self._snapshot, self.block_bytes, self.seed)
        return runs_of_table(chain(self._begun, self._stored))

    def close(self) -> None:
        """Close what the stored table holds open."""
        if isinstance(self._stored, Generator):
            self._stored.close()


async def compare_newest(
    channel: Channel,
    blocking: Blocking,
    source: SourceVolume,
    local: Sequence[Snapshot],
    replica: Replica,
    target: str,
) -> Verification:
    """Compare the newest snapshot that both ends hold.

    Args:
        channel: a session that has opened the replica.
        blocking: where storage calls run.
        source: the volume.
        local: our snapshots of it.
        replica: what VOLUME said.
        target: for errors.

    Raises:
        DivergedError: there is none; or it is equal, and is not what the replica shows.
    """
    snapshot = _newest_common(local, replica, target)
    # What is opened for the table is closed whenever the comparison ends.
    async with held(blocking, lambda: _Digests(source, snapshot), _Digests.close) as ours:
        request = Compare(snapshot.id, None, ours.block_bytes, ours.seed.to_bytes(8, "big"))
        with await find_differences(
            channel, blocking, request, snapshot.size_bytes, ours.runs
        ) as found:
            different = tuple(islice(found, _REPORTED_EXTENTS))
            summary = found.summary
    if not summary.data_bytes:
        _check_shown(snapshot, replica, target)
    return Verification(
        snapshot, snapshot.size_bytes, different, summary.extent_count, summary.data_bytes
    )


def _newest_common(local: Sequence[Snapshot], replica: Replica, target: str) -> Snapshot:
    by_id = {one.id: one for one in local}
    common = [by_id[one.id] for one in replica.snapshots if one.id in by_id]
    if not common:
        raise DivergedError(
            "source and target have no snapshot in common",
            where=target,
            safe="nothing was changed",
            next_step="push first; to make a replica of other history follow this source:"
            " push with --adopt (compares, sends what differs) or --full",
        )
    return common[-1]


def _check_shown(snapshot: Snapshot, replica: Replica, target: str) -> None:
    """Raise DivergedError unless the replica shows the snapshot, whose equality would mislead."""
    equal = f"snapshot #{snapshot.sequence} is equal at both ends, but the replica"
    newest = replica.snapshots[-1]
    if newest.id != snapshot.id:
        what = f"{equal} has a newer one that the source does not have"
        raise DivergedError(
            f"{what}: {describe_lineage([newest])}",
            where=target,
            safe="nothing was changed",
            next_step="verify against the source that it is of; to make the replica follow this"
            " source: push with --adopt (compares, sends what differs) or --full",
        )
    if replica.drifted:
        raise DivergedError(
            f"{equal} was written to since",
            where=target,
            safe="nothing was changed; the good snapshots are intact",
            next_step="to overwrite what was written there: push with --adopt"
            " (compares, sends what differs)",
        )
