"""blockrep and pipes over SSH: an sshd of the benchmark's own on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

import blockrep
from data import Extents
from measure import Program, Result, free_port, run_ends
from product import Product, program_text
from workspace import Workspace

NEEDS = ("ssh", "sshd")
_CIPHER = "aes128-gcm@openssh.com"  # the fastest of OpenSSH's, for every tool alike
_CHUNK_PIPE = Path(__file__).with_name("chunk_pipe.py")


class Ssh:
    """Keys and configurations of both ends, in the folder of a workspace."""

    def __init__(self, space: Workspace, product: Product) -> None:
        self._space = space
        self._product = product
        self._folder = space.folder / "ssh"
        self._config = self._folder / "config"
        self._port = free_port()

    def prepare(self) -> None:
        """Make keys, an sshd_config and an ssh_config."""
        self._folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own
        for name in ("host", "user"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        public = (self._folder / "host.pub").read_text()
        (self._folder / "known_hosts").write_text(f"[127.0.0.1]:{self._port} {public}")
        (self._folder / "sshd_config").write_text(
            f"Port {self._port}\nListenAddress 127.0.0.1\nHostKey {self._folder}/host\n"
            f"AuthorizedKeysFile {self._folder}/user.pub\nPidFile none\nStrictModes no\n"
            f"UsePAM no\nCiphers {_CIPHER}\n"
        )
        self._config.write_text(
            f"Host replica\n  HostName 127.0.0.1\n  Port {self._port}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self._folder}/user\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self._folder}/known_hosts\n"
        )
        server = self._folder / "blockrep-server"
        server.write_text(
            # sshd hands no environment on: the same blockrep as here.
            f"#!/bin/sh\nPYTHONPATH={Path(blockrep.__file__).parents[1]} "
            f"exec {sys.executable} -c '{program_text('server')}' "
            f'"$@" --config {self._space.folder}/server.toml\n'
        )
        server.chmod(0o755)
        with (self._space.folder / "client.toml").open("a") as file:
            file.write(f"[ssh]\nremote_command = '{server}'\nconfig = '{self._config}'\n")

    def push_library(self) -> Result:
        """Push with the SSH library in the process."""
        return self._push(self._space.replica)

    def push_openssh(self, replica: Path | None = None) -> Result:
        """Push with the system's OpenSSH client as the carrier."""
        return self._push(replica or self._space.replica, "--ssh-command", f"ssh -F {self._config}")

    def pipe(self) -> Result:
        """Copy as one would without a tool; thin_send and thin_recv pipe whole volumes alike."""
        space = self._space
        return self._run(
            Program(
                "dd | ssh | dd",
                self._piped(
                    f"dd if={space.source} bs=1M status=none",
                    f"dd of={space.plain} bs=1M conv=notrunc,fdatasync status=none",
                ),
            )
        )

    def chunk_pipe(self, extents: Extents) -> Result:
        """Copy extents that are known, see chunk_pipe.py."""
        space = self._space
        listed = space.folder / "extents"
        listed.write_text("".join(f"{offset} {length}\n" for offset, length in extents))
        python = f"{sys.executable} -I -S {_CHUNK_PIPE}"
        send = f"{python} send {space.source} {listed}"
        return self._run(
            Program("chunk pipe", self._piped(send, f"{python} receive {space.plain}"))
        )

    def _piped(self, send: str, receive: str) -> list[str]:
        return ["sh", "-c", f"{send} | ssh -F {self._config} replica '{receive}'"]

    def _push(self, replica: Path, *options: str) -> Result:
        client = self._product.client(
            "push", self._space.source, f"ssh://replica/{replica}", *options
        )
        return self._run(client)

    def _run(self, program: Program) -> Result:
        # sshd demands its absolute path: it starts itself again for every connection.
        serve = [str(shutil.which("sshd")), "-D", "-e", "-f", str(self._folder / "sshd_config")]
        sshd = Program("sshd", serve, self._port, serves=True)
        return run_ends(lambda _port: [sshd], lambda _port: [program])
