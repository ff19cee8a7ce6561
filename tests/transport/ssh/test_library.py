"""SSH by asyncssh, against a real sshd."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace

import pytest

from blockrep.errors import ConfigurationError, ProtocolError
from blockrep.transport.ssh import library
from blockrep.transport.ssh.route import Carrier, Login, SshRoute
from support.sshd import Sshd, make_key
from transport.ssh.carriers import CarrierContract, ProgramContract, fingerprint


@pytest.fixture
def carrier() -> Carrier:
    return Carrier(library.connect_program, library.forwarded_socket)


@pytest.fixture
def chosen(route: SshRoute) -> SshRoute:
    return route


def run_advice(error: ConfigurationError) -> None:
    found = re.search(r"run: (.*)$", str(error))
    assert found, str(error)
    subprocess.run(["sh", "-c", found[1]], check=True, capture_output=True)


def openssh_knows(sshd: Sshd, host: str) -> bool:
    argv = [*sshd.openssh, "-o", "BatchMode=yes", host, "true"]
    done = subprocess.run(argv, check=False, stdin=subprocess.DEVNULL, timeout=60)
    return done.returncode == 0


class TestProgram(ProgramContract):
    pass


class TestLibrary(CarrierContract):
    async def test_the_fingerprint_and_the_remedy_are_told(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        shown = fingerprint(sshd.folder / "host_key.pub")
        sshd.known_hosts.write_text("")
        with pytest.raises(ConfigurationError) as caught:
            await self.refused(carrier, login, chosen)
        assert shown in str(caught.value)
        sshd.know(make_key(sshd.folder / "another"))
        with pytest.raises(ConfigurationError) as caught:
            await self.refused(carrier, login, chosen)
        assert shown in str(caught.value)
        assert "somebody is in between" in str(caught.value)

    async def test_what_is_advised_accepts_the_key_that_was_shown_and_no_other(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        echo = replace(chosen, remote_command=("echo", "Welcome"))
        for known in ("", f"[127.0.0.1]:{sshd.port} {make_key(sshd.folder / 'another')}\n"):
            sshd.known_hosts.write_text(known)
            with pytest.raises(ConfigurationError) as caught:
                await self.refused(carrier, login, echo)
            run_advice(caught.value)
            (line,) = sshd.known_hosts.read_text().splitlines()
            key = (sshd.folder / "host_key.pub").read_text().split()[:2]
            assert line.split() == [f"[127.0.0.1]:{sshd.port}", *key]
            with pytest.raises(ProtocolError, match="Welcome"):
                await self.refused(carrier, login, echo)

    @pytest.mark.parametrize("alias", ["", "  HostKeyAlias replica.example\n"])
    async def test_the_advice_holds_behind_a_jump_host(
        self, carrier: Carrier, chosen: SshRoute, sshd: Sshd, alias: str
    ) -> None:
        sshd.configure(
            f"Host jump\n  Hostname 127.0.0.1\n  Port {sshd.port}\n"
            f"Host replica\n  Hostname localhost\n  Port {sshd.port}\n  ProxyJump jump\n"
            f"{alias}"
        )
        echo = replace(chosen, remote_command=("echo", "Welcome"))
        with pytest.raises(
            ConfigurationError, match="replica: the host key is not known"
        ) as caught:
            await self.refused(carrier, Login("replica"), echo)
        run_advice(caught.value)
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(carrier, Login("replica"), echo)
        # The system's client goes by the same files, and finds the same name there.
        assert openssh_knows(sshd, "replica")

    async def test_a_configuration_cannot_switch_the_check_off(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.config.write_text(f"UserKnownHostsFile none\nIdentityFile {sshd.key}\n")
        with pytest.raises(ConfigurationError, match="no way to know a host"):
            await self.refused(carrier, login, chosen)

    @pytest.mark.parametrize("only", ["", "IdentitiesOnly yes\n"])
    async def test_a_key_that_is_not_there_is_passed_over(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd, only: str
    ) -> None:
        echo = replace(chosen, remote_command=("echo", "Welcome"))
        text = sshd.config.read_text()
        sshd.config.write_text(f"IdentityFile {sshd.folder}/none\n{only}{text}")
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(carrier, login, echo)

    async def test_an_unknown_jump_host_fails_closed(
        self, carrier: Carrier, chosen: SshRoute, sshd: Sshd
    ) -> None:
        sshd.configure(
            f"Host jump\n  Hostname 127.0.0.1\n  HostKeyAlias unknown\n  Port {sshd.port}\n"
            f"Host replica\n  Hostname 127.0.0.1\n  Port {sshd.port}\n  ProxyJump jump\n"
        )
        with pytest.raises(ConfigurationError, match="jump: the host key is not known"):
            await self.refused(carrier, Login("replica"), chosen)
