"""A login is written as people write it; the far shell gets one quoted command."""

from __future__ import annotations

import pytest

from blockrep.transport.ssh.route import Login, SshRoute


@pytest.mark.parametrize(
    ("login", "text"),
    [
        (Login("replica"), "replica"),
        (Login("replica", "root", 2222), "root@replica:2222"),
        (Login("::1", "", 22), "[::1]:22"),
    ],
)
def test_logins(login: Login, text: str) -> None:
    assert str(login) == text


def test_the_command_is_quoted() -> None:
    assert SshRoute().stdio_command == "blockrep-server --stdio"
    odd = SshRoute(remote_command=("/opt/my tools/blockrep-server", "--config", "a;b"))
    assert odd.stdio_command == "'/opt/my tools/blockrep-server' --config 'a;b' --stdio"
