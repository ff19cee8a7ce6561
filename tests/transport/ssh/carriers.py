"""What both carriers promise; the file of each carrier says how it is called."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from blockrep.errors import (
    ConfigurationError,
    ConnectionLostError,
    ProtocolError,
    RefusedError,
    UnsupportedHostError,
)
from blockrep.transport.interface import Transport
from blockrep.transport.local import LocalListener, connect_local
from blockrep.transport.ssh.route import Carrier, Login, SshRoute
from support.sshd import Sshd, make_key
from transport.contract import Pair, TransportContract, receive_exactly

#: Connects its standard input and output to a Unix socket.
_RELAY = """
import os, socket, sys, threading
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[1])
def upwards():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=upwards, daemon=True).start()
try:
    while data := sock.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
except BrokenPipeError:
    pass
os._exit(0)
"""


def relay(folder: Path, path: Path) -> tuple[str, ...]:
    script = folder / "relay.py"
    script.write_text(_RELAY)
    return (sys.executable, str(script), str(path))


def fingerprint(path: Path) -> str:
    argv = ["ssh-keygen", "-lf", str(path)]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()[1]


def add_key(path: Path, agent: dict[str, str]) -> None:
    subprocess.run(["ssh-add", "-q", str(path)], check=True, env={**os.environ, **agent})


class _Accepting:
    def __init__(self, path: Path) -> None:
        self.accepted: asyncio.Queue[Transport] = asyncio.Queue()
        self._listener = LocalListener(str(path), self._serve, print)

    async def _serve(self, transport: Transport) -> None:
        await self.accepted.put(transport)
        await asyncio.Event().wait()

    async def __aenter__(self) -> asyncio.Queue[Transport]:
        await self._listener.start()
        return self.accepted

    async def __aexit__(self, *exc: object) -> None:
        await self._listener.close()


class ProgramContract(TransportContract):
    """The stream to a program; subclasses have the fixtures ``carrier`` and ``chosen``."""

    tells_abort = False

    @pytest.fixture
    async def pair(
        self, carrier: Carrier, chosen: SshRoute, login: Login, tmp_path: Path
    ) -> AsyncIterator[Pair]:
        path = tmp_path / "s"
        route = replace(chosen, remote_command=relay(tmp_path, path))
        async with _Accepting(path) as accepted:
            guarded = await carrier.connect_program(login, route)
            client: Transport = guarded._stream  # type: ignore[attr-defined]
            server = await accepted.get()
            yield client, server
            await asyncio.gather(client.close(), server.close())


class CarrierContract:
    """Logging in, or not; subclasses have the fixtures ``carrier`` and ``chosen``."""

    async def refused(self, carrier: Carrier, login: Login, route: SshRoute) -> None:
        """Connect, and receive at least once."""
        transport = await carrier.connect_program(login, route)
        try:
            await transport.receive_into(memoryview(bytearray(16)))
        finally:
            await transport.close()

    async def test_sockets_and_ports_are_forwarded(
        self, carrier: Carrier, chosen: SshRoute, login: Login, tmp_path: Path
    ) -> None:
        async with _Accepting(tmp_path / "there") as accepted:
            destination = str(tmp_path / "there")
            async with carrier.forwarded_socket(login, chosen, destination, tmp_path / "here"):
                client = await connect_local(str(tmp_path / "here"), "tunnel")
                server = await accepted.get()
                await client.send([b"hello"])
                assert await receive_exactly(server, 5) == b"hello"
                await asyncio.gather(client.close(), server.close())
        async with carrier.forwarded_socket(
            login, chosen, ("127.0.0.1", login.port), tmp_path / "port"
        ):
            client = await connect_local(str(tmp_path / "port"), "tunnel")
            assert await receive_exactly(client, 4) == b"SSH-"
            await client.close()

    async def test_an_unknown_host_key_fails_closed(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.known_hosts.write_text("")
        with pytest.raises(ConfigurationError, match="not known"):
            await self.refused(carrier, login, chosen)
        assert sshd.known_hosts.read_text() == "", "nothing was accepted"

    async def test_a_changed_host_key_fails_closed(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.know(make_key(sshd.folder / "another"))
        with pytest.raises(ConfigurationError, match="known"):
            await self.refused(carrier, login, chosen)

    async def test_ssh_config_cannot_have_unknown_keys_accepted(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        shown = fingerprint(sshd.folder / "host_key.pub")
        sshd.known_hosts.write_text("")
        sshd.configure("StrictHostKeyChecking accept-new")
        with pytest.raises(ConfigurationError, match="the host key is not known") as caught:
            await self.refused(carrier, login, chosen)
        assert shown in str(caught.value)
        assert sshd.known_hosts.read_text() == ""

    async def test_ssh_config_cannot_have_changed_keys_accepted(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        shown = fingerprint(sshd.folder / "host_key.pub")
        sshd.know(make_key(sshd.folder / "another"))
        known = sshd.known_hosts.read_text()
        sshd.configure("StrictHostKeyChecking no\nUpdateHostKeys yes")
        with pytest.raises(ConfigurationError, match="the host key is not the one") as caught:
            await self.refused(carrier, login, chosen)
        assert shown in str(caught.value)
        assert "somebody is in between" in str(caught.value)
        assert sshd.known_hosts.read_text() == known

    async def test_a_key_that_is_not_allowed_is_refused(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.authorized_keys.write_text("")
        with pytest.raises(RefusedError, match="accepts none of our keys"):
            await self.refused(carrier, login, chosen)

    async def test_nobody_there(self, carrier: Carrier, chosen: SshRoute, login: Login) -> None:
        with pytest.raises(ConnectionLostError):
            await self.refused(carrier, replace(login, port=1), chosen)

    @pytest.mark.parametrize(
        ("command", "error", "words"),
        [
            (("/nowhere/blockrep-server",), UnsupportedHostError, "was not found there"),
            (("ls",), UnsupportedHostError, "too old"),
            (("echo", "Welcome!"), ProtocolError, "Welcome!"),
            (("true",), ConnectionLostError, "ended with status 0"),
        ],
    )
    async def test_what_is_not_our_program_is_named(
        self,
        carrier: Carrier,
        chosen: SshRoute,
        login: Login,
        command: tuple[str, ...],
        error: type[Exception],
        words: str,
    ) -> None:
        with pytest.raises(error, match=words):
            await self.refused(carrier, login, replace(chosen, remote_command=command))

    async def test_an_alias_of_ssh_config(
        self, carrier: Carrier, chosen: SshRoute, sshd: Sshd
    ) -> None:
        sshd.configure(f"Host replica\n  Hostname 127.0.0.1\n  Port {sshd.port}\n")
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(
                carrier, Login("replica"), replace(chosen, remote_command=("echo", "Welcome"))
            )

    async def test_a_jump_host(self, carrier: Carrier, chosen: SshRoute, sshd: Sshd) -> None:
        sshd.configure(
            f"Host jump\n  Hostname 127.0.0.1\n  Port {sshd.port}\n"
            f"Host replica\n  Hostname 127.0.0.1\n  Port {sshd.port}\n  ProxyJump jump\n"
        )
        echo = replace(chosen, remote_command=("sh", "-c", 'echo "via $SSH_CONNECTION" #'))
        with pytest.raises(ProtocolError, match=r"via 127\.0\.0\.1"):
            await self.refused(carrier, Login("replica"), echo)
        log = (sshd.folder / "sshd.log").read_text()
        assert log.count("Accepted publickey") == 2

    async def test_a_key_in_an_agent(
        self,
        carrier: Carrier,
        chosen: SshRoute,
        login: Login,
        sshd: Sshd,
        agent: dict[str, str],
    ) -> None:
        add_key(sshd.key, agent)
        sshd.key.unlink()
        sshd.config.write_text(
            f"UserKnownHostsFile {sshd.known_hosts}\nIdentityAgent {agent['SSH_AUTH_SOCK']}\n"
        )
        echo = replace(chosen, remote_command=("echo", "Welcome"))
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(carrier, login, echo)

    async def test_the_far_side_gets_neither_the_agent_nor_the_display(
        self,
        carrier: Carrier,
        chosen: SshRoute,
        login: Login,
        sshd: Sshd,
        agent: dict[str, str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        add_key(sshd.key, agent)
        monkeypatch.setenv("SSH_AUTH_SOCK", agent["SSH_AUTH_SOCK"])
        monkeypatch.setenv("DISPLAY", "localhost:10")
        sshd.configure(
            f"ForwardAgent yes\nForwardX11 yes\nIdentityAgent {agent['SSH_AUTH_SOCK']}\n"
        )
        told = ("sh", "-c", 'echo "agent=$SSH_AUTH_SOCK display=$DISPLAY." #')
        with pytest.raises(ProtocolError, match=r"agent= display=\."):
            await self.refused(carrier, login, replace(chosen, remote_command=told))

    async def test_what_ssh_config_adds_to_a_login_is_left_out(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        touched, socket = sshd.folder / "touched", sshd.folder / "forwarded"
        sshd.configure(
            f"PermitLocalCommand yes\nLocalCommand touch {touched}\nRemoteCommand hostname\n"
            f"LocalForward {socket} 127.0.0.1:{sshd.port}\n"
        )
        told = ("sh", "-c", f"test -e {socket} || echo Welcome #")
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(carrier, login, replace(chosen, remote_command=told))
        assert not touched.exists()
