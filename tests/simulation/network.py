"""A simulated network: segments of any size, latency, a cut, and a link that goes silent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from blockrep.transport.memory import MemoryTransport, memory_pair

Watch = Callable[[bytes], None]
"""Told what a server sends, as it is put on the wire."""


class Link:
    """One connection, on which at most one thing goes wrong after so many sends and receives.

    Attributes:
        fault: ``none``, ``cut`` (both ends notice), ``silent`` (nobody is told, nothing arrives).
    """

    def __init__(
        self, rng: random.Random, fault: str, after: int, latency_seconds: float, watch: Watch
    ) -> None:
        self.rng = rng
        self.fault = fault
        self.latency_seconds = latency_seconds
        self.watch = watch
        self._left = after
        self.silent = False
        limit_bytes = rng.choice([512, 4096, 1 << 16])
        client, server = memory_pair(limit_bytes, client_name="origin", server_name="replica")
        self.client = SimulatedTransport(self, client, serves=False)
        self.server = SimulatedTransport(self, server, serves=True)

    def step(self, transport: MemoryTransport) -> None:
        """Count a send or receive; let go wrong what is to go wrong now."""
        if self.fault == "none":
            return
        self._left -= 1
        if self._left:
            return
        if self.fault == "cut":
            transport.cut()
        else:
            self.silent = True

    def drop(self) -> None:
        """Break the connection, as the kernel of a crashed host does."""
        self.client.inner.cut()


class SimulatedTransport:
    """One end; see :class:`blockrep.transport.interface.Transport`."""

    def __init__(self, link: Link, inner: MemoryTransport, *, serves: bool) -> None:
        self.inner = inner
        self.peer = inner.peer
        self._link = link
        self._serves = serves

    async def receive_into(self, buffer: memoryview) -> int:
        link = self._link
        await asyncio.sleep(link.latency_seconds)
        link.step(self.inner)
        count = link.rng.choice([1, 7, 100, 4096, len(buffer)])
        return await self.inner.receive_into(buffer[:count])

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        link = self._link
        await asyncio.sleep(link.latency_seconds)
        link.step(self.inner)
        if self._serves:
            link.watch(b"".join(buffers))
        if not link.silent:
            await self.inner.send(buffers)

    async def close(self) -> None:
        if self._link.silent:
            self.inner.abort()
        else:
            await self.inner.close()

    def abort(self) -> None:
        self.inner.abort()
