"""Names of certificates and their files; imports nothing that is slow to load."""

from __future__ import annotations

import re
from enum import Enum
from pathlib import Path

from blockrep.errors import ConfigurationError

__all__ = [
    "AUTHORITY_CERTIFICATE",
    "AUTHORITY_KEY",
    "AUTHORITY_REVOCATIONS",
    "HOST_CERTIFICATE",
    "HOST_KEY",
    "Role",
    "certificate_path",
    "check_name",
    "is_host_name",
    "is_there",
    "key_path",
]

AUTHORITY_CERTIFICATE = "ca.pem"
AUTHORITY_KEY = "ca.key"
AUTHORITY_REVOCATIONS = "ca.crl"
HOST_CERTIFICATE = "host.pem"
HOST_KEY = "host.key"

# A DNS name in lower case: the name is the identity, and identities that differ only in case would
# be one to TLS and two to a person.
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_NAME_PATTERN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_MAX_NAME_CHARACTERS = 64  # the limit of a certificate's common name (RFC 5280, ub-common-name)
_RESERVED_NAMES = frozenset({"ca", "host"})


class Role(Enum):
    """What a certificate is good for; the value is the option of ``blockrep certs issue``."""

    SERVER = "server"
    CLIENT = "client"


def is_host_name(text: str) -> bool:
    """Whether it can stand in a certificate as the name of a host."""
    return len(text) <= _MAX_NAME_CHARACTERS and _NAME_PATTERN.fullmatch(text) is not None


def check_name(name: str) -> str:
    """Return the name of a host's certificate, if it can be one.

    Raises:
        ConfigurationError: it cannot; says what can.
    """
    if name in _RESERVED_NAMES:
        raise ConfigurationError(
            f"{name!r} cannot be the name of a certificate: its files would be mistaken",
            next_step="use the name of the host",
        )
    if not is_host_name(name):
        raise ConfigurationError(
            f"{name[:80]!r} cannot be the name of a certificate",
            next_step="use a host name of lower-case letters, digits, hyphens, dots (at most 64)",
        )
    return name


def certificate_path(directory: Path, name: str) -> Path:
    """Return where the certificate of ``name`` lies."""
    return directory / f"{name}.pem"


def key_path(directory: Path, name: str) -> Path:
    """Return where the private key of ``name`` lies."""
    return directory / f"{name}.key"


def is_there(path: Path) -> bool:
    """Tell whether there is such a file. Raises ConfigurationError: this user may not know."""
    try:
        return path.exists()
    except OSError as error:
        raise ConfigurationError(
            f"cannot be looked at: {error.strerror}",
            where=str(path),
            next_step="run as a user who may read it, such as root",
        ) from error
