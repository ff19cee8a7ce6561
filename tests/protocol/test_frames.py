"""Bytes become frames however they are cut; nothing is buffered before it was checked (I9)."""

from __future__ import annotations

import contextlib
import tracemalloc

import msgpack
import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from blockrep.errors import InternalError, ProtocolError
from blockrep.protocol.frames import (
    PREFIX_BYTES,
    FrameReader,
    FrameType,
    allocate_payload,
    encode_frame,
)
from blockrep.protocol.limits import MAX_HEADER_BYTES, MAX_PAYLOAD_BYTES
from support.frame_feeding import read_frames
from support.vectors import load

VALID = load("frames")["frames"]
IGNORED = load("frames")["ignored"]
MIB = 1024 * 1024

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


HEADERS = st.dictionaries(st.text(max_size=8), PLAIN, max_size=6).filter(
    lambda header: depth_of(header) <= 4
)
SIZES = st.lists(st.integers(1, 40), max_size=60)


def prefix(frame_type: int, header: bytes, payload_bytes: int) -> bytes:
    start = b"BRP1" + bytes([frame_type, 0])
    start += len(header).to_bytes(2, "big") + payload_bytes.to_bytes(4, "big")
    return start + (xxhash.xxh3_64_intdigest(start + header) & 0xFFFFFFFF).to_bytes(4, "big")


@given(st.lists(st.sampled_from([*VALID, *IGNORED]), max_size=5), SIZES)
def test_any_segmentation_yields_the_same_frames(
    vectors: list[dict[str, str]], sizes: list[int]
) -> None:
    content = bytes.fromhex("".join(vector["hex"] for vector in vectors))
    found = read_frames(FrameReader(), content, sizes)
    wanted = [vector for vector in vectors if "frame" in vector]
    assert [frame.type.name for frame in found] == [vector["frame"] for vector in wanted]
    assert [bytes(frame.payload).hex() for frame in found] == [one["payload"] for one in wanted]


@given(HEADERS, st.binary(max_size=300), SIZES)
def test_what_is_encoded_is_read_again(
    header: dict[str, object], payload: bytes, sizes: list[int]
) -> None:
    content = encode_frame(FrameType.DATA, header, len(payload)) + payload
    (frame,) = read_frames(FrameReader(), content, sizes)
    assert (frame.type, frame.header, bytes(frame.payload)) == (FrameType.DATA, header, payload)


def test_payloads_land_in_the_allocators_buffers() -> None:
    buffers: list[memoryview] = []

    def allocate(size_bytes: int) -> memoryview:
        buffers.append(allocate_payload(size_bytes))
        return buffers[-1]

    content = b"".join(
        encode_frame(frame_type, {}, 4) + b"abcd"
        for frame_type in (FrameType.DATA, FrameType.VOLUME, FrameType.DIGESTS)
    )
    found = read_frames(FrameReader(allocate), content)
    # VOLUME is unpacked at once: its payload takes nothing out of a pool.
    assert [found[0].payload.obj, found[2].payload.obj] == [one.obj for one in buffers]
    assert [bytes(frame.payload) for frame in found] == [b"abcd"] * 3


def test_a_wrong_buffer_or_count_is_our_own_mistake() -> None:
    with pytest.raises(InternalError):
        read_frames(FrameReader(lambda _: memoryview(bytearray(3))), encode_frame(7, {}, 4))  # type: ignore[arg-type]
    reader = FrameReader()
    for count in (0, -1, PREFIX_BYTES + 1):
        with pytest.raises(InternalError):
            reader.buffer_updated(count)


def test_data_is_held_to_the_agreed_payload() -> None:
    reader = FrameReader()
    reader.max_data_payload_bytes = 65536
    assert read_frames(reader, encode_frame(FrameType.DATA, {}, 65536)) == []
    reader = FrameReader()
    reader.max_data_payload_bytes = 65536
    with pytest.raises(ProtocolError, match="wrong size"):
        read_frames(reader, encode_frame(FrameType.DATA, {}, 65537)[:PREFIX_BYTES])


def test_a_type_that_is_not_admitted_costs_nothing() -> None:
    def admit(frame_type: FrameType) -> None:
        raise ProtocolError(f"no {frame_type.name}")

    def allocate(size_bytes: int) -> memoryview:
        raise AssertionError(size_bytes)

    with pytest.raises(ProtocolError, match="no DATA"):
        read_frames(FrameReader(allocate, admit), prefix(7, b"\x80", MAX_PAYLOAD_BYTES))


