"""Only verified content is written; nothing is durable before its sync and record (I1, I2)."""

from __future__ import annotations

import dataclasses

import pytest

from blockrep.errors import InternalError, NoSpaceError, ProtocolError, StorageError
from blockrep.model.extents import Extent, ExtentKind
from blockrep.model.snapshots import Space
from blockrep.protocol.messages import Data
from blockrep.replication.compression import ZstdCompressor, zstd_decompress
from blockrep.replication.writing import Position, StagingWriter
from support.journal import CHAIN, SIZE, JournalStaging, data_message, following


def zeros(offset: int, length: int, before: bytes = CHAIN) -> Data:
    return following([Extent(offset, length, ExtentKind.ZERO)], b"", before)


def test_segments_are_applied_in_order_and_the_chain_follows() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    content = b"a" * 100 + b"b" * 50
    mixed = following(
        [Extent(0, 100), Extent(200, 10, ExtentKind.DISCARD), Extent(300, 50)], content
    )
    last = zeros(400, 7, mixed.chain)
    writer.apply(mixed)
    writer.apply(last)
    assert staging.journal == [
        ("write", 0, 100),
        ("clear", 200, 10),
        ("write", 300, 50),
        ("clear", 400, 7),
    ]
    assert writer.received == Position(407, last.chain)
    assert writer.durable == Position(0, CHAIN)


def test_nothing_of_a_damaged_frame_is_written() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    good = data_message(0, b"x" * 64)
    damaged = dataclasses.replace(good, payload=memoryview(b"x" * 63 + b"y"))
    with pytest.raises(ProtocolError, match="damaged"):
        writer.apply(damaged)
    assert staging.journal == []
    assert writer.received.cursor_bytes == 0


def test_nothing_is_written_after_a_frame_that_got_lost() -> None:
    """What is acknowledged is what a resume builds on: a hole below the cursor would stay."""
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    first = data_message(0, b"x" * 64)
    lost = data_message(64, b"y" * 64, first.chain)
    writer.apply(first)
    for wrong in (data_message(128, b"z" * 64, lost.chain), first):
        with pytest.raises(ProtocolError, match="lost, doubled or changed"):
            writer.apply(wrong)
    assert [entry[:2] for entry in staging.journal] == [("write", 0)]
    assert writer.received == Position(64, first.chain)


def test_content_outside_of_the_volume_is_refused() -> None:
    staging = JournalStaging()
    with pytest.raises(ProtocolError, match="of a volume of"):
        StagingWriter(staging, SIZE, None).apply(zeros(SIZE - 10, 11))
    assert staging.journal == []


def test_compressed_content_is_expanded_then_verified() -> None:
    staging = JournalStaging()
    content = b"compressible " * 1000
    packed = ZstdCompressor().compress(memoryview(content))
    message = dataclasses.replace(
        data_message(0, content), unpacked_bytes=len(content), payload=memoryview(packed)
    )
    StagingWriter(staging, SIZE, zstd_decompress).apply(message)
    assert bytes(staging.content[: len(content)]) == content
    with pytest.raises(ProtocolError, match="not agreed"):
        StagingWriter(staging, SIZE, None).apply(message)


def test_the_cursor_is_recorded_after_the_sync_and_only_then_durable() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    writer.apply(data_message(0, b"x" * 64))
    position = writer.make_durable()
    assert [entry[0] for entry in staging.journal] == ["write", "sync", "cursor"]
    assert staging.journal[-1] == ("cursor", 64, position.chain)
    assert writer.durable == position == writer.received


def test_a_failed_sync_records_nothing() -> None:
    staging = JournalStaging()
    staging.sync_error = StorageError("EIO")
    writer = StagingWriter(staging, SIZE, None)
    writer.apply(data_message(0, b"x" * 64))
    with pytest.raises(StorageError):
        writer.make_durable()
    assert [entry[0] for entry in staging.journal] == ["write", "sync"]
    assert writer.durable.cursor_bytes == 0


@pytest.mark.parametrize(
    ("room", "help_"),
    [(Space(4096, 0, 100), " -L"), (Space(4096, 1 << 30, 0), "metadata .* --poolmetadatasize ")],
)
def test_a_transfer_stops_at_the_reserve_and_keeps_what_is_durable(room: Space, help_: str) -> None:
    staging = JournalStaging()
    staging.room = room
    writer = StagingWriter(staging, SIZE, None)
    writer.apply(data_message(0, b"x" * 64))
    writer.make_durable()
    assert staging.journal[-1][0] == "cursor"
    assert writer.durable.cursor_bytes == 64
    with pytest.raises(NoSpaceError, match=help_):
        writer.apply(data_message(64, b"y" * 64))
    assert staging.journal[-1][0] == "cursor", "nothing was written"


def test_the_last_room_is_used_and_room_that_was_made_too() -> None:
    staging = JournalStaging()
    staging.room = Space(4096, 0, 100)
    writer = StagingWriter(staging, SIZE, None)
    message = data_message(0, b"x" * 64)
    writer.apply(message)
    writer.make_durable()
    writer.check_complete(message.chain)
    staging.room = Space(4096, 4096, 100)
    writer.make_durable()
    writer.apply(data_message(64, b"y" * 64, writer.received.chain))


def test_a_commit_needs_equal_chains_and_everything_durable() -> None:
    staging = JournalStaging()
    writer = StagingWriter(staging, SIZE, None)
    writer.apply(data_message(0, b"x" * 64))
    with pytest.raises(InternalError):
        writer.check_complete(writer.received.chain)
    writer.make_durable()
    with pytest.raises(ProtocolError, match="digest"):
        writer.check_complete(bytes(32))
    writer.check_complete(writer.received.chain)
