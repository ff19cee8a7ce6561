"""A join is told apart from a session by its first bytes, and says little."""

from __future__ import annotations

import asyncio
import socket

import pytest

from blockrep.errors import BlockrepError, ConnectionLostError, ProtocolError, RefusedError
from blockrep.transport.joining import (
    PREAMBLE,
    announces_join,
    ask,
    receive_message,
    send_message,
)
from blockrep.transport.memory import memory_pair


@pytest.mark.parametrize(
    ("pieces", "is_join"),
    [
        ([PREAMBLE], True),
        ([PREAMBLE[:3], PREAMBLE[3:] + b"\x16\x03"], True),
        ([b"\x16\x03\x01"], False),
        ([PREAMBLE[:7] + b"2"], False),
        ([b""], False),
    ],
)
async def test_the_first_bytes_tell(pieces: list[bytes], is_join: bool) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        looking = asyncio.create_task(announces_join(theirs))
        for piece in pieces:
            if piece:
                ours.sendall(piece)
            else:
                ours.shutdown(socket.SHUT_WR)
            await asyncio.sleep(0)
        assert await asyncio.wait_for(looking, 10) is is_join
        sent = b"".join(pieces)
        left = sent[len(PREAMBLE) :] if is_join else sent
        assert (theirs.recv(100) if left else b"") == left


async def test_question_and_answer() -> None:
    client, server = memory_pair()
    asking = asyncio.create_task(ask(client, {"want": "authority"}))
    assert await receive_message(server) == {"want": "authority"}
    await send_message(server, {"authority": b"pem"})
    assert await asking == {"authority": b"pem"}


async def test_an_error_is_an_answer_without_control_characters() -> None:
    client, server = memory_pair()
    asking = asyncio.create_task(ask(client, {}))
    await receive_message(server)
    await send_message(server, {"error": "refused", "what": "no\x1b[2J", "next": "ask"})
    with pytest.raises(RefusedError, match=r"no\[2J"):
        await asking


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"\xff\xff\xff\xff", ProtocolError),
        (b"\0\0\0\0", ProtocolError),
        (b"\0\0\0\1\xc1", ProtocolError),
        (b"\0\0\0\1\x01", ProtocolError),
        (b"\0\0\0\3\x81\x01\x01", ProtocolError),
        (b"\0\0\0\2\x91\x01", ProtocolError),
        (b"\0\0", ConnectionLostError),
    ],
)
async def test_what_is_no_message(data: bytes, error: type[BlockrepError]) -> None:
    client, server = memory_pair()
    await client.send([data])
    closing = asyncio.create_task(client.close())
    with pytest.raises(error):
        await receive_message(server)
    await asyncio.gather(closing, server.close())
