"""Two hosts in one process: image files, the real client and server, a cable that can be cut."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockrep.client import operations
from blockrep.client.operations import ClientContext
from blockrep.model.lineage import Wish
from blockrep.model.names import Target, VolumeName
from blockrep.replication.blocking import ThreadBlocking
from blockrep.replication.events import Event
from blockrep.replication.push import DryRun, PushOptions, Transfer, Verification
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.factory import open_source, open_target
from blockrep.storage.interface import StorageSettings
from blockrep.transport.interface import Transport
from blockrep.transport.memory import MemoryTransport, memory_pair

KIB = 1024
MIB = 1024 * KIB
#: Small, so that a small volume is many frames and many acknowledgements.
LIMITS = ReceiverLimits(64 * KIB, 512 * KIB, heartbeat_seconds=5, timeout_seconds=30)


@dataclass(frozen=True)
class Allowed:
    """Everything, for one volume."""

    volume: VolumeName
    create: bool = True
    adopt: bool = True
    keep: int = 3
    keep_min: int = 1
    quota_bytes: int = 0
    rate_bytes_per_second: int = 0
    max_pull_targets: int = 2
    rule: str = ""


@dataclass
class Hosts:
    """A source image, a replica's path, and the two programs between them."""

    folder: Path
    limits: ReceiverLimits = LIMITS
    features: tuple[str, ...] = ("zstd",)
    events: list[Event] = field(default_factory=list)
    audit: list[Any] = field(default_factory=list)
    allowed: Callable[[str, str, str], Allowed | None] | None = None
    on_event: Callable[[Event, MemoryTransport], None] | None = None
    seed: int = 1

    def __post_init__(self) -> None:
        for name in ("source", "target"):
            (self.folder / name).mkdir()
        self.random = random.Random(self.seed)
        self._client_end: MemoryTransport | None = None
        self.service: Service | None = None

    @property
    def source(self) -> Path:
        return self.folder / "source" / "disk.img"

    @property
    def replica(self) -> Path:
        return self.folder / "target" / "replica.img"

    @property
    def target(self) -> Target:
        return Target("tls", "replica", 8733, VolumeName(path=str(self.replica)))

    def fill(self, size_bytes: int) -> None:
        """Give the source random content."""
        self.source.write_bytes(self.random.randbytes(size_bytes))

    def change(self, offset_bytes: int, size_bytes: int) -> None:
        """Overwrite a part of the source."""
        with self.source.open("r+b") as file:
            file.seek(offset_bytes)
            file.write(self.random.randbytes(size_bytes))

    def equal(self) -> bool:
        """Whether the replica has the source's content."""
        return self.source.read_bytes() == self.replica.read_bytes()

    async def push(self, wish: Wish | None = None, **options: Any) -> list[Transfer]:
        async with self.context() as context:
            push_options = self.options(wish, **options)
            transfers, _ = await operations.push(
                context, self._source_name, self.target, push_options, self._sink
            )
            return transfers

    async def dry_run(self, wish: Wish | None = None) -> DryRun:
        async with self.context() as context:
            return await operations.dry_run(
                context, self._source_name, self.target, self.options(wish), self._sink
            )

    async def verify(self) -> Verification:
        async with self.context() as context:
            return await operations.verify(
                context, self._source_name, self.target, self.options(None), self._sink
            )

    def options(self, wish: Wish | None, **options: Any) -> PushOptions:
        return PushOptions(str(self.target), str(self.target.volume), wish or Wish(), **options)

    @property
    def _source_name(self) -> VolumeName:
        return VolumeName(path=str(self.source))

    @contextlib.asynccontextmanager
    async def context(self) -> Any:
        """Yield a client whose connections are served by a server of their own."""
        serving: set[asyncio.Task[None]] = set()
        with ThreadBlocking(4) as blocking, ThreadBlocking(4) as server_blocking:
            service = self.service = Service(
                ServiceSettings(self.limits, 4, 4, 600, 8 * MIB, 10, 1, self.folder / "server-run"),
                self.allowed
                or (lambda _identity, volume, _operation: Allowed(VolumeName(path=volume))),
                lambda name: open_target(name, self._settings("server")),
                lambda name: open_source(name, self._settings("server")),
                server_blocking,
            )

            async def connect(_target: Target) -> Transport:
                client_end, server_end = memory_pair(64 * KIB)
                self._client_end = client_end
                serving.add(asyncio.create_task(service.serve(server_end)))
                return client_end

            try:
                yield ClientContext(
                    open_source=lambda name: open_source(name, self._settings("client")),
                    open_target=lambda name: open_target(name, self._settings("client")),
                    connect=connect,
                    blocking=blocking,
                    runtime_directory=self.folder / "client-run",
                    handshake_seconds=lambda _target: 10,
                )
            finally:
                await asyncio.gather(*serving)

    def _settings(self, host: str) -> StorageSettings:
        return StorageSettings(self.folder / f"{host}-state", self.folder / f"{host}-run", 0, 0)

    def _sink(self, event: Event) -> None:
        self.events.append(event)
        if self.on_event is not None and self._client_end is not None:
            self.on_event(event, self._client_end)
