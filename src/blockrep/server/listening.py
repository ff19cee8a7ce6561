"""Listens where the command line, the configuration or the service manager says."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence

from blockrep.config.settings import Settings
from blockrep.config.values import Address, LocalAddress
from blockrep.errors import BlockrepError
from blockrep.replication.blocking import ThreadBlocking
from blockrep.replication.receiver import AuditSink
from blockrep.server.audit import audit_for, use_audit_file
from blockrep.server.graph import THREADS_PER_SESSION, audit_file_of, service_of
from blockrep.server.reload import reload_when
from blockrep.server.service import Service
from blockrep.server.trust import TrustInForce, read_trust
from blockrep.transport.interface import PeerInfo
from blockrep.transport.local import LocalListener
from blockrep.transport.tls import TlsTransport
from blockrep.transport.tls_listener import TlsListener

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
            record = audit_for(PeerInfo("", "", ""))
            tls = trust = None
            if remote or adopted:
                tls, trust = await _listen_tls(settings, service, remote, adopted, record)
                listeners.append(tls)
                watching = [
                    asyncio.create_task(trust.watch(record)),
                    asyncio.create_task(trust.warn_daily()),
                ]
            prepare = functools.partial(_prepare_reload, load, service, trust)
            watching.append(asyncio.create_task(reload_when(hung_up, prepare, record)))
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
    listener = LocalListener(path, service.serve, _tell_refused, sock)
    await listener.start()
    return listener


async def _listen_tls(
    settings: Settings,
    service: Service,
    addresses: Sequence[Address],
    adopted: Sequence[socket.socket],
    record: AuditSink,
) -> tuple[TlsListener, TrustInForce]:
    trust = read_trust(settings)
    trust.warn_of_expiry()

    async def serve(transport: TlsTransport) -> None:
        # Who revokes and sees the command end expects that nobody gets in from then on.
        in_force.look(record)
        await service.serve(transport)

    listener = TlsListener(
        trust.context,
        serve,
        joins=trust.joins,
        refused=_tell_refused,
        max_unauthenticated=settings.server.max_unauthenticated,
        handshake_seconds=settings.server.handshake_seconds,
    )
    for sock in adopted:
        listener.adopt(sock)
    in_force = TrustInForce(listener, service, trust)
    await listener.start(addresses)
    return listener, in_force


def _prepare_reload(
    load: Callable[[], Settings], service: Service, in_force: TrustInForce | None
) -> Callable[[], None]:
    """Read everything anew; return what puts it into force. Raises ConfigurationError."""
    fresh = load()
    fresh.access.check()
    trust = None if in_force is None else read_trust(fresh)
    audit_file = audit_file_of(fresh)

    def apply() -> None:
        use_audit_file(audit_file)
        if in_force is not None and trust is not None:
            trust.warn_of_expiry()
            in_force.apply(trust)
        service.change_rules(fresh.access.permit, fresh.access.knows)

    return apply


def _tell_refused(peer: PeerInfo, error: BlockrepError) -> None:
    _log.warning("refused %s: %s", peer.address, error)
    audit_for(peer)("refused", {"what": error.what})


def _announce(paths: Sequence[str], tls: TlsListener | None) -> None:
    """Tell whoever started us: from here on connections and signals are answered."""
    names = [f"unix:{path}" for path in paths]
    for host, port in () if tls is None else tls.addresses:
        names.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    for name in names:
        print(f"listening on {name}", flush=True)  # noqa: T201 - a command line
