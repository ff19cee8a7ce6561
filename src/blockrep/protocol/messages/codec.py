"""Frame -> message, message -> buffers."""

from __future__ import annotations

from typing import Final

from blockrep.errors import ProtocolError
from blockrep.protocol.frames import Frame, FrameType, encode_frame
from blockrep.protocol.messages.base import Message
from blockrep.protocol.messages.comparison import Compare, Compared, Digests
from blockrep.protocol.messages.control import Abort, Bye, Hello, Ping, Pull, Welcome
from blockrep.protocol.messages.transfer import Ack, Begin, Commit, Committed, Data, Ready
from blockrep.protocol.messages.volume import Open, Prune, Pruned, Release, Volume

__all__ = ["MESSAGE_CLASSES", "encode_message", "message_from"]

MESSAGE_CLASSES: Final[dict[FrameType, type[Message]]] = {
    message_class.TYPE: message_class
    for message_class in (
        Hello,
        Welcome,
        Open,
        Volume,
        Begin,
        Ready,
        Data,
        Ack,
        Commit,
        Committed,
        Compare,
        Digests,
        Compared,
        Release,
        Ping,
        Abort,
        Bye,
        Prune,
        Pruned,
        Pull,
    )
}


def message_from(frame: Frame) -> Message:
    """Return the typed message of a received frame.

    Raises:
        ProtocolError: header or payload is not what the frame's type demands; says which key.
    """
    try:
        return MESSAGE_CLASSES[frame.type].from_frame(frame)
    except ValueError as error:
        raise ProtocolError(f"{frame.type.name}: {error}") from error


def encode_message(message: Message) -> list[bytes | memoryview]:
    """Return the buffers of a message: prefix with header, and the payload if there is one.

    Raises:
        ValueError: the message is not within the bounds of the norm (our own mistake).
    """
    try:
        payload = message.payload_to_send()
        head = encode_frame(message.TYPE, message.header_to_send(), len(payload))
    except ValueError as error:
        raise ValueError(f"{message.TYPE.name}: {error}") from error
    return [head, payload] if len(payload) else [head]
