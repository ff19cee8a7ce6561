"""What TLS says when it fails, told so that an administrator knows what to change, and where.

OpenSSL names a failure by a reason (``SSLError.reason``), a failed verification by a number
(``verify_code``, the X509_V_ERR constants of x509_vfy.h). With TLS 1.3 a client learns of its own
refused certificate only when it first reads.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from typing import Any

from blockrep.errors import BlockrepError, ConfigurationError, ConnectionLostError, RefusedError

__all__ = ["certificate_names", "explain", "presented_certificate", "presented_encoded"]

_DER = 2  # ENCODING_DER of CPython's _ssl
_NOTHING_PRESENTED = (AttributeError, TypeError, IndexError, ValueError, ssl.SSLError)

_EXPIRED, _NOT_YET_VALID, _REVOKED, _WRONG_PURPOSE, _NO_CRL, _CRL_EXPIRED = 10, 9, 23, 26, 3, 12
_WRONG_NAMES = frozenset({62, 64})  # host name, IP address
_UNKNOWN_AUTHORITY = frozenset({2, 18, 19, 20, 21})

_ISSUE = "move its files away, then issue a new one with: blockrep certs issue"
#: An expired certificate cannot ask for its own successor: no handshake succeeds with it.
_RENEW = "renew it where the authority is, and copy it to its host: blockrep certs renew"
_SAME_AUTHORITY = "both hosts need certificates of the same authority (the same ca.pem)"

#: Alerts of a peer that does not like our certificate: what it says, what to do.
_REFUSALS: Mapping[str, tuple[str, str]] = {
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": (
        "it asks for a certificate and this host showed none",
        "set certificate and key in [tls] of the configuration",
    ),
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": (
        "it has expired, or the clocks of the two hosts differ",
        f"{_RENEW} NAME",
    ),
    "SSLV3_ALERT_CERTIFICATE_REVOKED": ("it is revoked", _ISSUE),
    "TLSV1_ALERT_UNKNOWN_CA": ("the authority that issued it is not known there", _SAME_AUTHORITY),
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": (
        "it is not meant for this use",
        "a host that pushes needs one issued with --client, one that listens with --server",
    ),
    "SSLV3_ALERT_BAD_CERTIFICATE": (
        "it is not valid there: not yet valid, or for another host name",
        "compare the clocks of both hosts, and the names in: blockrep certs show",
    ),
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": ("it is not accepted there", "see the log of the peer"),
    "TLSV1_ALERT_ACCESS_DENIED": ("access is denied", "see the log of the peer"),
}
_NO_COMMON_VERSION = frozenset(
    {"TLSV1_ALERT_PROTOCOL_VERSION", "UNSUPPORTED_PROTOCOL", "VERSION_TOO_LOW", "WRONG_SSL_VERSION"}
)
#: Bytes that changed on the way: the record's authentication tag does not fit them any more.
_DAMAGED = frozenset({"DECRYPTION_FAILED_OR_BAD_RECORD_MAC", "SSLV3_ALERT_BAD_RECORD_MAC"})
#: The two ends speak TLS 1.3 and have nothing in common beyond that. All else that a handshake may
#: end by is a message that makes no sense: before there are keys, damage has as many names as TLS
#: has rules.
_UNFIT = frozenset(
    {
        "NO_SHARED_CIPHER",
        "NO_SHARED_GROUPS",
        "NO_SHARED_SIGNATURE_ALGORITHMS",
        "NO_SUITABLE_GROUPS",
        "NO_SUITABLE_SIGNATURE_ALGORITHM",
        "SSLV3_ALERT_HANDSHAKE_FAILURE",
        "TLSV1_ALERT_INSUFFICIENT_SECURITY",
        "TLSV1_UNRECOGNIZED_NAME",
    }
)
_NOT_TLS = frozenset(
    {
        "BAD_PROTOCOL_VERSION_NUMBER",
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "WRONG_VERSION_NUMBER",
    }
)


def explain(
    error: OSError,
    where: str,
    *,
    handshake: bool = False,
    certificate: Mapping[str, Any] | None = None,
) -> BlockrepError:
    """Return the error to show for what a socket or TLS raised.

    Args:
        error: what was raised.
        where: the peer, as ``host:port``.
        handshake: it happened before the handshake was complete.
        certificate: what the peer presented, if it is known (:func:`presented_certificate`).
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _explain_verification(error, where, certificate or {})
    if isinstance(error, ssl.SSLError) and not isinstance(
        error, ssl.SSLEOFError | ssl.SSLSyscallError
    ):
        return _explain_tls(error, where, handshake=handshake)
    if handshake:
        return ConnectionLostError(
            "the connection was closed during the TLS handshake",
            where=where,
            next_step="check that a blockrep-server listens there, and its log",
        )
    if isinstance(error, ssl.SSLEOFError):
        what = "the connection ended without the end mark of TLS: it was cut"
    else:
        what = f"the connection broke: {error.strerror or error}"
    return _lost(what, where)


