"""The transport over a pair of file descriptors: pipes of SSH, or a Unix socket.

Nothing is encrypted here and nobody is authenticated: whoever made the descriptors vouches for the
peer.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import Sequence

from blockrep.errors import ConnectionLostError
from blockrep.transport.interface import PeerInfo
from blockrep.transport.sockets import Readiness

__all__ = ["DescriptorTransport"]

# IOV_MAX of Linux; a batch of frames has a few dozen buffers.
_MAX_VECTOR = 1024
#: After so long without a pause the loop gets its turn: heartbeats, the other direction.
_TURN_SECONDS = 0.004
_CLOSE_SECONDS = 2.0
_DRAIN_BYTES = 64 * 1024

Buffer = bytes | bytearray | memoryview


class DescriptorTransport:
    """One stream; owns the descriptors, which may be the same for both directions.

    Args:
        read_descriptor: read from it; pipe, socket or terminal.
        write_descriptor: written to.
        peer: who is at the other end, as whoever made the descriptors knows.
    """

    def __init__(self, read_descriptor: int, write_descriptor: int, peer: PeerInfo) -> None:
        self._loop = asyncio.get_running_loop()
        self._reading = read_descriptor
        self._writing = write_descriptor
        for descriptor in {read_descriptor, write_descriptor}:
            os.set_blocking(descriptor, False)
        self._readable = Readiness(read_descriptor)
        # One socket for both directions has one waiter: the loop knows it by its number.
        same = read_descriptor == write_descriptor
        self._writable = self._readable if same else Readiness(write_descriptor)
        self.peer = peer
        self._rest: list[Buffer] = []
        self._sending = False
        self._closed = False
        self._turn_until = 0.0

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte; 0 once the peer ended the stream.

        Raises:
            ConnectionLostError: the stream broke.
        """
        assert buffer, "a receive needs room"
        await self._give_way()
        while True:
            self._check_open()
            try:
                return os.readv(self._reading, [buffer])
            except BlockingIOError:
                await self._readable.readable()
            except OSError as error:
                raise self._lost(os.strerror(error.errno or 0).lower()) from error
            self._start_turn()

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Hand all the buffers to the kernel; what a cancelled send had left goes out first.

        Raises:
            ConnectionLostError: the stream broke.
        """
        assert not self._sending, "one send at a time"
        waiting = deque(memoryview(one) for one in (*self._rest, *buffers) if len(one))
        self._rest = []
        self._sending = True
        try:
            await self._send_waiting(waiting)
        except OSError as error:
            raise self._lost(os.strerror(error.errno or 0).lower()) from error
        except asyncio.CancelledError:
            self._rest = [b"".join(waiting)]
            raise
        finally:
            self._sending = False

    async def close(self) -> None:
        """End our direction, wait a little for the peer to end the other, close."""
        if self._closed:
            return
        with contextlib.suppress(TimeoutError, ConnectionLostError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                if self._rest:
                    await self.send(())
                self._end_writing()
                scrap = memoryview(bytearray(_DRAIN_BYTES))
                while await self.receive_into(scrap):
                    pass
        self.abort()

    def abort(self) -> None:
        """Drop the stream at once; pending calls raise ConnectionLostError."""
        if self._closed:
            return
        self._closed = True
        self._readable.wake()
        self._writable.wake()
        for descriptor in {self._reading, self._writing} - {-1}:
            os.close(descriptor)

    def _end_writing(self) -> None:
        if self._writing == self._reading:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(self._writing)) as sock:
                sock.shutdown(socket.SHUT_WR)
            return
        self._writable.wake()
        os.close(self._writing)
        self._writing = -1

    async def _send_waiting(self, waiting: deque[memoryview]) -> None:
        while waiting:
            self._check_open()
            try:
                while waiting and self._loop.time() <= self._turn_until:
                    batch = [waiting[at] for at in range(min(len(waiting), _MAX_VECTOR))]
                    _drop(waiting, os.writev(self._writing, batch))
                if not waiting:
                    return
                await asyncio.sleep(0)
            except BlockingIOError:
                await self._writable.writable()
            self._start_turn()

    async def _give_way(self) -> None:
        if self._loop.time() > self._turn_until:
            await asyncio.sleep(0)
            self._start_turn()

    def _start_turn(self) -> None:
        self._turn_until = self._loop.time() + _TURN_SECONDS

    def _check_open(self) -> None:
        if self._closed or (self._sending and self._writing < 0):
            raise self._lost("the connection was closed on this side")

    def _lost(self, what: str) -> ConnectionLostError:
        return ConnectionLostError(what, where=self.peer.address)


def _drop(waiting: deque[memoryview], count: int) -> None:
    """Take what was written from the front."""
    while count:
        first = waiting.popleft()
        if len(first) > count:
            waiting.appendleft(first[count:])
            return
        count -= len(first)
