"""SSH by the system's client, against a real sshd."""

from __future__ import annotations

from dataclasses import replace

import pytest

from blockrep.errors import UnsupportedHostError
from blockrep.transport.ssh import openssh
from blockrep.transport.ssh.route import Carrier, Login, SshRoute
from transport.ssh.carriers import CarrierContract, ProgramContract


@pytest.fixture
def carrier() -> Carrier:
    return Carrier(openssh.connect_program, openssh.forwarded_socket)


@pytest.fixture
def chosen(openssh_route: SshRoute) -> SshRoute:
    return openssh_route


class TestProgram(ProgramContract):
    pass


class TestOpenssh(CarrierContract):
    async def test_a_client_that_is_not_there(
        self, carrier: Carrier, chosen: SshRoute, login: Login
    ) -> None:
        with pytest.raises(UnsupportedHostError, match="cannot be started"):
            await self.refused(carrier, login, replace(chosen, command=("/nowhere/ssh",)))
