"""Reaches a server through SSH, as the configuration says."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from pathlib import Path

from blockrep.certificates.naming import Role
from blockrep.config.identity import find_files
from blockrep.config.settings import Settings
from blockrep.config.values import LocalAddress
from blockrep.model.names import Target
from blockrep.transport.held import HeldTransport
from blockrep.transport.interface import Transport
from blockrep.transport.local import connect_local, connect_local_tls
from blockrep.transport.ssh.route import Carrier, Destination, Login, SshRoute
from blockrep.transport.tls_context import client_context

__all__ = ["connect_ssh"]


async def connect_ssh(target: Target, settings: Settings) -> Transport:
    """Return the stream to a program on the target's host, or to a server that listens there.

    Raises:
        BlockrepError: why there is none.
    """
    ssh = settings.ssh
    login = Login(target.host, target.user, target.port)
    route = SshRoute(ssh.command, ssh.remote_command, ssh.config, ssh.connect_timeout_seconds)
    carrier = _carrier(system=bool(ssh.command))
    if ssh.forward is None:
        return await carrier.connect_program(login, route)
    where = f"{ssh.forward} through ssh://{login}"
    async with contextlib.AsyncExitStack() as stack:
        # A socket's path must be short (unix(7)), whatever TMPDIR is.
        folder = Path(tempfile.mkdtemp(prefix="blockrep-", dir="/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        path = folder / "ssh"
        there: Destination
        if isinstance(ssh.forward, LocalAddress):
            there = ssh.forward.path
        else:
            there = (ssh.forward.host or "localhost", ssh.forward.port)
        await stack.enter_async_context(carrier.forwarded_socket(login, route, there, path))
        if isinstance(ssh.forward, LocalAddress):
            transport = await connect_local(str(path), where)
        else:
            context = client_context(find_files(settings.tls, Role.CLIENT, socket.gethostname()))
            name = settings.client.locate(target.host, 0).server_name
            transport = await connect_local_tls(str(path), where, context, name)
        return HeldTransport(transport, stack.pop_all())


def _carrier(*, system: bool) -> Carrier:
    """Return OpenSSH or asyncssh, loading only the one that is needed."""
    if system:
        from blockrep.transport.ssh import openssh  # noqa: PLC0415

        return Carrier(openssh.connect_program, openssh.forwarded_socket)
    from blockrep.transport.ssh import library  # noqa: PLC0415

    return Carrier(library.connect_program, library.forwarded_socket)
