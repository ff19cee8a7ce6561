"""Whatever OpenSSL says becomes one line that names the peer; the handshake tests cover the usual
cases."""

from __future__ import annotations

import errno
import random
import re
import ssl
from pathlib import Path

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from blockrep.errors import BlockrepError, ConfigurationError, ConnectionLostError, RefusedError
from blockrep.transport.tls_errors import certificate_names, explain

WHERE = "replica:8733"
#: What another program would be told, too.
PLAUSIBLE = "does not speak TLS|no suitable|handshake failure|unrecognized name"


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
        (tls_error("NOT_ON_RECORD_BOUNDARY"), True, ConnectionLostError, "changes bytes"),
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


def context(folder: Path, name: str, protocol: int) -> ssl.SSLContext:
    made = ssl.SSLContext(protocol)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.load_verify_locations(folder / "ca.pem")
    made.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    made.verify_mode = ssl.CERT_REQUIRED
    return made


def with_swapped_words(segment: bytes, dice: random.Random) -> bytes:
    """Do what a broken card does and TCP's checksum does not see."""
    words = [segment[at : at + 2] for at in range(0, len(segment), 2)]
    one, other = dice.sample(range(len(segment) // 2), 2)
    words[one], words[other] = words[other], words[one]
    return b"".join(words)


def handshake_errors(
    client: ssl.SSLContext, server: ssl.SSLContext, damaged: int, dice: random.Random
) -> list[BlockrepError]:
    """Shake hands with the first segment of one flight damaged; return what the ends say."""
    arrived = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    sent = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    ends = [
        client.wrap_bio(arrived[0], sent[0], server_hostname="replica"),
        server.wrap_bio(arrived[1], sent[1], server_side=True),
    ]
    errors: dict[int, BlockrepError] = {}
    for flight in range(6):
        side = flight % 2
        if side in errors:
            continue
        try:
            ends[side].do_handshake()
            ends[side].read(1)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            errors[side] = explain(error, WHERE, handshake=True)
        segments = sent[side].read()
        if flight == damaged:
            segments = with_swapped_words(segments[:1448], dice) + segments[1448:]
        arrived[1 - side].write(segments)
    return list(errors.values())


def test_a_line_that_changes_bytes_of_a_handshake_is_not_a_wrong_configuration(
    tmp_path: Path,
) -> None:
    """Else ``--retry`` would give up because of it."""
    folder = tmp_path / "certs"
    create_authority(folder)
    issue(folder, "replica", [Role.SERVER])
    issue(folder, "origin", [Role.CLIENT])
    client = context(folder, "origin", ssl.PROTOCOL_TLS_CLIENT)
    server = context(folder, "replica", ssl.PROTOCOL_TLS_SERVER)
    for seed in range(1000):
        for error in handshake_errors(client, server, seed % 3, random.Random(seed)):
            if not re.search(PLAUSIBLE, error.what):
                assert isinstance(error, ConnectionLostError), f"seed {seed}: {error}"


def test_names_of_a_certificate() -> None:
    certificate = {"subjectAltName": (("DNS", "a"), ("IP Address", "::1"), ("URI", "urn:b"))}
    assert certificate_names(certificate, ("DNS", "URI")) == ["a", "urn:b"]
    assert certificate_names({}, ("DNS",)) == []
