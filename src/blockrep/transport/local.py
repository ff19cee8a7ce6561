"""Unix sockets: the kernel says which user is at the other end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pwd
import socket
import ssl
import stat
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path

from blockrep.errors import (
    BlockrepError,
    BusyError,
    ConfigurationError,
    ConnectionLostError,
)
from blockrep.transport.descriptors import DescriptorTransport
from blockrep.transport.interface import LOCAL_IDENTITY, PeerInfo, Transport
from blockrep.transport.tls import start_tls

__all__ = ["LocalListener", "connect_local", "connect_local_tls", "peer_of"]

_UCRED = struct.Struct("3i")  # pid, uid, gid: unix(7), SO_PEERCRED
_BACKLOG = 64
_RETRY_ACCEPT_SECONDS = 1.0
_MORE_FILES = "raise the limit of open files (LimitNOFILE= of the unit)"


async def connect_local(path: str, where: str) -> Transport:
    """Connect to a Unix socket; ``where`` names it for people.

    Raises:
        ConnectionLostError: nobody listens there.
    """
    descriptor = (await _connect(path, where)).detach()
    return DescriptorTransport(descriptor, descriptor, PeerInfo(where, where, ""))


async def connect_local_tls(
    path: str, where: str, context: ssl.SSLContext, server_name: str
) -> Transport:
    """Connect to a Unix socket behind which a server speaks TLS.

    Raises:
        BlockrepError: see :func:`blockrep.transport.tls.connect`.
    """
    return await start_tls(await _connect(path, where), where, context, server_name)


async def _connect(path: str, where: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        await asyncio.get_running_loop().sock_connect(sock, path)
    except OSError as error:
        sock.close()
        raise ConnectionLostError(
            f"cannot connect: {os.strerror(error.errno or 0).lower()}",
            where=where,
            safe="nothing was sent",
            next_step="check that blockrep-server listens there",
        ) from error
    except BaseException:
        sock.close()
        raise
    return sock


def peer_of(sock: socket.socket, path: str) -> PeerInfo:
    """Describe who connected: ``user:NAME``, by the kernel's word.

    Raises:
        OSError: the name cannot be looked up now.
    """
    pid, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    name = _name_of(uid)
    return PeerInfo(f"{LOCAL_IDENTITY}{name}", f"unix:{path} (process {pid} of {name})", "")


def _name_of(uid: int) -> str:
    """Return a user's name; the number of one that has none. Raises OSError."""
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    # KeyError is also what comes when the lookup could not open a file: rules would miss the user.
    os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


class LocalListener:
    """Accepts connections on one Unix socket, which only its owner (and root) may connect to.

    Args:
        path: where the socket is made; a socket that nobody listens on is replaced.
        serve: called with each connection, which is dropped when it returns; it bounds how many
            there are.
        refused: told of each connection that did not get so far, and why.
        inherited: a listening socket that the service manager made; it is not removed at the end,
            and who may connect is the manager's choice.
    """

    def __init__(
        self,
        path: str,
        serve: Callable[[Transport], Awaitable[None]],
        refused: Callable[[PeerInfo, BlockrepError], None],
        inherited: socket.socket | None = None,
    ) -> None:
        self._path = path
        self._serve = serve
        self._refused = refused
        self._inherited = inherited is not None
        self._sock = inherited
        self._accepting: asyncio.Task[None] | None = None
        self._served: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. Raises ConfigurationError."""
        if self._sock is None:
            self._sock = self._bind()
        self._sock.setblocking(False)
        self._accepting = asyncio.create_task(self._accept())

    def _bind(self) -> socket.socket:
        self._remove_stale()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            # The mode must be right from the first moment; umask is the process's, so no thread
            # may make files now: the server starts its threads later.
            mask = os.umask(0o177)
            try:
                sock.bind(self._path)
            finally:
                os.umask(mask)
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            raise ConfigurationError(
                f"cannot listen: {os.strerror(error.errno or 0).lower()}",
                where=f"unix:{self._path}",
                next_step="its folder must exist and be writable for us",
            ) from error
        return sock

    async def close(self) -> None:
        """Stop listening, end what is served, remove the socket."""
        if self._sock is None or self._accepting is None:
            return
        self._accepting.cancel()
        await asyncio.gather(self._accepting, return_exceptions=True)
        self._sock.close()
        with contextlib.suppress(FileNotFoundError):
            if not self._inherited:
                os.unlink(self._path)  # noqa: PTH108 - no worse than the loop's own unlink
        for task in self._served:
            task.cancel()
        await asyncio.gather(*self._served, return_exceptions=True)

    async def _accept(self) -> None:
        assert self._sock is not None
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, _ = await loop.sock_accept(self._sock)
            except OSError as error:
                self._tell(error)
                # A socket that stays ready would spin the loop.
                await asyncio.sleep(_RETRY_ACCEPT_SECONDS)
                continue
            task = asyncio.create_task(self._serve_one(sock))
            self._served.add(task)
            task.add_done_callback(self._served.discard)

    def _tell(self, error: OSError) -> None:
        what = f"no connection can be accepted: {os.strerror(error.errno or 0)}"
        reason = BusyError(what, safe="running sessions go on", next_step=_MORE_FILES)
        self._refused(PeerInfo("", f"unix:{self._path}", ""), reason)

    async def _serve_one(self, sock: socket.socket) -> None:
        try:
            peer = peer_of(sock, self._path)
        except OSError as error:
            sock.close()
            self._tell(error)
            return
        descriptor = sock.detach()
        transport = DescriptorTransport(descriptor, descriptor, peer)
        try:
            await self._serve(transport)
        finally:
            transport.abort()

    def _remove_stale(self) -> None:
        path = Path(self._path)
        try:
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigurationError(
                    "is there, and is not a socket", where=str(path), safe="it was not touched"
                )
        except FileNotFoundError:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            try:
                sock.connect(self._path)
            except ConnectionRefusedError:
                path.unlink()
                return
            except OSError:
                return
        raise ConfigurationError(
            "somebody listens there already",
            where=f"unix:{self._path}",
            next_step="stop it (another blockrep-server?), or choose another path",
        )
