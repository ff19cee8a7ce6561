"""A channel of an SSH connection as a transport."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import asyncssh

from blockrep.errors import ConnectionLostError
from blockrep.transport.interface import PeerInfo
from blockrep.transport.ssh.far_end import ProgramEnd

__all__ = ["ChannelTransport"]

#: Received and not yet taken; SSH's own window bounds what is on its way.
_BUFFERED_BYTES = 4 * 1024 * 1024
_STDERR_BYTES = 4096
#: One piece of this size is what the library encrypts and copies in one go.
_WRITE_BYTES = 256 * 1024
_CLOSE_SECONDS = 2.0
_END_SECONDS = 5.0

Buffer = bytes | bytearray | memoryview


class ChannelTransport(asyncssh.SSHClientSession[bytes]):
    """One program on the other host: its standard input and output.

    Args:
        peer: the host, which SSH has authenticated.
        hang_up: ends the connection that the channel belongs to.
    """

    def __init__(self, peer: PeerInfo, hang_up: Callable[[], Awaitable[None]]) -> None:
        self.peer = peer
        self._hang_up = hang_up
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._received: deque[memoryview] = deque()
        self._received_bytes = 0
        self._stderr = b""
        self._ended = False
        self._broken: Exception | None = None
        self._closed = asyncio.Event()
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()

    # -- what asyncssh calls

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """Note the channel."""
        self._channel = chan

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """Keep what came; stop the peer when nobody takes it."""
        if datatype == asyncssh.EXTENDED_DATA_STDERR:
            self._stderr = (self._stderr + data)[-_STDERR_BYTES:]
            return
        self._received.append(memoryview(data))
        self._received_bytes += len(data)
        self._readable.set()
        if self._received_bytes >= _BUFFERED_BYTES and self._channel is not None:
            self._channel.pause_reading()

    def eof_received(self) -> bool:
        """Note the end of the peer's stream; ours stays open."""
        self._ended = True
        self._readable.set()
        return True

    def pause_writing(self) -> None:
        """Make senders wait."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """Let senders go on."""
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wake everybody."""
        self._broken = exc
        self._ended = True
        self._closed.set()
        self._readable.set()
        self._writable.set()

    # -- the transport

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte; 0 once the program closed its output."""
        while not self._received:
            if self._broken is not None:
                raise self._lost(str(self._broken) or "the SSH connection broke")
            if self._ended:
                return 0
            self._readable.clear()
            await self._readable.wait()
        count = 0
        while self._received and count < len(buffer):
            piece = self._received.popleft()
            taken = piece[: len(buffer) - count]
            buffer[count : count + len(taken)] = taken
            count += len(taken)
            if len(taken) < len(piece):
                self._received.appendleft(piece[len(taken) :])
        before = self._received_bytes
        self._received_bytes -= count
        if self._received_bytes < _BUFFERED_BYTES <= before and self._channel is not None:
            self._channel.resume_reading()
        return count

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Hand all the buffers to the library, which copies them, and wait until it has room.

        A piece is handed over whole or not at all, so a cancelled send must not stop in between:
        the rest of it is handed over at once, and the library's queue grows by no more than that.
        """
        pieces = [
            view[at : at + _WRITE_BYTES]
            for view in (memoryview(buffer) for buffer in buffers)
            for at in range(0, len(view), _WRITE_BYTES)
        ]
        sent = 0
        try:
            for piece in pieces:
                await self._writable.wait()
                self._write(piece)
                sent += 1
            await self._writable.wait()
        except asyncio.CancelledError:
            with contextlib.suppress(ConnectionLostError):
                for piece in pieces[sent:]:
                    self._write(piece)
            raise

    async def close(self) -> None:
        """Close the program's input, wait a little for its end, hang up."""
        channel = self._channel
        if channel is not None and not self._closed.is_set():
            with contextlib.suppress(TimeoutError, OSError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    channel.write_eof()
                    self._drop_received()
                    await self._closed.wait()
        self.abort()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._hang_up()

    def abort(self) -> None:
        """Drop the channel at once."""
        if self._channel is not None:
            self._channel.abort()
        self.connection_lost(self._broken or OSError("the connection was closed on this side"))

    async def program_end(self) -> ProgramEnd:
        """Wait a little for the program's end and return it."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_SECONDS):
                await self._closed.wait()
        status = None if self._channel is None else self._channel.get_exit_status()
        return ProgramEnd(status, self._stderr.decode(errors="replace"))

    def _drop_received(self) -> None:
        self._received.clear()
        self._received_bytes = 0
        if self._channel is not None:
            self._channel.resume_reading()

    def _write(self, piece: memoryview) -> None:
        if self._channel is None or self._closed.is_set():
            raise self._lost(str(self._broken) if self._broken else "the far side ended")
        try:
            self._channel.write(bytes(piece))
        except OSError as error:
            raise self._lost("the far side ended") from error

    def _lost(self, what: str) -> ConnectionLostError:
        return ConnectionLostError(what, where=self.peer.address)
