"""A channel bounds what it keeps, and loses nothing when a send is cancelled (I9)."""

from __future__ import annotations

import asyncio
from unittest import mock

import asyncssh
import pytest

from blockrep.errors import ConnectionLostError
from blockrep.transport.interface import PeerInfo
from blockrep.transport.ssh.channel import ChannelTransport


async def hang_up() -> None:
    await asyncio.sleep(0)


@pytest.fixture
def channel() -> mock.Mock:
    return mock.Mock(spec=asyncssh.SSHClientChannel)


@pytest.fixture
async def transport(channel: mock.Mock) -> ChannelTransport:
    made = ChannelTransport(PeerInfo("replica", "ssh://replica", ""), hang_up)
    made.connection_made(channel)
    return made


async def test_the_peer_is_stopped_when_nobody_takes_its_data(
    transport: ChannelTransport, channel: mock.Mock
) -> None:
    for _ in range(5):
        transport.data_received(bytes(1 << 20), None)
    channel.pause_reading.assert_called()
    buffer = memoryview(bytearray(2 << 20))
    assert await transport.receive_into(buffer) == 2 << 20
    channel.resume_reading.assert_called_once()
    assert await transport.receive_into(buffer[:1000]) == 1000


async def test_a_cancelled_send_is_handed_over_whole(
    transport: ChannelTransport, channel: mock.Mock
) -> None:
    written = bytearray()

    def write(data: bytes) -> None:
        written.extend(data)
        transport.pause_writing()

    channel.write.side_effect = write
    buffer = bytearray(b"a" * 300_000 + b"b" * 300_000)
    sending = asyncio.create_task(transport.send([buffer]))
    await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert written == buffer


async def test_what_it_said_on_stderr_and_its_status_are_kept(
    transport: ChannelTransport, channel: mock.Mock
) -> None:
    transport.data_received(b"x" * 5000 + b"the end", asyncssh.EXTENDED_DATA_STDERR)
    channel.get_exit_status.return_value = 7
    transport.connection_lost(None)
    end = await transport.program_end()
    assert end.status == 7
    assert end.stderr.endswith("the end")
    assert len(end.stderr) <= 4096


async def test_a_break_is_a_lost_connection(transport: ChannelTransport) -> None:
    waiting = asyncio.create_task(transport.receive_into(memoryview(bytearray(1))))
    await asyncio.sleep(0)
    transport.connection_lost(OSError("reset"))
    with pytest.raises(ConnectionLostError, match="reset"):
        await waiting
    with pytest.raises(ConnectionLostError, match="reset"):
        await transport.send([b"x"])


async def test_an_end_is_an_end(transport: ChannelTransport) -> None:
    assert transport.eof_received() is True
    assert await transport.receive_into(memoryview(bytearray(1))) == 0
