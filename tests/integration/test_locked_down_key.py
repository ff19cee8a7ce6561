"""The line that ``blockrep authorize`` prints, attacked by what everybody has: ssh, scp, sftp.

All is tried with the same key without the line first: what does not work then proves nothing.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.sshd import Sshd, program, running_sshd

from .conftest import Site
from .test_push_images import assert_refused


@dataclass
class Door:
    """A replica's host with sshd, and a key that is free or locked down."""

    site: Site
    sshd: Sshd
    line: str

    @property
    def touched(self) -> Path:
        """What exists once a command of the client's own ran."""
        return self.sshd.folder / "touched"

    @property
    def address(self) -> str:
        return f"{self.sshd.user}@127.0.0.1"

    def lock(self) -> None:
        self.touched.unlink(missing_ok=True)
        self.sshd.authorized_keys.write_text(self.line)

    def run(
        self, program: str, *words: str, data: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        port = "-p" if program == "ssh" else "-P"
        argv = [program, "-F", str(self.sshd.config), "-o", "BatchMode=yes"]
        argv += [port, str(self.sshd.port), *words]
        return subprocess.run(argv, input=data, capture_output=True, check=False, timeout=60)

    def recorded(self) -> list[dict[str, Any]]:
        text = (self.site.folder / "audit").read_text()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def door(site: Site, tmp_path: Path) -> Iterator[Door]:
    site.configure_server(
        # What is no client of ours says nothing that the server understands: it is not waited for.
        "handshake_seconds = 1\n"
        f"audit_file = '{site.folder}/audit'\n"
        f"[clients.alpha]\ntargets = [{{ name = '{site.replica}' }}]\n[clients.beta]\n"
    )
    folder = tmp_path / "ssh"
    folder.mkdir()
    # What the line calls blockrep-server, on a host whose configuration lies elsewhere.
    (folder / "bin").mkdir()
    server = program(folder, "server", "server")
    command = folder / "bin" / "blockrep-server"
    command.write_text(f'#!/bin/sh\nexec {server} "$@" --config {site.config("server")}\n')
    command.chmod(0o755)
    extra = f"SetEnv PATH={folder}/bin:/usr/bin:/bin\nSubsystem sftp internal-sftp"
    with running_sshd(folder, extra) as sshd:
        key = str(sshd.key.with_suffix(".pub"))
        words = ("alpha", "--target", str(site.replica), "--key", key)
        printed = site.run("authorize", *words)
        assert printed.returncode == 0, printed.stderr
        client = site.config("client")
        client.write_text(client.read_text() + f"[ssh]\nconfig = '{sshd.config}'\n")
        site.url = sshd.url
        yield Door(site, sshd, printed.stdout)


def shell_commands(door: Door) -> list[tuple[str, ...]]:
    touch = f"touch {door.touched}"
    return [(door.address, touch), (door.address, "sh", "-c", f"'{touch}'"), ("-tt", door.address)]


@pytest.mark.parametrize("number", range(3))
def test_no_shell_and_no_terminal(door: Door, number: int) -> None:
    typed = f"touch {door.touched}\nexit\n".encode()
    words = shell_commands(door)[number]
    door.run("ssh", *words, data=typed)
    assert door.touched.exists()
    door.lock()
    done = door.run("ssh", *words, data=typed)
    assert not door.touched.exists()
    assert done.stdout[:4] in {b"", b"BRP1"}
    if "-tt" in words:
        assert b"PTY allocation request failed" in done.stderr


@pytest.mark.parametrize("copy", ["sftp", "scp", "scp -O"])
def test_no_file_is_copied(door: Door, copy: str) -> None:
    tool, *options = copy.split()

    def put() -> int:
        if tool == "sftp":
            commands = f"put {door.site.source} {door.touched}\n".encode()
            return door.run(tool, "-b", "-", door.address, data=commands).returncode
        there = f"{door.address}:{door.touched}"
        return door.run(tool, *options, str(door.site.source), there).returncode

    assert put() == 0
    assert door.touched.exists()
    door.lock()
    assert put() != 0
    assert not door.touched.exists()


@pytest.mark.parametrize("way", ["to a port there", "from a port there", "from a socket there"])
def test_nothing_is_forwarded(door: Door, way: str) -> None:
    socket = door.sshd.folder / "socket"

    def opens() -> bool:
        if way == "to a port there":  # as -L and -D do
            there = f"127.0.0.1:{door.sshd.port}"
            return door.run("ssh", "-W", there, door.address).stdout.startswith(b"SSH-")
        bound = "0" if way == "from a port there" else str(socket)
        words = ("-o", "ExitOnForwardFailure=yes", "-R", f"{bound}:127.0.0.1:9", door.address)
        done = door.run("ssh", *words, "true")
        return b"remote port forwarding failed" not in done.stderr and done.returncode == 0

    assert opens()
    socket.unlink(missing_ok=True)
    door.lock()
    assert not opens()
    assert not socket.exists()


def hostile_commands(touched: Path) -> Sequence[str]:
    touch = f"touch {touched}"
    return (
        f"; {touch}",
        f"$({touch})",
        f"`{touch}`",
        f"\n{touch}\n",
        f"' ; {touch} #",
        f'" ; {touch} #',
        f"| {touch}",
        "--as beta",
        "blockrep-server --stdio --as beta --config /dev/null",
        "blockrep-server --version",
        "--help",
        "-rf",
        "\x1b[2J%s%n\\",
        "x" * 100_000,
    )


def test_the_original_command_changes_nothing(door: Door) -> None:
    door.lock()
    commands = hostile_commands(door.touched)
    for command in commands:
        done = door.run("ssh", door.address, "--", command, data=b"no protocol at all\n")
        assert not door.touched.exists(), command
        assert done.stdout.startswith(b"BRP1"), (command, done.stderr)
        assert done.returncode == 0, (command, done.stderr)
    lines = [line for line in door.recorded() if line["event"] == "authenticated"]
    assert [line["identity"] for line in lines] == ["alpha"] * len(commands)
    argv = ["ssh-keygen", "-lf", str(door.sshd.key)]
    shown = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.split()[1]
    assert {line["fingerprint"] for line in lines} == {shown}


def test_what_the_line_is_for_works_and_ends_at_its_rule(door: Door) -> None:
    door.lock()
    door.site.pushed()
    assert door.site.equal()
    other = f"{door.site.url}/{door.site.images}/other.img"
    assert_refused(door.site.run("push", str(door.site.source), other), 4, "not allowed")
    assert {line["identity"] for line in door.recorded()} == {"alpha"}
