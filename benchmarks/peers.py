"""How each peer copies one file over loopback, to the end of an fsync of what arrived."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from measure import Program, Result, free_port, run_ends
from relay import Link
from workspace import HOST, Workspace

#: Debian's package for each program that is started here.
PACKAGES = {
    "socat": "socat",
    "nbdkit": "nbdkit",
    "nbdcopy": "libnbd-bin",
    "rsync": "rsync",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
    "zstd": "zstd",
    "mkfs.xfs": "xfsprogs",
    "thin_restore": "thin-provisioning-tools",
    "thin_delta": "thin-provisioning-tools",
}
NBD = ("nbdkit", "nbdcopy")
_SOCAT = "socat -u -b 131072"


def missing_packages() -> dict[str, str]:
    """Return the programs that this machine lacks, and the packages that have them."""
    return {one: package for one, package in PACKAGES.items() if shutil.which(one) is None}


class Peers:
    """Runs peers from the source of a workspace to its plain destination."""

    def __init__(self, space: Workspace) -> None:
        self._space = space

    def socat_tls(self, link: Link | None = None) -> Result:
        """Pipe the file through socat over TLS, as one would without a tool."""
        return self.many_socat_tls([(self._space.source, self._space.plain)], link)

    def zstd_socat_tls(self, link: Link) -> Result:
        """Do the same, compressed on the way."""
        space = self._space
        pipe = "| zstd -d -q"
        return run_ends(
            lambda port: [self._listener(port, f"{pipe} {_into(space.plain)}")],
            lambda port: [_connector(port, "-", f"zstd -1 -q -c {space.source} |")],
            link,
        )

    def many_socat_tls(self, pairs: list[tuple[Path, Path]], link: Link | None = None) -> Result:
        """Copy several files at once, each over a connection of its own."""
        ports = [free_port() for _ in pairs[1:]]

        def receivers(port: int) -> list[Program]:
            numbered = zip([port, *ports], pairs, strict=True)
            return [self._listener(one, _into(arrives)) for one, (_, arrives) in numbered]

        def senders(port: int) -> list[Program]:
            numbered = zip([port, *ports], pairs, strict=True)
            return [_connector(one, f"OPEN:{sent}") for one, (sent, _) in numbered]

        return run_ends(receivers, senders, link)

    def _listener(self, port: int, output: str) -> Program:
        options = f"bind=127.0.0.1,verify=0,cert={self._space.certificates}/socat.pem"
        return Program("socat", _sh(f"{_SOCAT} OPENSSL-LISTEN:{port},{options} - {output}"), port)

    def socat_tcp(self) -> Result:
        """Do the same without encryption."""
        space = self._space
        listen = "TCP-LISTEN:{},bind=127.0.0.1"
        return run_ends(
            lambda port: [
                Program(
                    "socat", _sh(f"{_SOCAT} {listen.format(port)} - {_into(space.plain)}"), port
                )
            ],
            lambda port: [
                Program("socat", _sh(f"exec {_SOCAT} OPEN:{space.source} TCP:127.0.0.1:{port}"))
            ],
        )

    def socat_unix(self) -> Result:
        """Do the same through a Unix socket."""
        space = self._space
        path = space.far / "socat.sock"
        path.unlink(missing_ok=True)
        receive = Program(
            "socat", _sh(f"{_SOCAT} UNIX-LISTEN:{path} - {_into(space.plain)}"), path=path
        )
        send = Program("socat", [*_SOCAT.split(), f"OPEN:{space.source}", f"UNIX-CONNECT:{path}"])
        return run_ends(lambda _port: [receive], lambda _port: [send])

    def nbdcopy(self, *, tls: bool, holes: bool = False) -> Result:
        """Copy to an nbdkit server; ``holes``: it is told that the destination is empty."""
        space = self._space
        if not space.plain.exists():
            with space.plain.open("wb") as file:
                file.truncate(space.size_bytes)
        certificates = space.certificates / "nbd"
        options = ["--tls=require", f"--tls-certificates={certificates}"] if tls else []
        copy = ["nbdcopy", "--flush", *(["--destination-is-zero"] if holes else [])]

        def serve(port: int) -> list[Program]:
            argv = ["nbdkit", "--foreground", "--ipaddr", "127.0.0.1", "--port", str(port)]
            argv += [*options, "file", str(space.plain)]
            return [Program("nbdkit", argv, port, serves=True)]

        def send(port: int) -> list[Program]:
            uri = f"nbd://{HOST}:{port}/"
            if tls:
                uri = f"nbds://{HOST}:{port}/?tls-certificates={certificates}"
            return [Program("nbdcopy", [*copy, str(space.source), uri])]

        return run_ends(serve, send)

    def rsync(self, *options: str) -> Result:
        """Copy to an rsync daemon, without encryption."""
        space = self._space
        config = space.folder / "rsyncd.conf"
        user = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""  # else it is "nobody"
        config.write_text(
            f"use chroot = no\npid file = {space.folder}/rsyncd.pid\n"
            f"[plain]\npath = {space.plain.parent}\nread only = no\n{user}"
        )
        (space.folder / "rsyncd.pid").unlink(missing_ok=True)

        def serve(port: int) -> list[Program]:
            argv = ["rsync", "--daemon", "--no-detach", "--address", "127.0.0.1"]
            argv += ["--port", str(port), f"--config={config}"]
            return [Program("rsync daemon", argv, port, serves=True)]

        def send(port: int) -> list[Program]:
            target = f"rsync://127.0.0.1:{port}/plain/{space.plain.name}"
            return [Program("rsync", ["rsync", *options, "--fsync", str(space.source), target])]

        return run_ends(serve, send)


def _connector(port: int, source: str, before: str = "exec") -> Program:
    return Program("socat", _sh(f"{before} {_SOCAT} {source} OPENSSL:127.0.0.1:{port},verify=0"))


def _sh(command: str) -> list[str]:
    return ["sh", "-c", command]


def _into(path: Path) -> str:
    """Return what makes a shell write to a file in place, and wait until it is on the disk."""
    return f"1<>{path} && exec sync --data {path}"
