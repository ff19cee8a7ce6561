"""The files that TLS needs, checked before OpenSSL reads them: it names no file and no remedy."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from blockrep.errors import ConfigurationError

__all__ = ["TlsFiles"]


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of one host.

    Attributes:
        ca: certificate of the private authority, the only one that is trusted.
        certificate: this host's own certificate.
        key: its private key, unencrypted.
        crl: revocation list of the authority, or None: revocation is not checked.
    """

    ca: Path
    certificate: Path
    key: Path
    crl: Path | None = None

    def check(self) -> None:
        """Check that all can be read, and that the key is nobody else's.

        Raises:
            ConfigurationError: names the file and what to do.
        """
        for path, what, remedy in self._described():
            if not path.is_file():
                raise ConfigurationError(
                    f"the {what} is not here",
                    where=str(path),
                    next_step=f"{remedy}, or set its path in [tls]",
                )
            if not os.access(path, os.R_OK):
                raise ConfigurationError(
                    f"the {what} cannot be read by this user",
                    where=str(path),
                    next_step=f"run as its owner, or as root: chown {_user()} {path}",
                )
        if self.key.stat().st_mode & stat.S_IRWXO:
            raise ConfigurationError(
                "every user of this host can read the private key",
                where=str(self.key),
                next_step=f"run: chmod 600 {self.key}; if others may have read it, issue a new one",
            )

    def _described(self) -> list[tuple[Path, str, str]]:
        """Return each file, what it is, and where it comes from."""
        copy = "copy it from the host of the authority"
        issued = f"{copy}, where this makes it: blockrep certs issue"
        made = f"{copy}; if there is no authority yet: blockrep certs init"
        described = [
            (self.ca, "certificate of the authority", made),
            (self.certificate, "certificate of this host", issued),
            (self.key, "private key of this host", issued),
        ]
        if self.crl is not None:
            listed = f"{copy}, where this writes it: blockrep certs revoke"
            described.append((self.crl, "revocation list", listed))
        return described


def _user() -> str:
    return str(os.geteuid())