@pytest.mark.parametrize("frame_type", [0x04, 0x07, 0x0C, 0x80, 0xFF])
@pytest.mark.parametrize("payload_bytes", [MAX_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES + 1, (1 << 32) - 1])
def test_claimed_lengths_take_no_more_than_the_limits(frame_type: int, payload_bytes: int) -> None:
    content = prefix(frame_type, b"\x80", payload_bytes) + b"\x80"
    tracemalloc.start()
    try:
        reader = FrameReader()
        try:
            read_frames(reader, content)
        except ProtocolError:
            assert payload_bytes > MAX_PAYLOAD_BYTES
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    allowed = MAX_PAYLOAD_BYTES if frame_type < 0x80 and payload_bytes == MAX_PAYLOAD_BYTES else 0
    assert peak_bytes < allowed + MIB // 2


def test_an_optional_payload_passes_through_a_small_buffer() -> None:
    reader = FrameReader()
    read_frames(reader, prefix(0x80, b"\x80", MAX_PAYLOAD_BYTES) + b"\x80")
    skipped_bytes = 0
    while skipped_bytes < MAX_PAYLOAD_BYTES:
        place = reader.get_buffer()
        assert len(place) <= 64 * 1024
        skipped_bytes += len(place)
        assert reader.buffer_updated(len(place)) is None
    assert read_frames(reader, encode_frame(FrameType.PING, {})) != []


@pytest.mark.parametrize(
    "packed",
    [
        b"\x81\xa1a\xdc\x08\x00" + b"\x80" * 2048,  # many small maps
        (b"\x81\xa1a\xdc\x08\x00" + b"\x90" * 2048).ljust(MAX_HEADER_BYTES, b"\x90"),
        b"\x81\xa1a" * 5000,  # deep maps
        b"\x91" * MAX_HEADER_BYTES,  # deep arrays
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # huge array
        b"\x81\xa1a\xdf\xff\xff\xff\xff",  # huge map
        b"\x81\xa1a\xc6\xff\xff\xff\xff",  # huge binary
        b"\x81\xa1a\xdb\xff\xff\xff\xff",  # huge string
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",  # huge extension
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_headers_that_would_unpack_to_much_do_not(packed: bytes) -> None:
    tracemalloc.start()
    try:
        with contextlib.suppress(ProtocolError):
            read_frames(FrameReader(), prefix(0x0F, packed, 0) + packed)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * MIB


def test_too_much_nesting_for_the_unpacker_is_a_fault_of_the_peer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def overflow(*_args: object, **_options: object) -> object:
        raise RecursionError("maximum recursion depth exceeded")

    monkeypatch.setattr(msgpack, "unpackb", overflow)
    with pytest.raises(ProtocolError, match="not valid msgpack"):
        read_frames(FrameReader(), encode_frame(FrameType.PING, {}))


@given(st.binary(max_size=200))
def test_random_headers_are_maps_or_refused(packed: bytes) -> None:
    try:
        (frame,) = read_frames(FrameReader(), prefix(0x0F, packed, 0) + packed)
    except ProtocolError:
        return
    assert isinstance(frame.header, dict)
    assert depth_of(frame.header) <= 4
    assert frame.header == msgpack.unpackb(packed, strict_map_key=False)


@given(st.binary(max_size=120))
def test_random_bytes_are_refused_by_the_first_prefix(content: bytes) -> None:
    reader = FrameReader()
    if len(content) < PREFIX_BYTES:
        assert read_frames(reader, content) == []
        return
    with pytest.raises(ProtocolError):
        read_frames(reader, content)


@given(st.sampled_from(VALID), st.data())
def test_no_single_bit_of_prefix_or_header_can_flip_unnoticed(
    vector: dict[str, str], data: st.DataObject
) -> None:
    content = bytearray.fromhex(vector["hex"])
    head_bytes = len(content) - len(vector["payload"]) // 2
    bit = data.draw(st.integers(0, 8 * head_bytes - 1))
    content[bit // 8] ^= 1 << bit % 8
    try:
        found = read_frames(FrameReader(), bytes(content))
    except ProtocolError:
        return
    assert found == []  # a length that grew, or a type that is skipped: still waiting for bytes


def test_our_own_frames_are_held_to_the_limits_too() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        encode_frame(FrameType.HELLO, {"a": "x" * MAX_HEADER_BYTES})
    with pytest.raises(ValueError, match="over the limit"):
        encode_frame(FrameType.DATA, {}, MAX_PAYLOAD_BYTES + 1)
