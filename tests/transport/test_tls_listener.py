"""The listener admits authenticated clients, survives everybody else, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509

from blockrep.certificates.naming import Role
from blockrep.errors import BlockrepError, BusyError, ConfigurationError, ConnectionLostError
from blockrep.transport.joining import PREAMBLE, open_join
from blockrep.transport.tls import TlsTransport, connect
from blockrep.transport.tls_context import client_context, join_context, server_context
from blockrep.transport.tls_files import TlsFiles
from blockrep.transport.tls_listener import Joins, TlsListener
from transport.contract import receive_exactly
from transport.endpoints import LOOPBACK, connected, listening
from transport.hosts import Hosts


@pytest.fixture(autouse=True)
async def nothing_left_behind() -> AsyncIterator[None]:
    sockets = count_sockets()
    yield
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert count_sockets() <= sockets


def count_sockets() -> int:
    count = 0
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the descriptor of the listing itself
            count += str(path.readlink()).startswith("socket:")
    return count


async def echo_works(
    port: int, hosts: Hosts, host: str = LOOPBACK, files: TlsFiles | None = None
) -> None:
    """Prove that a proper client still gets through."""
    async with connected(port, files or hosts.client(), host=host) as client:
        await client.send([b"hello"])


async def test_every_loopback_address_at_once(hosts: Hosts) -> None:
    addresses = [(LOOPBACK, 0), ("::1", 0)]
    async with listening(hosts.server(), addresses=addresses) as server:
        assert server.listener
        (_, first), (host, second) = server.listener.addresses
        assert host == "::1"
        await echo_works(first, hosts)
        await echo_works(second, hosts, "::1")
        assert (await server.accepted.get()).peer.address.startswith("127.0.0.1:")
        assert (await server.accepted.get()).peer.address.startswith("[::1]:")


async def test_no_host_means_every_address_on_one_port(hosts: Hosts) -> None:
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    async with listening(hosts.server(), addresses=[("", port)]) as server:
        await echo_works(port, hosts)
        await echo_works(port, hosts, "::1")
        assert server.accepted.qsize() <= 2


async def test_an_address_in_use_is_told_and_nothing_stays_bound(hosts: Hosts) -> None:
    with socket.socket() as taken, socket.socket() as free:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        free.bind((LOOPBACK, 0))
        port = free.getsockname()[1]
        free.close()
        addresses = [(LOOPBACK, port), (LOOPBACK, taken.getsockname()[1])]
        with pytest.raises(ConfigurationError, match="in use; stop what listens there"):
            async with listening(hosts.server(), addresses=addresses):
                pass
        with socket.socket() as again:
            again.bind((LOOPBACK, port))


async def test_an_address_of_another_host_is_told(hosts: Hosts) -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1:0: .*use an address of this host"):
        async with listening(hosts.server(), addresses=[("192.0.2.1", 0)]):
            pass
    with pytest.raises(ConfigurationError, match="there is no such address"):
        async with listening(hosts.server(), addresses=[("a" * 70, 0)]):
            pass


async def test_garbage_is_refused_and_nobody_is_disturbed(hosts: Hosts) -> None:
    generator = random.Random(8733)
    async with listening(hosts.server()) as server:
        for number in range(20):
            reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
            writer.write(generator.randbytes(1 + number * 100))
            with contextlib.suppress(OSError):
                writer.write_eof()
                await reader.read()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
            assert isinstance(await server.refused.get(), BlockrepError)
        await echo_works(server.port, hosts)


async def test_a_plain_text_client_is_named_as_such(hosts: Hosts) -> None:
    async with listening(hosts.server()) as server:
        _, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: replica\r\n\r\n")
        refused = await server.refused.get()
        assert isinstance(refused, ConfigurationError)
        assert "does not speak TLS" in str(refused)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_client_with_tls_1_2_is_named_as_such(hosts: Hosts) -> None:
    context = client_context(hosts.client())
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with listening(hosts.server()) as server:
        with pytest.raises(ConfigurationError, match=r"does not speak TLS 1\.3"):
            await connect(LOOPBACK, server.port, context)
        assert "does not speak TLS 1.3" in str(await server.refused.get())


async def test_a_client_that_hangs_up_is_only_noted(hosts: Hosts) -> None:
    async with listening(hosts.server()) as server:
        _, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.close()
        await writer.wait_closed()
        assert isinstance(await server.refused.get(), ConnectionLostError)
        await echo_works(server.port, hosts)


async def test_a_silent_client_gets_limited_time(hosts: Hosts) -> None:
    async with listening(hosts.server(), handshake_seconds=0.2) as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        refused = await server.refused.get()
        assert "no TLS handshake within 0.2 seconds" in str(refused)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_silent_clients_beyond_the_limit_wait_and_a_proper_one_gets_in(hosts: Hosts) -> None:
    async with listening(hosts.server(), max_unauthenticated=2, handshake_seconds=0.3) as server:
        idle = [await asyncio.open_connection(LOOPBACK, server.port) for _ in range(6)]
        await echo_works(server.port, hosts)
        await server.accepted.get()
        # It came after three rounds of two, so its turn came once the idle ones had been dropped.
        assert server.refused.qsize() >= 5
        for _, writer in idle:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def test_while_others_wait_the_longest_handshake_gives_way(hosts: Hosts) -> None:
    """Else whoever opens a few connections and says nothing keeps everybody out."""
    async with listening(
        hosts.server(), max_unauthenticated=2, handshake_seconds=60, patience_seconds=0.05
    ) as server:
        idle = [await asyncio.open_connection(LOOPBACK, server.port) for _ in range(6)]
        await echo_works(server.port, hosts)
        await server.accepted.get()
        assert server.refused.qsize() == 5, "the last one has a slot, which nobody waits for"
        assert "while others wait" in str(await server.refused.get())
        left, writer = idle[-1]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(left.read(), 0.3)
        for _, writer in idle:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def joins_of(hosts: Hosts, *, is_open: bool = True) -> Joins:
    """Return what waits for a question of whoever joins, without a limit of its own."""

    async def serve(transport: TlsTransport) -> None:
        await receive_exactly(transport, 1)

    return Joins(join_context(hosts.server()), lambda: is_open, serve)


async def test_a_first_byte_in_the_last_moment_keeps_nobody_waiting(hosts: Hosts) -> None:
    """It ends the wait for a preamble, in whose place the handshake begins: that is as old."""
    async with listening(
        hosts.server(),
        max_unauthenticated=1,
        handshake_seconds=60,
        patience_seconds=0.05,
        joins=joins_of(hosts),
    ) as server:
        with socket.create_connection((LOOPBACK, server.port)) as oldest:
            await asyncio.sleep(0.1)
            with socket.create_connection((LOOPBACK, server.port)):
                # No await since the byte: the loop learns of it and of who waits at once.
                oldest.send(b"\x16")
                async with asyncio.timeout(5):
                    await echo_works(server.port, hosts)
                    await server.accepted.get()
            assert "while others wait" in str(await server.refused.get())


@pytest.mark.parametrize("bytes_sent", [b"\x16", PREAMBLE])
async def test_the_time_for_a_handshake_is_one_whatever_comes_first(
    hosts: Hosts, bytes_sent: bytes
) -> None:
    async with listening(hosts.server(), handshake_seconds=1, joins=joins_of(hosts)) as server:
        with socket.create_connection((LOOPBACK, server.port)) as client:
            begun = asyncio.get_running_loop().time()
            await asyncio.sleep(0.8)
            client.send(bytes_sent)
            assert "no TLS handshake within 1" in str(await server.refused.get())
            assert asyncio.get_running_loop().time() - begun < 1.6


async def test_while_others_wait_whoever_joins_in_silence_gives_way(hosts: Hosts) -> None:
    async with listening(
        hosts.server(), max_unauthenticated=2, patience_seconds=0.05, joins=joins_of(hosts)
    ) as server:
        context = client_context(hosts.client())
        with contextlib.ExitStack() as stack:
            for _ in range(2):
                silent = await open_join(LOOPBACK, server.port, context, LOOPBACK, 10)
                stack.callback(silent.abort)
            async with asyncio.timeout(5):
                await echo_works(server.port, hosts)
                await server.accepted.get()
            assert "while others wait" in str(await server.refused.get())


async def test_while_others_wait_a_refused_client_that_stays_gives_way(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("blockrep.transport.tls_listener._LINGER_SECONDS", 60)
    async with listening(hosts.server(), max_unauthenticated=1, patience_seconds=0.05) as server:
        with socket.create_connection((LOOPBACK, server.port)) as client:
            client.send(b"GET / HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(5):
                await echo_works(server.port, hosts)
                await server.accepted.get()
            assert "does not speak TLS" in str(await server.refused.get())
            assert server.refused.empty(), "it was told once"


async def test_no_more_handshakes_at_once_than_allowed(hosts: Hosts) -> None:
    async with listening(hosts.server(), max_unauthenticated=3) as server:
        writers = [(await asyncio.open_connection(LOOPBACK, server.port))[1] for _ in range(9)]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(server.refused.get(), 0.3)
        assert server.listener
        assert len(server.listener._handshakes) == 3
        for writer in writers:
            writer.transport.abort()


async def test_running_out_of_descriptors_pauses_the_listener_only(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(hosts.server()) as server:
        await echo_works(server.port, hosts)
        accepted = await server.accepted.get()
        accept = socket.socket.accept
        failures = iter([OSError(errno.EMFILE, os.strerror(errno.EMFILE))])

        def failing_accept(sock: socket.socket) -> tuple[socket.socket, object]:
            for failure in failures:
                raise failure
            return accept(sock)

        monkeypatch.setattr(socket.socket, "accept", failing_accept)
        await echo_works(server.port, hosts)
        refused = await server.refused.get()
        assert isinstance(refused, BusyError)
        assert "Too many open files; running sessions go on; raise the limit" in str(refused)
        assert await receive_exactly(accepted, 5) == b"hello"
        assert await receive_exactly(await server.accepted.get(), 5) == b"hello"


async def test_another_context_holds_for_those_who_come_later(hosts: Hosts) -> None:
    async with listening(hosts.server()) as server:
        assert server.listener
        async with connected(server.port, hosts.client()) as before:
            accepted = await server.accepted.get()
            revoked = hosts.revocation_list(hosts.client().certificate)
            server.listener.use(server_context(replace(hosts.server(), crl=revoked)), None)
            async with connected(server.port, hosts.client()):
                assert "revoked" in (await server.refused.get()).what
            await echo_works(server.port, hosts, files=hosts.client("other"))
            await before.send([b"still here"])
            assert await receive_exactly(accepted, 10) == b"still here"


async def test_two_names_are_no_identity(hosts: Hosts) -> None:
    both = hosts.odd("both", [x509.DNSName("both"), x509.UniformResourceIdentifier("urn:x:root")])
    none = hosts.odd("none", [x509.RFC822Name("root@example.com")])
    async with listening(hosts.server()) as server:
        for files, found in ((both, r"2 names (both, urn:x:root)"), (none, "no name")):
            async with connected(server.port, files) as client:
                with pytest.raises(ConnectionLostError):
                    await client.receive_into(memoryview(bytearray(1)))
            assert found in str(await server.refused.get())
        assert server.accepted.empty()


async def test_a_uri_is_an_identity_too(hosts: Hosts) -> None:
    files = hosts.odd("uri", [x509.UniformResourceIdentifier("urn:example:origin")])
    async with listening(hosts.server()) as server, connected(server.port, files):
        assert (await server.accepted.get()).peer.identity == "urn:example:origin"


async def test_close_drops_what_is_being_served_and_what_shakes_hands(hosts: Hosts) -> None:
    async with listening(hosts.server()) as server:
        async with connected(server.port, hosts.client()) as client:
            await server.accepted.get()
            _, writer = await asyncio.open_connection(LOOPBACK, server.port)
            assert server.listener
            await server.listener.close()
            with pytest.raises(ConnectionLostError):
                await client.receive_into(memoryview(bytearray(1)))
            writer.transport.abort()
        with pytest.raises(ConnectionLostError, match="refused"):
            await connect(LOOPBACK, server.port, client_context(hosts.client()))


async def test_close_may_wait_for_what_is_being_served(hosts: Hosts) -> None:
    begun, finish = asyncio.Event(), asyncio.Event()
    ended: list[bytes] = []

    async def serve(transport: TlsTransport) -> None:
        begun.set()
        await finish.wait()
        ended.append(await receive_exactly(transport, 4))

    listener = TlsListener(server_context(hosts.server()), serve, refused=print)
    await listener.start([(LOOPBACK, 0)])
    async with connected(listener.addresses[0][1], hosts.client()) as client:
        await client.send([b"done"])
        await begun.wait()
        closing = asyncio.create_task(listener.close(drop=False))
        await asyncio.sleep(0)
        assert not closing.done()
        finish.set()
        await closing
    assert ended == [b"done"]


async def test_a_defect_while_serving_drops_that_connection_only(hosts: Hosts) -> None:
    reported: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: reported.append(context["exception"]))

    async def serve(_transport: TlsTransport) -> None:
        msg = "defect"
        raise RuntimeError(msg)

    listener = TlsListener(server_context(hosts.server()), serve, refused=print)
    await listener.start([(LOOPBACK, 0)])
    for _ in range(2):
        async with connected(listener.addresses[0][1], hosts.client()) as client:
            with pytest.raises(ConnectionLostError):
                await client.receive_into(memoryview(bytearray(1)))
    await listener.close()
    assert [str(error) for error in reported] == ["defect", "defect"]


async def test_one_certificate_for_both_roles(hosts: Hosts) -> None:
    files = hosts.host("both-roles", Role.SERVER, Role.CLIENT)
    async with listening(files) as server, connected(server.port, files):
        assert (await server.accepted.get()).peer.identity == "both-roles"
