"""A simulated network: segments of any size, latency, and one thing that goes wrong."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from blockrep.transport.memory import MemoryTransport, memory_pair
from simulation.hosts import SimulatedHost

Watch = Callable[[bytes], None]
"""Told what a server sends, as it is put on the wire."""

#: ``cut``: both ends notice. ``silent``: nothing arrives any more, and nobody is told. ``upward``,
#: ``downward``: silent in one direction. ``stall``: nothing moves for a while. ``flip``: a bit.
#: ``lost``: one send, and what follows arrives; no transport of ours does that, and only a later
#: cut ends what then waits for each other.
FAULTS = ("cut", "silent", "upward", "downward", "stall", "flip", "lost")
#: What an honest line does. Bytes that change are noticed by TLS and SSH, as a cut.
BAD_LINES = ("cut", "silent", "upward", "downward", "stall")
_STALLS_SECONDS = (1.0, 12.0, 100.0)


class Link:
    """One connection, on which at most one thing goes wrong, after so many sends and receives."""

    def __init__(
        self,
        rng: random.Random,
        fault: str,
        after: int,
        hosts: tuple[SimulatedHost, SimulatedHost],
        watch: Watch,
    ) -> None:
        self._rng = rng
        self._fault = fault
        self._left = after
        self._watch = watch
        self._latency_seconds = rng.choice([0, 0, 0.001, 0.1])
        self._segments = rng.choice([(0,), (0,), (0, 4096), (1, 7, 100, 0)])
        self.takes_time = bool(fault or self._latency_seconds)
        self.happened = ""
        # As real ones: never while all goes quickly, always on a machine that is slow.
        share = rng.choice([0.0, 0.1, 1.0])
        client, server = memory_pair(
            rng.choice([512, 4096, 4096, 1 << 16, 1 << 16, 1 << 16]),
            client_name="origin",
            server_name="replica",
            gives_way=lambda: rng.random() < share,
        )
        self._inner = client
        self.client = SimulatedTransport(self, client, hosts[0], serves=False)
        self.server = SimulatedTransport(self, server, hosts[1], serves=True)

    async def pass_time(self) -> None:
        """Take the time of a send or receive; let happen what is to happen now."""
        if self._latency_seconds:
            await asyncio.sleep(self._latency_seconds)
        self._left -= 1
        if self._left or not self._fault or self.happened:
            return  # a line that a crash silenced is not heard again
        self.happened = self._fault
        if self._fault == "cut":
            self.drop()
        elif self._fault == "stall":
            await asyncio.sleep(self._rng.choice(_STALLS_SECONDS))

    def segment(self, room: int) -> int:
        """Return how much arrives at once."""
        return self._rng.choice(self._segments) or room

    def carry(self, data: bytes, serves: bool) -> bytes:
        """Return what of a send arrives."""
        if serves:
            self._watch(data)
        lost = {"silent", "downward" if serves else "upward"}
        if self.happened in lost:
            return b""
        if self.happened == "lost":
            self.happened = ""
            asyncio.get_running_loop().call_later(_STALLS_SECONDS[-1], self.drop)
            return b""
        if self.happened == "flip" and data:
            self.happened = ""
            at = self._rng.randrange(len(data))
            return data[:at] + bytes([data[at] ^ 1 << self._rng.randrange(8)]) + data[at + 1 :]
        return data

    def drop(self) -> None:
        """Break the connection, as the kernel of a crashed host does once it is asked."""
        self._inner.cut()

    def lose_client(self) -> None:
        """Let the client be gone, and the server not be told: what is on its way still arrives."""
        if self._rng.random() < 0.5:
            self.drop()
        else:
            self.happened = "silent"


class SimulatedTransport:
    """One end; see :class:`blockrep.transport.interface.Transport`."""

    def __init__(
        self, link: Link, inner: MemoryTransport, host: SimulatedHost, *, serves: bool
    ) -> None:
        self._inner = inner
        self.peer = inner.peer
        self._link = link
        self._host = host
        self._serves = serves

    async def receive_into(self, buffer: memoryview) -> int:
        self._host.tick()
        if self._link.takes_time:
            await self._link.pass_time()
        return await self._inner.receive_into(buffer[: self._link.segment(len(buffer))])

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        self._host.tick()
        if self._link.takes_time:
            await self._link.pass_time()
        data = self._link.carry(b"".join(buffers), self._serves)
        if data:
            await self._inner.send([data])

    async def close(self) -> None:
        if self._link.happened in {"silent", "upward", "downward"}:
            self._inner.abort()
        else:
            await self._inner.close()

    def abort(self) -> None:
        self._inner.abort()
