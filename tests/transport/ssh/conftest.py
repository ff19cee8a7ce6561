"""A real sshd for the tests of both carriers."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockrep.transport.ssh.route import Login, SshRoute
from support.sshd import Sshd, running_sshd


@pytest.fixture
def sshd(tmp_path: Path) -> Iterator[Sshd]:
    with running_sshd(tmp_path) as server:
        yield server


@pytest.fixture
def login(sshd: Sshd) -> Login:
    return Login("127.0.0.1", sshd.user, sshd.port)


@pytest.fixture
def route(sshd: Sshd) -> SshRoute:
    """By the library."""
    return SshRoute(config=sshd.config, timeout_seconds=20)


@pytest.fixture
def openssh_route(sshd: Sshd) -> SshRoute:
    return SshRoute(command=sshd.openssh, timeout_seconds=20)


@pytest.fixture
def agent() -> Iterator[dict[str, str]]:
    """Run an agent; yield the variables that name it."""
    process = subprocess.run(["ssh-agent", "-s"], capture_output=True, text=True, check=True)
    values = dict(
        line.partition(";")[0].split("=", 1) for line in process.stdout.splitlines() if "=" in line
    )
    yield values
    os.kill(int(values["SSH_AGENT_PID"]), 15)
