"""Which way through SSH a session takes."""

from __future__ import annotations

import shlex
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from blockrep.transport.interface import Transport

__all__ = ["Carrier", "Destination", "Login", "SshRoute"]

Destination = str | tuple[str, int]
"""Where a tunnel ends, as the other host sees it: path of a Unix socket, or host and port."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where to log in.

    ``host`` may be an alias of ssh_config(5). ``user`` empty, ``port`` 0: what the configuration of
    SSH says, as with the command ``ssh``.
    """

    host: str
    user: str = ""
    port: int = 0

    def __str__(self) -> str:
        """Return it as people write it."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{user}{host}" + (f":{self.port}" if self.port else "")


@dataclass(frozen=True, slots=True)
class SshRoute:
    """How SSH is used for one session.

    Attributes:
        command: the OpenSSH client with options, such as ``ssh -F file``; empty: asyncssh.
        remote_command: the server's program on the other host.
        config: file in the place of ``~/.ssh/config`` (asyncssh only); None: that one.
        timeout_seconds: until a session is there: names, connections, authentication.
    """

    command: tuple[str, ...] = ()
    remote_command: tuple[str, ...] = ("blockrep-server",)
    config: Path | None = None
    timeout_seconds: float = 10.0

    @property
    def stdio_command(self) -> str:
        """The command line that the other host's shell gets; a forced command ignores it."""
        return shlex.join([*self.remote_command, "--stdio"])


class Carrier(NamedTuple):
    """An implementation of SSH.

    ``connect_program(login, route)`` starts the server's program there and returns the stream to
    it; ``forwarded_socket(login, route, destination, path)`` is a context in which connections to
    the Unix socket ``path`` arrive at the destination.
    """

    connect_program: Callable[[Login, SshRoute], Awaitable[Transport]]
    forwarded_socket: Callable[
        [Login, SshRoute, Destination, Path], AbstractAsyncContextManager[None]
    ]
