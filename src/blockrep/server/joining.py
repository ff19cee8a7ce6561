"""Answers hosts that ask for a certificate: by an invitation, or for one that goes on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blockrep.certificates.authority import record, recorded_path, sign
from blockrep.certificates.describe import load_certificate
from blockrep.certificates.files import CERTIFICATE_MODE, replace_file
from blockrep.certificates.invitations import Invitations
from blockrep.certificates.naming import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    Role,
    certificate_path,
)
from blockrep.certificates.renewal import renewed
from blockrep.errors import BlockrepError, ProtocolError, RefusedError
from blockrep.server.audit import audit_for
from blockrep.transport.interface import Transport
from blockrep.transport.joining import receive_message, send_message

__all__ = ["JoinDesk"]

_SECONDS: Final = 10.0
_RENEWED_DAYS: Final = 90


class JoinDesk:
    """Hands out certificates.

    Args:
        directory: of the certificates, with those of the authority.
        invitations: who may join.
        now: the wall clock.
    """

    def __init__(
        self,
        directory: Path,
        invitations: Invitations,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._directory = directory
        self._invitations = invitations
        self._now = now

    @property
    def is_open(self) -> bool:
        """Whether somebody without a certificate may come at all."""
        return (self._directory / AUTHORITY_KEY).exists() and self._invitations.any_open(
            self._now()
        )

    async def serve(self, transport: Transport) -> None:
        """Answer one request; an error is the answer, too."""
        audit = audit_for(transport.peer)
        with contextlib.suppress(TimeoutError, BlockrepError):
            async with asyncio.timeout(_SECONDS):
                request = await receive_message(transport)
                try:
                    answer = self._answer(request, audit)
                except BlockrepError as error:
                    audit("refused", {"operation": "join", "what": error.what})
                    answer = {"error": error.code, **error.as_fields()}
                await send_message(transport, answer)
                await transport.close()

    def _answer(
        self, request: Mapping[str, Any], audit: Callable[[str, dict[str, object]], None]
    ) -> dict[str, Any]:
        match request.get("want"):
            case "authority":
                return {"authority": (self._directory / AUTHORITY_CERTIFICATE).read_bytes()}
            case "join":
                name, certificate = self._join(request)
            case "renew":
                name, certificate = self._renew(request)
            case _:
                raise ProtocolError("the request is not understood")
        text = certificate.public_bytes(serialization.Encoding.PEM)
        replace_file(certificate_path(self._directory, name), text, CERTIFICATE_MODE)
        serial = f"{certificate.serial_number:x}"
        audit("issued", {"operation": str(request["want"]), "name": name, "serial": serial})
        return {"name": name, "certificate": text}

    def _join(self, request: Mapping[str, Any]) -> tuple[str, x509.Certificate]:
        # Everything in the request but its public key is the client's wish, and ignored.
        public_key = _key_of(request)
        identifier, secret = request.get("invitation"), request.get("secret")
        if not isinstance(identifier, str) or not isinstance(secret, bytes):
            raise ProtocolError("the request is not understood")
        key = public_key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        invitation = self._invitations.redeem(identifier, secret, key, self._now())
        name = invitation.name
        if invitation.serial:
            # The answer was lost: the same key gets the same certificate.
            return name, load_certificate(recorded_path(self._directory, name, invitation.serial))
        certificate = sign(
            self._directory, name, [Role.CLIENT], [x509.DNSName(name)], public_key, invitation.days,
            now=self._now(),
        )  # fmt: skip
        record(self._directory, name, certificate)
        self._invitations.note(invitation, f"{certificate.serial_number:x}")
        return name, certificate

    def _renew(self, request: Mapping[str, Any]) -> tuple[str, x509.Certificate]:
        public_key = _key_of(request)
        old = _certificate_of(request)
        authority = x509.load_pem_x509_certificate(
            (self._directory / AUTHORITY_CERTIFICATE).read_bytes()
        )
        refusal = RefusedError("this certificate is not renewed", safe="nothing was issued")
        try:
            old.verify_directly_issued_by(authority)
        except (ValueError, TypeError) as error:
            raise refusal from error
        except Exception as error:  # InvalidSignature has no common base with the others
            raise refusal from error
        # The request is signed with the key: whoever has the certificate alone gets nothing.
        if old.public_key() != public_key or not (
            old.not_valid_before_utc <= self._now() < old.not_valid_after_utc
        ):
            raise refusal
        certificate = renewed(self._directory, old, public_key, _RENEWED_DAYS, now=self._now())
        (common_name,) = old.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        return str(common_name.value), certificate


def _key_of(request: Mapping[str, Any]) -> ec.EllipticCurvePublicKey:
    try:
        signing = x509.load_der_x509_csr(request["request"])
        public_key = signing.public_key()
        if (
            isinstance(public_key, ec.EllipticCurvePublicKey)
            and isinstance(public_key.curve, ec.SECP256R1)
            and signing.is_signature_valid
        ):
            return public_key
    except (KeyError, TypeError, ValueError):
        pass
    raise ProtocolError("the request holds no signed P-256 key")


def _certificate_of(request: Mapping[str, Any]) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(request["certificate"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("the request holds no certificate") from error
