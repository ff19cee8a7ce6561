"""A real OpenSSH server on loopback, with its own keys and configuration, and a client's home."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

_START_SECONDS = 10.0


def _program(path: str) -> str:
    found = shutil.which(path, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if found is None:
        pytest.skip(f"{path} is not installed (apt-get install openssh-server openssh-client)")
    return found


@dataclass
class Sshd:
    """The server, and what a client needs to log in.

    ``home``: holds ``.ssh`` with a key, known_hosts and config.
    """

    folder: Path
    port: int
    user: str

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def config(self) -> Path:
        return self.home / ".ssh" / "config"

    @property
    def known_hosts(self) -> Path:
        return self.home / ".ssh" / "known_hosts"

    @property
    def authorized_keys(self) -> Path:
        return self.folder / "authorized_keys"

    @property
    def key(self) -> Path:
        return self.home / ".ssh" / "id_ed25519"

    @property
    def public_key(self) -> str:
        return self.key.with_suffix(".pub").read_text().strip()

    @property
    def url(self) -> str:
        return f"ssh://{self.user}@127.0.0.1:{self.port}"

    @property
    def openssh(self) -> tuple[str, ...]:
        """The system's client, kept away from this user's own configuration."""
        return ("ssh", "-F", str(self.config))

    def allow(self, options: str = "", public_key: str = "") -> None:
        """Let the key in, with options of sshd(8)."""
        self.authorized_keys.write_text(f"{options} {public_key or self.public_key}\n".lstrip())

    def know(self, key: str | None = None) -> None:
        """Put the host's key (or another one) into the client's known_hosts."""
        text = key or (self.folder / "host_key.pub").read_text()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {text}")

    def configure(self, text: str = "") -> None:
        """Write the client's ssh_config(5)."""
        self.config.write_text(
            f"{text}\nHost *\n  IdentityFile {self.key}\n  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile /dev/null\n  IdentityAgent none\n"
        )


def make_key(path: Path) -> str:
    """Make a key without a password; return the public one."""
    argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path.with_suffix(".pub").read_text().strip()


def program(folder: Path, name: str, module: str) -> Path:
    """Write a command as an installation would make it; return its path."""
    path = folder / name
    sources = Path(__file__).resolve().parents[2] / "src"
    path.write_text(
        f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(sources)!r})\n"
        f"from blockrep.{module}.main import main\nsys.exit(main())\n"
    )
    path.chmod(0o755)
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@contextlib.contextmanager
def running_sshd(folder: Path, extra: str = "") -> Iterator[Sshd]:
    """Run a server in a folder that nobody else may enter; ``extra`` is added to its settings."""
    sshd = _program("sshd")
    server = Sshd(folder, free_port(), getpass.getuser())
    (server.home / ".ssh").mkdir(parents=True, mode=0o700)
    server.home.chmod(0o700)
    make_key(folder / "host_key")
    make_key(server.key)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own, which Debian's unit makes
    settings = folder / "sshd_config"
    settings.write_text(
        f"Port {server.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {server.authorized_keys}\nPidFile none\nStrictModes no\nUsePAM no\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\n{extra}\n"
    )
    server.allow()
    server.know()
    server.configure()
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen(
            [sshd, "-D", "-e", "-f", str(settings)], stderr=log, stdin=subprocess.DEVNULL
        )
        try:
            _wait_for(server.port, process)
            yield server
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        assert process.poll() is None, "sshd ended"
        assert time.monotonic() < deadline, "sshd does not listen"
        time.sleep(0.02)
