"""How a host without a certificate asks for one: a few bytes before TLS, one question, one answer.

A connection that begins with :data:`PREAMBLE` is no session. It speaks TLS like any other, but the
server asks for no certificate; what is said in it is one request and one answer, each a length of 4
bytes and a msgpack map.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Mapping
from typing import Any, Final

import msgpack

from blockrep.errors import (
    ERRORS_BY_CODE,
    BlockrepError,
    ConnectionLostError,
    ProtocolError,
    RefusedError,
)
from blockrep.transport.interface import Transport
from blockrep.transport.sockets import Readiness, address_text
from blockrep.transport.tls import TlsTransport, open_tcp, start_tls

__all__ = ["PREAMBLE", "announces_join", "ask", "open_join", "receive_message", "send_message"]

PREAMBLE: Final = b"BRPJOIN1"
_MAX_MESSAGE_BYTES: Final = 16 * 1024
_LENGTH = struct.Struct(">I")


async def announces_join(sock: socket.socket) -> bool:
    """Wait for the first bytes of a connection; take the preamble off, if they are one."""
    readiness = Readiness(sock.fileno())
    while True:
        await readiness.readable()
        first = sock.recv(len(PREAMBLE), socket.MSG_PEEK)
        if first == PREAMBLE:
            sock.recv(len(PREAMBLE))
            return True
        if not first or not PREAMBLE.startswith(first):
            return False
        await asyncio.sleep(0.01)  # a part of it is there, which keeps the socket readable


async def open_join(
    host: str, port: int, context: ssl.SSLContext, server_name: str, timeout_seconds: float
) -> TlsTransport:
    """Connect, say that this is a join, and do the handshake. Raises as a session's connect."""
    where = address_text(host, port)
    sock = await open_tcp(host, port, timeout_seconds)
    try:
        await asyncio.get_running_loop().sock_sendall(sock, PREAMBLE)
    except OSError as error:
        sock.close()
        raise ConnectionLostError("the connection ended", where=where) from error
    return await start_tls(sock, where, context, server_name)


async def ask(transport: Transport, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request, return the answer. Raises what the server answers as an error."""
    await send_message(transport, request)
    answer = await receive_message(transport)
    if "error" in answer:
        raise _error_from(answer, transport.peer.address)
    return answer


async def send_message(transport: Transport, message: Mapping[str, Any]) -> None:
    """Send one message."""
    packed: bytes = msgpack.packb(dict(message))
    await transport.send([_LENGTH.pack(len(packed)), packed])


async def receive_message(transport: Transport) -> dict[str, Any]:
    """Receive one message. Raises ProtocolError, ConnectionLostError."""
    (length,) = _LENGTH.unpack(await _exactly(transport, _LENGTH.size))
    if not 0 < length <= _MAX_MESSAGE_BYTES:
        raise ProtocolError(f"a message of {length} bytes", where=transport.peer.address)
    data = await _exactly(transport, length)
    try:
        message = msgpack.unpackb(data, max_map_len=16, max_array_len=0, max_ext_len=0)
    except (ValueError, msgpack.UnpackException) as error:
        raise ProtocolError("not a message", where=transport.peer.address) from error
    if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
        raise ProtocolError("not a message", where=transport.peer.address)
    return message


async def _exactly(transport: Transport, count: int) -> bytes:
    buffer = memoryview(bytearray(count))
    filled = 0
    while filled < count:
        received = await transport.receive_into(buffer[filled:])
        if not received:
            raise ConnectionLostError(
                "the connection ended",
                where=transport.peer.address,
                safe="nothing was written",
                next_step="see the log of the server",
            )
        filled += received
    return bytes(buffer)


def _error_from(answer: Mapping[str, Any], where: str) -> BlockrepError:
    def text(name: str) -> str | None:
        value = answer.get(name)
        shown = "".join(c for c in str(value)[:500] if c.isprintable())
        return shown if value else None

    error_class = ERRORS_BY_CODE.get(str(answer["error"]), RefusedError)
    return error_class(
        text("what") or "refused", where=where, safe=text("safe"), next_step=text("next")
    )
