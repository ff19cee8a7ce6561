"""Listens for TLS connections; hands over those whose handshake succeeded."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, NamedTuple

from blockrep.errors import BlockrepError, BusyError, ConfigurationError, ConnectionLostError
from blockrep.transport.interface import PeerInfo
from blockrep.transport.joining import announces_join
from blockrep.transport.sockets import Readiness, address_text, set_connection_options
from blockrep.transport.tls import TlsTransport, drain, peer_info, shake_hands, wrap
from blockrep.transport.tls_errors import explain, presented_certificate
from blockrep.transport.tls_identity import client_identity, presented_peer

__all__ = ["Joins", "TlsListener"]

_BACKLOG: Final = 128
_ACCEPTS_PER_TURN: Final = 16
_RETRY_ACCEPT_SECONDS: Final = 1.0
#: So long is a refused client's stream kept, for it to read the alert that says why.
_LINGER_SECONDS: Final = 1.0
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})
_BIND_ADVICE: Final = {
    errno.EADDRINUSE: "stop what listens there (another blockrep-server?), or choose another port",
    errno.EACCES: "choose a port above 1023, or run as root",
    errno.EADDRNOTAVAIL: "use an address of this host",
}


class _NotAdmittedError(Exception):
    """A handshake that failed, and the certificate that it failed with."""

    def __init__(self, peer: PeerInfo, reason: BlockrepError) -> None:
        super().__init__(str(reason))
        self.peer = peer
        self.reason = reason


class Joins(NamedTuple):
    """Answers connections that announce a join.

    ``context`` asks for no certificate, and is used while ``is_open`` says so; ``serve`` ends by
    itself, in bounded time, and is cancelled if others wait for the slot.
    """

    context: ssl.SSLContext
    is_open: Callable[[], bool]
    serve: Callable[[TlsTransport], Awaitable[None]]


class TlsListener:
    """Accepts connections; whoever is not authenticated costs one slot of few, for a short time.

    While all slots are taken nothing is accepted: clients wait in the kernel's queue rather than
    being turned away. While some wait, whoever is not authenticated for longest has to give way
    after a while, one that joins too: connections that say nothing must not keep the others out.

    Args:
        context: of :func:`blockrep.transport.tls_context.server_context`.
        serve: called with each authenticated connection; the connection is dropped when it returns
            without having closed it.
        joins: what answers hosts that ask for a certificate; None: nobody does.
        refused: told of each connection that did not get so far: who it is, as far as its
            certificate says (nobody proved it), and why.
        max_unauthenticated: connections whose handshake is under way.
        handshake_seconds: how long a handshake may take, with what comes before it.
        patience_seconds: how long a slot may be had at least, while others wait for it.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        serve: Callable[[TlsTransport], Awaitable[None]],
        *,
        joins: Joins | None = None,
        refused: Callable[[PeerInfo, BlockrepError], None],
        max_unauthenticated: int = 32,
        handshake_seconds: float = 10.0,
        patience_seconds: float = 0.5,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = context
        self._joins = joins
        self._serve = serve
        self._refused = refused
        self._max_unauthenticated = max_unauthenticated
        self._handshake_seconds = handshake_seconds
        self._patience_seconds = patience_seconds
        self._listening: list[socket.socket] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        #: When each came that may have to give way, and what ends it.
        self._slots: dict[asyncio.Task[None], tuple[float, asyncio.Timeout]] = {}
        self._served: set[asyncio.Task[None]] = set()
        self._accepting = False
        self._retry: asyncio.TimerHandle | None = None

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of every listening socket; for port 0 the one that the kernel chose."""
        return [sock.getsockname()[:2] for sock in self._listening]

    def use(self, context: ssl.SSLContext, joins: Joins | None) -> None:
        """Let others hold for the connections whose handshake begins from now on."""
        self._context = context
        self._joins = joins

    async def start(self, addresses: Sequence[tuple[str, int]]) -> None:
        """Listen on all of the addresses, or on none. An empty host: every address of this host.

        Raises:
            ConfigurationError: one of them cannot be bound; says why.
        """
        try:
            for host, port in addresses:
                await self._bind(host, port)
        except BaseException:
            self._close_listening()
            raise
        self._resume()

    def adopt(self, sock: socket.socket) -> None:
        """Take over a socket that listens already, made by the service manager. Before start."""
        sock.setblocking(False)
        self._listening.append(sock)

    async def close(self, *, drop: bool = True) -> None:
        """Stop listening, drop unfinished handshakes; return when everything served has ended.

        Args:
            drop: cancel what is being served; else wait for it.
        """
        self._pause()
        if self._retry is not None:
            self._retry.cancel()
        self._close_listening()
        for task in self._handshakes | (self._served if drop else set()):
            task.cancel()
        while tasks := self._handshakes | self._served:
            await asyncio.wait(tasks)

    async def _bind(self, host: str, port: int) -> None:
        where = address_text(host or "*", port)
        try:
            found = await self._loop.getaddrinfo(
                host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(
                "there is no such address",
                where=where,
                next_step="use an address of this host",
            ) from error
        bound = 0
        for family, _, _, _, address in found:
            try:
                self._listening.append(_listen(family, address))
                bound += 1
            except OSError as error:
                if not host and family == socket.AF_INET6 and error.errno in _NO_IPV6:
                    continue  # "every address" of a host without IPv6
                raise ConfigurationError(
                    f"cannot listen there: {error.strerror}",
                    where=where,
                    next_step=_BIND_ADVICE.get(error.errno or 0),
                ) from error
        if not bound:
            raise ConfigurationError("this host has no such address", where=where)

    def _close_listening(self) -> None:
        for sock in self._listening:
            sock.close()
        self._listening.clear()

    def _resume(self) -> None:
        if not self._accepting:
            self._accepting = True
            for sock in self._listening:
                self._loop.add_reader(sock.fileno(), self._accept, sock)

    def _pause(self) -> None:
        if self._accepting:
            self._accepting = False
            for sock in self._listening:
                self._loop.remove_reader(sock.fileno())

    def _accept(self, listening: socket.socket) -> None:
        if len(self._handshakes) >= self._max_unauthenticated:
            self._make_room()
            return
        for _ in range(_ACCEPTS_PER_TURN):
            if len(self._handshakes) >= self._max_unauthenticated:
                return  # whether anybody waits shows when the loop calls again
            try:
                sock, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                self._accept_failed(listening, error)
                return
            task = self._loop.create_task(self._admit(sock, address_text(*address[:2])))
            self._handshakes.add(task)
            task.add_done_callback(self._ended)

    def _make_room(self) -> None:
        """Somebody waits: stop accepting until a slot is free, and see to it that one will be."""
        self._pause()
        now = self._loop.time()
        came, slot = min(self._slots.values(), key=lambda one: one[0], default=(now, None))
        wait_seconds = came + self._patience_seconds - now
        if wait_seconds <= 0:
            if slot is not None and not slot.expired():
                slot.reschedule(now)
            wait_seconds = self._patience_seconds
        # Even if a slot is about to be free: nothing else looks again, should it not be.
        self._resume_later(wait_seconds)

    def _resume_later(self, wait_seconds: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(wait_seconds, self._resume)

    def _accept_failed(self, listening: socket.socket, error: OSError) -> None:
        """Try again a little later: a socket that stays ready would spin the loop."""
        self._pause()
        self._resume_later(_RETRY_ACCEPT_SECONDS)
        advice = "raise the limit of open files (LimitNOFILE= of the unit)"
        self._refused(
            PeerInfo("", address_text(*listening.getsockname()[:2]), ""),
            BusyError(
                f"no connection can be accepted: {error.strerror}",
                safe="running sessions go on",
                next_step=advice if error.errno in _OUT_OF_RESOURCES else None,
            ),
        )

    async def _admit(self, sock: socket.socket, address: str) -> None:
        transport = await self._authenticate(sock, address)
        if transport is None:
            return
        task = asyncio.current_task()
        assert task is not None
        self._handshakes.discard(task)
        self._resume()
        self._served.add(task)
        try:
            await self._serve(transport)
        finally:
            transport.abort()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._handshakes.discard(task)
        self._served.discard(task)
        self._resume()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._loop.call_exception_handler(
                {"message": "serving a connection failed", "exception": error, "task": task}
            )

    async def _authenticate(self, sock: socket.socket, address: str) -> TlsTransport | None:
        """Do the handshake; on failure report it, let the client read why, close, return None.

        A join is answered here, within the bounds of those who are not authenticated.
        """
        came = self._loop.time()
        tls: ssl.SSLSocket | None = None
        transport: TlsTransport | None = None
        try:
            async with self._slot(came, address):
                set_connection_options(sock)
                joins = await self._joins_of(sock, came, address)
                open_to_all = joins is not None and joins.is_open()
                tls = wrap(joins.context if joins and open_to_all else self._context, sock)
                readiness = Readiness(tls.fileno())
                await self._greet(tls, readiness, came, address)
                if joins is None:
                    transport = _authenticated(tls, readiness, address)
                else:
                    await _answer_join(joins, tls, readiness, address)
        except _NotAdmittedError as error:
            self._refused(error.peer, error.reason)
        except BlockrepError as error:
            self._refused(PeerInfo("", address, ""), error)
        except OSError as error:
            self._refused(PeerInfo("", address, ""), explain(error, address, handshake=True))
        finally:
            if transport is None:
                (tls or sock).close()
        return transport

    @contextlib.asynccontextmanager
    async def _slot(self, came: float, address: str) -> AsyncIterator[None]:
        """Take a slot, until it has to be given to others."""
        task = asyncio.current_task()
        assert task is not None
        slot = asyncio.timeout(None)
        try:
            async with slot:
                self._slots[task] = (came, slot)
                yield
        except TimeoutError as error:
            if not slot.expired():
                raise  # the connection's own
            seconds = round(self._loop.time() - came, 1)
            raise ConnectionLostError(
                f"not authenticated after {seconds:g} seconds, while others wait", where=address
            ) from error
        finally:
            del self._slots[task]

    @contextlib.asynccontextmanager
    async def _limited(self, came: float, address: str) -> AsyncIterator[None]:
        """Limit the time of a part of a handshake: the parts share it."""
        try:
            async with asyncio.timeout_at(came + self._handshake_seconds):
                yield
        except TimeoutError as error:
            seconds = round(self._loop.time() - came, 1)
            raise ConnectionLostError(
                f"no TLS handshake within {seconds:g} seconds", where=address
            ) from error

    async def _joins_of(self, sock: socket.socket, came: float, address: str) -> Joins | None:
        if self._joins is None:
            return None
        async with self._limited(came, address):
            return self._joins if await announces_join(sock) else None

    async def _greet(
        self, tls: ssl.SSLSocket, readiness: Readiness, came: float, address: str
    ) -> None:
        try:
            async with self._limited(came, address):
                await shake_hands(tls, readiness)
        except ssl.SSLError as error:
            explained = explain(
                error, address, handshake=True, certificate=presented_certificate(tls)
            )
            peer = presented_peer(tls, address)
            task = asyncio.current_task()
            assert task is not None
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_LINGER_SECONDS) as linger:
                    # If it has to give way now, what is told is still why it was refused.
                    self._slots[task] = (came, linger)
                    await drain(tls, readiness)
            raise _NotAdmittedError(peer, explained) from error


async def _answer_join(
    joins: Joins, tls: ssl.SSLSocket, readiness: Readiness, address: str
) -> None:
    transport = TlsTransport(tls, readiness, peer_info(tls, address, ""))
    try:
        await joins.serve(transport)
    finally:
        transport.abort()


def _authenticated(tls: ssl.SSLSocket, readiness: Readiness, address: str) -> TlsTransport:
    try:
        identity = client_identity(tls, address)
    except ConfigurationError as error:
        raise _NotAdmittedError(peer_info(tls, address, ""), error) from error
    return TlsTransport(tls, readiness, peer_info(tls, address, identity))


def _listen(
    family: int, address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]
) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # So that "every address" can be one socket of each family on the same port.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock
