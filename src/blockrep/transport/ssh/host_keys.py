"""Host keys: known ones pass, every other one fails closed and is shown to the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import asyncssh

from blockrep.errors import BlockrepError, ConfigurationError
from blockrep.transport.ssh.host_key_errors import host_key_error

__all__ = ["HostKeyCheck", "known_hosts_files"]

_USER_FILE = "~/.ssh/known_hosts"
_GLOBAL_FILE = "/etc/ssh/ssh_known_hosts"  # ssh_config(5), GlobalKnownHostsFile

_Matches = tuple[Sequence[object], ...]


def known_hosts_files(configured: object) -> list[str]:
    """Return the files to look into.

    Args:
        configured: the ``known_hosts`` of asyncssh's options: a list of files, empty for the
            default, or None where ssh_config says ``UserKnownHostsFile none``.

    Raises:
        ConfigurationError: it switches the check off.
    """
    if configured is None:
        raise ConfigurationError(
            "UserKnownHostsFile none leaves no way to know a host",
            where="~/.ssh/config",
            safe="nothing was sent",
            next_step="remove that line",
        )
    files = list(configured) if isinstance(configured, list | tuple) else []
    files = files or [_USER_FILE, _GLOBAL_FILE]
    return [str(path) for name in files if (path := Path(name).expanduser()).is_file()]


class HostKeyCheck(asyncssh.SSHClient):
    """Remembers the key that a host offers, and whether another one was expected.

    Args:
        name: the host as the user calls it, for the commands that are advised.
        files: of known hosts.
    """

    def __init__(self, name: str, files: Sequence[str]) -> None:
        self._name = name
        self._files = files
        self._offered: asyncssh.SSHKey | None = None
        self._expected_another = False
        self._host = ""
        self._port = 0

    def known_hosts(self, host: str, addr: str, port: int | None) -> _Matches:
        """Look the host up, as asyncssh asks its ``known_hosts``."""
        known = asyncssh.read_known_hosts(list(self._files))
        # By name only, as OpenSSH does since 8.5 (CheckHostIP no): an alias is an alias.
        del addr
        matches: _Matches = known.match(host, "", port)
        self._expected_another = any(matches)
        return matches

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Note the key that no file vouches for, and refuse it."""
        del addr
        self._host, self._port, self._offered = host, port, key
        return False

    def refusal(self, reason: str) -> BlockrepError:
        """Explain why the host was refused."""
        if self._offered is None:
            return ConfigurationError(
                f"the host key was not accepted ({reason})",
                where=self._name,
                safe="nothing was sent",
            )
        kind = self._offered.get_algorithm()
        fingerprint = self._offered.get_fingerprint()
        shown = f"[{self._host}]:{self._port}" if self._port not in {0, 22} else self._host
        scan = f"ssh-keyscan -p {self._port or 22} {self._host} >>{_USER_FILE}"
        remedy = f"ssh-keygen -R '{shown}' && {scan}" if self._expected_another else scan
        return host_key_error(
            self._name,
            f"{kind} {fingerprint}",
            f"run: {remedy}",
            another_is_known=self._expected_another,
        )
