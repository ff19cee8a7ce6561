"""Sizes, durations and addresses as people write them, in files and on the command line."""

from __future__ import annotations

import math
import re
from typing import Final, NamedTuple

from blockrep.model.names import DEFAULT_PORT

__all__ = [
    "ADDRESS_FORMS",
    "DURATION_FORMS",
    "LOCAL_ADDRESS_FORM",
    "SIZE_FORMS",
    "Address",
    "LocalAddress",
    "parse_address",
    "parse_duration",
    "parse_listening_address",
    "parse_size",
]

SIZE_FORMS: Final = (
    "bytes as a number, or with a unit (K, M, G, T): "
    "50M and 50MiB are 50 x 1024 x 1024, 50MB are 50 x 1000 x 1000"
)
DURATION_FORMS: Final = "seconds as a number, or with a unit: 500ms, 30s, 5m, 2h, 1d"
ADDRESS_FORMS: Final = "HOST, HOST:PORT, [IPV6]:PORT, or *:PORT for every address"
LOCAL_ADDRESS_FORM: Final = "unix:/PATH"

_SIZE: Final = re.compile(r"(\d{1,18}(?:\.\d{1,6})?) ?([KMGT])?(i?B)?", re.IGNORECASE | re.ASCII)
_EXPONENTS: Final[dict[str, int]] = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_DURATION: Final = re.compile(r"(\d{1,9}(?:\.\d{1,6})?) ?(ms|s|m|h|d)?", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_HOST: Final = re.compile(r"\*|[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)
_IPV6: Final = re.compile(r"[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9._-]{1,15})?", re.ASCII)
_MAX_BYTES: Final = 1 << 60


class Address(NamedTuple):
    """Host and TCP port. An empty host: every address of this host."""

    host: str
    port: int

    def __str__(self) -> str:
        """Return it as it is typed."""
        host = self.host or "*"
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


class LocalAddress(NamedTuple):
    """Path of a Unix socket."""

    path: str

    def __str__(self) -> str:
        """Return it as it is typed."""
        return f"unix:{self.path}"


def parse_size(text: str) -> int:
    """Parse a size into bytes: ``64MiB``, ``50M``, ``1.5G``, ``10MB``, ``4096``.

    A letter alone counts in powers of 1024, as in LVM, rsync and dd; with ``B`` it counts in powers
    of 1000.

    Raises:
        ValueError: it is none; the message says what is accepted.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        msg = f"{text[:40]!r} is not a size; accepted: {SIZE_FORMS}"
        raise ValueError(msg)
    number, letter, unit = match.groups()
    base = 1000 if letter and (unit or "").upper() == "B" else 1024
    factor: int = base ** _EXPONENTS[(letter or "").upper()]
    size = round(float(number) * factor) if "." in number else int(number) * factor
    if size > _MAX_BYTES:
        msg = f"{text[:40]!r} is more than 1 EiB"
        raise ValueError(msg)
    return size


def parse_duration(text: str) -> float:
    """Parse a duration into seconds: ``30s``, ``500ms``, ``5m``, ``1.5``.

    Raises:
        ValueError: it is none; the message says what is accepted.
    """
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        msg = f"{text[:40]!r} is not a duration; accepted: {DURATION_FORMS}"
        raise ValueError(msg)
    seconds = float(match[1]) * _SECONDS[match[2] or "s"]
    assert math.isfinite(seconds)
    return seconds


def parse_address(text: str, default_port: int = DEFAULT_PORT) -> Address:
    """Parse an address: ``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``, ``*:PORT``, ``:PORT`` or nothing.

    What is left out is every address and the default port.

    Raises:
        ValueError: it is none; the message says what is accepted.
    """
    msg = f"{text[:80]!r} is not an address; accepted: {ADDRESS_FORMS}"
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or not _IPV6.fullmatch(host) or (rest and not rest.startswith(":")):
            raise ValueError(msg)
        has_port, port_text = bool(rest), rest[1:]
    else:
        host, colon, port_text = text.partition(":")
        has_port = bool(colon)
        if _IPV6.fullmatch(text) and text.count(":") > 1:
            host, has_port = text, False
        elif host and not _HOST.fullmatch(host):
            raise ValueError(msg)
    port = default_port
    if has_port:
        if not (
            port_text.isascii()
            and port_text.isdigit()
            and len(port_text) < 6
            and 0 <= int(port_text) < 65536
        ):
            raise ValueError(msg)
        port = int(port_text)
    return Address("" if host == "*" else host, port)


def parse_listening_address(text: str, default_port: int = DEFAULT_PORT) -> Address | LocalAddress:
    """Parse an address, or ``unix:/PATH``.

    Raises:
        ValueError: it is neither; the message says what is accepted.
    """
    prefix, _, path = text.partition(":")
    if prefix != "unix":
        return parse_address(text, default_port)
    # sun_path has 108 bytes, the last of them 0: unix(7).
    if not path.startswith("/") or path.endswith("/") or len(path.encode()) > 107 or "\0" in path:
        msg = f"{text[:120]!r} is not a Unix socket; accepted: {LOCAL_ADDRESS_FORM}"
        raise ValueError(msg)
    return LocalAddress(path)
