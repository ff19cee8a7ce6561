"""A private certificate authority: creates itself, issues the certificates of hosts.

Keys are ECDSA on P-256 with SHA-256: every TLS 1.3 stack must support it (RFC 8446, section 9.1),
which Ed25519 is not, notably where a FIPS policy or a hardware token decides; signing takes well
under a millisecond, and a handshake signs once on each side.

The extensions are what ``VERIFY_X509_STRICT`` of OpenSSL 3 asks for (RFC 5280): basicConstraints
and keyUsage critical, a subject key identifier in both kinds of certificate, an authority key
identifier in every issued one. An authority cannot make further authorities (path length 0). A host
is named by subjectAltName alone: the common name is there for people.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from blockrep.certificates.describe import CertificateInfo, describe, load_certificate
from blockrep.certificates.files import (
    CERTIFICATE_MODE,
    KEY_MODE,
    prepare_directory,
    write_new_files,
)
from blockrep.certificates.naming import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    Role,
    certificate_path,
    check_name,
    is_host_name,
    is_there,
    key_path,
)
from blockrep.errors import ConfigurationError, UsageError

__all__ = [
    "AUTHORITY_DAYS",
    "ISSUED_DIRECTORY",
    "LEAF_DAYS",
    "Issued",
    "create_authority",
    "end_of_validity",
    "issue",
    "load_authority",
    "record",
    "recorded_path",
    "sign",
]

AUTHORITY_DAYS: Final = 3650
#: Renewal is one command, and warned of 14 days ahead.
LEAF_DAYS: Final = 90
#: Beside the authority: a copy of every certificate that it issued.
ISSUED_DIRECTORY: Final = "issued"
_MAX_LEAF_DAYS: Final = 3650
#: Hosts whose clock is a little behind must accept a certificate made just now.
_CLOCK_TOLERANCE: Final = dt.timedelta(minutes=10)
_USAGES: Final = {
    Role.SERVER: ExtendedKeyUsageOID.SERVER_AUTH,
    Role.CLIENT: ExtendedKeyUsageOID.CLIENT_AUTH,
}


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that was just made, and the files that hold it."""

    certificate: Path
    key: Path
    info: CertificateInfo


