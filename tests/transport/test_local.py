"""A Unix socket says who connects; it is its owner's alone, and never replaces what lives."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import socket
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from blockrep.errors import ConfigurationError, ConnectionLostError
from blockrep.transport.interface import Transport
from blockrep.transport.local import LocalListener, connect_local, connect_local_tls
from blockrep.transport.tls_context import client_context
from transport.contract import Pair, TransportContract
from transport.hosts import Hosts


@contextlib.asynccontextmanager
async def listening(
    path: Path, inherited: socket.socket | None = None
) -> AsyncIterator[asyncio.Queue[Transport]]:
    accepted: asyncio.Queue[Transport] = asyncio.Queue()

    async def serve(transport: Transport) -> None:
        await accepted.put(transport)
        await asyncio.Event().wait()

    listener = LocalListener(str(path), serve, inherited)
    await listener.start()
    yield accepted
    await listener.close()


class TestLocal(TransportContract):
    tells_abort = False

    @pytest.fixture
    async def pair(self, tmp_path: Path) -> AsyncIterator[Pair]:
        async with listening(tmp_path / "s") as accepted:
            client = await connect_local(str(tmp_path / "s"), "unix:s")
            server = await accepted.get()
            yield client, server
            await asyncio.gather(client.close(), server.close())


async def test_the_kernel_says_who_connects(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(path) as accepted:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        client = await connect_local(str(path), "unix:s")
        server = await accepted.get()
        assert server.peer.identity == f"user:{getpass.getuser()}"
        assert str(path) in server.peer.address
        client.abort()
    assert not path.exists()


async def test_a_socket_that_nobody_listens_on_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    async with listening(path):
        client = await connect_local(str(path), "unix:s")
        client.abort()


async def test_what_lives_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with listening(path):
        with pytest.raises(ConfigurationError, match="somebody listens there already"):
            await LocalListener(str(path), lambda _: asyncio.sleep(0)).start()
        assert path.is_socket()
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="is not a socket"):
        await LocalListener(str(path), lambda _: asyncio.sleep(0)).start()
    assert path.read_text() == "a file"
    with pytest.raises(ConfigurationError, match="cannot listen"):
        await LocalListener(str(tmp_path / "no" / "s"), lambda _: asyncio.sleep(0)).start()


async def test_an_inherited_socket_stays(tmp_path: Path) -> None:
    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    async with listening(path, sock):
        (await connect_local(str(path), "unix:s")).abort()
    assert path.is_socket()


async def test_nobody_there_is_a_lost_connection(tmp_path: Path) -> None:
    with pytest.raises(ConnectionLostError, match="cannot connect"):
        await connect_local(str(tmp_path / "none"), "unix:none")


async def test_tls_over_it_is_as_strict(tmp_path: Path, hosts: Hosts) -> None:
    path = tmp_path / "s"
    async with listening(path) as accepted:
        connecting = asyncio.create_task(
            connect_local_tls(str(path), "tunnel", client_context(hosts.client()), "replica")
        )
        (await accepted.get()).abort()
        with pytest.raises(ConnectionLostError):
            await connecting
