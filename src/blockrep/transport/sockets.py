"""Sockets on an event loop: waiting for readiness, and the options that every connection gets.

``loop.add_reader`` and ``add_writer`` know one callback for each direction of a descriptor. The
receiving and the sending coroutine of one TLS connection may both have to wait for the same
direction, so :class:`Readiness` keeps the waiters.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

__all__ = ["Readiness", "address_text", "set_connection_options"]

_KEEPALIVE_IDLE_SECONDS = 60
_KEEPALIVE_INTERVAL_SECONDS = 15
_KEEPALIVE_PROBES = 4


class Readiness:
    """Waits until one non-blocking descriptor can be read or written.

    Registration is dropped as soon as it fires: a descriptor that stays ready would otherwise spin
    the loop while its owner is busy elsewhere.
    """

    def __init__(self, descriptor: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        self._readers: list[asyncio.Future[None]] = []
        self._writers: list[asyncio.Future[None]] = []

    async def readable(self) -> None:
        """Wait until a read may succeed. Raises CancelledError once closed."""
        if not self._readers:
            self._loop.add_reader(self._descriptor, self._wake_readers)
        await self._wait(self._readers, self._loop.remove_reader)

    async def writable(self) -> None:
        """Wait until a write may succeed. Raises CancelledError once closed."""
        if not self._writers:
            self._loop.add_writer(self._descriptor, self._wake_writers)
        await self._wait(self._writers, self._loop.remove_writer)

    def wake(self) -> None:
        """Wake all who wait: they find out themselves why. Call before closing."""
        self._wake_readers()
        self._wake_writers()

    async def _wait(
        self, waiters: list[asyncio.Future[None]], remove: Callable[[int], object]
    ) -> None:
        future = self._loop.create_future()
        waiters.append(future)
        try:
            await future
        finally:
            # Still listed: cancelled, not woken.
            with contextlib.suppress(ValueError):
                waiters.remove(future)
                if not waiters:
                    remove(self._descriptor)

    def _wake_readers(self) -> None:
        self._wake(self._readers, self._loop.remove_reader)

    def _wake_writers(self) -> None:
        self._wake(self._writers, self._loop.remove_writer)

    def _wake(self, waiters: list[asyncio.Future[None]], remove: Callable[[int], object]) -> None:
        if not waiters:
            return
        remove(self._descriptor)
        for future in waiters:
            if not future.done():
                future.set_result(None)
        waiters.clear()


def set_connection_options(sock: socket.socket) -> None:
    """Make a connected TCP socket non-blocking, prompt, and aware of a peer that vanished.

    Buffer sizes are left to the kernel: setting them switches its autotuning off, which serves both
    loopback and long links better than any one number (tcp(7)).
    """
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_PROBES)


def address_text(host: str, port: int) -> str:
    """Return ``host:port``, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
