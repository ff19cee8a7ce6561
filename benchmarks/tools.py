"""blockrep and its peers: how each moves one file to another over loopback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from measure import Program, Result, run_pair

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role

_SOCAT_PORT = 19744
_NBD_PORT = 19745


def program_text(part: str) -> str:
    """Return what ``python -c`` needs to run the client ("cli") or the "server"."""
    return f"import sys; from blockrep.{part}.main import main; sys.exit(main())"


@dataclass(frozen=True)
class Tool:
    """A way to move the bytes. ``needs``: programs; ``run``: one transfer to ``destination``."""

    name: str
    needs: tuple[str, ...]
    run: Callable[[], Result]
    destination: Path

    def missing(self) -> list[str]:
        """Return the programs that this machine lacks."""
        return [program for program in self.needs if shutil.which(program) is None]


class Bench:
    """One working folder: source, destination, certificates, configurations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source = folder / "source.img"
        self.images = folder / "images"
        self.replica = self.images / "replica.img"
        self.plain = folder / "plain.img"

    def prepare(self) -> None:
        """Make certificates and configurations."""
        self.images.mkdir()
        certificates = self.folder / "certs"
        create_authority(certificates)
        issue(certificates, "localhost", [Role.SERVER, Role.CLIENT])
        key = (certificates / "localhost.pem").read_bytes()
        key += (certificates / "localhost.key").read_bytes()
        (self.folder / "socat.pem").write_bytes(key)
        for name, target in (("ca.pem", "ca-cert.pem"), ("localhost.pem", "server-cert.pem")):
            self._nbd(name, target)
        self._nbd("localhost.key", "server-key.pem")
        for host in ("client", "server"):
            text = (
                f"[tls]\ndirectory = '{certificates}'\n"
                f"[storage]\nstate_directory = '{self.folder}/{host}-state'\n"
                f"runtime_directory = '{self.folder}/{host}-run'\ndata_reserve_percent = 0\n"
            )
            if host == "server":
                text += f"[server]\nimage_directory = '{self.images}'\n"
            (self.folder / f"{host}.toml").write_text(text)

    def _nbd(self, name: str, target: str) -> None:
        folder = self.folder / "nbd"
        folder.mkdir(exist_ok=True)
        shutil.copy(self.folder / "certs" / name, folder / target)

    def forget(self) -> None:
        """Remove what a transfer made, at both ends."""
        for path in (self.images, self.folder / ".blockrep"):
            shutil.rmtree(path, ignore_errors=True)
        self.images.mkdir()
        self.plain.unlink(missing_ok=True)

    def push(self, *options: str) -> Result:
        """Push the source with blockrep."""

        def receiver() -> Program:
            argv = [sys.executable, "-c", program_text("server"), "--listen", "127.0.0.1:0"]
            argv += ["--config", str(self.folder / "server.toml")]
            return Program("blockrep-server", argv, ready="listening on")

        def sender(output: str) -> Program:
            port = output.partition("listening on 127.0.0.1:")[2].split()[0]
            target = f"tls://localhost:{port}/{self.replica}"
            return Program("blockrep push", self.push_argv(target, *options))

        return run_pair(receiver, sender, daemon=True)

    def push_argv(self, target: str, *options: str) -> list[str]:
        """Return the command of a push to a target."""
        argv = [sys.executable, "-c", program_text("cli"), "push", str(self.source), target]
        return [*argv, "--quiet", "--config", str(self.folder / "client.toml"), *options]

    def socat_tls(self) -> Result:
        """Pipe the file through dd and socat, over TLS, as one would without a tool."""
        listen = f"OPENSSL-LISTEN:{_SOCAT_PORT},reuseaddr,bind=127.0.0.1,verify=0"
        listen += f",cert={self.folder}/socat.pem"
        receive = f"echo ready; exec socat -u -b 131072 {listen} STDOUT > {self.plain}"
        return self._piped(receive, f"OPENSSL:127.0.0.1:{_SOCAT_PORT},verify=0")

    def socat_tcp(self) -> Result:
        """Do the same without encryption."""
        listen = f"TCP-LISTEN:{_SOCAT_PORT},reuseaddr,bind=127.0.0.1"
        receive = f"echo ready; exec socat -u -b 131072 {listen} STDOUT > {self.plain}"
        return self._piped(receive, f"TCP:127.0.0.1:{_SOCAT_PORT}")

    def _piped(self, receive: str, address: str) -> Result:
        send = f"socat -u -b 131072 OPEN:{self.source} {address},retry=50,interval=0.02"
        return run_pair(
            lambda: Program("socat", ["sh", "-c", receive], ready="ready"),
            lambda _output: Program("socat", ["sh", "-c", send]),
            daemon=False,
        )

    def nbdcopy_tls(self) -> Result:
        """Copy to an nbdkit server over TLS."""
        size = self.source.stat().st_size
        with self.plain.open("wb") as file:
            file.truncate(size)
        serve = ["nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", str(_NBD_PORT)]
        serve += ["--tls=require", f"--tls-certificates={self.folder}/nbd", "file", str(self.plain)]
        uri = f"nbds://localhost:{_NBD_PORT}/?tls-certificates={self.folder}/nbd"
        wait = f"until nbdinfo '{uri}' >/dev/null 2>&1; do sleep 0.02; done"
        send = f"{wait}; exec nbdcopy {self.source} '{uri}'"
        return run_pair(
            lambda: Program("nbdkit", serve),
            lambda _output: Program("nbdcopy", ["sh", "-c", send]),
            daemon=True,
        )
