"""Certificates for the TLS tests: what `blockrep certs` makes, and what it never would."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.transport.tls_files import TlsFiles

NOW = dt.datetime.now(dt.UTC)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


class Hosts:
    """An authority and the files of its hosts, each made on first use."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        create_authority(directory)

    @property
    def ca(self) -> Path:
        return self.directory / "ca.pem"

    def host(
        self,
        name: str,
        *roles: Role,
        hosts: Sequence[str] = ("127.0.0.1", "::1"),
        days: int = 30,
        now: dt.datetime = NOW,
    ) -> TlsFiles:
        if not (self.directory / f"{name}.pem").exists():
            issue(self.directory, name, roles, hosts if Role.SERVER in roles else (), days, now=now)
        return self.files(name)

    def files(self, name: str) -> TlsFiles:
        return TlsFiles(self.ca, self.directory / f"{name}.pem", self.directory / f"{name}.key")

    def server(self, name: str = "replica") -> TlsFiles:
        return self.host(name, Role.SERVER)

    def client(self, name: str = "origin") -> TlsFiles:
        return self.host(name, Role.CLIENT)

    def odd(
        self,
        name: str,
        alternative_names: Sequence[x509.GeneralName],
        usages: Sequence[x509.ObjectIdentifier] = BOTH,
    ) -> TlsFiles:
        """Sign what `blockrep certs issue` would refuse."""
        issuer, issuer_key = self._authority()
        key = ec.generate_private_key(ec.SECP256R1())
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - dt.timedelta(days=1))
            .not_valid_after(NOW + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        )
        if alternative_names:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative_names), False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), False)
        certificate = builder.sign(issuer_key, hashes.SHA256())
        files = self.files(name)
        files.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files.key.touch(0o600)
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def revocation_list(self, *revoked: Path, days: int = 1) -> Path:
        """Sign a revocation list of the certificates in these files."""
        issuer, issuer_key = self._authority()
        identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer.subject)
            .last_update(NOW - dt.timedelta(days=2))
            .next_update(NOW + dt.timedelta(days=days))
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False
            )
            .add_extension(x509.CRLNumber(1), critical=False)
        )
        for path in revoked:
            certificate = x509.load_pem_x509_certificate(path.read_bytes())
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder()
                .serial_number(certificate.serial_number)
                .revocation_date(NOW - dt.timedelta(days=1))
                .build()
            )
        crl = builder.sign(issuer_key, hashes.SHA256())
        path = self.directory / f"revoked{len(revoked)}-{days}.crl"
        path.write_bytes(crl.public_bytes(serialization.Encoding.PEM))
        return path

    def _authority(self) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = serialization.load_pem_private_key(
            (self.directory / "ca.key").read_bytes(), password=None
        )
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return x509.load_pem_x509_certificate(self.ca.read_bytes()), key
