"""``blockrep-server``: reads the configuration, builds the object graph, listens until a signal."""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import functools
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import uvloop

from blockrep import __version__
from blockrep.certificates.expiry import expiry_warnings
from blockrep.certificates.naming import Role
from blockrep.config.identity import find_files
from blockrep.config.load import load_settings
from blockrep.config.settings import Settings
from blockrep.config.values import Address, parse_address
from blockrep.errors import BlockrepError, UsageError
from blockrep.replication.blocking import ThreadBlocking
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.audit import AuditFile, audit_for, use_audit_file
from blockrep.server.reload import reload
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.factory import open_target
from blockrep.transport.interface import PeerInfo
from blockrep.transport.tls_context import server_context
from blockrep.transport.tls_listener import TlsListener

__all__ = ["main"]

_log = logging.getLogger("blockrep.server")

#: A session uses at most two at once: one writes or reads, one syncs.
_THREADS_PER_SESSION = 2
#: Beyond the time after which a dead session is noticed, so that its successor finds it gone.
_LOCK_MARGIN_SECONDS = 5.0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, next_step="see blockrep-server --help")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="blockrep-server",
        description="Keeps replicas: listens for blockrep push, verify and list over TLS.",
    )
    parser.add_argument(
        "--listen",
        action="append",
        nargs="?",
        const="",
        metavar="HOST:PORT",
        help="listen there, several allowed; without HOST:PORT where the configuration says "
        "(default: port 8733 of every address)",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="configuration file (TOML)")
    parser.add_argument("--version", action="version", version=f"blockrep {__version__}")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the server; return its exit code."""
    try:
        options = _parser().parse_args(arguments)
        if options.listen is None:
            raise UsageError("nothing to do", next_step="use --listen; see blockrep-server --help")
        return _run(options)
    except BlockrepError as error:
        print(f"blockrep-server: error: {error}", file=sys.stderr)  # noqa: T201 - a command line
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    load = functools.partial(load_settings, options.config, os.environ, os.geteuid())
    settings = load()
    addresses = _addresses(options.listen, settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, addresses, load))


def _addresses(texts: Sequence[str], settings: Settings) -> list[Address]:
    addresses: list[Address] = []
    for text in texts:
        try:
            addresses += [parse_address(text)] if text else settings.server.listen
        except ValueError as error:
            raise UsageError(str(error), where=f"--listen {text}") from error
    return addresses


async def _serve(
    settings: Settings, addresses: Sequence[Address], load: Callable[[], Settings]
) -> int:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    settings.access.check()
    context = _tls_context(settings)
    use_audit_file(_audit_file(settings))
    server = settings.server
    with ThreadBlocking(_THREADS_PER_SESSION * server.max_sessions) as blocking:
        service = Service(
            _service_settings(settings),
            settings.access.permit,
            lambda name: open_target(name, settings.storage),
            blocking,
        )
        listener = TlsListener(
            context,
            service.serve,
            refused=_tell_refused,
            max_unauthenticated=server.max_unauthenticated,
            handshake_seconds=server.handshake_seconds,
        )

        def prepare() -> Callable[[], None]:
            fresh = load()
            fresh.access.check()
            fresh_context, fresh_file = _tls_context(fresh), _audit_file(fresh)

            def apply() -> None:
                use_audit_file(fresh_file)
                listener.use(fresh_context)
                service.change_rules(fresh.access.permit, fresh.access.knows)

            return apply

        await listener.start(addresses)
        loop.add_signal_handler(signal.SIGHUP, reload, prepare, audit_for(PeerInfo("", "", "")))
        for host, port in listener.addresses:
            shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
            print(f"listening on {shown}", flush=True)  # noqa: T201 - whoever started us reads it
        await stopped.wait()
        _log.info("stopping: sessions are told, what they made durable is kept")
        await listener.close()
    return 0


def _tls_context(settings: Settings) -> ssl.SSLContext:
    files = find_files(settings.tls, Role.SERVER, socket.gethostname())
    context = server_context(files)
    for warning in expiry_warnings((files.ca, files.certificate), dt.datetime.now(dt.UTC)):
        _log.warning(warning)
    return context


def _audit_file(settings: Settings) -> AuditFile | None:
    path = settings.server.audit_file
    return None if path is None else AuditFile(path)


def _tell_refused(address: str, error: BlockrepError) -> None:
    _log.warning("refused %s: %s", address, error)
    audit_for(PeerInfo("", address, ""))("refused", {"what": error.what})


def _service_settings(settings: Settings) -> ServiceSettings:
    server = settings.server
    return ServiceSettings(
        limits=ReceiverLimits(
            server.max_payload_bytes,
            server.window_bytes,
            server.heartbeat_seconds,
            server.peer_timeout_seconds,
        ),
        max_sessions=server.max_sessions,
        buffer_bytes=server.buffer_bytes,
        handshake_seconds=server.handshake_seconds,
        lock_wait_seconds=server.peer_timeout_seconds + _LOCK_MARGIN_SECONDS,
        runtime_directory=settings.storage.runtime_directory,
    )
