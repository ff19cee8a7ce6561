"""Two transports joined in memory, for tests: backpressure, end of stream, a cut at will."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Sequence
from typing import Final

from blockrep.errors import ConnectionLostError
from blockrep.transport.interface import PeerInfo

__all__ = ["MemoryTransport", "memory_pair"]

_DEFAULT_LIMIT_BYTES: Final = 1024 * 1024


class _Pipe:
    """One direction: bytes on their way, at most ``limit_bytes`` of them."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.waiting = bytearray()
        self.ended = False  # the writer says that no more comes
        self.broken = False  # neither end can use it
        self._waiters: list[asyncio.Future[None]] = []

    async def wait(self) -> None:
        """Wait for a change."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def changed(self) -> None:
        """Wake whoever waits for a change."""
        if self._waiters:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)
            self._waiters.clear()

    def end(self) -> None:
        self.ended = True
        self.changed()

    def break_off(self) -> None:
        self.broken = True
        self.waiting.clear()
        self.changed()


class _Turn:
    """One turn of the loop, as ``asyncio.sleep(0)``, for a fifth of its price."""

    def __await__(self) -> Generator[None, None, None]:
        """Let others run."""
        yield


_TURN: Final = _Turn()


class MemoryTransport:
    """One end of a pair; see :func:`memory_pair`."""

    def __init__(
        self, peer: PeerInfo, incoming: _Pipe, outgoing: _Pipe, gives_way: Callable[[], bool]
    ) -> None:
        self.peer = peer
        self._gives_way = gives_way
        self._incoming = incoming
        self._outgoing = outgoing
        self._closed = False

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive what is there; 0 at the end of the stream.

        Raises:
            ConnectionLostError: the pair was cut, or this end closed.
        """
        assert buffer, "a receive needs room"
        if self._gives_way():
            await _TURN
        pipe = self._incoming
        while True:
            self._check(pipe)
            if pipe.waiting or pipe.ended:
                break
            await pipe.wait()
        count = min(len(buffer), len(pipe.waiting))
        buffer[:count] = pipe.waiting[:count]
        del pipe.waiting[:count]
        pipe.changed()
        return count

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """Put all the buffers on their way; waits while the peer does not receive.

        A cancelled send is completed without waiting: the stream stays whole.

        Raises:
            ConnectionLostError: the pair was cut, or one end closed.
        """
        pipe = self._outgoing
        view = memoryview(b"".join(buffers))
        try:
            while view:
                if self._gives_way():
                    await _TURN
                self._check(pipe)
                room = pipe.limit_bytes - len(pipe.waiting)
                if room <= 0:
                    await pipe.wait()
                    continue
                pipe.waiting += view[:room]
                view = view[room:]
                pipe.changed()
        except asyncio.CancelledError:
            # Beyond the limit, once: half a message followed by another would be damage.
            pipe.waiting += view
            pipe.changed()
            raise

    async def close(self) -> None:
        """End the stream: the peer still receives what is on its way, then the end."""
        if not self._closed:
            self._closed = True
            self._outgoing.end()
            self._incoming.break_off()

    def abort(self) -> None:
        """Drop the stream; bytes on their way are lost."""
        self._closed = True
        self.cut()

    def cut(self) -> None:
        """Break the connection under both ends, as a network does."""
        self._incoming.break_off()
        self._outgoing.break_off()

    def _check(self, pipe: _Pipe) -> None:
        if self._closed or pipe.broken:
            what = (
                "the connection was closed on this side" if self._closed else "the connection broke"
            )
            raise ConnectionLostError(what, where=self.peer.address)


def memory_pair(
    limit_bytes: int = _DEFAULT_LIMIT_BYTES,
    *,
    client_name: str = "client",
    server_name: str = "server",
    gives_way: Callable[[], bool] = lambda: True,
) -> tuple[MemoryTransport, MemoryTransport]:
    """Return the client's and the server's end of a connection.

    Args:
        limit_bytes: how much may be on its way in each direction before a send waits.
        client_name: the identity that the server sees.
        server_name: the identity that the client sees.
        gives_way: whether a call that need not wait lets others run first. Transports over sockets
            do when they have had the loop for a while.
    """
    up, down = _Pipe(limit_bytes), _Pipe(limit_bytes)
    at_client = PeerInfo(server_name, f"memory:{server_name}", "")
    at_server = PeerInfo(client_name, f"memory:{client_name}", "")
    client = MemoryTransport(at_client, down, up, gives_way)
    server = MemoryTransport(at_server, up, down, gives_way)
    return client, server
