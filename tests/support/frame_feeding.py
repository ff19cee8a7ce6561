"""Bytes into a reader or a session, in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterable

from blockrep.protocol.frames import Frame, FrameReader
from blockrep.protocol.messages import Message, encode_message
from blockrep.protocol.session import Session


def encoded(*messages: Message) -> bytes:
    """Return the bytes of messages."""
    return b"".join(bytes(buffer) for one in messages for buffer in encode_message(one))


def read_frames(reader: FrameReader, content: bytes, sizes: Iterable[int] = ()) -> list[Frame]:
    """Feed all of ``content`` to a reader, cut as ``sizes`` say, and return the frames."""
    frames = []
    wanted = iter(sizes)
    rest = memoryview(content)
    while rest:
        place = reader.get_buffer()
        count = min(len(place), len(rest), next(wanted, len(rest)))
        place[:count] = rest[:count]
        rest = rest[count:]
        frame = reader.buffer_updated(count)
        if frame is not None:
            frames.append(frame)
    return frames


def feed(
    session: Session, content: bytes, now: float = 0.0, sizes: Iterable[int] = ()
) -> list[Message]:
    """Feed all of ``content`` to a session, cut as ``sizes`` say; return the messages."""
    wanted = iter(sizes)
    rest = memoryview(content)
    while rest:
        place = session.get_buffer()
        count = min(len(place), len(rest), next(wanted, len(rest)))
        place[:count] = rest[:count]
        rest = rest[count:]
        session.buffer_updated(count, now)
    return session.messages()


def deliver(source: Session, target: Session, now: float = 0.0) -> list[Message]:
    """Carry everything that one session wants to send to another; return the messages."""
    return feed(target, b"".join(bytes(part) for part in source.data_to_send(now)), now)