def create_authority(directory: Path, *, now: dt.datetime | None = None) -> Issued:
    """Create ``ca.pem`` and ``ca.key`` in ``directory``, which comes to exist with mode 0700.

    Raises:
        ConfigurationError: there is an authority already (it is never overwritten), or others may
            write to the directory.
        StorageError: the files cannot be written.
    """
    prepare_directory(directory)
    files = (directory / AUTHORITY_CERTIFICATE, directory / AUTHORITY_KEY)
    for file in files:
        if os.path.lexists(file):
            raise ConfigurationError(
                "there is an authority already, which is never overwritten",
                where=str(file),
                safe="nothing was changed",
                next_step="use it, where its key is: blockrep certs issue NAME; for another one"
                " name a folder with --directory, or move this whole folder away",
            )
    now = now or _now()
    key = ec.generate_private_key(ec.SECP256R1())
    # Part of the key's digest in the name tells two authorities apart: "unable to get issuer" then
    # names the one that is missing.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    name = _name(f"blockrep CA {identifier.digest.hex()[:8]}")
    certificate = (
        _builder(name, name, key.public_key(), now, now + dt.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(authority=True), critical=True)
        .add_extension(identifier, critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    return _write(*files, certificate, key)


def issue(
    directory: Path,
    name: str,
    roles: Collection[Role],
    hosts: Collection[str] = (),
    days: int = LEAF_DAYS,
    *,
    now: dt.datetime | None = None,
) -> Issued:
    """Issue ``NAME.pem`` and ``NAME.key`` in ``directory``, signed by the authority there.

    Args:
        directory: holds ``ca.pem`` and ``ca.key``.
        name: the identity of the host, and a DNS name of its certificate.
        roles: what the certificate is good for; there is no default, because a server's certificate
            that can also dial is a way on for whoever breaks into that server.
        hosts: further DNS names and IP addresses under which a server is reached.
        days: how long it is valid.
        now: time of issue, for tests.

    Raises:
        UsageError: no role, a bad host or number of days, or what a client's certificate must not
            have.
        ConfigurationError: no authority here, a name that cannot be one, or the certificate exists
            already.
        StorageError: the files cannot be written.
    """
    check_name(name)
    alternative_names = _alternative_names(name, roles, hosts)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = sign(directory, name, roles, alternative_names, key.public_key(), days, now=now)
    issued = _write(certificate_path(directory, name), key_path(directory, name), certificate, key)
    record(directory, name, certificate)
    return issued


def sign(
    directory: Path,
    name: str,
    roles: Collection[Role],
    alternative_names: Sequence[x509.GeneralName],
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    *,
    now: dt.datetime | None = None,
) -> x509.Certificate:
    """Return a certificate of a host's key, signed by the authority in ``directory``.

    Raises:
        UsageError: a bad number of days.
        ConfigurationError: no authority here.
    """
    now = now or _now()
    issuer, issuer_key = load_authority(directory)
    until = end_of_validity(directory, issuer, days, now)
    issuer_identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    return (
        _builder(_name(name), issuer.subject, public_key, now, until)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(authority=False), critical=True)
        .add_extension(
            x509.ExtendedKeyUsage([_USAGES[role] for role in Role if role in roles]), critical=False
        )
        .add_extension(x509.SubjectAlternativeName(alternative_names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_identifier),
            critical=False,
        )
        .sign(issuer_key, hashes.SHA256())
    )


def record(directory: Path, name: str, certificate: x509.Certificate) -> None:
    """Keep a copy of an issued certificate: who wants to revoke needs every serial number."""
    path = recorded_path(directory, name, f"{certificate.serial_number:x}")
    prepare_directory(path.parent)
    content = certificate.public_bytes(serialization.Encoding.PEM)
    write_new_files([(path, content, CERTIFICATE_MODE)])


def recorded_path(directory: Path, name: str, serial: str) -> Path:
    """Return where the copy of an issued certificate lies; ``serial`` is hexadecimal."""
    return directory / ISSUED_DIRECTORY / f"{name}.{serial}.pem"


def _alternative_names(
    name: str, roles: Collection[Role], hosts: Collection[str]
) -> list[x509.GeneralName]:
    if not roles:
        raise UsageError(
            f"the certificate of {name} needs a role",
            next_step="give --server for a host that listens, --client for one that pushes",
        )
    # A dict keeps the order and drops repetitions.
    names = dict.fromkeys([x509.DNSName(name), *(_general_name(host) for host in hosts)])
    dns_names = [entry.value for entry in names if isinstance(entry, x509.DNSName)]
    if Role.CLIENT in roles and len(dns_names) > 1:
        # The peer takes the identity from the one name there is; with two it would have to guess.
        raise UsageError(
            "a certificate for a client has one name, which is its identity, not "
            + " and ".join(dns_names),
            next_step="issue one certificate for the server, another for the client",
        )
    return list(names)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        if is_host_name(host.lower()):
            return x509.DNSName(host.lower())
    raise UsageError(f"{host[:80]!r} is neither a host name nor an IP address")


def end_of_validity(
    directory: Path, issuer: x509.Certificate, days: int, start: dt.datetime
) -> dt.datetime:
    """Return until when a certificate of the authority there is valid. Raises UsageError."""
    if not 1 <= days <= _MAX_LEAF_DAYS:
        raise UsageError(
            f"a certificate cannot be valid for {days} days",
            next_step=f"give 1 to {_MAX_LEAF_DAYS} days",
        )
    until = start + dt.timedelta(days=days)
    if until > issuer.not_valid_after_utc:
        raise UsageError(
            "the certificate would outlive its authority, which expires on "
            f"{issuer.not_valid_after_utc:%Y-%m-%d}",
            where=str(directory / AUTHORITY_CERTIFICATE),
            next_step="ask for fewer days, or make a new authority in another directory",
        )
    return until


def load_authority(directory: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return certificate and key of the authority. Raises ConfigurationError."""
    path = directory / AUTHORITY_KEY
    if not is_there(directory / AUTHORITY_CERTIFICATE):
        raise ConfigurationError(
            "there is no authority here",
            where=str(directory),
            next_step="run this on the host that has it, or make one: blockrep certs init",
        )
    certificate = load_certificate(directory / AUTHORITY_CERTIFICATE)
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise ConfigurationError(
            "the key of the authority is not here",
            where=str(path),
            next_step="issue on the host where `blockrep certs init` was run, or run it here",
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "is not an unencrypted private key in PEM form", where=str(path)
        ) from error
    if (
        not isinstance(key, ec.EllipticCurvePrivateKey)
        or key.public_key() != certificate.public_key()
    ):
        raise ConfigurationError(
            f"is not the key of {AUTHORITY_CERTIFICATE} beside it", where=str(path)
        )
    return certificate, key


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    start: dt.datetime,
    end: dt.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _CLOCK_TOLERANCE)
        .not_valid_after(end)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _write(
    certificate_file: Path,
    key_file: Path,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> Issued:
    prepare_directory(certificate_file.parent)
    key_text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    certificate_text = certificate.public_bytes(serialization.Encoding.PEM)
    # The key first: a certificate is only there when its key is.
    write_new_files(
        [(key_file, key_text, KEY_MODE), (certificate_file, certificate_text, CERTIFICATE_MODE)]
    )
    return Issued(certificate_file, key_file, describe(certificate_file))


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)
