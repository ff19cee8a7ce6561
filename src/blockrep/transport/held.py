"""A stream that something else has to outlive: a tunnel, a temporary folder."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from blockrep.transport.interface import PeerInfo, Transport

__all__ = ["HeldTransport"]


class HeldTransport:
    """A transport that closes a stack of contexts after itself.

    Args:
        stream: the bytes.
        held: what they travel through.
    """

    def __init__(self, stream: Transport, held: contextlib.AsyncExitStack) -> None:
        self._stream = stream
        self._held = held
        self._releasing: asyncio.Task[None] | None = None
        self.peer: PeerInfo = stream.peer

    async def receive_into(self, buffer: memoryview) -> int:
        """See :class:`blockrep.transport.interface.Transport`."""
        return await self._stream.receive_into(buffer)

    async def send(self, buffers: Sequence[bytes | bytearray | memoryview]) -> None:
        """See :class:`blockrep.transport.interface.Transport`."""
        await self._stream.send(buffers)

    async def close(self) -> None:
        """See :class:`blockrep.transport.interface.Transport`."""
        await self._stream.close()
        await self._release()

    def abort(self) -> None:
        """See :class:`blockrep.transport.interface.Transport`."""
        self._stream.abort()
        self._release()

    def _release(self) -> asyncio.Task[None]:
        if self._releasing is None:
            self._releasing = asyncio.get_running_loop().create_task(self._held.aclose())
        return self._releasing
