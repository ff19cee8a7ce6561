"""Every message survives the wire; what does not fit the norm never gets onto it."""

from __future__ import annotations

import pytest

from blockrep.errors import ProtocolError
from blockrep.protocol.frames import Frame, FrameReader, FrameType
from blockrep.protocol.messages import Ack, Digests, Hello, Ping, encode_message, message_from
from blockrep.protocol.messages.codec import MESSAGE_CLASSES
from support.frame_feeding import encoded, read_frames


def test_every_type_has_its_class() -> None:
    assert set(MESSAGE_CLASSES) == set(FrameType)
    assert all(cls.TYPE is frame_type for frame_type, cls in MESSAGE_CLASSES.items())


def test_a_payload_is_a_buffer_of_its_own_and_never_copied() -> None:
    payload = memoryview(bytearray(16))
    head, tail = encode_message(Digests(0, 1, zero=False, payload=payload))
    assert tail is payload
    assert len(encode_message(Ping())) == 1
    (frame,) = read_frames(FrameReader(), bytes(head) + bytes(tail))
    message = message_from(frame)
    assert isinstance(message, Digests)
    assert message.payload is frame.payload


def test_what_the_peer_sent_wrong_is_its_fault_and_says_which_key() -> None:
    frame = Frame(FrameType.ACK, {"received": 1}, memoryview(b""))
    with pytest.raises(ProtocolError, match=r"^ACK: key 'durable' is missing$"):
        message_from(frame)


def test_what_we_would_send_wrong_is_a_value_error_and_says_which_key() -> None:
    with pytest.raises(ValueError, match=r"^HELLO: key 'software': not text"):
        encode_message(Hello((1, 1), (), "x" * 65))
    with pytest.raises(ValueError, match=r"^ACK: key 'received': not an integer"):
        encode_message(Ack(1 << 63, 0))


def test_equal_messages_are_equal_bytes() -> None:
    assert encoded(Ack(2, 1)) == encoded(Ack(2, 1))
