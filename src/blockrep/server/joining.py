"""Answers hosts that ask for a certificate: by an invitation, or for one that goes on."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
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
    is_host_name,
)
from blockrep.certificates.renewal import renewed
from blockrep.certificates.revocation import issued_for, revoked_serials
from blockrep.errors import BlockrepError, InternalError, ProtocolError, RefusedError
from blockrep.server.audit import audit_for
from blockrep.transport.interface import Transport
from blockrep.transport.joining import receive_message, send_message

__all__ = ["JoinDesk"]

_log = logging.getLogger("blockrep.server")

_SECONDS: Final = 10.0
_RENEWED_DAYS: Final = 90
#: A certificate is renewed in the last days of its validity only.
_RENEWAL: Final = dt.timedelta(days=30)
#: One certificate at a time: a request whose client left is worked on to its end.
_ISSUING: Final = threading.Lock()


class JoinDesk:
    """Hands out certificates.

    Args:
        directory: of the certificates, with those of the authority.
        invitations: who may join.
        knows: whether the rules let an identity do anything.
        crl: a revocation list beside that of the authority; it need not exist.
        now: the wall clock.
    """

    def __init__(
        self,
        directory: Path,
        invitations: Invitations,
        knows: Callable[[str], bool],
        crl: Path,
        now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    ) -> None:
        self._directory = directory
        self._invitations = invitations
        self._knows = knows
        self._crl = crl
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
        asked = False
        try:
            async with asyncio.timeout(_SECONDS):
                request = await receive_message(transport)
                asked = True
                try:
                    # It waits for disks.
                    answer = await asyncio.to_thread(self._answer, request, audit)
                except BlockrepError as error:
                    audit("refused", {"operation": "join", "what": error.what})
                    answer = {"error": error.code, **error.as_fields()}
                except Exception:  # noqa: BLE001 - whatever it was, it is on record and answered
                    _log.exception("a request for a certificate was not answered")
                    unknown = InternalError(
                        "the request was not answered", next_step="see the log of the server"
                    )
                    audit("refused", {"operation": "join", "what": unknown.what})
                    answer = {"error": unknown.code, **unknown.as_fields()}
                await send_message(transport, answer)
                await transport.close()
        except (TimeoutError, BlockrepError) as error:
            if not asked:
                slow = f"nothing was asked for within {_SECONDS:g} seconds"
                what = error.what if isinstance(error, BlockrepError) else slow
                audit("refused", {"operation": "join", "what": what})

    def _answer(
        self, request: Mapping[str, Any], audit: Callable[[str, dict[str, object]], None]
    ) -> dict[str, Any]:
        with _ISSUING:
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
        self._check_key(public_key)
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
        nothing = "nothing was issued"
        refusal = RefusedError("this certificate is not renewed", safe=nothing)
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
        self._check_key(public_key, old)
        name, identity = _names_of(old)
        if not self._knows(identity):
            raise RefusedError(
                "there is no rule for this identity (any more)",
                safe=nothing,
                next_step="ask who administers the server",
            )
        if later := self._later(old):
            return name, later  # the answer was lost, or is asked for often
        due = old.not_valid_after_utc - _RENEWAL
        if self._now() < due:
            days = (old.not_valid_after_utc - self._now()).days
            raise RefusedError(
                f"the certificate is valid for {days} more days",
                safe=nothing,
                next_step=f"renew it from {due:%Y-%m-%d} on",
            )
        return name, renewed(self._directory, old, public_key, _RENEWED_DAYS, now=self._now())

    def _later(self, old: x509.Certificate) -> x509.Certificate | None:
        """Return what replaced a certificate already, if that need not be renewed yet."""
        issued = issued_for(self._directory, old.public_key())
        same = [one for one in issued if one.subject == old.subject]
        newest = max(same, key=lambda one: one.not_valid_after_utc, default=old)
        is_later = newest.not_valid_after_utc > old.not_valid_after_utc
        return newest if is_later and newest.not_valid_after_utc - _RENEWAL > self._now() else None

    def _check_key(
        self, public_key: ec.EllipticCurvePublicKey, *certificates: x509.Certificate
    ) -> None:
        """Refuse a key if any certificate of it was revoked."""
        revoked = revoked_serials(self._directory, self._crl)
        every = [*certificates, *issued_for(self._directory, public_key)]
        if any(one.serial_number in revoked for one in every):
            raise RefusedError(
                "a certificate of this key was revoked",
                safe="nothing was issued",
                next_step="make another key: move the old one away, and join by a new invitation",
            )


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
    except (KeyError, TypeError, ValueError, UnsupportedAlgorithm):
        pass
    raise ProtocolError("the request holds no signed P-256 key")


def _names_of(certificate: x509.Certificate) -> tuple[str, str]:
    """Return what a certificate's file is called, and its identity: with several it is nobody.

    Raises:
        ProtocolError: the authority signed it, but not by way of us.
    """
    try:
        (common_name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
        raise ProtocolError("the certificate names nobody") from error
    name = str(common_name.value)
    if not is_host_name(name):
        raise ProtocolError("the certificate names nobody")
    found = [
        *names.get_values_for_type(x509.DNSName),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    ]
    return name, found[0] if len(found) == 1 else ""


def _certificate_of(request: Mapping[str, Any]) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(request["certificate"])
    except (KeyError, TypeError, ValueError) as error:
        raise ProtocolError("the request holds no certificate") from error
