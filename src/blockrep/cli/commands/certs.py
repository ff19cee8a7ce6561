"""``blockrep certs``: the private authority and the hosts' certificates."""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import os
from pathlib import Path

from blockrep.certificates.authority import LEAF_DAYS, Issued, create_authority, issue
from blockrep.certificates.describe import CertificateInfo, describe, expires_soon
from blockrep.certificates.naming import AUTHORITY_REVOCATIONS, Role
from blockrep.certificates.renewal import renew
from blockrep.certificates.revocation import revoke
from blockrep.config.load import load_tls_settings
from blockrep.config.settings import TlsSettings
from blockrep.errors import ConfigurationError

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Make an authority; issue, renew, revoke or show certificates."""
    tls = TlsSettings(options.directory) if options.directory else _tls_settings(options)
    directory = tls.directory
    if options.action == "init":
        _tell(create_authority(directory))
        print(f"keep {directory / 'ca.key'} secret: whoever has it can become any host")
        print(
            "next: blockrep certs issue NAME --server --host NAME, for the host with the replicas"
        )
    elif options.action == "issue":
        roles = [role for role in Role if getattr(options, role.value)]
        days = LEAF_DAYS if options.days is None else options.days
        issued = issue(directory, options.name, roles, options.host, days)
        _tell(issued)
        print(
            f"next: copy ca.pem, {issued.certificate.name} and {issued.key.name} to the folder "
            f"certs beside the configuration of {options.name} (/etc/blockrep/certs), unless that "
            "is this host"
        )
    elif options.action == "renew":
        days = LEAF_DAYS if options.days is None else options.days
        info = renew(directory, options.name, days, new_key=options.new_key, crl=tls.crl)
        print(f"wrote {info.path}, valid until {info.not_after:%Y-%m-%d %H:%M} UTC")
        print(f"next: copy it to {options.name}, and restart or reload blockrep-server there")
    elif options.action == "revoke":
        for certificate in revoke(directory, options.name):
            print(f"revoked serial {certificate.serial_number:x}")
        _tell_revocations(options, directory / AUTHORITY_REVOCATIONS)
    else:
        _show(options.file or sorted(directory.glob("*.pem")), directory)
    return 0


def _tell_revocations(options: argparse.Namespace, path: Path) -> None:
    """Say who notices: a server that was told to read another list would not."""
    used = None
    with contextlib.suppress(ConfigurationError):
        used = load_tls_settings(options.config, os.environ, os.geteuid()).crl
    if used is None or used.absolute() == path.absolute():
        print(f"wrote {path}: a server that runs here notices by itself; copy it to the others")
    else:
        print(f"wrote {path}")
        print(f"next: copy it to {used}, where the configuration has the list, and to the others")


def _tls_settings(options: argparse.Namespace) -> TlsSettings:
    """Return where the configuration has the certificates.

    Nothing else of it counts: somebody may have to revoke one in a hurry.
    """
    try:
        return load_tls_settings(options.config, os.environ, os.geteuid())
    except ConfigurationError as error:
        raise ConfigurationError(
            error.what,
            where=error.where,
            safe="nothing was changed",
            next_step="correct it, or name the folder of the certificates with --directory",
        ) from error


def _tell(issued: Issued) -> None:
    print(f"wrote {issued.certificate} (fingerprint {issued.info.fingerprint[:16]})")
    print(f"wrote {issued.key} (readable by uid {os.geteuid()} only)")


def _show(files: list[Path], directory: Path) -> None:
    if not files:
        raise ConfigurationError(
            "there are no certificates", where=str(directory), next_step="run blockrep certs init"
        )
    now = dt.datetime.now(dt.UTC)
    for file in files:
        for line in _lines(describe(file), now):
            print(line)


def _lines(info: CertificateInfo, now: dt.datetime) -> list[str]:
    roles = (
        "authority" if info.is_authority else ", ".join(sorted(role.value for role in info.roles))
    )
    warning = "  EXPIRES SOON" if expires_soon(info, now) else ""
    return [
        str(info.path),
        f"  subject      {info.subject}",
        f"  issued by    {info.issuer}",
        f"  names        {', '.join((*info.names, *info.addresses)) or '-'}",
        f"  for          {roles}",
        f"  valid until  {info.not_after:%Y-%m-%d %H:%M} UTC ({info.days_left(now)} days){warning}",
        f"  sha256       {info.fingerprint}",
    ]
