"""Host keys: known ones pass, every other one fails closed and is shown to the user."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from blockrep.errors import BlockrepError, ConfigurationError
from blockrep.transport.ssh.host_key_errors import host_key_error

__all__ = ["HostKeyCheck", "known_hosts_files"]

_USER_FILE = "~/.ssh/known_hosts"
_GLOBAL_FILE = "/etc/ssh/ssh_known_hosts"  # ssh_config(5), GlobalKnownHostsFile

_Matches = tuple[Sequence[object], ...]


def known_hosts_files(user: object, system: object) -> list[str]:
    """Return the files to look into, the one to write to first; they need not exist.

    Args:
        user: what ssh_config says as UserKnownHostsFile: an empty tuple if nothing, an empty list
            for ``none``.
        system: the same of GlobalKnownHostsFile.

    Raises:
        ConfigurationError: the user's are switched off.
    """
    mine = list(user) if isinstance(user, list) else [_USER_FILE]
    everybodys = list(system) if isinstance(system, list) else [_GLOBAL_FILE]
    if not mine:
        raise ConfigurationError(
            "UserKnownHostsFile none leaves no way to know a host",
            where="~/.ssh/config",
            safe="nothing was sent",
            next_step="remove that line",
        )
    return [str(Path(name).expanduser()) for name in (*mine, *everybodys)]


class HostKeyCheck(asyncssh.SSHClient):
    """Remembers the key that a host offers, and whether another one was expected.

    Args:
        name: the host as the user calls it, for the commands that are advised.
        files: of known hosts, at least one; the first is the one to write to.
        is_alias: the name that is looked up is a HostKeyAlias, which has no port.
    """

    def __init__(self, name: str, files: Sequence[str], *, is_alias: bool = False) -> None:
        self._name = name
        self._files = files
        self._is_alias = is_alias
        self._offered: asyncssh.SSHKey | None = None
        self._entry = ""
        self._files_with_another: list[str] = []

    def known_hosts(self, host: str, addr: str, port: int | None) -> _Matches:
        """Look the host up, as asyncssh asks its ``known_hosts``."""
        # By name only, as OpenSSH does since 8.5 (CheckHostIP no): an alias is an alias.
        del addr
        self._entry = host if port is None or self._is_alias else f"[{host}]:{port}"
        present = [file for file in self._files if Path(file).is_file()]
        self._files_with_another = [
            file for file in present if any(asyncssh.read_known_hosts(file).match(host, "", port))
        ]
        matches: _Matches = asyncssh.read_known_hosts(present).match(host, "", port)
        return matches

    def validate_host_public_key(
        self, host: str, addr: str, port: int, key: asyncssh.SSHKey
    ) -> bool:
        """Note the key that no file vouches for, and refuse it."""
        del host, addr, port
        self._offered = key
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
        # The very key that was shown: one that is fetched anew might be somebody else's.
        line = f"{self._entry} {self._offered.export_public_key().decode()}"
        accept = f"echo {shlex.quote(' '.join(line.split()[:3]))} >>{shlex.quote(self._files[0])}"
        forget = [
            f"ssh-keygen -R {shlex.quote(self._entry)} -f {shlex.quote(file)}"
            for file in self._files_with_another
        ]
        return host_key_error(
            self._name,
            f"{kind} {fingerprint}",
            f"run: {'; '.join([*forget, accept])}",
            another_is_known=bool(forget),
        )
