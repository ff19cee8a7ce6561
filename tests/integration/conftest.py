"""A real server and real commands, over TLS on loopback, with image files."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from support.failpoints import program

MIB = 1024 * 1024


@dataclass
class Site:
    """Two hosts in one folder: ``client`` and ``server``, certificates, configurations.

    ``preludes``: code that the programs of a host run first, see :mod:`support.failpoints`.
    """

    folder: Path
    port: int = 0
    url: str = ""
    preludes: dict[str, str] = field(default_factory=dict)
    random: random.Random = field(default_factory=lambda: random.Random(5))

    @property
    def source(self) -> Path:
        return self.folder / "disk.img"

    @property
    def images(self) -> Path:
        return self.folder / "images"

    @property
    def replica(self) -> Path:
        return self.images / "replica.img"

    @property
    def server_source(self) -> Path:
        """What is pulled: a volume of the server's host."""
        return self.images / "source.img"

    @property
    def local_replica(self) -> Path:
        """What is pulled to."""
        return self.folder / "local" / "replica.img"

    @property
    def target(self) -> str:
        return f"{self.url or f'tls://localhost:{self.port}'}/{self.replica}"

    def config(self, host: str) -> Path:
        return self.folder / host / "config.toml"

    def fill(self, size_bytes: int) -> None:
        self.source.write_bytes(self.random.randbytes(size_bytes))

    def change(self, offset_bytes: int, size_bytes: int) -> None:
        with self.source.open("r+b") as file:
            file.seek(offset_bytes)
            file.write(self.random.randbytes(size_bytes))

    def equal(self) -> bool:
        return self.source.read_bytes() == self.replica.read_bytes()

    def _program(self, host: str, package: str) -> str:
        return program(package, self.preludes.get(host, ""))

    def command(self, *words: str) -> list[str]:
        return [
            sys.executable,
            "-c",
            self._program("client", "cli"),
            *words,
            "--config",
            str(self.config("client")),
        ]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words), capture_output=True, text=True, check=False, timeout=100
        )

    def push(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.run("push", str(self.source), self.target, *options)

    def pushed(self, *options: str) -> list[dict[str, Any]]:
        """Push, which must succeed; return the events."""
        done = self.push("--json", *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def configure_server(self, extra: str = "") -> None:
        """Write the server's configuration."""
        text = (
            f"[storage]\nstate_directory = '{self.folder}/server/state'\n"
            f"runtime_directory = '{self.folder}/server/run'\n"
            f"[server]\nimage_directory = '{self.images}'\nwindow_bytes = '2MiB'\n"
            f"max_payload_bytes = '64KiB'\n{extra}"
        )
        self.config("server").write_text(text)

    @contextlib.contextmanager
    def server(
        self, extra: str = "", listen: str = "127.0.0.1:0"
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a server; ``extra`` is added to its configuration."""
        self.configure_server(extra)
        log = (self.folder / "server" / "log").open("a")
        command = [sys.executable, "-c", self._program("server", "server"), "--listen", listen]
        command += ["--config", str(self.config("server"))]
        with (
            log,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                assert line.startswith("listening on "), self.log()
                if listen.startswith("127"):
                    self.port = int(line.rpartition(":")[2])
                yield process
            finally:
                process.terminate()
                process.wait(60)

    def log(self) -> str:
        return (self.folder / "server" / "log").read_text()

    def give_certificates(self, host: str, authority: Path, name: str) -> None:
        """Put what one host needs of an authority into its folder."""
        certificates = self.folder / host / "certs"
        certificates.mkdir(mode=0o700, parents=True, exist_ok=True)
        for old in certificates.iterdir():
            old.unlink()
        for file in ("ca.pem", f"{name}.pem", f"{name}.key"):
            target = certificates / file
            target.write_bytes((authority / file).read_bytes())
            target.chmod(0o600)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    authority = tmp_path / "authority"
    create_authority(authority)
    issue(authority, "localhost", [Role.SERVER])
    issue(authority, "origin", [Role.CLIENT])
    site = Site(tmp_path)
    site.images.mkdir()
    site.local_replica.parent.mkdir()
    site.give_certificates("server", authority, "localhost")
    site.give_certificates("client", authority, "origin")
    site.config("client").write_text(
        f"[storage]\nstate_directory = '{tmp_path}/client/state'\n"
        f"runtime_directory = '{tmp_path}/client/run'\n"
    )
    site.fill(8 * MIB)
    return site
