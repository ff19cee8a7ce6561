"""What the receiver knows of the replica reaches the sender unchanged."""

from __future__ import annotations

import pytest

from blockrep.model.snapshots import Replica, Snapshot, Space, StagingInfo, VolumeInfo
from blockrep.protocol.frames import Frame, FrameReader
from blockrep.protocol.messages import encode_message, message_from
from blockrep.replication.describe import replica_from, volume_from

ID = "0123456789abcdef" * 2
SPACE = Space(65536, 1 << 40, 1 << 20)
GOOD = Snapshot(
    ID, ID, 3, 1_700_000_000, 1 << 30, committed=True, digest="ab" * 32, allocated_bytes=12345
)
STAGING = StagingInfo("uuid", ID, ID, "f" * 32, bytes(range(32)), 4096, bytes(32))


@pytest.mark.parametrize(
    "replica",
    [
        Replica(exists=False, owned=False, info=None, lineage="", space=SPACE),
        Replica(
            exists=True,
            owned=True,
            info=VolumeInfo("lvm-thin", "uuid-1", 1 << 30, 65536),
            lineage=ID,
            space=SPACE,
            snapshots=(GOOD, GOOD),
            staging=STAGING,
            align_bytes=1 << 20,
            drifted=True,
        ),
    ],
)
def test_a_replica_survives_the_wire(replica: Replica) -> None:
    reader = FrameReader()
    frame: Frame | None = None
    for buffer in encode_message(volume_from(replica)):
        rest = memoryview(buffer)
        while rest:
            place = reader.get_buffer()
            count = min(len(place), len(rest))
            place[:count] = rest[:count]
            rest = rest[count:]
            frame = reader.buffer_updated(count)
    assert frame is not None
    message = message_from(frame)
    assert replica_from(message) == replica  # type: ignore[arg-type]


def test_a_reserve_that_is_used_up_travels_as_no_room() -> None:
    replica = Replica(exists=False, owned=False, info=None, lineage="", space=Space(65536, -5, -1))
    volume = volume_from(replica)
    assert (volume.free_bytes, volume.metadata_free_chunks) == (0, 0)
