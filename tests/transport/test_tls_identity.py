"""A certificate's one name is an identity only if it can be one; what was shown is on record."""

from __future__ import annotations

import datetime as dt
import hashlib
import ssl
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from blockrep.certificates.naming import Role
from blockrep.errors import BlockrepError
from blockrep.transport.tls_files import TlsFiles
from transport.endpoints import connected, listening
from transport.hosts import NOW, Hosts


def fingerprint_of(files: TlsFiles) -> str:
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


async def ended(port: int, files: TlsFiles) -> None:
    """Connect; return when the server has ended it."""
    async with connected(port, files) as client:
        with pytest.raises(BlockrepError):
            await client.receive_into(memoryview(bytearray(1)))


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName(""),
        x509.DNSName("a\nb"),
        x509.DNSName("a b"),
        x509.DNSName("a\x1b[2J"),
        x509.DNSName("x" * 256),
        x509.UniformResourceIdentifier("user:root"),
        x509.DNSName("user:root"),
        x509.UniformResourceIdentifier("urn:a\0b"),
    ],
    ids=["empty", "newline", "space", "escape", "long", "local URI", "local DNS", "NUL"],
)
async def test_what_cannot_be_an_identity_is_refused(hosts: Hosts, name: x509.GeneralName) -> None:
    files = hosts.odd("strange", [name])
    async with listening(hosts.server()) as server:
        await ended(server.port, files)
        error = await server.refused.get()
        assert "has a name that is none" in error.what
        assert error.what.isprintable()
        (shown,) = server.shown
        assert (shown.identity, shown.fingerprint) == ("", fingerprint_of(files))
        assert server.accepted.empty()


async def test_the_longest_name(hosts: Hosts) -> None:
    files = hosts.odd("longest", [x509.UniformResourceIdentifier("urn:" + "x" * 251)])
    async with listening(hosts.server()) as server, connected(server.port, files):
        assert len((await server.accepted.get()).peer.identity) == 255


async def test_a_refused_certificate_is_on_record_with_name_and_fingerprint(
    hosts: Hosts, strangers: Hosts
) -> None:
    late = hosts.host("late", Role.CLIENT, days=1, now=NOW - dt.timedelta(days=2))
    revoked = hosts.client("lost")
    files = replace(hosts.server(), crl=hosts.revocation_list(revoked.certificate))
    foreign = replace(strangers.client(), ca=hosts.ca)
    async with listening(files) as server:
        for one, name in ((late, "late"), (revoked, "lost"), (foreign, "origin")):
            await ended(server.port, one)
            await server.refused.get()
            shown = server.shown.pop()
            assert (shown.identity, shown.fingerprint) == (name, fingerprint_of(one))


async def test_who_shows_nothing_has_neither(hosts: Hosts) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(hosts.ca)
    async with listening(hosts.server()) as server:
        from blockrep.transport.tls import connect

        client = await connect("127.0.0.1", server.port, context)
        await server.refused.get()
        client.abort()
        (shown,) = server.shown
        assert (shown.identity, shown.fingerprint) == ("", "")
