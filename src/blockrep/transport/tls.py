"""The transport over TLS 1.3: a non-blocking ``ssl.SSLSocket`` driven straight from the event loop.

Every operation is tried first; only when TLS says that it wants to read or write does the coroutine
wait for the socket. That saves the copies, callbacks and memory buffers of asyncio's own TLS, which
halve the rate. Both directions share one TLS object, which is sound because all runs in one thread;
a receiver may have to wait for writing (to answer a KeyUpdate) and a sender for reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

from blockrep.errors import BlockrepError, ConfigurationError, ConnectionLostError
from blockrep.transport.interface import PeerInfo
from blockrep.transport.sockets import Readiness, address_text, set_connection_options
from blockrep.transport.tls_errors import certificate_names, explain, presented_certificate

__all__ = [
    "TlsTransport",
    "connect",
    "drain",
    "open_tcp",
    "peer_info",
    "shake_hands",
    "start_tls",
    "wrap",
]

#: Records (of at most 16 KiB) taken by one receive. It bounds the time that the loop waits for a
#: peer who sends tiny ones.
_MAX_RECORDS: Final = 128
#: After so long without a pause the loop gets its turn: heartbeats, the other direction, and the
#: storage thread, which is given more to do only then.
_TURN_SECONDS: Final = 0.0005
#: Buffers up to this size are copied into one record; larger ones are worth a record of their own.
_JOIN_BYTES: Final = 4096
_CLOSE_SECONDS: Final = 2.0
_DRAIN_BYTES: Final = 64 * 1024
_CLOSED_HERE: Final = "the connection was closed on this side"

Buffer = bytes | bytearray | memoryview


class TlsTransport:
    """One TLS connection whose handshake is complete. Made by :func:`connect` and by the listener.

    Args:
        tls: the connection, non-blocking.
        readiness: the waiter of its descriptor.
        peer: who is at the other end.
    """

    def __init__(self, tls: ssl.SSLSocket, readiness: Readiness, peer: PeerInfo) -> None:
        self._loop = asyncio.get_running_loop()
        self._tls = tls
        self._readiness = readiness
        self.peer = peer
        self._turn_until = 0.0
        self._sending = False
        self._closed = False
        self._rest = b""
        self._fault: BlockrepError | None = None

    async def receive_into(self, buffer: memoryview) -> int:
        """Receive at least one byte and what else is there; 0 once the peer ended the stream.

        Raises:
            ConnectionLostError: the stream was cut.
            RefusedError: the peer does not accept our certificate (with TLS 1.3 that is told on the
                first read).
        """
        assert buffer, "a receive needs room"
        await self._give_way()
        while True:
            self._check_usable()
            try:
                return self._receive_ready(buffer)
            except ssl.SSLWantReadError:
                await self._readiness.readable()
            except ssl.SSLWantWriteError:
                await self._readiness.writable()
            except OSError as error:
                raise self._failed(error) from error
            self._start_turn()

    async def send(self, buffers: Sequence[Buffer]) -> None:
        """Hand all the buffers to the kernel, encrypted.

        What a cancelled send had left is kept, and goes ahead of the next one or of the end: the
        stream stays whole.

        Raises:
            ConnectionLostError: the stream broke.
        """
        self._check_usable()
        assert not self._sending, "one send at a time"
        waiting = deque(memoryview(buffer) for buffer in _joined([self._rest, *buffers]))
        self._sending = True
        try:
            await self._send_waiting(waiting)
            self._rest = b""
        except OSError as error:
            raise self._failed(error) from error
        except asyncio.CancelledError:
            self._rest = b"".join(waiting)
            raise
        finally:
            self._sending = False

    async def close(self) -> None:
        """Say that the stream ends, wait a little for the peer to do the same, close."""
        if self._closed:
            return
        if self._sending or self._fault is not None:
            self.abort()
            return
        try:
            with contextlib.suppress(OSError, TimeoutError, BlockrepError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self.send(())
                    self._fault = self._lost(_CLOSED_HERE)
                    self._readiness.wake()
                    await end_stream(self._tls, self._readiness)
        finally:
            self._close_now()

    def abort(self) -> None:
        """Drop the stream: the peer gets a reset, our pending calls a ConnectionLostError."""
        if self._closed:
            return
        with contextlib.suppress(OSError):
            self._tls.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close_now()

    def _close_now(self) -> None:
        self._closed = True
        self._fault = self._fault or self._lost(_CLOSED_HERE)
        self._readiness.wake()
        self._tls.close()

    def _receive_ready(self, buffer: memoryview) -> int:
        """Take what is there, record by record. Raises SSLWantReadError only if that is nothing."""
        filled = 0
        try:
            for _ in range(_MAX_RECORDS):
                count = self._tls.recv_into(buffer[filled:], len(buffer) - filled)
                filled += count
                if count == 0 or filled == len(buffer):
                    break
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            if not filled:
                raise
        except OSError as error:
            if not filled:
                raise
            self._failed(
                error
            )  # what came before the fault counts; the next call tells of the fault
        return filled

    async def _send_waiting(self, waiting: deque[memoryview]) -> None:
        """Send the buffers, taking from ``waiting`` what is gone."""
        send, time = self._tls.send, self._loop.time
        while waiting:
            self._check_usable()
            view = waiting.popleft()
            try:
                # What was tried and not taken is offered again, unchanged (SSL_write(3)).
                while view and time() <= self._turn_until:
                    view = view[send(view) :]
                if not view:
                    continue
                await asyncio.sleep(0)
            except ssl.SSLWantWriteError:
                await self._readiness.writable()
            except ssl.SSLWantReadError:
                await self._readiness.readable()
            finally:
                if view:
                    waiting.appendleft(view)
            self._start_turn()

    async def _give_way(self) -> None:
        if self._loop.time() > self._turn_until:
            await asyncio.sleep(0)
            self._start_turn()

    def _start_turn(self) -> None:
        self._turn_until = self._loop.time() + _TURN_SECONDS

    def _check_usable(self) -> None:
        if self._fault is not None:
            raise self._fault

    def _failed(self, error: OSError) -> BlockrepError:
        """Remember the first fault: the TLS object is of no use after it, in either direction."""
        if self._fault is None:
            self._fault = explain(error, self.peer.address)
        return self._fault

    def _lost(self, what: str) -> ConnectionLostError:
        return ConnectionLostError(what, where=self.peer.address)


async def connect(
    host: str,
    port: int,
    context: ssl.SSLContext,
    *,
    timeout_seconds: float = 10.0,
    server_name: str = "",
) -> TlsTransport:
    """Connect and shake hands.

    That proves who the server is; whether it accepts us shows on the first read.

    Args:
        host: name or address.
        port: TCP port.
        context: of :func:`blockrep.transport.tls_context.client_context`.
        timeout_seconds: for all of it: name, TCP, TLS.
        server_name: the name that the server's certificate must carry, if it is not ``host``.

    Raises:
        ConfigurationError: the name is unknown, the server's certificate is not acceptable, or it
            does not speak TLS 1.3.
        ConnectionLostError: it does not answer.
        RefusedError: it refused our certificate during the handshake.
    """
    where = address_text(host, port)
    try:
        async with asyncio.timeout(timeout_seconds):
            sock = await open_tcp(host, port, timeout_seconds)
            return await start_tls(sock, where, context, server_name or host)
    except TimeoutError as error:
        raise _unreachable(f"no answer within {timeout_seconds:g} seconds", where) from error


async def open_tcp(host: str, port: int, timeout_seconds: float) -> socket.socket:
    """Connect by TCP to one of the addresses of a name. Raises as :func:`connect`."""
    loop = asyncio.get_running_loop()
    where = address_text(host, port)
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
            raise _unreachable("the name service does not answer", where) from error
        raise ConfigurationError(
            f"the host name {host!r} is not known",
            where=where,
            next_step=f"correct it, or give its address in [hosts.{host}] of the configuration",
        ) from error
    failure: OSError | None = None
    deadline = loop.time() + timeout_seconds
    for left, (family, kind, protocol, _, address) in zip(
        range(len(found), 0, -1), found, strict=True
    ):
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
        try:
            set_connection_options(sock)
            # A name with several addresses: one that swallows packets must leave time for the
            # others.
            async with asyncio.timeout((deadline - loop.time()) / left):
                await loop.sock_connect(sock, address)
            return sock
        except OSError as error:  # TimeoutError is one
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    if isinstance(failure, TimeoutError) and failure.errno is None:
        raise failure
    # The text of the event loop names the address once more instead of the reason.
    reason = os.strerror(failure.errno) if failure and failure.errno else str(failure)
    raise _unreachable(f"cannot connect: {reason.lower()}", where) from failure


async def start_tls(
    sock: socket.socket, where: str, context: ssl.SSLContext, server_name: str
) -> TlsTransport:
    """Shake hands over a connected, non-blocking socket. Raises as :func:`connect`."""
    try:
        tls = wrap(context, sock, server_hostname=server_name)
    except (OSError, ValueError) as error:
        sock.close()
        if isinstance(error, OSError):
            raise explain(error, where, handshake=True) from error
        raise ConfigurationError(f"{server_name!r} is not a host name", where=where) from error
    try:
        readiness = Readiness(tls.fileno())
        await shake_hands(tls, readiness)
        names = certificate_names(tls.getpeercert() or {}, ("DNS", "URI"))
        identity = names[0] if names and server_name not in names else server_name
        return TlsTransport(tls, readiness, peer_info(tls, where, identity))
    except OSError as error:
        explained = explain(error, where, handshake=True, certificate=presented_certificate(tls))
        tls.close()
        raise explained from error
    except BaseException:
        tls.close()
        raise


def _unreachable(what: str, where: str) -> ConnectionLostError:
    return ConnectionLostError(
        what,
        where=where,
        safe="nothing was sent",
        next_step="check address and firewall, and that `blockrep-server --listen` runs there",
    )


def _joined(buffers: Iterable[Buffer]) -> Iterable[Buffer]:
    """Yield the buffers in order, runs of small ones as one: each becomes a record of its own."""
    small: list[Buffer] = []
    small_bytes = 0
    for buffer in buffers:
        size = len(buffer)
        if size + small_bytes <= _JOIN_BYTES:
            small.append(buffer)
            small_bytes += size
            continue
        if small:
            yield b"".join(small)
            small, small_bytes = [], 0
        if size <= _JOIN_BYTES:
            small, small_bytes = [buffer], size
        else:
            yield buffer
    if small:
        yield b"".join(small)


async def end_stream(tls: ssl.SSLSocket, readiness: Readiness) -> None:
    """Say that nothing more comes, then wait for the peer's end. The caller limits the time."""
    # close_notify is sent whatever unwrap() then says about what is still to be read.
    with contextlib.suppress(OSError, ValueError):
        tls.unwrap()
    await drain(tls, readiness)


