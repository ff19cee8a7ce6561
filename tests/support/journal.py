"""A staging volume that keeps a journal of what it was told, for tests of what writes to it."""

from __future__ import annotations

from collections.abc import Sequence

import xxhash

from blockrep.errors import StorageError
from blockrep.model.extents import Extent
from blockrep.model.snapshots import Space, StagingInfo
from blockrep.protocol.chain import advance_chain, first_chain
from blockrep.protocol.messages import Data
from blockrep.storage.interface import SnapshotReader
from support.readers import BytesReader

ID = "ab" * 16
PLAN = bytes(32)
CHAIN = first_chain(ID, PLAN)
SIZE = 1 << 20


class JournalStaging:
    """Keeps what it was told, in order; fails on demand."""

    def __init__(self) -> None:
        self.info = StagingInfo("uuid", ID, "", ID, PLAN, 0, CHAIN)
        self.journal: list[tuple[object, ...]] = []
        self.content = bytearray(SIZE)
        self.room = Space(4096, 1 << 40, 1 << 20)
        self.sync_error: StorageError | None = None

    def set_plan(self, plan: object, new_chunks: int) -> None:
        raise NotImplementedError

    def write(self, offset_bytes: int, data: memoryview) -> None:
        self.journal.append(("write", offset_bytes, len(data)))
        self.content[offset_bytes : offset_bytes + len(data)] = data

    def clear(self, extent: Extent) -> None:
        self.journal.append(("clear", extent.offset_bytes, extent.length_bytes))
        self.content[extent.offset_bytes : extent.end_bytes] = bytes(extent.length_bytes)

    def sync(self) -> None:
        self.journal.append(("sync",))
        if self.sync_error is not None:
            raise self.sync_error

    def save_cursor(self, cursor_bytes: int, chain: bytes) -> None:
        self.journal.append(("cursor", cursor_bytes, chain))

    def space(self) -> Space:
        return self.room

    def reader(self) -> SnapshotReader:
        return BytesReader(bytes(self.content))

    def close(self) -> None:
        self.journal.append(("close",))


def data_message(offset: int, content: bytes, before: bytes = CHAIN) -> Data:
    """Return the frame that follows upon one with the chain ``before``."""
    return following([Extent(offset, len(content))], content, before)


def following(segments: Sequence[Extent], content: bytes, before: bytes = CHAIN) -> Data:
    digest = xxhash.xxh3_128_digest(content)
    chain = advance_chain(before, segments, digest)
    return Data(tuple(segments), digest, chain, None, memoryview(content))
