"""Public SSH keys, and the line of ``authorized_keys`` that lets one of them do a single thing.

Formats: sshd(8), "AUTHORIZED_KEYS FILE FORMAT"; RFC 4253, section 6.6, for what is in a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockrep.certificates.naming import check_name
from blockrep.errors import ConfigurationError

__all__ = ["PublicKey", "authorized_line", "is_key_fingerprint", "read_public_key"]

#: How many strings follow the type in the key itself.
_FIELDS: Final = {
    "ssh-ed25519": 1,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
    "sk-ssh-ed25519@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256@openssh.com": 3,
    "ssh-rsa": 2,
}
_MAX_FILE_BYTES: Final = 16 * 1024
_MIN_RSA_BITS: Final = 2048
_FINGERPRINT: Final = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A public key. ``comment`` may be empty."""

    type: str
    encoded: str
    comment: str

    def __str__(self) -> str:
        """Return the key as it stands in files."""
        return f"{self.type} {self.encoded} {self.comment}".rstrip()

    @property
    def fingerprint(self) -> str:
        """What ssh-keygen -l and sshd's log call the key."""
        digest = hashlib.sha256(base64.b64decode(self.encoded)).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def is_key_fingerprint(text: str) -> bool:
    """Whether it is a fingerprint as OpenSSH shows them."""
    return _FINGERPRINT.fullmatch(text) is not None


def read_public_key(path: Path) -> PublicKey:
    """Read the one public key of a file, such as ``~/.ssh/id_ed25519.pub``.

    Raises:
        ConfigurationError: it cannot be read, or is anything else than one public key without
            options.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}") from error
    if len(content) > _MAX_FILE_BYTES:
        raise _wrong(path, "is too large for a public key")
    if b"PRIVATE KEY" in content:
        raise _wrong(path, "is a private key, which belongs to the client alone")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise _wrong(path, "is not a public key (no UTF-8)") from error
    lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    if len(lines) != 1:
        raise _wrong(path, f"holds {len(lines)} keys instead of one")
    return _parse(lines[0].strip(), path)


def authorized_line(name: str, key: PublicKey) -> str:
    """Return the line that lets ``key`` do nothing but talk to a server that calls it ``name``.

    The fingerprint is in it for the server's records: sshd does not tell it.

    Raises:
        ConfigurationError: the name is none that a certificate could have; so it holds nothing
            that a shell or sshd reads in another way.
    """
    command = f"blockrep-server --stdio --as {check_name(name)} --key-fingerprint {key.fingerprint}"
    return f'command="{command}",restrict {key}'


def _parse(line: str, path: Path) -> PublicKey:
    if not line.isprintable():
        raise _wrong(path, "has characters that cannot be printed")
    kind, _, rest = line.partition(" ")
    encoded, _, comment = rest.strip().partition(" ")
    if kind not in _FIELDS:
        raise _wrong(path, f"starts with {kind[:40]!r}, which is no type of key that is accepted")
    try:
        packed = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(path, "is damaged (no base64)") from error
    fields = _strings(packed, path)
    if fields[0] != kind.encode() or len(fields) != _FIELDS[kind] + 1:
        raise _wrong(path, f"is damaged (no {kind} key)")
    if kind == "ssh-rsa" and int.from_bytes(fields[2], "big").bit_length() < _MIN_RSA_BITS:
        raise _wrong(path, f"is an RSA key of less than {_MIN_RSA_BITS} bits")
    return PublicKey(kind, encoded, comment.strip())


def _strings(packed: bytes, path: Path) -> list[bytes]:
    """Return the strings that a key is made of; there is at least one."""
    strings, at = [], 0
    while at < len(packed):
        end = at + 4 + int.from_bytes(packed[at : at + 4], "big")
        if end > len(packed):
            raise _wrong(path, "is damaged (cut off)")
        strings.append(packed[at + 4 : end])
        at = end
    if not strings:
        raise _wrong(path, "is damaged (empty)")
    return strings


def _wrong(path: Path, what: str) -> ConfigurationError:
    return ConfigurationError(
        what,
        where=str(path),
        next_step="give the client's public key, one line without options, such as id_ed25519.pub",
    )
