"""Listens where the command line, the configuration or the service manager says."""

from __future__ import annotations

import asyncio
import datetime as dt
import functools
import logging
import os
import signal
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from blockrep.certificates.expiry import expiry_warnings
from blockrep.certificates.invitations import Invitations
from blockrep.certificates.naming import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    AUTHORITY_REVOCATIONS,
    Role,
)
from blockrep.certificates.revocation import serials_on
from blockrep.config.identity import find_files
from blockrep.config.settings import Settings
from blockrep.config.values import Address, LocalAddress
from blockrep.errors import BlockrepError
from blockrep.replication.blocking import ThreadBlocking
from blockrep.server.audit import audit_for, use_audit_file
from blockrep.server.graph import THREADS_PER_SESSION, audit_file_of, service_of
from blockrep.server.joining import JoinDesk
from blockrep.server.reload import reload_when, watch_file
from blockrep.server.service import Service
from blockrep.transport.interface import PeerInfo
from blockrep.transport.local import LocalListener
from blockrep.transport.tls_context import join_context, server_context
from blockrep.transport.tls_listener import Joins, TlsListener

__all__ = ["inherited_sockets", "serve_listening"]

_log = logging.getLogger("blockrep.server")
_FIRST_INHERITED = 3  # SD_LISTEN_FDS_START of sd_listen_fds(3)


def inherited_sockets(environment: Mapping[str, str]) -> list[socket.socket]:
    """Return the sockets that the service manager made for this process: sd_listen_fds(3)."""
    if environment.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(environment.get("LISTEN_FDS", "0"))
    found = [socket.socket(fileno=_FIRST_INHERITED + number) for number in range(count)]
    for sock in found:
        sock.set_inheritable(False)
    return found


async def serve_listening(
    settings: Settings, addresses: Sequence[Address | LocalAddress], load: Callable[[], Settings]
) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code.

    Sockets of the service manager take the place of the addresses. SIGHUP reads rules and
    certificates anew; one that comes while the server starts is answered once it has started.

    Args:
        settings: the configuration.
        addresses: where to listen.
        load: reads the configuration again.

    Raises:
        ConfigurationError: an address, a certificate or a folder cannot be used.
    """
    stopped, hung_up = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    loop.add_signal_handler(signal.SIGHUP, hung_up.set)
    settings.access.check()
    use_audit_file(audit_file_of(settings))
    inherited = inherited_sockets(os.environ)
    if inherited:
        addresses = []
    local: list[tuple[str, socket.socket | None]]
    local = [(one.path, None) for one in addresses if isinstance(one, LocalAddress)]
    local += [(one.getsockname(), one) for one in inherited if one.family == socket.AF_UNIX]
    remote = [one for one in addresses if isinstance(one, Address)]
    adopted = [one for one in inherited if one.family != socket.AF_UNIX]
    with ThreadBlocking(THREADS_PER_SESSION * settings.server.max_sessions) as blocking:
        service = service_of(settings, blocking)
        listeners: list[TlsListener | LocalListener] = []
        watching: list[asyncio.Task[None]] = []
        try:
            for path, sock in local:
                listeners.append(await _listen_locally(path, service, sock))
            tls = None
            if remote or adopted:
                tls = await _listen_tls(settings, service, remote, adopted)
                listeners.append(tls)
            prepare = functools.partial(_prepare_reload, load, service, tls)
            record = audit_for(PeerInfo("", "", ""))
            watching = [
                asyncio.create_task(reload_when(hung_up, prepare, record)),
                asyncio.create_task(watch_file(_revocations(settings), prepare, record)),
            ]
            _announce([path for path, _ in local], tls)
            await stopped.wait()
            _log.info("stopping: sessions are told, what they made durable is kept")
        finally:
            for task in watching:
                task.cancel()
            for listener in listeners:
                await listener.close()
    return 0


async def _listen_locally(path: str, service: Service, sock: socket.socket | None) -> LocalListener:
    listener = LocalListener(path, service.serve, sock)
    await listener.start()
    return listener


async def _listen_tls(
    settings: Settings,
    service: Service,
    addresses: Sequence[Address],
    adopted: Sequence[socket.socket],
) -> TlsListener:
    listener = TlsListener(
        _tls_context(settings),
        service.serve,
        joins=_joins(settings),
        refused=_tell_refused,
        max_unauthenticated=settings.server.max_unauthenticated,
        handshake_seconds=settings.server.handshake_seconds,
    )
    for sock in adopted:
        listener.adopt(sock)
    await listener.start(addresses)
    return listener


def _prepare_reload(
    load: Callable[[], Settings], service: Service, tls: TlsListener | None
) -> Callable[[], None]:
    """Read everything anew; return what puts it into force. Raises ConfigurationError."""
    fresh = load()
    fresh.access.check()
    context = None if tls is None else _tls_context(fresh)
    joins = None if tls is None else _joins(fresh)
    audit_file = audit_file_of(fresh)
    revoked = serials_on(_revocations(fresh))

    def apply() -> None:
        use_audit_file(audit_file)
        if tls is not None and context is not None:
            tls.use(context, joins)
        service.change_rules(fresh.access.permit, fresh.access.knows)
        service.end_sessions(
            lambda peer: peer.serial in revoked, "the client's certificate was revoked"
        )

    return apply


def _revocations(settings: Settings) -> Path:
    """Return where the authority's list is, or would be."""
    ca = settings.tls.ca or settings.tls.directory / AUTHORITY_CERTIFICATE
    return settings.tls.crl or ca.with_name(AUTHORITY_REVOCATIONS)


def _joins(settings: Settings) -> Joins | None:
    """Answer joins where the authority's key is."""
    directory = settings.tls.directory
    if not (directory / AUTHORITY_KEY).exists():
        return None
    files = find_files(settings.tls, Role.SERVER, socket.gethostname())
    invitations = Invitations(settings.storage.state_directory)
    desk = JoinDesk(directory, invitations, settings.access.knows, _revocations(settings))
    return Joins(join_context(files), lambda: desk.is_open, desk.serve)


def _tls_context(settings: Settings) -> ssl.SSLContext:
    files = find_files(settings.tls, Role.SERVER, socket.gethostname())
    context = server_context(files)
    for warning in expiry_warnings((files.ca, files.certificate), dt.datetime.now(dt.UTC)):
        _log.warning(warning)
    return context


def _tell_refused(address: str, error: BlockrepError) -> None:
    _log.warning("refused %s: %s", address, error)
    audit_for(PeerInfo("", address, ""))("refused", {"what": error.what})


def _announce(paths: Sequence[str], tls: TlsListener | None) -> None:
    """Tell whoever started us: from here on connections and signals are answered."""
    names = [f"unix:{path}" for path in paths]
    for host, port in () if tls is None else tls.addresses:
        names.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    for name in names:
        print(f"listening on {name}", flush=True)  # noqa: T201 - a command line
