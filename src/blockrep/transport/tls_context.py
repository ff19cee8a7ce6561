"""TLS contexts: 1.3 only, certificates on both sides, one private authority, no system store.

Cipher suites are left to OpenSSL: of TLS 1.3's five it offers AES-256-GCM first, which is the
fastest on machines with AES instructions and is what both ends pick. There are no session tickets:
a resumed session would skip the look at the certificate.
"""

from __future__ import annotations

import ssl

from blockrep.errors import ConfigurationError
from blockrep.transport.tls_files import TlsFiles

__all__ = ["client_context", "join_context", "server_context"]


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a host that dials: it checks the server's certificate and host name.

    Raises:
        ConfigurationError: a file is missing or is not what it should be.
    """
    context = _context(ssl.PROTOCOL_TLS_CLIENT, files)
    context.check_hostname = True
    context.hostname_checks_common_name = False
    return context


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context of a host that listens: it asks for a certificate meant for clients.

    Raises:
        ConfigurationError: a file is missing or is not what it should be.
    """
    context = _context(ssl.PROTOCOL_TLS_SERVER, files)
    context.verify_mode = ssl.CERT_REQUIRED
    context.num_tickets = 0
    return context


def join_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the context for hosts that ask for a certificate: they may have none yet.

    Raises:
        ConfigurationError: a file is missing or is not what it should be.
    """
    context = server_context(files)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def _context(protocol: int, files: TlsFiles) -> ssl.SSLContext:
    files.check()
    context = ssl.SSLContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        context.load_verify_locations(cafile=files.ca)
    except (ssl.SSLError, OSError) as error:
        raise ConfigurationError("is not a certificate in PEM form", where=str(files.ca)) from error
    if not context.get_ca_certs():
        raise ConfigurationError(
            "is not the certificate of an authority",
            where=str(files.ca),
            next_step="copy ca.pem from the host where `blockrep certs init` was run",
        )
    _load_own(context, files)
    if files.crl is not None:
        try:
            context.load_verify_locations(cafile=files.crl)
        except (ssl.SSLError, OSError) as error:
            raise ConfigurationError(
                "is not a revocation list in PEM form", where=str(files.crl)
            ) from error
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    return context


def _load_own(context: ssl.SSLContext, files: TlsFiles) -> None:
    try:
        # A passphrase would be asked for on the terminal, of a daemon that has none.
        context.load_cert_chain(files.certificate, files.key, password=_refuse_passphrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(
                f"is not the key of {files.certificate}",
                where=str(files.key),
                next_step="copy both files of one certificate",
            ) from error
        raise ConfigurationError(
            "certificate and key cannot be loaded: "
            + (error.reason or "not in PEM form").replace("_", " ").lower(),
            where=f"{files.certificate} and {files.key}",
        ) from error


def _refuse_passphrase() -> str:
    raise ConfigurationError(
        "the private key is encrypted: blockrep runs unattended and cannot ask for its passphrase",
        next_step="store the key unencrypted with mode 0600 (blockrep certs issue does)",
    )
