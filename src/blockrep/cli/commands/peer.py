"""``blockrep peer``: a client gets its certificate over the network, by a one-time token."""

from __future__ import annotations

import argparse
import datetime as dt
import functools
import socket
import ssl
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes

from blockrep.certificates.authority import end_of_validity, load_authority
from blockrep.certificates.describe import describe
from blockrep.certificates.invitations import Invitations, Token
from blockrep.certificates.naming import Role, certificate_path, check_name, key_path
from blockrep.certificates.revocation import revoke
from blockrep.cli.running import run_operation, settings_of
from blockrep.client import joining
from blockrep.config.identity import certificate_with, find_files
from blockrep.config.settings import Settings, TlsSettings
from blockrep.config.values import Address, parse_address
from blockrep.errors import ConfigurationError, UsageError
from blockrep.transport.joining import ask, open_join

__all__ = ["run"]

_MOST_MINUTES = 7 * 24 * 60


def run(options: argparse.Namespace) -> int:
    """Invite, join or renew."""
    settings = settings_of(options)
    directory: Path = options.directory or settings.tls.directory
    action = {"invite": _invite, "join": _join, "renew": _renew}[options.action]
    action(options, settings, directory)
    return 0


def _invite(options: argparse.Namespace, settings: Settings, directory: Path) -> None:
    check_name(options.name)
    if not 1 <= options.minutes <= _MOST_MINUTES:
        raise UsageError(f"1 to {_MOST_MINUTES} minutes", where=f"--minutes {options.minutes}")
    authority, _ = load_authority(directory)
    lifetime = dt.timedelta(minutes=options.minutes)
    now = dt.datetime.now(dt.UTC)
    # Found out at the join, it would cost the token.
    end_of_validity(directory, authority, options.days, now + lifetime)
    server = describe(find_files(settings.tls, Role.SERVER, socket.gethostname()).certificate)
    address = _address(options.host or server.names[0], settings)
    _make_room(directory, options.name, replace=options.replace)
    invitations = Invitations(settings.storage.state_directory)
    identifier, secret = invitations.create(options.name, options.days, lifetime, now)
    token = Token(
        host=address.host,
        port=address.port,
        server_name=server.names[0],
        authority=authority.fingerprint(hashes.SHA256()),
        name=options.name,
        invitation=identifier,
        secret=secret,
    )
    print(token.encode())
    print(
        f"{options.name} joins within {options.minutes} minutes with: blockrep peer join"
        f" TOKEN\nblockrep-server --listen must be running here, reached as {address}",
        file=sys.stderr,
    )


def _make_room(directory: Path, name: str, *, replace: bool) -> None:
    """See that the name has no certificate; with ``replace``, revoke those that it has."""
    certificate, key = certificate_path(directory, name), key_path(directory, name)
    if not certificate.exists():
        return
    if not replace or key.exists():
        raise ConfigurationError(
            f"{name} has a certificate already" + (" and its key is here" if key.exists() else ""),
            where=str(certificate),
            safe="nothing was changed",
            next_step="move both files away"
            if key.exists()
            else "to revoke it and invite anew, also if it never arrived: --replace",
        )
    for one in revoke(directory, name):
        print(f"revoked serial {one.serial_number:x}", file=sys.stderr)
    certificate.unlink()  # there is a copy among those that were issued


def _join(options: argparse.Namespace, settings: Settings, directory: Path) -> None:
    from_input = options.token == "-"  # noqa: S105 - what says that it comes from elsewhere
    text = sys.stdin.readline() if from_input else options.token
    token = Token.decode(text)
    elsewhere = directory.absolute() != settings.tls.directory
    if not elsewhere:
        _check_use(settings, certificate_path(directory, token.name))
    seconds = settings.client.connect_timeout_seconds
    asking = functools.partial(_ask, Address(token.host, token.port), token.server_name, seconds)
    path = run_operation(joining.join(token, asking, directory))
    print(f"wrote {path} and its key; this host is {path.stem} to {token.server_name}")
    if elsewhere:
        print(f"to have it taken: in a configuration (--config), [tls] directory = '{directory}'")
    print(f"next: blockrep push VG/LV {_target_at(Address(token.host, token.port), settings)}")


def _check_use(settings: Settings, coming: Path) -> None:
    """See that pushes will take the new certificate, while the token can still be used elsewhere.

    Raises ConfigurationError: they would take another one, or not know which.
    """
    try:
        taken = certificate_with(settings.tls, socket.gethostname(), coming)
        if taken == coming:
            return
        what, where = f"pushes would take this certificate, not {coming.name}", taken
    except ConfigurationError as error:
        what, where = f"beside it, {coming.name} would not be taken: {error.what}", coming.parent
    raise ConfigurationError(
        what,
        where=str(where),
        safe="the token was not used, and nothing was written",
        next_step="move the other files away; or join with --directory DIR, and push with a"
        " configuration whose [tls] names that folder",
    )


def _target_at(server: Address, settings: Settings) -> str:
    """Return a target of that server, in the shortest form that finds it."""
    if server.port != settings.client.port:
        return f"tls://{server}/VG/LV"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"{host}:VG/LV"


def _renew(options: argparse.Namespace, settings: Settings, directory: Path) -> None:
    tls = TlsSettings(directory) if options.directory else settings.tls
    files = find_files(tls, Role.CLIENT, socket.gethostname())
    address = _address(options.server, settings)
    alias = settings.client.locate(address.host, address.port)
    seconds = settings.client.connect_timeout_seconds
    asking = functools.partial(_ask, alias.address, alias.server_name, seconds)
    run_operation(joining.renew(files.certificate, files.key, files.ca, asking))
    print(
        f"wrote {files.certificate}, valid until"
        f" {describe(files.certificate).not_after:%Y-%m-%d %H:%M} UTC"
    )


async def _ask(
    address: Address,
    server_name: str,
    timeout_seconds: float,
    context: ssl.SSLContext,
    request: dict[str, Any],
) -> dict[str, Any]:
    if context.verify_mode is not ssl.CERT_NONE:
        context.check_hostname = True
    host, port = address
    transport = await open_join(host, port, context, server_name, timeout_seconds)
    try:
        return await ask(transport, request)
    finally:
        await transport.close()


def _address(text: str, settings: Settings) -> Address:
    try:
        address = parse_address(text, settings.client.port)
    except ValueError as error:
        raise UsageError(str(error), where=text) from error
    if not address.host:
        raise UsageError("one host is needed, not every address", where=text)
    return address
