"""SSH by asyncssh, against a real sshd."""

from __future__ import annotations

import pytest

from blockrep.errors import ConfigurationError
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
        assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in str(caught.value)
        sshd.know(make_key(sshd.folder / "another"))
        with pytest.raises(ConfigurationError) as caught:
            await self.refused(carrier, login, chosen)
        assert shown in str(caught.value)
        assert "somebody is in between" in str(caught.value)
        assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in str(caught.value)

    async def test_a_configuration_cannot_switch_the_check_off(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.config.write_text(f"UserKnownHostsFile none\nIdentityFile {sshd.key}\n")
        with pytest.raises(ConfigurationError, match="no way to know a host"):
            await self.refused(carrier, login, chosen)

    async def test_an_unknown_jump_host_fails_closed(
        self, carrier: Carrier, chosen: SshRoute, sshd: Sshd
    ) -> None:
        sshd.configure(
            f"Host jump\n  Hostname 127.0.0.1\n  HostKeyAlias unknown\n  Port {sshd.port}\n"
            f"Host replica\n  Hostname 127.0.0.1\n  Port {sshd.port}\n  ProxyJump jump\n"
        )
        with pytest.raises(ConfigurationError, match="jump: the host key is not known"):
            await self.refused(carrier, Login("replica"), chosen)
