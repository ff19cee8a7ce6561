"""Only verified content is written; nothing is durable before its sync and record (I1, I2)."""

from __future__ import annotations

import pytest
import xxhash

from blockrep.errors import InternalError, NoSpaceError, ProtocolError, StorageError
from blockrep.model.extents import Extent, ExtentKind
from blockrep.model.snapshots import Space
from blockrep.protocol.chain import advance_chain
from blockrep.protocol.messages import Data
from blockrep.replication.compression import ZstdCompressor, zstd_decompress
from blockrep.replication.writing import Position, StagingWriter
from support.journal import CHAIN, SIZE, JournalStaging, data_message


def zeros(offset: int, length: int, kind: ExtentKind = ExtentKind.ZERO) -> Data:
    return Data((Extent(offset, length, kind),), xxhash.xxh3_128_digest(b""))


def test_segments_are_applied_in_order_and_the_chain_follows() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    content = b"a" * 100 + b"b" * 50
    mixed = Data(
        (Extent(0, 100), Extent(200, 10, ExtentKind.DISCARD), Extent(300, 50)),
        xxhash.xxh3_128_digest(content),
        None,
        memoryview(content),
    )
    writer.apply([mixed, zeros(400, 7)])
    assert staging.journal == [
        ("write", 0, 100),
        ("clear", 200, 10),
        ("write", 300, 50),
        ("clear", 400, 7),
    ]
    chain = advance_chain(CHAIN, mixed.segments, mixed.content_digest)
    chain = advance_chain(chain, zeros(400, 7).segments, zeros(400, 7).content_digest)
    assert writer.received == Position(407, chain)
    assert writer.durable == Position(0, CHAIN)


def test_nothing_of_a_damaged_frame_is_written() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    good = data_message(0, b"x" * 64)
    damaged = Data(good.segments, good.content_digest, None, memoryview(b"x" * 63 + b"y"))
    with pytest.raises(ProtocolError, match="damaged"):
        writer.apply([damaged])
    assert staging.journal == []
    assert writer.received.cursor_bytes == 0


def test_content_outside_of_the_volume_is_refused() -> None:
    staging = JournalStaging()
    with pytest.raises(ProtocolError, match="of a volume of"):
        StagingWriter(staging, SIZE, None).apply([zeros(SIZE - 10, 11)])
    assert staging.journal == []


def test_compressed_content_is_expanded_then_verified() -> None:
    staging = JournalStaging()
    content = b"compressible " * 1000
    packed = ZstdCompressor().compress(memoryview(content))
    message = Data(
        (Extent(0, len(content)),),
        xxhash.xxh3_128_digest(content),
        len(content),
        memoryview(packed),
    )
    StagingWriter(staging, SIZE, zstd_decompress).apply([message])
    assert bytes(staging.content[: len(content)]) == content
    with pytest.raises(ProtocolError, match="not agreed"):
        StagingWriter(staging, SIZE, None).apply([message])


def test_the_cursor_is_recorded_after_the_sync_and_only_then_durable() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    writer.apply([data_message(0, b"x" * 64)])
    position = writer.make_durable()
    assert [entry[0] for entry in staging.journal] == ["write", "sync", "cursor"]
    assert staging.journal[-1] == ("cursor", 64, position.chain)
    assert writer.durable == position == writer.received


def test_a_failed_sync_records_nothing() -> None:
    staging = JournalStaging()
    staging.sync_error = StorageError("EIO")
    writer = StagingWriter(staging, SIZE, None)
    writer.apply([data_message(0, b"x" * 64)])
    with pytest.raises(StorageError):
        writer.make_durable()
    assert [entry[0] for entry in staging.journal] == ["write", "sync"]
    assert writer.durable.cursor_bytes == 0


@pytest.mark.parametrize("room", [Space(4096, 0, 100), Space(4096, 1 << 30, 0)])
def test_a_transfer_stops_at_the_reserve_and_keeps_what_is_durable(room: Space) -> None:
    staging = JournalStaging()
    staging.room = room
    writer = StagingWriter(staging, SIZE, None)
    writer.apply([data_message(0, b"x" * 64)])
    with pytest.raises(NoSpaceError, match="reserve"):
        writer.make_durable()
    assert staging.journal[-1][0] == "cursor"
    assert writer.durable.cursor_bytes == 64


def test_a_commit_needs_equal_chains_and_everything_durable() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    writer.apply([data_message(0, b"x" * 64)])
    with pytest.raises(InternalError):
        writer.check_complete(writer.received.chain)
    writer.make_durable()
    with pytest.raises(ProtocolError, match="digest"):
        writer.check_complete(bytes(32))
    writer.check_complete(writer.received.chain)
