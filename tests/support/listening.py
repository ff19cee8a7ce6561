"""A listening server in this process, and a client that can hold its part of TLS back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from blockrep.certificates.authority import LEAF_DAYS, create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.config.load import load_settings
from blockrep.config.settings import Settings
from blockrep.config.values import Address
from blockrep.protocol.frames import FrameType, encode_frame
from blockrep.server.listening import serve_listening


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not reached():  # noqa: ASYNC110 - what another task does outside has no event
            await asyncio.sleep(0.01)


class Listening:
    """A server on loopback, with its authority beside it; its clients are those of that.

    ``days``: of its certificate.
    """

    def __init__(self, folder: Path, printed: Callable[[], str], days: int = LEAF_DAYS) -> None:
        self.config = folder / "config.toml"
        self.certs = folder / "certs"
        self._printed = printed
        self._serving: asyncio.Task[int] | None = None
        create_authority(self.certs)
        issue(self.certs, "localhost", [Role.SERVER], days=days)
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
                said += self._printed()
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
        """Send the rest and HELLO; return the frame that the server answers with.

        Raises ssl.SSLError for an alert.
        """
        hello = {"versions": [1, 1], "features": [], "software": "test"}
        self._tls.write(encode_frame(FrameType.HELLO, hello))
        said = b""
        with self._sock:
            await self._send()
            while not said:
                self._incoming.write(await self._loop.sock_recv(self._sock, 1 << 16))
                with contextlib.suppress(ssl.SSLWantReadError):
                    said = self._tls.read()
        return said

    async def _send(self) -> None:
        await self._loop.sock_sendall(self._sock, self._outgoing.read())
