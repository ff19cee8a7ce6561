"""Whatever OpenSSL says becomes one line that names the peer; the handshake tests cover the usual
cases."""

from __future__ import annotations

import errno
import ssl

import pytest

from blockrep.errors import BlockrepError, ConfigurationError, ConnectionLostError, RefusedError
from blockrep.transport.tls_errors import certificate_names, explain

WHERE = "replica:8733"


def tls_error(reason: str) -> ssl.SSLError:
    error = ssl.SSLError(1, f"[SSL: {reason}] text (_ssl.c:1)")
    error.reason = reason
    return error


def verification_error(code: int, text: str = "some reason.") -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_code = code
    error.verify_message = text
    return error


@pytest.mark.parametrize(
    ("error", "handshake", "kind", "text"),
    [
        (OSError(errno.ECONNRESET, "Connection reset"), False, ConnectionLostError, "broke: Conn"),
        (OSError("no text"), False, ConnectionLostError, "broke: no text"),
        (OSError(errno.ECONNRESET, "reset"), True, ConnectionLostError, "during the TLS handshake"),
        (ssl.SSLEOFError(8, "EOF"), False, ConnectionLostError, "it was cut"),
        (
            tls_error("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"),
            False,
            ConnectionLostError,
            "changes bytes",
        ),
        (tls_error("SSLV3_ALERT_BAD_RECORD_MAC"), True, ConnectionLostError, "changes bytes"),
        (tls_error("TLSV1_ALERT_ACCESS_DENIED"), False, RefusedError, "access is denied"),
        (
            tls_error("SSLV3_ALERT_HANDSHAKE_FAILURE"),
            True,
            ConfigurationError,
            "handshake failed: ",
        ),
        (tls_error("NO_SHARED_CIPHER"), True, ConfigurationError, "no shared cipher"),
        (verification_error(24, "invalid CA certificate"), True, ConfigurationError, "invalid CA"),
        (verification_error(10), True, ConfigurationError, "certificate expired"),
        (verification_error(9), True, ConfigurationError, "is not valid; "),
        (verification_error(62), True, ConfigurationError, "is for no host"),
    ],
)
def test_one_line_with_the_peer_and_the_cause(
    error: OSError, handshake: bool, kind: type[BlockrepError], text: str
) -> None:
    explained = explain(error, WHERE, handshake=handshake)
    assert type(explained) is kind
    assert str(explained).startswith(f"{WHERE}: ")
    assert text in str(explained)
    assert "\n" not in str(explained)


def test_a_lost_connection_says_that_the_push_resumes() -> None:
    assert "it resumes" in str(explain(ssl.SSLEOFError(8, "EOF"), WHERE))


def test_names_of_a_certificate() -> None:
    certificate = {"subjectAltName": (("DNS", "a"), ("IP Address", "::1"), ("URI", "urn:b"))}
    assert certificate_names(certificate, ("DNS", "URI")) == ["a", "urn:b"]
    assert certificate_names({}, ("DNS",)) == []
