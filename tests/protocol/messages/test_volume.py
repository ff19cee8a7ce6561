"""VOLUME: what the receiver holds reaches the sender unchanged, within bounds (I9).

PRUNE leaves one.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.snapshots import Snapshot, StagingInfo
from blockrep.protocol.frames import Frame, FrameReader, FrameType
from blockrep.protocol.limits import MAX_SNAPSHOT_RECORDS, MAX_U64
from blockrep.protocol.messages import Prune, Pruned, Volume, encode_message, message_from
from support.frame_feeding import encoded, read_frames
from support.sessions import VOLUME

IDS = st.binary(min_size=16, max_size=16).map(bytes.hex)
DIGESTS = st.binary(min_size=32, max_size=32).filter(any)
U64 = st.integers(0, MAX_U64)
TEXT = st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), max_size=10)
SNAPSHOTS = st.builds(
    Snapshot,
    id=IDS,
    lineage=IDS,
    sequence=U64,
    created_seconds=U64,
    size_bytes=U64,
    committed=st.just(value=True),
    digest=st.just("") | DIGESTS.map(bytes.hex),
    allocated_bytes=st.just(-1) | U64,
)
STAGINGS = st.builds(
    StagingInfo,
    identity=TEXT,
    lineage=IDS,
    base_id=st.just("") | IDS,
    snapshot_id=IDS,
    plan_digest=DIGESTS,
    cursor_bytes=U64,
    chain=DIGESTS,
)
VOLUMES = st.builds(
    Volume,
    exists=st.booleans(),
    owned=st.booleans(),
    drifted=st.booleans(),
    kind=TEXT.filter(lambda value: len(value.encode()) <= 16),
    identity=TEXT,
    size_bytes=U64,
    block_bytes=U64,
    align_bytes=st.integers(1, MAX_U64),
    lineage=st.just("") | IDS,
    chunk_bytes=st.integers(1, MAX_U64),
    free_bytes=U64,
    metadata_free_chunks=U64,
    staging=st.none() | STAGINGS,
    snapshots=st.lists(SNAPSHOTS, max_size=4).map(tuple),
)
GOOD = Snapshot("01" * 16, "02" * 16, 1, 2, 3, committed=True, digest="ab" * 32)


@given(VOLUMES)
def test_a_volume_survives_the_wire(volume: Volume) -> None:
    (frame,) = read_frames(FrameReader(), encoded(volume))
    assert message_from(frame) == volume


def test_of_too_many_snapshots_the_newest_are_sent() -> None:
    snapshots = tuple(replace(GOOD, sequence=number) for number in range(MAX_SNAPSHOT_RECORDS + 2))
    (frame,) = read_frames(FrameReader(), encoded(replace(VOLUME, snapshots=snapshots)))
    message = message_from(frame)
    assert isinstance(message, Volume)
    assert message.snapshots == snapshots[2:]


def test_more_records_than_the_limit_are_refused() -> None:
    payload = memoryview(bytes(96 * (MAX_SNAPSHOT_RECORDS + 1)))
    with pytest.raises(ValueError, match="snapshot records"):
        Volume.from_frame(Frame(FrameType.VOLUME, VOLUME.header_to_send(), payload))


@pytest.mark.parametrize(
    "snapshot",
    [
        replace(GOOD, id="01"),
        replace(GOOD, sequence=-1),
        replace(GOOD, size_bytes=1 << 63),
        replace(GOOD, digest="abcd"),
    ],
)
def test_a_record_that_does_not_fit_is_our_own_mistake(snapshot: Snapshot) -> None:
    with pytest.raises(ValueError, match=r"^VOLUME: "):
        encode_message(replace(VOLUME, snapshots=(snapshot,)))


@pytest.mark.parametrize("message", [Prune(1), Prune(MAX_U64), Pruned(0, 1), Pruned(5, MAX_U64)])
def test_pruning_survives_the_wire(message: Prune | Pruned) -> None:
    (frame,) = read_frames(FrameReader(), encoded(message))
    assert message_from(frame) == message


def test_to_keep_none_cannot_so_much_as_be_asked() -> None:
    with pytest.raises(ValueError, match="from 1"):
        encode_message(Prune(0))
