"""A server listens on all of its addresses or on none, and on what the service manager made."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.certificates.revocation import revoke
from blockrep.config.load import load_settings
from blockrep.config.settings import Settings
from blockrep.config.values import Address, LocalAddress
from blockrep.errors import ConfigurationError
from blockrep.protocol.frames import FrameType, encode_frame
from blockrep.server import listening as module
from blockrep.server.listening import inherited_sockets, serve_listening


def again(settings: Settings) -> Callable[[], Settings]:
    return lambda: settings


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 - what another task does outside has no event
            await asyncio.sleep(0.01)


async def test_a_unix_socket_needs_no_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    serving = asyncio.create_task(
        serve_listening(settings, [LocalAddress(str(path))], again(settings))
    )
    await until(path.is_socket)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0
    assert capsys.readouterr().out == f"listening on unix:{path}\n"
    assert not path.exists()


async def test_a_hangup_while_it_starts_reloads_and_does_not_kill(tmp_path: Path) -> None:
    """Its default action would end the server between the start and the last preparation."""
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    loads: list[bool] = []

    def load() -> Settings:
        loads.append(True)
        return settings

    path = tmp_path / "s"
    serving = asyncio.create_task(serve_listening(settings, [LocalAddress(str(path))], load))
    await asyncio.sleep(0)
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: loads == [True])
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: loads == [True, True])
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(serving, 10) == 0


async def test_an_address_that_cannot_be_had_leaves_nothing(tmp_path: Path) -> None:
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    path = tmp_path / "s"
    with pytest.raises(ConfigurationError, match="certificate"):
        await serve_listening(
            settings, [LocalAddress(str(path)), Address("127.0.0.1", 0)], again(settings)
        )
    assert not path.exists()


async def test_the_service_managers_socket_is_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    sock.listen()
    monkeypatch.setattr(module, "inherited_sockets", lambda _environment: [sock])
    settings = load_settings(None, {"HOME": str(tmp_path)}, 1000)
    serving = asyncio.create_task(serve_listening(settings, [Address("", 1)], again(settings)))
    await until(lambda: "listening" in capsys.readouterr().out)
    os.kill(os.getpid(), signal.SIGINT)
    assert await asyncio.wait_for(serving, 10) == 0
    assert path.is_socket(), "it is the manager's"


def test_sockets_of_another_process_are_not_ours() -> None:
    assert inherited_sockets({}) == []
    assert inherited_sockets({"LISTEN_PID": "1", "LISTEN_FDS": "2"}) == []


def test_descriptors_from_three_on_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as sock:
        monkeypatch.setattr(module, "_FIRST_INHERITED", os.dup(sock.fileno()))
        environment = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
        (found,) = inherited_sockets(environment)
        assert found.family == sock.family
        assert not found.get_inheritable()
        found.close()


class Listening:
    """A server on loopback, with its authority beside it; its clients are those of that."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = folder / "config.toml"
        self.certs = folder / "certs"
        self._capsys = capsys
        self._serving: asyncio.Task[int] | None = None
        create_authority(self.certs)
        issue(self.certs, "localhost", [Role.SERVER])
        issue(self.certs, "mallory", [Role.CLIENT])
        self.configure("")
        self.port = 0

    def configure(self, text: str) -> None:
        head = "".join(
            f"{name}_directory = '{self.config.parent}/{name}'\n" for name in ("state", "runtime")
        )
        tls = f"certificate = '{self.certs}/localhost.pem'\nkey = '{self.certs}/localhost.key'\n"
        self.config.write_text(f"[storage]\n{head}[tls]\n{tls}{text}")

    def load(self) -> Settings:
        return load_settings(self.config, {}, 1000)

    async def start(self) -> None:
        serving = serve_listening(self.load(), [Address("127.0.0.1", 0)], self.load)
        self._serving = asyncio.create_task(serving)
        said = ""
        async with asyncio.timeout(10):
            while not (found := re.search(r":(\d+)\n", said)):
                await asyncio.sleep(0.01)
                said += self._capsys.readouterr().out
        self.port = int(found[1])

    async def stop(self) -> None:
        assert self._serving is not None
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(self._serving, 10)

    def handshake(self, name: str = "mallory") -> Handshake:
        context = ssl.create_default_context(cafile=str(self.certs / "ca.pem"))
        context.load_cert_chain(self.certs / f"{name}.pem", self.certs / f"{name}.key")
        return Handshake(context, self.port)


class Handshake:
    """A client's side of TLS whose last flight is sent when the test says so."""

    def __init__(self, context: ssl.SSLContext, port: int) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.setblocking(False)
        self._loop = asyncio.get_running_loop()

    async def begin(self) -> None:
        """Send ClientHello, receive what the server answers; certificate and Finished wait."""
        while True:
            try:
                self._tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self._send()
                self._incoming.write(await self._loop.sock_recv(self._sock, 1 << 16))

    async def finish(self) -> bytes:
        """Send the rest and HELLO; return the frame that the server answers with."""
        hello = {"versions": [1, 1], "features": [], "software": "test"}
        self._tls.write(encode_frame(FrameType.HELLO, hello))
        await self._send()
        said = b""
        while not said:
            self._incoming.write(await self._loop.sock_recv(self._sock, 1 << 16))
            with contextlib.suppress(ssl.SSLWantReadError):
                said = self._tls.read()
        self._sock.close()
        return said

    async def _send(self) -> None:
        await self._loop.sock_sendall(self._sock, self._outgoing.read())


@pytest.fixture
async def listening(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> AsyncIterator[Listening]:
    server = Listening(tmp_path, capsys)
    await server.start()
    yield server
    await server.stop()


async def test_a_handshake_that_was_held_open_does_not_outlive_the_revocation(
    listening: Listening, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "blockrep")
    honest, held = listening.handshake(), listening.handshake()
    await honest.begin()
    assert b"mallory" in await honest.finish(), "it is welcome"
    await held.begin()
    revoke(listening.certs, "mallory")
    os.kill(os.getpid(), signal.SIGHUP)
    await until(lambda: '"event": "reload"' in caplog.text)
    assert b"was revoked" in await held.finish()


async def test_what_is_revoked_when_it_starts_is_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS refuses it already; the second look does not depend on that."""
    server = Listening(tmp_path, capsys)
    revoke(server.certs, "mallory")
    monkeypatch.setattr(ssl, "VERIFY_CRL_CHECK_LEAF", ssl.VerifyFlags(0))
    await server.start()
    late = server.handshake()
    await late.begin()
    assert b"was revoked" in await late.finish()
    await server.stop()
