"""Pushing over the storage interface alone, as the drivers do it, for the contract."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import random
from collections.abc import Iterable, Iterator

from blockrep.model.extents import (
    Extent,
    ExtentKind,
    align_outward,
    check_ascending,
    count_chunks,
    skip_before,
    summarize,
)
from blockrep.model.snapshots import Replica, Snapshot
from blockrep.storage.interface import BeginRequest, SnapshotReader, SourceVolume, Staging
from storage.volumes import Volumes

LINEAGE = "0123456789abcdef" * 2
_PIECE_BYTES = 96 * 1024  # no multiple of the digest tables' block: edges are met, too
_COMPARE_BYTES = 64 * 1024
_numbers = itertools.count(1)


def split(extents: Iterable[Extent], most_bytes: int) -> Iterator[Extent]:
    """Cut extents so that none is longer."""
    for extent in extents:
        for offset in range(extent.offset_bytes, extent.end_bytes, most_bytes):
            length = min(most_bytes, extent.end_bytes - offset)
            yield Extent(offset, length, extent.kind)


def new_id() -> str:
    return hashlib.sha256(str(next(_numbers)).encode()).hexdigest()[:32]


def read_all(reader: SnapshotReader) -> bytes:
    content = bytearray(reader.size_bytes)
    for extent in split([Extent(0, reader.size_bytes)] if content else [], _PIECE_BYTES):
        reader.read_into(
            extent.offset_bytes, memoryview(content)[extent.offset_bytes : extent.end_bytes]
        )
    return bytes(content)


def take_snapshot(
    source: SourceVolume, sequence: int = 1, lineage: str = LINEAGE, target: str = "t"
) -> Snapshot:
    return source.create_snapshot(lineage, new_id(), sequence, target, 1_700_000_000 + sequence)


class Transfer:
    """One transfer, step by step. ``content``: of the live volume when the snapshot was taken."""

    def __init__(
        self,
        volumes: Volumes,
        base: Snapshot | None,
        *,
        mode: str = "",
        new: Snapshot | None = None,
        allow_shrink: bool = False,
    ) -> None:
        self.volumes = volumes
        self.source = volumes.source()
        self.target = volumes.target()
        self.replica: Replica = self.target.inspect()
        sequence = 1 if base is None else base.sequence + 1
        self.new = new or take_snapshot(self.source, sequence)
        self.content = volumes.read_live()
        self.base = base
        delta = self.source.delta(base, self.new)
        self.plan = self.aligned(delta)
        self.request = BeginRequest(
            lineage=LINEAGE,
            snapshot_id=self.new.id,
            sequence=self.new.sequence,
            created_seconds=self.new.created_seconds,
            base_id=base.id if base else "",
            mode=mode or ("incremental" if base else "full"),
            size_bytes=self.new.size_bytes,
            plan=summarize(self.plan),
            new_chunks=count_chunks(self.plan, self.replica.space.chunk_bytes),
            allow_shrink=allow_shrink,
        )
        self.saved_bytes = 0  # the cursor that was recorded last
        self.digest = hashlib.sha256(self.new.id.encode()).digest()

    def aligned(self, extents: Iterable[Extent]) -> list[Extent]:
        size_bytes = self.new.size_bytes
        if self.replica.align_bytes > 1:
            extents = align_outward(extents, self.replica.align_bytes, size_bytes)
        return list(check_ascending(extents, size_bytes))

    def pieces(self, cursor_bytes: int) -> Iterator[Extent]:
        return split(skip_before(self.plan, cursor_bytes), _PIECE_BYTES)

    def stream(
        self,
        staging: Staging,
        most: int | None = None,
        save_every: int = 4,
        *,
        confirm: bool = True,
    ) -> int:
        """Send up to ``most`` pieces from the staging's cursor on; return how many were sent."""
        count = 0
        with self.source.open_snapshot(self.new) as reader:
            for piece in itertools.islice(self.pieces(staging.info.cursor_bytes), most):
                if piece.kind is ExtentKind.DATA:
                    buffer = memoryview(bytearray(piece.length_bytes))
                    reader.read_into(piece.offset_bytes, buffer)
                    reader.remember()
                    staging.write(piece.offset_bytes, buffer)
                else:
                    staging.clear(piece)
                count += 1
                if count % save_every == 0:
                    staging.sync()
                    staging.save_cursor(piece.end_bytes, bytes(32))
                    self.saved_bytes = piece.end_bytes
            if confirm and most is None:
                reader.confirm()
        return count

    def finish(self, staging: Staging) -> Snapshot:
        """Commit, then do the sender's housekeeping; return the base of the next transfer."""
        good = self.target.commit(staging, self.digest)
        staging.close()
        assert good.committed
        assert (good.id, good.digest) == (self.new.id, self.digest.hex())
        committed = self.source.mark_committed(self.new)
        for one in self.source.snapshots():
            if one.id != committed.id:
                self.source.remove_snapshot(one)
        return committed

    def run(self) -> Snapshot:
        staging = self.target.begin(self.request)
        self.stream(staging)
        return self.finish(staging)


def push(volumes: Volumes, base: Snapshot | None, *, allow_shrink: bool = False) -> Snapshot:
    """Push, check that the replica shows what the snapshot was, return the new base."""
    transfer = Transfer(volumes, base, allow_shrink=allow_shrink)
    committed = transfer.run()
    assert volumes.read_replica() == transfer.content
    return committed


def adopt(volumes: Volumes) -> tuple[Snapshot, int]:
    """Push in mode adopt.

    Compare, send what differs. Return the new base, and how many bytes were sent.
    """
    transfer = Transfer(volumes, None, mode="adopt")
    plain = dataclasses.replace(transfer.request, plan=None, new_chunks=0)
    staging = transfer.target.begin(plain)
    with staging.reader() as theirs, transfer.source.open_snapshot(transfer.new) as ours:
        assert theirs.size_bytes == transfer.new.size_bytes
        there, here = read_all(theirs), read_all(ours)
    blocks = split([Extent(0, transfer.new.size_bytes)], _COMPARE_BYTES)
    differing = [
        one
        for one in blocks
        if there[one.offset_bytes : one.end_bytes] != here[one.offset_bytes : one.end_bytes]
    ]
    transfer.plan = transfer.aligned(differing)
    chunk_bytes = transfer.replica.space.chunk_bytes
    staging.set_plan(summarize(transfer.plan), count_chunks(transfer.plan, chunk_bytes))
    transfer.stream(staging)
    return transfer.finish(staging), sum(one.length_bytes for one in transfer.plan)


def change_live(volumes: Volumes, rng: random.Random, times: int = 6) -> None:
    """Write, overwrite and discard at random."""
    size_bytes = len(volumes.read_live())
    for _ in range(times):
        if rng.random() < 0.3:
            unit = volumes.unit_bytes
            first = rng.randrange(max(size_bytes // unit, 1))
            count = rng.randint(1, 24)
            volumes.discard_live(first * unit, min(count * unit, size_bytes - first * unit))
        else:
            length = min(rng.choice([1, 512, 4096, 65536, 200_000]), size_bytes)
            offset = rng.randrange(size_bytes - length + 1)
            data = bytes(length) if rng.random() < 0.2 else rng.randbytes(length)
            volumes.write_live(offset, data)
