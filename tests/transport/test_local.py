"""A Unix socket says who connects; it is its owner's alone, and never replaces what lives."""

from __future__ import annotations

import asyncio
import contextlib
import getpass
import os
import pwd
import resource
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from blockrep.errors import BlockrepError, BusyError, ConfigurationError, ConnectionLostError
from blockrep.transport.interface import PeerInfo, Transport
from blockrep.transport.local import LocalListener, connect_local, connect_local_tls, peer_of
from blockrep.transport.tls_context import client_context
from transport.contract import Pair, TransportContract
from transport.hosts import Hosts


@contextlib.asynccontextmanager
async def listening(
    path: Path,
    inherited: socket.socket | None = None,
    refused: Callable[[PeerInfo, BlockrepError], None] = lambda *_: None,
) -> AsyncIterator[asyncio.Queue[Transport]]:
    accepted: asyncio.Queue[Transport] = asyncio.Queue()

    async def serve(transport: Transport) -> None:
        await accepted.put(transport)
        await asyncio.Event().wait()

    listener = LocalListener(str(path), serve, refused, inherited)
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
            await LocalListener(str(path), lambda _: asyncio.sleep(0), print).start()
        assert path.is_socket()
    path.write_text("a file")
    with pytest.raises(ConfigurationError, match="is not a socket"):
        await LocalListener(str(path), lambda _: asyncio.sleep(0), print).start()
    assert path.read_text() == "a file"
    with pytest.raises(ConfigurationError, match="cannot listen"):
        await LocalListener(str(tmp_path / "no" / "s"), lambda _: asyncio.sleep(0), print).start()


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


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """No descriptor can be had until this ends."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    filling = []
    try:
        with contextlib.suppress(OSError):
            while True:
                filling.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in filling:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_running_out_of_files_does_not_close_the_door_for_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrep.transport.local._RETRY_ACCEPT_SECONDS", 0.01)
    path = tmp_path / "s"
    refused: asyncio.Queue[BlockrepError] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    async with listening(path, refused=lambda _peer, error: refused.put_nowait(error)) as accepted:
        with socket.socket(socket.AF_UNIX) as client:
            client.setblocking(False)
            with no_more_files():
                await loop.sock_connect(client, str(path))
                for _ in range(2):
                    error = await asyncio.wait_for(refused.get(), 10)
                    assert isinstance(error, BusyError)
                    assert "Too many open files" in str(error)
            server = await asyncio.wait_for(accepted.get(), 10)
            assert server.peer.identity == f"user:{getpass.getuser()}"


def test_a_user_is_called_by_number_only_if_there_is_no_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(_uid: int) -> pwd.struct_passwd:
        raise KeyError

    ours, theirs = socket.socketpair()
    with ours, theirs:
        with no_more_files(), monkeypatch.context() as found:
            # So it is without files, unless systemd's module was loaded before: it knows root.
            found.setattr(pwd, "getpwuid", unknown)
            with pytest.raises(OSError, match="Too many open files"):
                peer_of(ours, "s")
        assert peer_of(ours, "s").identity == f"user:{getpass.getuser()}"
        monkeypatch.setattr(pwd, "getpwuid", unknown)
        assert peer_of(ours, "s").identity == f"user:{os.geteuid()}"


async def test_who_cannot_be_looked_up_is_not_served_under_another_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"
    refused: asyncio.Queue[BlockrepError] = asyncio.Queue()

    def fail(_sock: socket.socket, _path: str) -> PeerInfo:
        raise OSError(24, "Too many open files")

    async with listening(path, refused=lambda _peer, error: refused.put_nowait(error)) as accepted:
        monkeypatch.setattr("blockrep.transport.local.peer_of", fail)
        client = await connect_local(str(path), "unix:s")
        assert await client.receive_into(memoryview(bytearray(1))) == 0
        assert "Too many open files" in (await refused.get()).what
        monkeypatch.undo()
        (await connect_local(str(path), "unix:s")).abort()
        await accepted.get()
        client.abort()
