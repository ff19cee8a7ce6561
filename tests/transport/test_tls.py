"""TLS connections keep the contract on both event loops; what a client is told when one cannot be
made."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import hashlib
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from blockrep.certificates.naming import Role
from blockrep.errors import ConfigurationError, ConnectionLostError, RefusedError
from blockrep.transport.tls import connect
from blockrep.transport.tls_context import client_context, server_context
from blockrep.transport.tls_files import TlsFiles
from transport.contract import Pair, TransportContract, receive_exactly, send_for_ever
from transport.endpoints import LOOPBACK, connected, listening
from transport.hosts import NOW, Hosts


class TestTlsTransport(TransportContract):
    @pytest.fixture
    async def pair(self, hosts: Hosts) -> AsyncIterator[Pair]:
        async with (
            listening(hosts.server()) as server,
            connected(server.port, hosts.client()) as client,
        ):
            yield client, await server.accepted.get()


async def test_both_ends_know_who_the_other_is(hosts: Hosts) -> None:
    async with (
        listening(hosts.server()) as server,
        connected(server.port, hosts.client()) as client,
    ):
        accepted = await server.accepted.get()
        assert accepted.peer.identity == "origin"
        assert accepted.peer.address.startswith("127.0.0.1:")
        assert accepted.peer.fingerprint == fingerprint_of(hosts.client())
        assert client.peer.identity == "replica"
        assert client.peer.address == f"127.0.0.1:{server.port}"
        assert client.peer.fingerprint == fingerprint_of(hosts.server())


async def test_the_connection_is_tls_1_3_with_aes_gcm_and_without_tickets(hosts: Hosts) -> None:
    async with (
        listening(hosts.server()) as server,
        connected(server.port, hosts.client()) as client,
    ):
        accepted = await server.accepted.get()
        cipher = client._tls.cipher()
        assert cipher is not None
        assert cipher[1] == "TLSv1.3"
        assert "AES" in cipher[0]
        assert "GCM" in cipher[0]
        await accepted.send([b"a ticket would come before this"])
        await receive_exactly(client, 31)
        session = client._tls.session
        assert session is None or not session.has_ticket
        assert client._tls.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted._tls.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


async def test_one_receive_takes_several_records(hosts: Hosts) -> None:
    async with (
        listening(hosts.server()) as server,
        connected(server.port, hosts.client()) as client,
    ):
        accepted = await server.accepted.get()
        await client.send([bytes(60_000)])  # four records, all in the kernel once send returned
        buffer = memoryview(bytearray(100_000))
        first = await accepted.receive_into(buffer)
        assert first > 16 * 1024


async def test_a_peer_that_vanishes_without_the_end_mark_is_no_end(hosts: Hosts) -> None:
    # I10: a stream cut by a FIN of somebody in between must not look complete.
    async with (
        listening(hosts.server()) as server,
        connected(server.port, hosts.client()) as client,
    ):
        accepted = await server.accepted.get()
        await client.send([b"abc"])
        client._tls.shutdown(socket.SHUT_WR)
        assert await receive_exactly(accepted, 3) == b"abc"
        for _ in range(2):
            with pytest.raises(ConnectionLostError, match="cut"):
                await accepted.receive_into(memoryview(bytearray(10)))


async def test_damaged_bytes_after_the_handshake_are_noticed(hosts: Hosts) -> None:
    async with (
        listening(hosts.server()) as server,
        connected(server.port, hosts.client()) as client,
    ):
        accepted = await server.accepted.get()
        with socket.socket(fileno=socket.dup(client._tls.fileno())) as plain:
            plain.send(b"\x17\x03\x03\x00\x20" + b"garbage." * 4)
        with pytest.raises(ConnectionLostError, match="changes bytes"):
            await accepted.receive_into(memoryview(bytearray(10)))


async def test_key_updates_are_answered_in_the_middle_of_a_transfer(hosts: Hosts) -> None:
    # A peer may ask for new keys at any time; the answer is written by whoever reads or writes
    # next.
    async with listening(hosts.server()) as server:
        files = hosts.client()
        program = await asyncio.create_subprocess_exec(
            "openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_3",
            "-CAfile", files.ca, "-cert", files.certificate, "-key", files.key,
            "-servername", "replica",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert program.stdin
        assert program.stdout
        accepted = await server.accepted.get()
        size = 3_000_000
        sending = asyncio.create_task(accepted.send([b"." * size]))
        received = 0
        # "K" alone on a line makes s_client send a KeyUpdate that asks for one in return.
        program.stdin.write(b"one\n")
        await receive_exactly(accepted, 4)
        program.stdin.write(b"K\n")
        await asyncio.sleep(0.2)
        program.stdin.write(b"two\n")
        assert await receive_exactly(accepted, 4) == b"two\n"
        while received < size:
            received += (await program.stdout.read(100_000)).count(b".")
        await sending
        await accepted.send([b"after\n"])
        while b"after" not in await program.stdout.read(100_000):
            pass
        program.kill()
        await program.communicate()


class TestWhatAClientIsTold:
    async def test_nobody_listens(self, hosts: Hosts) -> None:
        with socket.socket() as free:
            free.bind((LOOPBACK, 0))
            port = free.getsockname()[1]
            with pytest.raises(
                ConnectionLostError, match="cannot connect: connection refused"
            ) as caught:
                await attempt(port, hosts.client())
            assert f"127.0.0.1:{port}" in str(caught.value)
            assert "blockrep-server --listen" in str(caught.value)

    async def test_unknown_host_name(self, hosts: Hosts) -> None:
        with pytest.raises((ConfigurationError, ConnectionLostError), match="name"):
            await attempt(8733, hosts.client(), host="no-such-host.invalid")

    async def test_impossible_host_name(self, hosts: Hosts) -> None:
        with pytest.raises(ConfigurationError, match="not known"):
            await attempt(8733, hosts.client(), host="a" * 70)

    async def test_a_server_that_never_answers(self, hosts: Hosts) -> None:
        with (
            quiet_port() as port,
            pytest.raises(ConnectionLostError, match=r"no answer within 0.3 s"),
        ):
            await attempt(port, hosts.client(), timeout_seconds=0.3)

    async def test_a_port_where_no_tls_is_spoken(self, hosts: Hosts) -> None:
        async with plain_server(b"220 mail.example.com ESMTP\r\n") as port:
            with pytest.raises(ConfigurationError, match="does not speak TLS"):
                await attempt(port, hosts.client())

    async def test_a_server_that_hangs_up(self, hosts: Hosts) -> None:
        async with plain_server(b"") as port:
            with pytest.raises(ConnectionLostError, match="closed during the TLS handshake"):
                await attempt(port, hosts.client())

    async def test_a_server_without_tls_1_3(self, hosts: Hosts) -> None:
        # The answer of such a server: an alert "protocol version" (RFC 8446, section 6.2).
        async with plain_server(b"\x15\x03\x03\x00\x02\x02\x46") as port:
            with pytest.raises(ConfigurationError, match=r"does not speak TLS 1\.3"):
                await attempt(port, hosts.client())

    async def test_authority_unknown_here(self, hosts: Hosts, strangers: Hosts) -> None:
        async with listening(strangers.server()) as server:
            with pytest.raises(
                ConfigurationError, match="authority that is not known here"
            ) as caught:
                await attempt(server.port, hosts.client())
            assert "ca.pem" in str(caught.value)
            assert "issued it is not known there" in str(await server.refused.get())

    async def test_expired_server_certificate(self, hosts: Hosts) -> None:
        files = hosts.host("old", Role.SERVER, days=1, now=NOW - dt.timedelta(days=5))
        async with listening(files) as server:
            with pytest.raises(
                ConfigurationError, match=r"certificate expired on \w+ .* GMT"
            ) as caught:
                await attempt(server.port, hosts.client())
            assert str(caught.value).endswith("copy it to its host: blockrep certs renew old")
            assert f"127.0.0.1:{server.port}" in str(caught.value)

    async def test_server_certificate_of_tomorrow(self, hosts: Hosts) -> None:
        files = hosts.host("young", Role.SERVER, now=NOW + dt.timedelta(days=1))
        async with listening(files) as server:
            with pytest.raises(ConfigurationError, match=r"not valid before .* clocks"):
                await attempt(server.port, hosts.client())

    async def test_wrong_host_name(self, hosts: Hosts) -> None:
        async with listening(hosts.server()) as server:
            with pytest.raises(
                ConfigurationError, match=r"is for replica, 127.0.0.1, .*:1, not for"
            ):
                await attempt(server.port, hosts.client(), server_name="elsewhere")
            with pytest.raises(ConfigurationError, match="not for the host"):
                await attempt(server.port, hosts.client(), server_name="127.0.0.2")
            await attempt(server.port, hosts.client(), server_name="replica")

    async def test_a_common_name_is_no_host_name(self, hosts: Hosts) -> None:
        files = hosts.odd("nameless", [])
        async with listening(files) as server:
            with pytest.raises(ConfigurationError, match="is for no host"):
                await attempt(server.port, hosts.client(), server_name="nameless")

    async def test_a_client_certificate_is_no_server(self, hosts: Hosts) -> None:
        async with listening(hosts.client()) as server:
            with pytest.raises(ConfigurationError, match=r"not meant for this use; .*--server"):
                await attempt(server.port, hosts.client(), server_name="origin")

    async def test_revoked_server_certificate(self, hosts: Hosts) -> None:
        client = with_crl(hosts.client(), hosts, hosts.server())
        async with listening(hosts.server()) as server:
            with pytest.raises(ConfigurationError, match="certificate is revoked"):
                await attempt(server.port, client)

    async def test_revocation_list_out_of_date(self, hosts: Hosts) -> None:
        files = hosts.client()
        client = TlsFiles(files.ca, files.certificate, files.key, hosts.revocation_list(days=-1))
        async with listening(hosts.server()) as server:
            with pytest.raises(
                ConfigurationError, match=r"crl has expired; .*revocation list up to date"
            ):
                await attempt(server.port, client)

    async def test_revocation_list_without_the_server(self, hosts: Hosts) -> None:
        client = with_crl(hosts.client(), hosts)
        async with listening(hosts.server()) as server:
            await attempt(server.port, client)


class TestAClientThatIsRefused:
    """With TLS 1.3 connecting succeeds; the refusal must come on the first read, as itself and not
    as the end."""

    async def refusal(self, client: TlsFiles, server_files: TlsFiles) -> tuple[str, str]:
        async with (
            listening(server_files) as server,
            connected(server.port, client) as transport,
        ):
            with pytest.raises(RefusedError) as caught:
                await transport.receive_into(memoryview(bytearray(100)))
            with pytest.raises(RefusedError):
                await transport.send([b"too late"])
            assert f"127.0.0.1:{server.port}" in str(caught.value)
            refused = await server.refused.get()
            assert isinstance(refused, ConfigurationError)
            assert "127.0.0.1:" in str(refused)
            assert server.accepted.empty()
            return str(caught.value), str(refused)

    async def test_no_certificate(self, hosts: Hosts) -> None:
        context = ssl.create_default_context(cafile=hosts.ca)
        async with listening(hosts.server()) as server:
            transport = await connect(LOOPBACK, server.port, context)
            with pytest.raises(
                RefusedError, match="asks for a certificate and this host showed none"
            ):
                await transport.receive_into(memoryview(bytearray(100)))
            await transport.close()
            assert "showed no certificate" in str(await server.refused.get())

    async def test_other_authority(self, hosts: Hosts, strangers: Hosts) -> None:
        own = strangers.client()
        client = TlsFiles(hosts.ca, own.certificate, own.key)
        told, logged = await self.refusal(client, hosts.server())
        assert "authority that issued it is not known there" in told
        assert "authority that is not known here" in logged

    async def test_expired(self, hosts: Hosts) -> None:
        client = hosts.host("late", Role.CLIENT, days=1, now=NOW - dt.timedelta(days=5))
        told, logged = await self.refusal(client, hosts.server())
        assert "it has expired" in told
        assert "copy it to its host: blockrep certs renew late" in logged
        assert "blockrep certs renew NAME" in told

    async def test_not_yet_valid(self, hosts: Hosts) -> None:
        client = hosts.host("early", Role.CLIENT, now=NOW + dt.timedelta(days=1))
        told, logged = await self.refusal(client, hosts.server())
        assert "not yet valid" in told
        assert "not valid before" in logged

    async def test_certificate_for_servers_only(self, hosts: Hosts) -> None:
        told, logged = await self.refusal(hosts.server(), hosts.server())
        assert "issued with --client" in told
        assert "not meant for this use" in logged

    async def test_certificate_for_something_else(self, hosts: Hosts) -> None:
        client = hosts.odd("mail", [x509.DNSName("mail")], [ExtendedKeyUsageOID.EMAIL_PROTECTION])
        told, _ = await self.refusal(client, hosts.server())
        assert "not meant for this use" in told

    async def test_revoked(self, hosts: Hosts) -> None:
        server = with_crl(hosts.server(), hosts, hosts.client())
        told, logged = await self.refusal(hosts.client(), server)
        assert "it is revoked" in told
        assert "certificate is revoked" in logged

    async def test_a_refused_client_that_only_writes_learns_of_it(self, hosts: Hosts) -> None:
        async with (
            listening(hosts.server()) as server,
            connected(server.port, hosts.server()) as transport,
        ):
            await server.refused.get()
            with pytest.raises((RefusedError, ConnectionLostError)):
                await send_for_ever(transport)
            with pytest.raises((RefusedError, ConnectionLostError)):
                await transport.receive_into(memoryview(bytearray(100)))


def test_importing_the_transport_does_not_load_what_only_certs_needs() -> None:
    # Start-up time counts: cryptography takes longer to load than a small push takes.
    program = (
        "import sys, blockrep.transport.tls, blockrep.transport.tls_listener, "
        "blockrep.transport.tls_context; print('cryptography' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


async def attempt(
    port: int,
    files: TlsFiles,
    *,
    host: str = LOOPBACK,
    server_name: str = "",
    timeout_seconds: float = 10,
) -> None:
    transport = await connect(
        host, port, client_context(files), timeout_seconds=timeout_seconds, server_name=server_name
    )
    transport.abort()


def fingerprint_of(files: TlsFiles) -> str:
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def with_crl(files: TlsFiles, hosts: Hosts, *revoked: TlsFiles) -> TlsFiles:
    crl = hosts.revocation_list(*(other.certificate for other in revoked))
    return TlsFiles(files.ca, files.certificate, files.key, crl)


@contextlib.contextmanager
def quiet_port() -> Iterator[int]:
    with socket.socket() as sock:
        sock.bind((LOOPBACK, 0))
        sock.listen()
        yield sock.getsockname()[1]


@contextlib.asynccontextmanager
async def plain_server(greeting: bytes) -> AsyncIterator[int]:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        if not greeting:
            await reader.read(5)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

    async with await asyncio.start_server(greet, LOOPBACK, 0) as server:
        yield server.sockets[0].getsockname()[1]


def test_contexts_can_be_made_of_the_files(hosts: Hosts) -> None:
    assert server_context(hosts.server()).num_tickets == 0
