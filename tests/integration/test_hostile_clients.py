"""Silent, slow and flooding clients against the real server: it stays small, and pushes go on."""

from __future__ import annotations

import contextlib
import random
import re
import resource
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockrep.protocol.frames import MAGIC, FrameType, encode_frame
from integration.conftest import Site
from support.reports import record

MIB = 1 << 20
HELD = 1000
#: The interpreter, TLS and uvloop take about 50 MiB; a session's buffer 16 MiB.
CAP_BYTES = 200 * MIB
#: Time enough for an honest client on a busy machine.
SETTINGS = """
handshake_seconds = 3
heartbeat_seconds = 1
peer_timeout_seconds = 10
"""


@pytest.fixture(autouse=True)
def _descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * HELD), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def dial(site: Site) -> socket.socket:
    return socket.create_connection(("localhost", site.port), timeout=30)


def dial_without_waiting(site: Site) -> socket.socket:
    """Return a connection that is made as soon as the server's queue has room."""
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", site.port))
    return connection


def dial_tls(site: Site) -> ssl.SSLSocket:
    """Return a connection with the client's certificate."""
    folder = site.config("client").parent / "certs"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(folder / "ca.pem")
    context.load_cert_chain(folder / "origin.pem", folder / "origin.key")
    return context.wrap_socket(dial(site), server_hostname="localhost")


def ended(connection: socket.socket, seconds: float = 30) -> bytes:
    """Return what arrives until the server ends the connection, which it must."""
    connection.settimeout(seconds)
    parts = []
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def peak_bytes(server: subprocess.Popen[str]) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    match = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert match is not None
    return int(match[1]) * 1024


@contextlib.contextmanager
def started_push(site: Site, *options: str) -> Iterator[subprocess.Popen[str]]:
    """Run a push that has begun to send."""
    command = site.command("push", str(site.source), site.target, *options)
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as push:
        assert push.stderr is not None
        while "to send" not in push.stderr.readline():
            assert push.poll() is None
        yield push


def finish(push: subprocess.Popen[str]) -> None:
    assert push.stderr is not None
    said = push.stderr.read()
    assert push.wait() == 0, said


@contextlib.contextmanager
def attacked(site: Site) -> Iterator[subprocess.Popen[str]]:
    """Run a server beside which a push goes on; after the attack all must be well."""
    site.fill(8 * MIB)
    with site.server(extra=SETTINGS) as server:
        with started_push(site, "--bwlimit", "2M") as push:
            yield server
            finish(push)
        assert site.equal()
        site.change(0, MIB)
        site.pushed()
        assert site.equal()
        assert server.poll() is None
        assert peak_bytes(server) < CAP_BYTES
    defects = [line for line in site.log().splitlines() if "Traceback" in line or "defect" in line]
    assert not defects, defects


def test_a_thousand_connections_that_say_nothing(site: Site) -> None:
    with attacked(site), contextlib.ExitStack() as stack:
        for _ in range(HELD):
            stack.enter_context(dial(site))
    record("held connections", HELD, 0)


def test_what_a_thousand_connections_cost_a_push(site: Site) -> None:
    """A running one, and one that begins: how much is for the report, not for a bound."""
    site.fill(128 * MIB)
    took: dict[str, list[float]] = {"running": [], "new": []}
    with site.server(extra=SETTINGS) as server:
        for held in (0, HELD):
            with contextlib.ExitStack() as stack:
                with started_push(site) as push:
                    started = time.monotonic()
                    for _ in range(held):
                        stack.enter_context(dial_without_waiting(site))
                    finish(push)
                    took["running"].append(time.monotonic() - started)
                assert site.equal()
                site.change(0, 128 * MIB)
                started = time.monotonic()
                site.pushed()
                took["new"].append(time.monotonic() - started)
                assert site.equal()
            site.change(0, 128 * MIB)
        assert peak_bytes(server) < CAP_BYTES
    for which, (alone, beside) in took.items():
        detail = f"{beside:.1f} s beside them, {alone:.1f} s alone"
        record(f"{which} pushes of 128 MiB beside a thousand connections", 1, 0, detail)


def test_sessions_that_fall_silent_are_ended(site: Site) -> None:
    with attacked(site), contextlib.ExitStack() as stack:
        silent = [stack.enter_context(dial_tls(site)) for _ in range(10)]
        assert all(len(ended(one)) < 1000 for one in silent)


@pytest.mark.parametrize("encrypted", [False, True], ids=["before TLS", "after TLS"])
def test_a_byte_at_a_time_is_not_waited_for(site: Site, encrypted: bool) -> None:
    with attacked(site), contextlib.ExitStack() as stack:
        slow = [stack.enter_context(dial_tls(site) if encrypted else dial(site)) for _ in range(8)]
        deadline = time.monotonic() + 30
        while slow:
            assert time.monotonic() < deadline, "the server waits for ever"
            for one in list(slow):
                try:
                    one.send(b"\x00" if encrypted else b"\x16")
                except OSError:
                    slow.remove(one)
            time.sleep(0.2)  # the pace of the attack


@pytest.mark.parametrize("content", [b"GET / HTTP/1.1\r\n\r\n", b"\xa5\x00" * 2500])
def test_floods_of_what_is_no_tls(site: Site, content: bytes) -> None:
    with attacked(site):
        for _ in range(200):
            with contextlib.suppress(OSError), dial(site) as one:
                one.sendall(content)


def garbage(rng: random.Random) -> bytes:
    return rng.randbytes(5000)


def gigabytes(rng: random.Random) -> bytes:
    """Return a frame that promises the longest header and payload."""
    kind, check = rng.choice(list(FrameType)), rng.getrandbits(32)
    return struct.pack(">4sBBHII", MAGIC, kind, 0, 0xFFFF, 0xFFFFFFFF, check) + bytes(100_000)


def pings(_rng: random.Random) -> bytes:
    """Return valid frames that may not come before HELLO."""
    return encode_frame(FrameType.PING, {}) * 10_000


@pytest.mark.parametrize("make", [garbage, gigabytes, pings])
def test_floods_of_what_is_no_session(site: Site, make: Callable[[random.Random], bytes]) -> None:
    """Sixteen at once are let in, and told what is wrong; the others are told to come later."""
    rng = random.Random(1)
    with attacked(site):
        for _ in range(2):
            with contextlib.ExitStack() as stack:
                flood = [stack.enter_context(dial_tls(site)) for _ in range(30)]
                for one in flood:
                    with contextlib.suppress(OSError):
                        one.sendall(make(rng))
                assert all(len(ended(one)) < 10_000 for one in flood)
