"""A slow link: a TCP relay that delays and paces what passes, in both directions alike.

``python relay.py LISTEN_PORT TO_PORT BYTES_PER_SECOND DELAY_SECONDS``. It ends both TCP
connections, so it shows what a protocol makes of latency and rate, and nothing of TCP's own windows
and of lost packets.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from dataclasses import dataclass

_BLOCK_BYTES = 64 * 1024
#: What is under way at most on a link without a rate: 3 GB/s for 20 ms.
_UNPACED_BYTES = 64 * 1024 * 1024
_BUFFER_SECONDS = 0.05


@dataclass(frozen=True)
class Link:
    """What the relay plays. ``bytes_per_second``: 0 is no limit. ``delay_seconds``: each way."""

    bytes_per_second: int = 0
    delay_seconds: float = 0.0

    @property
    def capacity_bytes(self) -> int:
        """What is under way at most: what the delay holds, and a router's buffer."""
        if not self.bytes_per_second:
            return _UNPACED_BYTES
        held = self.bytes_per_second * (self.delay_seconds + _BUFFER_SECONDS)
        return max(int(held), 2 * _BLOCK_BYTES)


class Pacer:
    """Says when bytes arrive. Pure: time is an argument."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._free_at = 0.0

    def arrival(self, now: float, size_bytes: int) -> float:
        """Return when the last of these bytes, sent now, comes out at the other end."""
        self._free_at = max(self._free_at, now)
        if self._link.bytes_per_second:
            self._free_at += size_bytes / self._link.bytes_per_second
        return self._free_at + self._link.delay_seconds


def relay_argv(link: Link, listen_port: int, to_port: int) -> list[str]:
    """Return the command of a relay."""
    numbers = (listen_port, to_port, link.bytes_per_second, link.delay_seconds)
    return [sys.executable, "-I", "-S", __file__, *(str(one) for one in numbers)]


class _Way:
    """One direction of one connection."""

    def __init__(self, link: Link) -> None:
        self._capacity_bytes = link.capacity_bytes
        self._pacer = Pacer(link)
        self._under_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._bytes = 0
        self._room = asyncio.Condition()

    async def take(self, reader: asyncio.StreamReader) -> None:
        """Read until the end of the stream."""
        data = b"more"
        while data:
            try:
                data = await reader.read(_BLOCK_BYTES)
            except ConnectionError:
                data = b""
            async with self._room:
                await self._room.wait_for(lambda: self._bytes < self._capacity_bytes)
                self._bytes += len(data)
            arrival = self._pacer.arrival(time.monotonic(), len(data))
            self._under_way.put_nowait((arrival, data))

    async def give(self, writer: asyncio.StreamWriter) -> None:
        """Write what has arrived, until the end of the stream has."""
        with contextlib.suppress(ConnectionError):
            while True:
                arrival, data = await self._under_way.get()
                await asyncio.sleep(max(0.0, arrival - time.monotonic()))
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
                async with self._room:
                    self._bytes -= len(data)
                    self._room.notify()


async def serve(link: Link, listen_port: int, to_port: int) -> None:
    """Relay every connection until cancelled."""

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to_port)
        there, back = _Way(link), _Way(link)
        await asyncio.gather(
            there.take(reader), there.give(far_writer), back.take(far_reader), back.give(writer)
        )
        for one in (writer, far_writer):
            one.close()

    server = await asyncio.start_server(relay, "127.0.0.1", listen_port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(
        serve(Link(int(sys.argv[3]), float(sys.argv[4])), int(sys.argv[1]), int(sys.argv[2]))
    )
