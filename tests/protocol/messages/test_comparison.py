"""COMPARE and DIGESTS name one subject and hold what they announce."""

from __future__ import annotations

import pytest

from blockrep.protocol.frames import FrameReader
from blockrep.protocol.messages import Compare, Digests, StageRequest, message_from
from support.frame_feeding import encoded, read_frames

ID = "01" * 16
STAGE = StageRequest(ID, ID, 1, 2, 3, allow_shrink=True)


@pytest.mark.parametrize(
    "message",
    [
        Compare(ID, None, 4096, bytes(8)),
        Compare("", STAGE, 1 << 22, b"\xff" * 8),
        Digests(4096, 2, zero=False, payload=memoryview(bytes(range(32)))),
        Digests(0, 1 << 40, zero=True),
    ],
)
def test_they_survive_the_wire(message: Compare | Digests) -> None:
    (frame,) = read_frames(FrameReader(), encoded(message))
    assert message_from(frame) == message


@pytest.mark.parametrize(("snapshot_id", "stage"), [("", None), (ID, STAGE)])
def test_a_comparison_has_exactly_one_subject(snapshot_id: str, stage: StageRequest | None) -> None:
    with pytest.raises(ValueError, match="exactly one"):
        Compare(snapshot_id, stage, 4096, bytes(8))


def test_blocks_are_powers_of_two() -> None:
    with pytest.raises(ValueError, match="power of two"):
        Compare(ID, None, 4097, bytes(8))


@pytest.mark.parametrize(("count", "zero", "size"), [(1, False, 0), (1, False, 32), (1, True, 16)])
def test_digests_are_as_many_as_announced(count: int, *, zero: bool, size: int) -> None:
    with pytest.raises(ValueError, match="does not hold"):
        Digests(0, count, zero=zero, payload=memoryview(bytes(size)))
