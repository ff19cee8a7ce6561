"""What all messages share."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from blockrep.protocol.frames import Frame, FrameType
from blockrep.protocol.messages import Ack, Ping
from blockrep.protocol.messages.base import EMPTY_PAYLOAD, Message


def test_a_message_without_keys_has_an_empty_header_and_no_payload() -> None:
    assert Ping().header_to_send() == {}
    assert Ping().payload_to_send() == b""
    assert Message.FIELDS == {}


def test_messages_are_values() -> None:
    ack = Ack(2, 1)
    assert ack == Ack(2, 1)
    assert ack == Ack.from_frame(Frame(FrameType.ACK, ack.header_to_send(), EMPTY_PAYLOAD))
    with pytest.raises(FrozenInstanceError):
        ack.durable_bytes = 2  # type: ignore[misc]
