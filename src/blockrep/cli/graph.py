"""Builds what the client's operations work with from the configuration."""

from __future__ import annotations

import contextlib
import datetime as dt
import logging
import socket
from collections.abc import Iterator

from blockrep.certificates.naming import Role
from blockrep.client.operations import ClientContext
from blockrep.config.identity import find_files
from blockrep.config.settings import Settings
from blockrep.model.names import Target
from blockrep.replication.blocking import ThreadBlocking
from blockrep.storage.factory import open_source, open_target
from blockrep.transport.interface import Transport
from blockrep.transport.tls import connect
from blockrep.transport.tls_context import client_context

__all__ = ["client_graph"]

_LOG = logging.getLogger("blockrep.client")

#: One reads the snapshot, one does what an ended operation left to do.
_THREADS = 4


@contextlib.contextmanager
def client_graph(settings: Settings) -> Iterator[ClientContext]:
    """Yield a context for the operations; its threads end with it."""

    async def connect_any(target: Target) -> Transport:
        if target.scheme == "tls":
            return await connect_tls(target)
        # Loaded only here: asyncssh takes longer to load than all the rest.
        from blockrep.cli.ssh import connect_ssh  # noqa: PLC0415

        return await connect_ssh(target, settings)

    async def connect_tls(target: Target) -> Transport:
        files = find_files(settings.tls, Role.CLIENT, socket.gethostname())
        alias = settings.client.locate(target.host, target.port)
        transport = await connect(
            alias.address.host,
            alias.address.port,
            client_context(files),
            timeout_seconds=settings.client.connect_timeout_seconds,
            server_name=alias.server_name,
        )
        # Loaded only here: cryptography would be in the way of commands that call nobody.
        from blockrep.certificates.expiry import expiry_warnings  # noqa: PLC0415

        for warning in expiry_warnings((files.ca, files.certificate), dt.datetime.now(dt.UTC)):
            _LOG.warning(warning)
        return transport

    def handshake_seconds(target: Target) -> float:
        if target.scheme == "ssh":  # OpenSSH logs in meanwhile, and the far end's program starts
            return settings.ssh.connect_timeout_seconds
        return settings.client.connect_timeout_seconds

    with ThreadBlocking(_THREADS) as blocking:
        yield ClientContext(
            open_source=lambda name: open_source(name, settings.storage),
            open_target=lambda name: open_target(name, settings.storage),
            connect=connect_any,
            blocking=blocking,
            runtime_directory=settings.storage.runtime_directory,
            handshake_seconds=handshake_seconds,
        )
