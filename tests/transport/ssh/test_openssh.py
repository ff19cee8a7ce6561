"""SSH by the system's client, against a real sshd."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from blockrep.errors import ConfigurationError, ProtocolError, UnsupportedHostError
from blockrep.transport.ssh import openssh
from blockrep.transport.ssh.route import Carrier, Login, SshRoute
from support.sshd import Sshd
from transport.ssh.carriers import CarrierContract, ProgramContract, fingerprint


def accept(command: str, answer: str, folder: Path) -> None:
    """Run a command as somebody would at a terminal, and answer its question."""
    ask = folder / "ask"
    ask.write_text(f"#!/bin/sh\necho '{answer}'\n")
    ask.chmod(0o700)
    environment = {**os.environ, "SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force"}
    subprocess.run(shlex.split(command), check=True, env=environment, timeout=60)


@pytest.fixture
def carrier() -> Carrier:
    return Carrier(openssh.connect_program, openssh.forwarded_socket)


@pytest.fixture
def chosen(openssh_route: SshRoute) -> SshRoute:
    return openssh_route


class TestProgram(ProgramContract):
    pass


class TestOpenssh(CarrierContract):
    async def test_a_refused_host_key_is_told_with_the_command_that_accepts_it(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.known_hosts.write_text("")
        with pytest.raises(ConfigurationError) as caught:
            await self.refused(carrier, login, chosen)
        found = re.search(r"run: (ssh .* true), and", str(caught.value))
        assert found, str(caught.value)
        # Whoever pastes the host's own fingerprint has it compared by ssh.
        accept(found[1], fingerprint(sshd.folder / "host_key.pub"), sshd.folder)
        assert sshd.known_hosts.read_text()
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(carrier, login, replace(chosen, remote_command=("echo", "Welcome")))

    async def test_what_the_command_line_says_of_host_keys_holds(
        self, carrier: Carrier, chosen: SshRoute, login: Login, sshd: Sshd
    ) -> None:
        sshd.known_hosts.write_text("")
        command = (*chosen.command, "-o", "StrictHostKeyChecking=accept-new")
        echo = replace(chosen, command=command, remote_command=("echo", "Welcome"))
        with pytest.raises(ProtocolError, match="Welcome"):
            await self.refused(carrier, login, echo)
        assert sshd.known_hosts.read_text()

    async def test_a_client_that_is_not_there(
        self, carrier: Carrier, chosen: SshRoute, login: Login
    ) -> None:
        with pytest.raises(UnsupportedHostError, match="cannot be started"):
            await self.refused(carrier, login, replace(chosen, command=("/nowhere/ssh",)))
