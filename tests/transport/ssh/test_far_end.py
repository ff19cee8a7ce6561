"""What is not our program is named, before it is taken for a broken transfer."""

from __future__ import annotations

import asyncio

import pytest

from blockrep.errors import (
    BlockrepError,
    ConfigurationError,
    ConnectionLostError,
    ProtocolError,
    UnsupportedHostError,
)
from blockrep.protocol.frames import MAGIC
from blockrep.transport.memory import MemoryTransport, memory_pair
from blockrep.transport.ssh.far_end import FarEndTransport, ProgramEnd, explain_end, printable
from transport.contract import receive_until_end


@pytest.mark.parametrize(
    ("end", "error", "words"),
    [
        (ProgramEnd(127, "sh: not found"), UnsupportedHostError, "was not found there"),
        (ProgramEnd(126, ""), UnsupportedHostError, "was not found there"),
        (ProgramEnd(2, "unrecognized arguments: --stdio"), UnsupportedHostError, "too old"),
        (
            ProgramEnd(3, "motd\nblockrep-server: error: /etc/x.toml: wrong key\n"),
            ConfigurationError,
            "host: /etc/x.toml: wrong key",
        ),
        (
            ProgramEnd(3, f"blockrep-server: error: /{'x' * 300}: wrong key\n"),
            ConfigurationError,
            "xx: wrong key",
        ),
        (ProgramEnd(3, "something else"), ConnectionLostError, "status 3"),
        (ProgramEnd(None, ""), ConnectionLostError, "ended before it said anything"),
        (ProgramEnd(0, ""), ConnectionLostError, "ended with status 0"),
    ],
)
def test_each_end_has_its_meaning(end: ProgramEnd, error: type[BlockrepError], words: str) -> None:
    found = explain_end(end, "blockrep-server", "host")
    assert type(found) is error
    assert words in str(found)


def test_no_text_of_the_far_side_acts_on_a_terminal() -> None:
    assert printable("\x1b[31mred\x07\r\nline two \u202e") == "[31mred line two"
    assert len(printable("x" * 5000)) == 300


async def _ended() -> BlockrepError:
    return UnsupportedHostError("explained")


def guarded() -> tuple[FarEndTransport, MemoryTransport]:
    client, server = memory_pair()
    return FarEndTransport(client, "blockrep-server", _ended), server


async def test_our_protocol_passes_unchanged_in_any_pieces() -> None:
    transport, server = guarded()
    received = bytearray()
    for piece in (MAGIC[:1], MAGIC[1:3], MAGIC[3:] + b"rest"):
        await server.send([piece])
        buffer = memoryview(bytearray(10))
        received += buffer[: await transport.receive_into(buffer)]
    assert received == MAGIC + b"rest"
    await transport.send([b"answer"])
    buffer = memoryview(bytearray(6))
    assert await server.receive_into(buffer) == 6
    assert transport.peer.identity
    await asyncio.gather(transport.close(), server.close())


@pytest.mark.parametrize("text", [b"Welcome to Debian\n", b"BR\n"])
async def test_something_else_is_shown(text: bytes) -> None:
    transport, server = guarded()
    await server.send([text])
    with pytest.raises(ProtocolError, match="start-up files") as caught:
        await receive_until_end(transport)
    assert text.decode().split()[0][:2] in str(caught.value)
    transport.abort()


async def test_an_end_before_the_first_byte_is_explained() -> None:
    transport, server = guarded()
    closing = asyncio.create_task(server.close())
    with pytest.raises(UnsupportedHostError, match="explained"):
        await transport.receive_into(memoryview(bytearray(2)))
    await asyncio.gather(transport.close(), closing)
    transport, server = guarded()
    server.abort()
    with pytest.raises(UnsupportedHostError, match="explained"):
        await transport.send([b"x"])
    with pytest.raises(UnsupportedHostError, match="explained"):
        await transport.receive_into(memoryview(bytearray(2)))


async def test_a_break_later_is_a_lost_connection() -> None:
    transport, server = guarded()
    await server.send([MAGIC])
    await transport.receive_into(memoryview(bytearray(4)))
    server.abort()
    with pytest.raises(ConnectionLostError):
        await transport.send([b"x"])
