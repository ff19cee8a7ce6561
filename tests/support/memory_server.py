"""A server with volumes in memory and rules, and clients that push one source to it.

For virtual time: storage calls run inline, connections are in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from blockrep.client import operations
from blockrep.client.operations import ClientContext
from blockrep.client.pulling import PullOptions, pull
from blockrep.config.access import AccessPolicy
from blockrep.model.lineage import Wish
from blockrep.model.names import Target, VolumeName, parse_volume
from blockrep.model.snapshots import Snapshot
from blockrep.protocol.messages import Hello, Welcome
from blockrep.protocol.transitions import Side
from blockrep.replication.channel import Channel
from blockrep.replication.push import PushOptions
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.memory import MemoryHost, MemorySource, MemoryTarget
from blockrep.transport.interface import Transport
from blockrep.transport.memory import MemoryTransport, memory_pair
from support.virtual_time import InlineBlocking

KIB = 1024
SIZE_BYTES = 256 * KIB
_LIMITS = ReceiverLimits(64 * KIB, 256 * KIB, heartbeat_seconds=5, timeout_seconds=30)


class MemoryServer:
    """The server, its host, and the host of all clients.

    Attributes:
        opened: volumes of the server's host that were opened, in order.
        now_seconds: the server's wall clock, which stands still unless it is set.
    """

    def __init__(self, folder: Path, policy: AccessPolicy) -> None:
        self.folder = folder
        self.origin = MemoryHost("origin")
        self.origin.create_volume("disk", SIZE_BYTES)
        self.replica = MemoryHost("replica")
        self.opened: list[str] = []
        self._serving: set[asyncio.Task[None]] = set()
        settings = ServiceSettings(_LIMITS, 8, 4, 600, 1 << 23, 10, 1, folder / "run")
        self.now_seconds = 1_700_000_000
        self.service = Service(
            settings,
            policy.permit,
            self._open,
            self._open_source,
            InlineBlocking(),
            lambda: self.now_seconds,
        )

    def _open(self, name: VolumeName) -> MemoryTarget:
        self.opened.append(str(name))
        return MemoryTarget(self.replica, str(name))

    def _open_source(self, name: VolumeName) -> MemorySource:
        self.opened.append(str(name))
        return MemorySource(self.replica, str(name))

    def change_rules(self, policy: AccessPolicy) -> None:
        self.service.change_rules(policy.permit, policy.knows)

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.origin.write("disk", offset_bytes, data)

    def goods(self, volume: str) -> list[Snapshot]:
        """Return the good snapshots of a replica, oldest first."""
        return [snapshot for snapshot, _ in self.replica.volume(volume).goods.values()]

    def locks(self) -> set[str]:
        """Return the names of all lock files."""
        folder = self.folder / "run"
        return {path.name for path in folder.rglob("*")} if folder.exists() else set()

    def dial(self, identity: str, serial: int = 0, until: int = 0) -> MemoryTransport:
        """Return a client's end of a connection that is served.

        ``serial`` and ``until`` (seconds since the epoch): of its certificate.
        """
        client_end, server_end = memory_pair(client_name=identity)
        server_end.peer = replace(server_end.peer, serial=serial, not_after_seconds=until)
        self._serving.add(asyncio.create_task(self.service.serve(server_end)))
        return client_end

    async def settle(self) -> None:
        """Wait until everything that was served has ended."""
        await asyncio.gather(*self._serving)
        self._serving.clear()

    @contextlib.asynccontextmanager
    async def session(
        self, identity: str, serial: int = 0, until: int = 0
    ) -> AsyncIterator[Channel]:
        """Yield a client's channel after the handshake."""
        async with Channel(self.dial(identity, serial, until), Side.CLIENT) as channel:
            await channel.send(Hello((1, 1), (), "test"))
            await channel.receive(Welcome)
            yield channel

    async def run(self, identity: str, operation: str, volume: str, **options: Any) -> Any:
        """Run an operation as a client does."""
        target = Target("tls", "replica", 8733, parse_volume(volume))
        context = self._context(identity, options.get("until", 0))
        sink: Callable[[object], None] = lambda _event: None  # noqa: E731
        source = VolumeName(path="/disk")
        if operation == "pull":
            replica = VolumeName(path=options.get("target", "/pulled"))
            return await pull(context, target, replica, PullOptions(_LIMITS), sink)
        if operation == "list":
            return await operations.list_remote(context, target, sink)
        if operation == "prune":
            return await operations.prune_remote(context, target, options.get("keep", 1), sink)
        push_options = PushOptions(str(target), volume, options.get("wish", Wish()))
        run = operations.push if operation == "push" else operations.verify
        return await run(context, source, target, push_options, sink)

    def _context(self, identity: str, until: int) -> ClientContext:
        async def connect(_target: Target) -> Transport:
            return self.dial(identity, until=until)

        return ClientContext(
            open_target=lambda name: MemoryTarget(self.origin, str(name)),
            open_source=lambda _name: MemorySource(self.origin, "disk"),
            connect=connect,
            blocking=InlineBlocking(),
            runtime_directory=self.folder / "client-run",
            handshake_seconds=lambda _target: 10,
            now_seconds=lambda: 1_700_000_000,
        )
