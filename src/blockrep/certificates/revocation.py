"""The authority's list of certificates that must not be trusted any more.

It is one file, ``ca.crl`` beside ``ca.pem``, on every host that checks certificates. It is valid
for as long as the authority: a list that ended earlier would stop replication on hosts that nobody
copies a newer one to, and would not tell them what they miss.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes

from blockrep.certificates.authority import ISSUED_DIRECTORY, load_authority
from blockrep.certificates.describe import load_certificate
from blockrep.certificates.files import CERTIFICATE_MODE, replace_file
from blockrep.certificates.naming import AUTHORITY_REVOCATIONS, certificate_path, check_name
from blockrep.errors import ConfigurationError

__all__ = ["issued_for", "revoke", "revoked_serials", "serials_on"]


def revoked_serials(directory: Path, crl: Path | None = None) -> frozenset[int]:
    """Return the serial numbers on the list in ``directory``, and on another one.

    None if there is no list.

    Raises:
        ConfigurationError: one cannot be read.
    """
    serials = serials_on(directory / AUTHORITY_REVOCATIONS)
    return serials if crl is None else serials | serials_on(crl)


def issued_for(directory: Path, public_key: CertificatePublicKeyTypes) -> list[x509.Certificate]:
    """Return every certificate that the authority issued for a key."""
    return [one for one in _issued(directory, "*") if one.public_key() == public_key]


def serials_on(path: Path) -> frozenset[int]:
    """Return the serial numbers on a list; none if there is no such file.

    Raises:
        ConfigurationError: it cannot be read.
    """
    try:
        return frozenset(one.serial_number for one in _load(path))
    except FileNotFoundError:
        return frozenset()


def revoke(
    directory: Path, name_or_file: str, *, now: dt.datetime | None = None
) -> list[x509.Certificate]:
    """Put certificates on the list: a host's, or all for the key of the one in a file.

    Returns:
        Which.

    Raises:
        ConfigurationError: no authority here, or no such certificate.
    """
    now = now or dt.datetime.now(dt.UTC)
    issuer, key = load_authority(directory)
    certificates = _named(directory, name_or_file)
    path = directory / AUTHORITY_REVOCATIONS
    try:
        before: Sequence[x509.RevokedCertificate] = list(_load(path))
    except FileNotFoundError:
        before = []
    known = {one.serial_number for one in before}
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - dt.timedelta(minutes=10))  # hosts whose clock is a little behind
        .next_update(issuer.not_valid_after_utc)
        .add_extension(x509.CRLNumber(len(before) + len(certificates)), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
            ),
            critical=False,
        )
    )
    for one in before:
        builder = builder.add_revoked_certificate(one)
    for certificate in certificates:
        if certificate.issuer != issuer.subject:
            raise ConfigurationError("is of another authority", where=name_or_file)
        if certificate.serial_number not in known:
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(now)
                .build()
            )
    signed = builder.sign(key, hashes.SHA256())
    replace_file(path, signed.public_bytes(serialization.Encoding.PEM), CERTIFICATE_MODE)
    return certificates


def _named(directory: Path, name_or_file: str) -> list[x509.Certificate]:
    if "/" in name_or_file or name_or_file.endswith(".pem"):
        given = load_certificate(Path(name_or_file))
        # Whoever has the key can be all of them.
        every = chain([given], issued_for(directory, given.public_key()))
        return list({one.serial_number: one for one in every}.values())
    check_name(name_or_file)
    current = certificate_path(directory, name_or_file)
    found = {one.serial_number: one for one in _issued(directory, name_or_file)}
    if current.exists():
        certificate = load_certificate(current)
        found[certificate.serial_number] = certificate
    if not found:
        raise ConfigurationError(
            f"no certificate of {name_or_file} was issued here",
            where=str(directory),
            next_step="name its file, or see blockrep certs show",
        )
    return list(found.values())


def _issued(directory: Path, name: str) -> list[x509.Certificate]:
    """Return the certificates that were issued to a host; ``*``: to all of them."""
    # A name may hold dots, a serial number does not.
    return [
        load_certificate(path)
        for path in (directory / ISSUED_DIRECTORY).glob(f"{name}.*.pem")
        if name in {"*", path.stem.rpartition(".")[0]}
    ]


def _load(path: Path) -> x509.CertificateRevocationList:
    try:
        return x509.load_pem_x509_crl(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        raise ConfigurationError("is not a revocation list in PEM form", where=str(path)) from error