async def drain(tls: ssl.SSLSocket, readiness: Readiness) -> None:
    """End our direction, read the other to its end as plain bytes. The caller limits the time.

    Closing a socket that has unread bytes resets the connection, and a reset can make the peer lose
    what we sent last.
    """
    tls.shutdown(socket.SHUT_WR)
    while True:
        try:
            if not tls.recv(_DRAIN_BYTES):
                return
        except BlockingIOError:
            await readiness.readable()
        await asyncio.sleep(0)


def wrap(
    context: ssl.SSLContext, sock: socket.socket, *, server_hostname: str | None = None
) -> ssl.SSLSocket:
    """Put TLS over a connected socket; as server unless a name is given."""
    return context.wrap_socket(
        sock,
        server_side=server_hostname is None,
        server_hostname=server_hostname,
        do_handshake_on_connect=False,
        suppress_ragged_eofs=False,  # a stream without its end mark was cut, and is no end (I10)
    )


async def shake_hands(tls: ssl.SSLSocket, readiness: Readiness) -> None:
    """Do the handshake. Raises OSError, of which SSLError is one."""
    while True:
        try:
            tls.do_handshake()
            return
        except ssl.SSLWantReadError:
            await readiness.readable()
        except ssl.SSLWantWriteError:
            await readiness.writable()


def peer_info(tls: ssl.SSLSocket, address: str, identity: str) -> PeerInfo:
    """Describe the peer of a completed handshake; without a certificate: its address alone."""
    encoded = tls.getpeercert(binary_form=True) or b""
    said = tls.getpeercert() or {}
    until = said.get("notAfter")
    return PeerInfo(
        identity,
        address,
        hashlib.sha256(encoded).hexdigest() if encoded else "",
        serial=int(str(said.get("serialNumber", "0")), 16),
        not_after_seconds=ssl.cert_time_to_seconds(str(until)) if until else 0,
    )
