"""The folder of one scenario: source, destinations, certificates, blockrep's configurations."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from data import spoil, warm_pages

HOST = "localhost"


def make_certificates(folder: Path) -> None:
    """Make the authority and one certificate, in the forms that the tools want."""
    create_authority(folder)
    issue(folder, HOST, [Role.SERVER, Role.CLIENT])
    certificate, key = folder / f"{HOST}.pem", folder / f"{HOST}.key"
    (folder / "socat.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    nbd = folder / "nbd"
    nbd.mkdir()
    for path, name in (
        (folder / "ca.pem", "ca-cert.pem"),
        (certificate, "server-cert.pem"),
        (key, "server-key.pem"),
    ):
        shutil.copy(path, nbd / name)


@dataclass(frozen=True)
class Workspace:
    """Where one scenario works.

    Attributes:
        folder: for configurations and the source; in memory.
        far: for what is received; the same folder, or one on a disk.
        certificates: see :func:`make_certificates`.
        fresh: peers write new files, as blockrep has to; else they overwrite one in place.
    """

    folder: Path
    far: Path
    certificates: Path
    fresh: bool

    @property
    def source(self) -> Path:
        """What is copied."""
        return self.folder / "source.img"

    @property
    def images(self) -> Path:
        """Where blockrep's server keeps replicas."""
        return self.far / "images"

    @property
    def replica(self) -> Path:
        """What blockrep makes of the source."""
        return self.images / "replica.img"

    @property
    def plain(self) -> Path:
        """What a peer makes of the source."""
        return self.far / "plain" / "plain.img"

    @property
    def size_bytes(self) -> int:
        """Of the source."""
        return self.source.stat().st_size

    def configure(self, server_lines: str = "") -> None:
        """Make the folders and blockrep's configurations."""
        self.images.mkdir(exist_ok=True)
        self.plain.parent.mkdir(exist_ok=True)
        for host, home in (("client", self.folder), ("server", self.far)):
            text = (
                f"[tls]\ndirectory = '{self.certificates}'\n"
                f"[storage]\nstate_directory = '{home}/{host}-state'\n"
                f"runtime_directory = '{home}/{host}-run'\ndata_reserve_percent = 0\n"
            )
            if host == "server":
                text += f"[server]\nimage_directory = '{self.images}'\n{server_lines}"
            (self.folder / f"{host}.toml").write_text(text)

    def forget(self) -> None:
        """Remove what blockrep made, at both ends; touch the memory that it will need again."""
        for path in (self.images, self.folder / ".blockrep"):
            shutil.rmtree(path, ignore_errors=True)
        self.images.mkdir()
        warm_pages(self.images, self.source.stat().st_blocks * 512)

    def spoil_plain(self) -> None:
        """Make the peers' destination ready: nothing in it is what will be sent."""
        if self.fresh:
            self.remove_plain()
        else:
            spoil(self.plain, self.size_bytes)

    def remove_plain(self) -> None:
        """Have the peers make their destination, as blockrep has to."""
        self.plain.unlink(missing_ok=True)
        warm_pages(self.far, self.source.stat().st_blocks * 512)


@contextmanager
def removed_at_end(folder: Path) -> Iterator[Path]:
    """Make a folder; remove it with all that is in it."""
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
