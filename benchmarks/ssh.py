"""blockrep and a pipe of dd over SSH: an sshd of the benchmark's own on loopback."""

from __future__ import annotations

import getpass
import os
import shutil
import subprocess
import sys
from pathlib import Path

from measure import Program, Result, run_pair
from tools import Bench, program_text

NEEDS = ("ssh", "sshd")
_PORT = 19746
_CIPHER = "aes128-gcm@openssh.com"  # the fastest of OpenSSH's, for every tool alike


class SshBench:
    """Keys and configurations of both ends, in the folder of a bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._folder = bench.folder / "ssh"
        self._config = self._folder / "config"

    def _prepare(self) -> None:
        """Make keys, an sshd_config and an ssh_config."""
        self._folder.mkdir(mode=0o700)
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd's own
        for name in ("host", "user"):
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._folder / name)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
        public = (self._folder / "host.pub").read_text()
        (self._folder / "known_hosts").write_text(f"[127.0.0.1]:{_PORT} {public}")
        (self._folder / "sshd_config").write_text(
            f"Port {_PORT}\nListenAddress 127.0.0.1\nHostKey {self._folder}/host\n"
            f"AuthorizedKeysFile {self._folder}/user.pub\nPidFile none\nStrictModes no\n"
            f"UsePAM no\nCiphers {_CIPHER}\n"
        )
        self._config.write_text(
            f"Host replica\n  HostName 127.0.0.1\n  Port {_PORT}\n  User {getpass.getuser()}\n"
            f"  IdentityFile {self._folder}/user\n  IdentityAgent none\n"
            f"  UserKnownHostsFile {self._folder}/known_hosts\n"
        )
        server = self._folder / "blockrep-server"
        server.write_text(
            f"#!/bin/sh\nexec {sys.executable} -c '{program_text('server')}' "
            f'"$@" --config {self._bench.folder}/server.toml\n'
        )
        server.chmod(0o755)
        client = self._bench.folder / "client.toml"
        with client.open("a") as file:
            file.write(f"[ssh]\nremote_command = '{server}'\nconfig = '{self._config}'\n")

    def push_library(self) -> Result:
        """Push with the SSH library in the process."""
        return self._push()

    def push_openssh(self) -> Result:
        """Push with the system's OpenSSH client as the carrier."""
        return self._push("--ssh-command", f"ssh -F {self._config}")

    def pipe(self) -> Result:
        """Copy as one would without a tool."""
        bench = self._bench
        send = (
            f"dd if={bench.source} bs=1M status=none | "
            f"ssh -F {self._config} replica dd of={bench.plain} bs=1M status=none"
        )
        return self._run(Program("dd | ssh | dd", ["sh", "-c", send]))

    def _push(self, *options: str) -> Result:
        target = f"ssh://replica/{self._bench.replica}"
        return self._run(Program("blockrep push", self._bench.push_argv(target, *options)))

    def _run(self, program: Program) -> Result:
        if not self._folder.exists():
            self._prepare()
        # sshd demands its absolute path: it starts itself again for every connection.
        serve = [str(shutil.which("sshd")), "-D", "-e", "-f", str(self._folder / "sshd_config")]
        return run_pair(
            lambda: Program("sshd", serve, ready="Server listening"),
            lambda _output: program,
            daemon=True,
        )
