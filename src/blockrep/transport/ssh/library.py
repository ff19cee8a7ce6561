"""SSH by asyncssh: agent, keys, ssh_config(5) with its jump hosts, known_hosts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import asyncssh

from blockrep.errors import (
    BlockrepError,
    ConfigurationError,
    ConnectionLostError,
    RefusedError,
)
from blockrep.transport.interface import PeerInfo, Transport
from blockrep.transport.ssh.channel import ChannelTransport
from blockrep.transport.ssh.far_end import FarEndTransport, explain_end
from blockrep.transport.ssh.host_keys import HostKeyCheck, known_hosts_files
from blockrep.transport.ssh.route import Destination, Login, SshRoute

__all__ = ["connect_program", "forwarded_socket"]

_SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
_WINDOW_BYTES = 8 * 1024 * 1024
_CLOSE_SECONDS = 2.0
#: The fastest first: AES-GCM needs no separate MAC and has hardware on every server.
_CIPHERS = (
    "aes128-gcm@openssh.com",
    "aes256-gcm@openssh.com",
    "chacha20-poly1305@openssh.com",
    "aes256-ctr",
    "aes128-ctr",
)


async def connect_program(login: Login, route: SshRoute) -> Transport:
    """Log in and start ``blockrep-server --stdio``.

    Raises:
        ConfigurationError: the host's key is not known, or SSH's configuration is wrong.
        RefusedError: the host does not let us in.
        ConnectionLostError: the host does not answer.
        UnsupportedHostError: blockrep is not there (on the first receive or send).
    """
    where = str(login)
    stack = contextlib.AsyncExitStack()
    try:
        with _explained(where):
            async with asyncio.timeout(route.timeout_seconds):
                connection = await stack.enter_async_context(_logged_in(login, route))
                session = ChannelTransport(_peer(connection, where), stack.aclose)
                await connection.create_session(
                    lambda: session,
                    route.stdio_command,
                    encoding=None,
                    request_pty=False,
                    window=_WINDOW_BYTES,
                )
    except BaseException:
        await stack.aclose()
        raise
    program = route.remote_command[0]

    async def ended() -> BlockrepError:
        return explain_end(await session.program_end(), program, where)

    return FarEndTransport(session, program, ended)


@asynccontextmanager
async def forwarded_socket(
    login: Login, route: SshRoute, destination: Destination, path: Path
) -> AsyncIterator[None]:
    """Log in, and have connections to the Unix socket ``path`` arrive at the destination there.

    Args:
        login: where.
        route: how.
        destination: path of a Unix socket, or host and port, as the other host sees them.
        path: socket to make, in a folder that only we can enter.

    Raises:
        BlockrepError: as :func:`connect_program`.
    """
    async with contextlib.AsyncExitStack() as stack:
        with _explained(str(login)):
            async with asyncio.timeout(route.timeout_seconds):
                connection = await stack.enter_async_context(_logged_in(login, route))
                if isinstance(destination, str):
                    listener = await connection.forward_local_path(str(path), destination)
                else:
                    listener = await connection.forward_local_path_to_port(str(path), *destination)
        try:
            yield
        finally:
            listener.close()


@asynccontextmanager
async def _logged_in(login: Login, route: SshRoute) -> AsyncIterator[asyncssh.SSHClientConnection]:
    """Log in, through as many jump hosts as ssh_config names; log out of all at the end."""
    async with contextlib.AsyncExitStack() as stack:
        connection: asyncssh.SSHClientConnection | None = None
        for hop in [*_jumps(login, route), login]:
            connection = await _log_in(hop, route, connection)
            stack.push_async_callback(_log_out, connection)
        assert connection is not None
        yield connection


def _jumps(login: Login, route: SshRoute) -> list[Login]:
    """Return the jump hosts, the first to log in to first."""
    jumps = _options(login, route).tunnel
    if not isinstance(jumps, str) or jumps.lower() == "none":
        return []
    found = []
    for text in jumps.split(","):
        user, _, address = text.strip().removeprefix("ssh://").rpartition("@")
        host, _, port = address.rpartition(":") if ":" in address else (address, "", "")
        found.append(Login(host.strip("[]"), user, int(port or 0)))
    return found


def _options(login: Login, route: SshRoute) -> asyncssh.SSHClientConnectionOptions:
    user = Path("~/.ssh/config").expanduser() if route.config is None else route.config
    wanted = [user] if route.config is not None else [user, _SYSTEM_CONFIG]
    files = [str(path) for path in wanted if route.config is not None or path.is_file()]
    # The other host gets a stream, and nothing else of ours, whatever ssh_config says.
    given: dict[str, object] = {"agent_forwarding": False, "x11_forwarding": False}
    if login.user:
        given["username"] = login.user
    if login.port:
        given["port"] = login.port
    config = asyncssh.SSHClientConnectionOptions(
        host=login.host, config=files, client_keys=None, **given
    ).config
    # As OpenSSH, and unlike asyncssh, pass over what ssh_config names and is not there.
    keys, certificates = (
        [path for path in cast("Sequence[str]", named) if Path(path).expanduser().exists()]
        for named in (config.get("IdentityFile", ()), config.get("CertificateFile", ()))
    )
    return asyncssh.SSHClientConnectionOptions(
        host=login.host,
        config=files,
        client_keys=keys,
        client_certs=certificates,
        ignore_encrypted=True,
        **given,
    )


async def _log_in(
    hop: Login, route: SshRoute, tunnel: asyncssh.SSHClientConnection | None
) -> asyncssh.SSHClientConnection:
    options = _options(hop, route)
    chosen = {} if options.config.get("Ciphers") else {"encryption_algs": _CIPHERS}
    files = known_hosts_files(
        options.config.get("UserKnownHostsFile", ()), options.config.get("GlobalKnownHostsFile", ())
    )
    check = HostKeyCheck(str(hop), files, is_alias=options.host_key_alias is not None)
    try:
        return await asyncssh.connect(
            hop.host,
            options=options,
            client_factory=lambda: check,
            known_hosts=check.known_hosts,
            tunnel=tunnel,
            **chosen,
            # Nobody is there to type.
            password_auth=False,
            kbdint_auth=False,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise check.refusal(error.reason) from error
    except BlockrepError:
        raise
    except Exception as error:
        raise _explain(error, str(hop)) from error


async def _log_out(connection: asyncssh.SSHClientConnection) -> None:
    connection.close()
    with contextlib.suppress(TimeoutError, OSError, asyncssh.Error):
        async with asyncio.timeout(_CLOSE_SECONDS):
            await connection.wait_closed()


def _peer(connection: asyncssh.SSHClientConnection, where: str) -> PeerInfo:
    key = connection.get_server_host_key()
    return PeerInfo(where, f"ssh://{where}", "" if key is None else key.get_fingerprint())


@contextlib.contextmanager
def _explained(where: str) -> Iterator[None]:
    try:
        yield
    except (OSError, TimeoutError, asyncssh.Error) as error:
        raise _explain(error, where) from error


def _explain(error: Exception, where: str) -> BlockrepError:
    """Return what a failure of the library means for the user."""
    nothing = "nothing was sent"
    if isinstance(error, asyncssh.PermissionDenied):
        return RefusedError(
            "the host accepts none of our keys",
            where=where,
            safe=nothing,
            next_step="try: ssh -o BatchMode=yes HOST true; add the public key to authorized_keys"
            " there (blockrep authorize prints a line that allows nothing else)",
        )
    if isinstance(error, TimeoutError):
        return ConnectionLostError("no answer in time", where=where, safe=nothing)
    if isinstance(error, asyncssh.ChannelOpenError):
        return RefusedError(
            f"the host does not open a channel: {error.reason}", where=where, safe=nothing
        )
    if isinstance(error, asyncssh.ConfigParseError | asyncssh.KeyImportError | ValueError):
        return ConfigurationError(f"SSH's configuration: {error}", where=where, safe=nothing)
    reason = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
    return ConnectionLostError(
        f"cannot connect: {str(reason).lower()}",
        where=where,
        safe=nothing,
        next_step="try: ssh HOST true",
    )
