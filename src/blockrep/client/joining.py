"""Becomes a client of a server by its invitation, and stays one: the key never leaves this host."""

from __future__ import annotations

import contextlib
import hashlib
import os
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blockrep.certificates.files import (
    CERTIFICATE_MODE,
    KEY_MODE,
    check_not_there,
    prepare_directory,
    replace_file,
    write_new_files,
)
from blockrep.certificates.invitations import Token
from blockrep.certificates.naming import (
    AUTHORITY_CERTIFICATE,
    certificate_path,
    check_name,
    key_path,
)
from blockrep.errors import (
    BlockrepError,
    ConfigurationError,
    ConnectionLostError,
    ProtocolError,
    RefusedError,
    VerificationFailedError,
)

__all__ = ["Ask", "authority_context", "join", "renew", "unverified_context"]

Ask = Callable[[ssl.SSLContext, dict[str, Any]], Awaitable[dict[str, Any]]]
"""Connects to the server as a joining host, sends a request, returns the answer."""


def unverified_context() -> ssl.SSLContext:
    """Return a context for a server that we know nothing of yet. Nothing secret is sent in it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def authority_context(authority: bytes) -> ssl.SSLContext:
    """Return a context that trusts this authority alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.hostname_checks_common_name = False
    context.load_verify_locations(cadata=authority.decode("ascii"))
    return context


async def join(token: Token, ask: Ask, directory: Path) -> Path:
    """Get a certificate; write it, its key and the authority's certificate; return its path.

    All that can be in the way here is found before the invitation is used. A key that an earlier
    attempt left behind is used again: the server gives it the same certificate.

    Raises:
        VerificationFailedError: the server is not the one that invited us.
        ConfigurationError: there are certificates of another authority, or of this name, already.
        RefusedError: the invitation is not valid (any more).
        ConnectionLostError: it is not known whether there is a certificate now.
    """
    name = check_name(token.name)
    certificate_file, key_file = certificate_path(directory, name), key_path(directory, name)
    check_not_there([certificate_file])
    authority = await _authority(token, ask)
    _check_own_authority(directory, authority)
    prepare_directory(directory)
    key, made = _own_key(key_file)
    try:
        certificate = await _invited(token, key, authority, ask)
    except ConnectionLostError as error:
        raise ConnectionLostError(
            f"{error.what}, and it is not known whether the certificate was issued",
            where=error.where,
            safe=f"the key is kept: {key_file}",
            next_step="join again with the same token, before it expires",
        ) from error
    except BlockrepError:
        if made:
            key_file.unlink()
        raise
    files = [(certificate_file, certificate, CERTIFICATE_MODE)]
    if not (directory / AUTHORITY_CERTIFICATE).exists():
        # First: after a crash between the two, joining again is still possible.
        files.insert(0, (directory / AUTHORITY_CERTIFICATE, authority, CERTIFICATE_MODE))
    write_new_files(files)
    return certificate_file


async def _authority(token: Token, ask: Ask) -> bytes:
    """Return the authority's certificate, once the token vouches for it."""
    try:
        answer = await ask(unverified_context(), {"want": "authority"})
    except RefusedError as error:
        # Without an open invitation the server asks everybody for a certificate.
        raise RefusedError(
            "nobody is invited there: the invitation has expired, or another one replaced it",
            where=f"{token.host}:{token.port}",
            safe="nothing was written",
            next_step="ask for another one: blockrep peer invite NAME",
        ) from error
    authority = _bytes(answer, "authority")
    _check_authority(authority, token)
    return authority


async def _invited(
    token: Token, key: ec.EllipticCurvePrivateKey, authority: bytes, ask: Ask
) -> bytes:
    """Return the certificate that the invitation gives the key.

    The server must prove, by that authority, to be who invited us.
    """
    answer = await ask(
        authority_context(authority),
        {
            "want": "join",
            "invitation": token.invitation,
            "secret": token.secret,
            "request": _request(key),
        },
    )
    certificate = _bytes(answer, "certificate")
    _check_certificate(certificate, key)
    if answer.get("name") != token.name:
        raise ProtocolError("the server's answer is a certificate of another name")
    return certificate


async def renew(certificate_file: Path, key_file: Path, authority_file: Path, ask: Ask) -> None:
    """Replace a certificate that is still valid by one with a later end, for the same key.

    Raises:
        RefusedError: the server does not renew it.
    """
    key, request = _renewal(certificate_file, key_file)
    context = authority_context(_content(authority_file))
    context.load_cert_chain(certificate_file, key_file)
    certificate = _bytes(await ask(context, request), "certificate")
    _check_certificate(certificate, key)
    replace_file(certificate_file, certificate, CERTIFICATE_MODE)


def _renewal(
    certificate_file: Path, key_file: Path
) -> tuple[ec.EllipticCurvePrivateKey, dict[str, Any]]:
    key = _load_key(key_file)
    request = {
        "want": "renew",
        "certificate": _content(certificate_file),
        "request": _request(key),
    }
    return key, request


def _own_key(path: Path) -> tuple[ec.EllipticCurvePrivateKey, bool]:
    """Return the key that is there, or write a new one; and whether it is new."""
    if os.path.lexists(path):
        return _load_key(path), False
    key = ec.generate_private_key(ec.SECP256R1())
    write_new_files([(path, _key_text(key), KEY_MODE)])
    return key, True


def _load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    key: object = None
    with contextlib.suppress(ValueError, TypeError):
        key = serialization.load_pem_private_key(_content(path), None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigurationError(
            "is not a key that blockrep made",
            where=str(path),
            safe="nothing was changed",
            next_step="move it away",
        )
    return key


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"cannot be read: {error.strerror}", where=str(path)) from error


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    signed = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .sign(key, hashes.SHA256())
    )
    return signed.public_bytes(serialization.Encoding.DER)


def _check_authority(authority: bytes, token: Token) -> None:
    try:
        found = x509.load_pem_x509_certificate(authority).fingerprint(hashes.SHA256())
    except ValueError as error:
        raise ProtocolError("the server's authority is not a certificate") from error
    if found != token.authority:
        raise VerificationFailedError(
            f"the server shows another authority ({found.hex()[:16]}) than the token names"
            f" ({token.authority.hex()[:16]}): it is another server, or somebody is in between",
            where=f"{token.host}:{token.port}",
            safe="nothing secret was sent, nothing was written",
            next_step="ask whoever invited you to look",
        )


def _check_own_authority(directory: Path, authority: bytes) -> None:
    path = directory / AUTHORITY_CERTIFICATE
    if path.exists() and _digest(path.read_bytes()) != _digest(authority):
        raise ConfigurationError(
            "is the certificate of another authority",
            where=str(path),
            safe="nothing was changed",
            next_step="give another folder: --directory DIR, and name its files in [tls]",
        )


def _check_certificate(certificate: bytes, key: ec.EllipticCurvePrivateKey) -> None:
    try:
        issued = x509.load_pem_x509_certificate(certificate)
    except ValueError as error:
        raise ProtocolError("the server's answer is not a certificate") from error
    if issued.public_key() != key.public_key():
        raise ProtocolError("the server's answer is the certificate of another key")


def _digest(pem: bytes) -> bytes:
    try:
        return x509.load_pem_x509_certificate(pem).fingerprint(hashes.SHA256())
    except ValueError:
        return hashlib.sha256(pem).digest()


def _key_text(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _bytes(answer: dict[str, Any], name: str) -> bytes:
    value = answer.get(name)
    if not isinstance(value, bytes):
        raise ProtocolError("the server's answer is not understood")
    return value