def presented_certificate(tls: ssl.SSLSocket) -> Mapping[str, Any] | None:
    """Return what the peer showed, in the form of ``getpeercert()``, also if it was not accepted.

    ``getpeercert()`` has nothing to say then, and the public ``get_unverified_chain()`` of Python
    3.13 gives bytes that would need a parser; the object underneath has had both since 3.10. Only
    messages and logs depend on it.
    """
    try:
        info: Mapping[str, Any] = _presented(tls).get_info()
    except _NOTHING_PRESENTED:
        return None
    return info


def presented_encoded(tls: ssl.SSLSocket) -> bytes:
    """Return what the peer showed, DER, also if it was not accepted; empty if that was nothing."""
    try:
        encoded: bytes = _presented(tls).public_bytes(_DER)
    except _NOTHING_PRESENTED:
        return b""
    return encoded


def _presented(tls: ssl.SSLSocket) -> Any:
    return tls._sslobj.get_verified_chain()[0]  # type: ignore[attr-defined] # noqa: SLF001


def certificate_names(certificate: Mapping[str, Any], kinds: Iterable[str]) -> list[str]:
    """Return the subjectAltName entries of these kinds (``DNS``, ``URI``, ``IP Address``)."""
    return [str(value) for kind, value in certificate.get("subjectAltName", ()) if kind in kinds]


def _explain_verification(
    error: ssl.SSLCertVerificationError, where: str, certificate: Mapping[str, Any]
) -> BlockrepError:
    code = error.verify_code
    names = ", ".join(certificate_names(certificate, ("DNS", "URI", "IP Address")))
    safe = "nothing was sent"
    if code == _EXPIRED:
        when = f" on {certificate['notAfter']}" if "notAfter" in certificate else ""
        what, next_step = (
            f"the certificate expired{when}",
            f"{_RENEW} {names.split(', ')[0] or 'NAME'}",
        )
    elif code == _NOT_YET_VALID:
        when = f" before {certificate['notBefore']}" if "notBefore" in certificate else ""
        what, next_step = f"the certificate is not valid{when}", "compare the clocks of both hosts"
    elif code == _REVOKED:
        what, next_step = "the certificate is revoked", _ISSUE
    elif code == _WRONG_PURPOSE:
        what = "the certificate is not meant for this use"
        next_step = (
            "a host that listens needs one issued with --server, one that pushes with --client"
        )
    elif code in _WRONG_NAMES:
        what = f"the certificate is for {names or 'no host'}, not for the host that was asked for"
        next_step = (
            "use one of these names, issue one with --host, or set server_name in [hosts.NAME]"
        )
    elif code in _UNKNOWN_AUTHORITY:
        what, next_step = (
            "the certificate is of an authority that is not known here",
            _SAME_AUTHORITY,
        )
    elif code in {_NO_CRL, _CRL_EXPIRED}:
        what = f"the certificate cannot be checked: {error.verify_message.rstrip('.').lower()}"
        next_step = "bring the revocation list up to date (crl in [tls] of the configuration)"
    else:
        what = f"the certificate is not accepted: {error.verify_message.rstrip('.')}"
        next_step = "compare both certificates with: blockrep certs show"
    return ConfigurationError(what, where=where, safe=safe, next_step=next_step)


def _explain_tls(error: ssl.SSLError, where: str, *, handshake: bool) -> BlockrepError:
    reason = error.reason or str(error)
    if reason in _REFUSALS:
        why, next_step = _REFUSALS[reason]
        return RefusedError(
            f"the peer refused this host's certificate: {why}", where=where, next_step=next_step
        )
    if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
        return ConfigurationError(
            "the peer showed no certificate",
            where=where,
            next_step="give it one with: blockrep certs issue",
        )
    if reason in _NO_COMMON_VERSION:
        return ConfigurationError(
            "the peer does not speak TLS 1.3", where=where, next_step="check that it runs blockrep"
        )
    if handshake and reason in _NOT_TLS:
        return ConfigurationError(
            "the peer does not speak TLS",
            where=where,
            next_step="check the port, and that a blockrep-server listens there",
        )
    if handshake and reason in _UNFIT:
        return ConfigurationError(f"the TLS handshake failed: {_words(reason)}", where=where)
    if handshake or reason in _DAMAGED:
        words = _words(reason)
        return _lost(f"what arrived is not what was sent: the line changes bytes ({words})", where)
    return _lost(f"TLS failed: {_words(reason)}", where)


def _lost(what: str, where: str) -> ConnectionLostError:
    return ConnectionLostError(
        what,
        where=where,
        safe="what the receiver acknowledged is kept",
        next_step="run the same push again: it resumes",
    )


def _words(reason: str) -> str:
    return reason.replace("_", " ").lower()
