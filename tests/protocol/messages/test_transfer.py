"""DATA is the content of its segments, ACK never calls durable what was not received (I1, I2)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockrep.model.extents import Extent, ExtentKind
from blockrep.protocol.frames import FrameReader
from blockrep.protocol.limits import MAX_FRAME_SPAN_BYTES, MAX_SEGMENTS, MAX_U64
from blockrep.protocol.messages import Ack, Begin, Data, encode_message, message_from
from support.frame_feeding import encoded, read_frames

ID = "01" * 16
NOTHING = memoryview(b"")


def begin(mode: str, base_id: str) -> Begin:
    return Begin(ID, ID, 1, 2, base_id, mode, 3, 4, 5, 6, bytes(32), 7, allow_shrink=False)


@st.composite
def data_messages(draw: st.DrawFn) -> Data:
    segments = []
    position = draw(st.integers(0, 1 << 60))
    for _ in range(draw(st.integers(1, 6))):
        offset = position + draw(st.integers(0, 100))
        kind = draw(st.sampled_from(ExtentKind))
        segments.append(Extent(offset, draw(st.integers(1, 50)), kind))
        position = segments[-1].end_bytes
    content_bytes = sum(one.length_bytes for one in segments if one.kind is ExtentKind.DATA)
    if content_bytes and draw(st.booleans()):
        packed = memoryview(draw(st.binary(min_size=1, max_size=20)))
        return Data(tuple(segments), bytes(16), bytes(32), content_bytes, packed)
    content = memoryview(draw(st.binary(min_size=content_bytes, max_size=content_bytes)))
    return Data(tuple(segments), bytes(16), bytes(32), None, content)


@given(data_messages())
def test_data_survives_the_wire(message: Data) -> None:
    (frame,) = read_frames(FrameReader(), encoded(message))
    assert message_from(frame) == message


@given(data_messages())
def test_the_window_counts_what_the_norm_says(message: Data) -> None:
    expected = 128 + 24 * len(message.segments) + len(message.payload)
    assert message.window_cost_bytes == expected


@pytest.mark.parametrize(
    ("segments", "payload", "message"),
    [
        ((Extent(0, 0),), b"", "segment 0 is empty"),
        ((Extent(0, -1),), b"", "segment 0 is empty"),
        ((Extent(-1, 1),), b"x", "out of order"),
        ((Extent(8, 1), Extent(0, 1)), b"xx", "segment 1 is empty or out of order"),
        ((Extent(0, 2), Extent(1, 2)), b"xxxx", "segment 1 is empty or out of order"),
        ((Extent(0, MAX_FRAME_SPAN_BYTES + 1, ExtentKind.ZERO),), b"", "covers"),
        ((Extent(MAX_U64, 1, ExtentKind.ZERO),), b"", "covers"),
        ((Extent(0, 2),), b"x", "do not fit the payload"),
        ((Extent(0, 2, ExtentKind.DISCARD),), b"xx", "do not fit the payload"),
    ],
)
def test_data_that_contradicts_itself_cannot_be_built(
    segments: tuple[Extent, ...], payload: bytes, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Data(segments, bytes(16), bytes(32), None, memoryview(payload))


def test_compressed_data_has_a_payload() -> None:
    with pytest.raises(ValueError, match="compressed payload is empty"):
        Data((Extent(0, 2),), bytes(16), bytes(32), 2, NOTHING)


@pytest.mark.parametrize("count", [0, MAX_SEGMENTS + 1])
def test_data_has_one_to_so_many_segments(count: int) -> None:
    segments = tuple(Extent(2 * index, 1, ExtentKind.ZERO) for index in range(count))
    with pytest.raises(ValueError, match=r"^DATA: key 's': not an array of 3 to 1536"):
        encode_message(Data(segments, bytes(16), bytes(32)))


def test_nothing_is_durable_that_was_not_received() -> None:
    assert Ack(1, 1).durable_bytes == 1
    with pytest.raises(ValueError, match="'durable'"):
        Ack(0, 1)


def test_a_base_goes_with_an_incremental_transfer_and_with_no_other() -> None:
    assert begin("incremental", ID).base_id == ID
    assert begin("full", "").base_id == begin("adopt", "").base_id == ""
    for mode, base_id in (("incremental", ""), ("full", ID), ("adopt", ID)):
        with pytest.raises(ValueError, match="'base'"):
            begin(mode, base_id)
