"""Reads certificates: what they say, for people and for decisions about renewal."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from blockrep.certificates.naming import Role
from blockrep.errors import ConfigurationError

__all__ = [
    "EXPIRY_WARNING_DAYS",
    "CertificateInfo",
    "describe",
    "expires_soon",
    "load_certificate",
    "roles_of",
]

EXPIRY_WARNING_DAYS: Final = 14
_ROLES: Final = {
    ExtendedKeyUsageOID.SERVER_AUTH: Role.SERVER,
    ExtendedKeyUsageOID.CLIENT_AUTH: Role.CLIENT,
}


@dataclass(frozen=True, slots=True)
class CertificateInfo:
    """What a certificate says.

    Attributes:
        path: the file it was read from.
        subject: its common name, or the whole subject if it has none.
        issuer: the same of the authority that signed it.
        names: DNS names and URIs of its subjectAltName, in order; a client's identity is the only
            one.
        addresses: IP addresses of its subjectAltName.
        roles: what its extended key usage allows; both if it has none.
        is_authority: it may sign certificates.
        serial: serial number, hexadecimal.
        fingerprint: SHA-256 of the certificate, hexadecimal.
        not_before: valid from, UTC.
        not_after: valid until, UTC.
    """

    path: Path
    subject: str
    issuer: str
    names: tuple[str, ...]
    addresses: tuple[str, ...]
    roles: frozenset[Role]
    is_authority: bool
    serial: str
    fingerprint: str
    not_before: dt.datetime
    not_after: dt.datetime

    def days_left(self, now: dt.datetime) -> int:
        """Return the whole days until the certificate expires; negative once it has."""
        return (self.not_after - now).days


def describe(path: Path) -> CertificateInfo:
    """Read the first certificate of a PEM file.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    certificate = load_certificate(path)
    names: list[str] = []
    addresses: list[str] = []
    try:
        for entry in certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value:
            if isinstance(entry, x509.DNSName | x509.UniformResourceIdentifier):
                names.append(entry.value)
            elif isinstance(entry, x509.IPAddress):
                addresses.append(str(entry.value))
    except x509.ExtensionNotFound:
        pass
    except ValueError as error:
        raise _unreadable(path) from error
    return CertificateInfo(
        path=path,
        subject=_common_name(certificate.subject),
        issuer=_common_name(certificate.issuer),
        names=tuple(names),
        addresses=tuple(addresses),
        roles=roles_of(certificate),
        is_authority=_is_authority(certificate),
        serial=f"{certificate.serial_number:x}",
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
    )


def expires_soon(info: CertificateInfo, now: dt.datetime, days: int = EXPIRY_WARNING_DAYS) -> bool:
    """Whether the certificate expires within ``days``, or has done so."""
    return info.not_after - now < dt.timedelta(days=days)


def load_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file.

    Raises:
        ConfigurationError: there is none, or it cannot be read.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError as error:
        raise ConfigurationError(
            "there is no certificate here",
            where=str(path),
            next_step="make one with: blockrep certs issue, or copy it here",
        ) from error
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except ValueError as error:
        raise _unreadable(path) from error


def _unreadable(path: Path) -> ConfigurationError:
    return ConfigurationError("is not a certificate in PEM form", where=str(path))


def _common_name(name: x509.Name) -> str:
    names = name.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return str(names[0].value) if names else name.rfc4514_string()


def roles_of(certificate: x509.Certificate) -> frozenset[Role]:
    """Return what a certificate's extended key usage allows; both if it has none."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return frozenset(Role)
    return frozenset(_ROLES[usage] for usage in usages if usage in _ROLES)


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False
