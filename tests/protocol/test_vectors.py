"""The vectors beside PROTOCOL.md: the code reads and writes them, and so does the text alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import zstandard

from blockrep.errors import ConnectionLostError, ProtocolError
from blockrep.model.extents import Extent, ExtentKind, digest
from blockrep.protocol.chain import advance_chain, first_chain
from blockrep.protocol.frames import Frame, FrameReader, FrameType
from blockrep.protocol.messages import Abort, Data, Message, encode_message, message_from
from blockrep.protocol.session import Session
from blockrep.protocol.transitions import Side, State
from support import plain_decoder
from support.frame_feeding import deliver, feed, read_frames
from support.vectors import PROTO, Json, by_name, load, unplain

FRAMES = load("frames")
VALID = by_name(FRAMES["frames"])
DECODE_ONLY = by_name(FRAMES["decode_only"])
IGNORED = by_name(FRAMES["ignored"])
INVALID = by_name(load("invalid"))
DIGESTS = load("digests")
TRANSCRIPTS = by_name(load("transcripts"))
STEPS: dict[str, Json] = {
    f"{name}-{first}.{second}": step
    for name, transcript in TRANSCRIPTS.items()
    for first, connection in enumerate(transcript["connections"])
    for second, step in enumerate(connection["steps"])
}
EVERY_FRAME: dict[str, Json] = {**VALID, **DECODE_ONLY, **STEPS}


def message_of(vector: Json) -> Message:
    """Return the message that the JSON describes, without looking at the bytes."""
    payload = memoryview(bytes.fromhex(vector["payload"]))
    return message_from(Frame(FrameType[vector["frame"]], unplain(vector["header"]), payload))


@pytest.mark.parametrize("name", EVERY_FRAME)
def test_bytes_decode_to_what_is_written_beside_them(name: str) -> None:
    vector = EVERY_FRAME[name]
    (frame,) = read_frames(FrameReader(), bytes.fromhex(vector["hex"]))
    assert frame.type.name == vector["frame"]
    assert bytes(frame.payload).hex() == vector["payload"]
    assert message_from(frame) == message_of(vector)


@pytest.mark.parametrize("name", [*VALID, *STEPS])
def test_what_is_written_encodes_to_the_same_bytes(name: str) -> None:
    vector = EVERY_FRAME[name]
    message = message_of(vector)
    assert b"".join(bytes(part) for part in encode_message(message)).hex() == vector["hex"]


@pytest.mark.parametrize("name", EVERY_FRAME)
def test_the_text_alone_reads_the_same(name: str) -> None:
    vector = EVERY_FRAME[name]
    kind, header, payload = plain_decoder.decode(bytes.fromhex(vector["hex"]))
    assert kind == vector["frame"]
    expected = unplain(vector["header"])
    assert {key: header[key] for key in expected} == expected
    if name not in DECODE_ONLY:
        assert header == expected
    assert payload.hex() == vector["payload"]


def test_the_files_are_what_the_generator_writes(tmp_path: Path) -> None:
    folder = PROTO / "vectors"
    subprocess.run([sys.executable, folder / "generate.py", tmp_path], check=True, timeout=60)
    written = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text() for path in folder.glob("*.json")}


def test_every_type_has_a_vector() -> None:
    assert {vector["frame"] for vector in VALID.values()} == {one.name for one in FrameType}
    assert {int(one): one.name for one in FrameType} == plain_decoder.NAMES


@pytest.mark.parametrize("name", IGNORED)
def test_optional_types_are_skipped(name: str) -> None:
    ping = bytes.fromhex(VALID["ping"]["hex"])
    frames = read_frames(FrameReader(), bytes.fromhex(IGNORED[name]["hex"]) + ping)
    assert [frame.type for frame in frames] == [FrameType.PING]


def read_messages(content: bytes) -> list[Message]:
    return [message_from(frame) for frame in read_frames(FrameReader(), content)]


@pytest.mark.parametrize("name", INVALID)
def test_invalid_bytes_are_refused_for_the_stated_reason(name: str) -> None:
    vector = INVALID[name]
    assert vector["code"] == ProtocolError.code
    with pytest.raises(ProtocolError) as caught:
        read_messages(bytes.fromhex(vector["hex"]))
    assert caught.value.what.startswith(vector["says"])


# Digests.


def test_plan_digests() -> None:
    for vector in DIGESTS["plans"]:
        plan = [
            Extent(offset, length, ExtentKind(kind)) for kind, offset, length in vector["extents"]
        ]
        assert digest(plan).hex() == vector["digest"]
        assert plain_decoder.plan_digest(vector["extents"]).hex() == vector["digest"]


def test_chains() -> None:
    vector = DIGESTS["chain"]
    plan = bytes.fromhex(vector["plan"])
    ours = first_chain(vector["id"], plan)
    theirs = plain_decoder.chain_start(bytes.fromhex(vector["id"]), plan)
    assert ours.hex() == theirs.hex() == vector["values"][0]
    headers = [unplain(one) for one in vector["frames"]]
    for header, value in zip(headers, vector["values"][1:], strict=True):
        parts = plain_decoder.segments(header)
        extents = [Extent(offset, length, ExtentKind(kind)) for kind, offset, length in parts]
        ours = advance_chain(ours, extents, header["x"])
        theirs = plain_decoder.chain_next(theirs, header)
        assert ours.hex() == theirs.hex() == value


def test_content_digests() -> None:
    for vector in DIGESTS["content"]:
        content = bytes.fromhex(vector["content"])
        assert plain_decoder.content_digest(content, vector["seed"]).hex() == vector["digest"]


# Transcripts.


def connections() -> dict[str, Json]:
    return {
        f"{name}-{index}": connection
        for name, transcript in TRANSCRIPTS.items()
        for index, connection in enumerate(transcript["connections"])
    }


@pytest.mark.parametrize("name", connections())
def test_two_sessions_hold_the_conversation(name: str) -> None:
    """Both ends send and understand each frame, agree on every state, and end as stated."""
    connection = connections()[name]
    ends = {side.value: Session(side, side.other.value, 0.0) for side in Side}
    for step in connection["steps"]:
        sender = ends[step["from"]]
        receiver = ends[sender.side.other.value]
        message = message_of(step)
        if "refused" in step:
            assert feed(receiver, bytes.fromhex(step["hex"])) == []
            assert isinstance(receiver.error, ProtocolError)
            assert receiver.error.what == step["refused"]
            assert receiver.state.value == step["state"]
            continue
        if step["frame"] == "ABORT":
            assert isinstance(message, Abort)
            sender.fail(message.to_error())
        else:
            sender.send(message)
        sent = b"".join(bytes(part) for part in sender.data_to_send(0.0))
        assert sent.hex() == step["hex"]
        arrived = feed(receiver, sent)
        assert arrived == ([] if step["frame"] in {"PING", "ABORT"} else [message])
        assert sender.state.value == receiver.state.value == step["state"]
    check_end(connection["end"], ends["client"], ends["server"])


def check_end(end: str, client: Session, server: Session) -> None:
    errors = [client.error, server.error]
    if end == "bye":
        assert client.state is server.state is State.CLOSED
        assert errors == [None, None]
        client.receive_eof()
        assert client.error is None
    elif end == "abort":
        assert client.state is server.state is State.ABORTED
        assert all(errors)
    elif end == "refused":
        refusing, other = (client, server) if client.error else (server, client)
        assert deliver(refusing, other) == []
        assert isinstance(other.error, ProtocolError)
        assert refusing.data_to_send(0.0) == other.data_to_send(0.0) == []
    else:
        assert end == "lost"
        for session in (client, server):
            session.receive_eof()
            assert isinstance(session.error, ConnectionLostError)


@pytest.mark.parametrize("name", connections())
def test_digests_in_a_conversation_follow_from_the_text(name: str) -> None:
    """Plan, chain, content and comparison digests, recomputed without the code."""
    connection = connections()[name]
    chain, seed, block_bytes = b"", 0, 0
    for step in connection["steps"]:
        kind, header, payload = plain_decoder.decode(bytes.fromhex(step["hex"]))
        if kind == "BEGIN":
            assert header["plan"] == plain_decoder.plan_digest(connection["plan"])
            assert header["extents"] == len(connection["plan"])
            fresh = plain_decoder.chain_start(header["id"], header["plan"])
        elif kind == "READY":
            chain = header["chain"]
            assert header["cursor"] or chain == fresh
        elif kind == "DATA":
            content = payload
            if "z" in header:
                content = zstandard.ZstdDecompressor().decompress(payload)
                assert len(content) == header["z"]
            assert plain_decoder.content_digest(content) == header["x"]
            assert_within_plan(plain_decoder.segments(header), connection["plan"])
            if chain:
                chain = plain_decoder.chain_next(chain, header)
                assert header["c"] == chain
        elif kind in {"COMMIT", "COMMITTED"}:
            assert header["digest"] == chain
        elif kind == "COMPARE":
            seed, block_bytes = int.from_bytes(header["seed"], "big"), header["block"]
        elif kind == "DIGESTS" and not header["zero"]:
            content = bytes.fromhex(connection["contents"][str(header["offset"])])
            assert len(content) == block_bytes
            assert payload == plain_decoder.content_digest(content, seed)
        elif kind == "VOLUME":
            assert_records(payload)


def assert_within_plan(parts: list[tuple[int, int, int]], plan: list[list[int]]) -> None:
    for kind, offset, length in parts:
        assert any(
            offset >= start and offset + length <= start + size and kind >= planned
            for planned, start, size in plan
        )


def assert_records(payload: bytes) -> None:
    sequences = [record["sequence"] for record in plain_decoder.snapshot_records(payload)]
    assert sequences == sorted(sequences)


def test_a_volume_lists_its_snapshots_as_the_text_says() -> None:
    vector = VALID["volume with a staging and two snapshots"]
    first, second = plain_decoder.snapshot_records(bytes.fromhex(vector["payload"]))
    ours = message_of(vector).snapshots  # type: ignore[attr-defined]
    assert (first["digest"], first["allocated"]) == (bytes(32), 2**64 - 1)
    assert (ours[0].digest, ours[0].allocated_bytes) == ("", -1)
    assert second["id"].hex() == ours[1].id
    assert second["sequence"] == ours[1].sequence == 2**63 - 1
    assert second["allocated"] == ours[1].allocated_bytes == 65536


def test_a_compressed_vector_is_a_zstd_frame() -> None:
    message = message_of(VALID["data, compressed"])
    assert isinstance(message, Data)
    assert zstandard.ZstdDecompressor().decompress(message.payload) == b"\xab" * 8192
