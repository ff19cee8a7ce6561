"""A listener on loopback that remembers whom it accepted and refused."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from blockrep.errors import BlockrepError
from blockrep.transport.interface import PeerInfo
from blockrep.transport.tls import TlsTransport, connect
from blockrep.transport.tls_context import client_context, server_context
from blockrep.transport.tls_files import TlsFiles
from blockrep.transport.tls_listener import Joins, TlsListener

LOOPBACK = "127.0.0.1"


class Server:
    """What a listening server saw."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[TlsTransport] = asyncio.Queue()
        self.refused: asyncio.Queue[BlockrepError] = asyncio.Queue()
        self.shown: list[PeerInfo] = []
        self.listener: TlsListener | None = None
        self.port = 0

    async def serve(self, transport: TlsTransport) -> None:
        self.accepted.put_nowait(transport)
        await asyncio.Event().wait()

    def refuse(self, peer: PeerInfo, error: BlockrepError) -> None:
        assert peer.address
        self.shown.append(peer)
        self.refused.put_nowait(error)


@contextlib.asynccontextmanager
async def listening(
    files: TlsFiles,
    *,
    max_unauthenticated: int = 32,
    handshake_seconds: float = 10.0,
    patience_seconds: float = 10.0,
    joins: Joins | None = None,
    addresses: Sequence[tuple[str, int]] = ((LOOPBACK, 0),),
) -> AsyncIterator[Server]:
    server = Server()
    server.listener = TlsListener(
        server_context(files),
        server.serve,
        joins=joins,
        refused=server.refuse,
        max_unauthenticated=max_unauthenticated,
        handshake_seconds=handshake_seconds,
        patience_seconds=patience_seconds,
    )
    await server.listener.start(addresses)
    server.port = server.listener.addresses[0][1]
    try:
        async with asyncio.timeout(60):
            yield server
    finally:
        await server.listener.close()


@contextlib.asynccontextmanager
async def connected(
    port: int, files: TlsFiles, *, host: str = LOOPBACK, server_name: str = ""
) -> AsyncIterator[TlsTransport]:
    context = client_context(files)
    transport = await connect(host, port, context, timeout_seconds=10, server_name=server_name)
    try:
        yield transport
    finally:
        transport.abort()
