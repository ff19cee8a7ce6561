"""Certificates that go on: the same host, the same names, a later end."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blockrep.certificates.authority import LEAF_DAYS, record, sign
from blockrep.certificates.describe import CertificateInfo, describe, load_certificate, roles_of
from blockrep.certificates.files import CERTIFICATE_MODE, KEY_MODE, replace_file
from blockrep.certificates.naming import certificate_path, check_name, key_path
from blockrep.certificates.revocation import revoked_serials
from blockrep.errors import ConfigurationError, RefusedError

__all__ = ["renew", "renewed"]


def renew(
    directory: Path,
    name: str,
    days: int = LEAF_DAYS,
    *,
    new_key: bool = False,
    crl: Path | None = None,
    now: dt.datetime | None = None,
) -> CertificateInfo:
    """Replace ``NAME.pem`` by a certificate with a later end, on the authority's host.

    Args:
        directory: holds authority and certificate.
        name: of the host.
        days: how long it will be valid.
        new_key: replace ``NAME.key`` too.
        crl: revocation list, beside the one in ``directory``.
        now: time of issue, for tests.

    Raises:
        ConfigurationError: no authority, no such certificate, or it was revoked.
    """
    check_name(name)
    path = certificate_path(directory, name)
    old = load_certificate(path)
    public_key = old.public_key()
    if new_key:
        key = ec.generate_private_key(ec.SECP256R1())
        public_key = key.public_key()
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise ConfigurationError("its key is of another kind than ours", where=str(path))
    if old.serial_number in revoked_serials(directory, crl):
        raise RefusedError("the certificate was revoked", safe="nothing was changed")
    certificate = renewed(directory, old, public_key, days, now=now)
    if new_key:
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        replace_file(key_path(directory, name), text, KEY_MODE)
    replace_file(path, certificate.public_bytes(serialization.Encoding.PEM), CERTIFICATE_MODE)
    return describe(path)


def renewed(
    directory: Path,
    old: x509.Certificate,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    *,
    now: dt.datetime | None = None,
) -> x509.Certificate:
    """Return a certificate that says what ``old`` says, with a later end, and keep a copy of it.

    Whether the old one was revoked is for the caller to see.

    Raises:
        ConfigurationError: no authority here.
    """
    names = old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    common_name = str(old.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value)
    certificate = sign(
        directory, common_name, roles_of(old), list(names), public_key, days, now=now
    )
    record(directory, common_name, certificate)
    return certificate
