"""Names of volumes and targets, as users type them and as LVM accepts them.

The pattern for ``VG/LV`` and the reserved words are those of lvm(8): an operand that does not match never reaches an LVM
command, because ``lvs ''``, ``lvs vg``, ``lvs --`` and ``@tag`` all mean something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["DEFAULT_PORT", "Target", "VolumeName", "parse_target", "parse_volume"]

DEFAULT_PORT = 8733

_LV_PATTERN = re.compile(r"[A-Za-z0-9_.+][A-Za-z0-9_.+-]*/[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,99}")
_RESERVED_PREFIXES = ("snapshot", "pvmove")
_RESERVED_INFIXES = (
    "_cdata", "_cmeta", "_corig", "_cvol", "_iorig", "_mimage", "_mlog", "_pmspare", "_rimage", "_rmeta",
    "_tdata", "_tmeta", "_vdata", "_vorigin", "_wcorig",
)  # fmt: skip
_MAX_NAME_CHARACTERS = 127
_MAX_PATH_BYTES = 4096
_HOST_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)")


@dataclass(frozen=True, slots=True)
class VolumeName:
    """A volume on some host: either ``vg`` and ``lv``, or a ``path``."""

    vg: str = ""
    lv: str = ""
    path: str = ""

    @property
    def is_lvm(self) -> bool:
        """The volume is a logical volume."""
        return not self.path

    def __str__(self) -> str:
        """Return the name as it is typed."""
        return self.path or f"{self.vg}/{self.lv}"


@dataclass(frozen=True, slots=True)
class Target:
    """Where to push to. ``volume`` is what the server is asked for; its configuration decides what that means."""

    scheme: str
    host: str
    port: int
    volume: VolumeName

    def __str__(self) -> str:
        """Return the target in its full form."""
        return f"{self.scheme}://{self.host}:{self.port}/{self.volume}"


def parse_volume(text: str) -> VolumeName:
    """Parse ``VG/LV`` or a path that starts with ``/`` or ``.``.

    Raises:
        ValueError: the text is neither; the message says why.
    """
    if any(ord(character) < 0x20 or ord(character) == 0x7F for character in text):
        msg = f"{text!r} has a control character"
        raise ValueError(msg)
    if text.startswith(("/", ".")):
        if len(text.encode(errors="surrogateescape")) > _MAX_PATH_BYTES or text.endswith("/"):
            msg = f"{text[:80]!r} is not the path of a file"
            raise ValueError(msg)
        return VolumeName(path=text)
    if not _LV_PATTERN.fullmatch(text):
        msg = f"{text[:80]!r} is neither VG/LV nor a path that starts with / or ."
        raise ValueError(msg)
    vg, lv = text.split("/")
    for part in (vg, lv):
        if part in {".", ".."} or len(part) > _MAX_NAME_CHARACTERS:
            msg = f"{part[:80]!r} is not a name that LVM accepts"
            raise ValueError(msg)
    if lv.startswith(_RESERVED_PREFIXES) or any(infix in lv for infix in _RESERVED_INFIXES):
        msg = f"{lv!r} is a name that LVM reserves for itself"
        raise ValueError(msg)
    return VolumeName(vg=vg, lv=lv)


def parse_target(text: str, default_port: int = DEFAULT_PORT) -> Target:
    """Parse ``HOST:VG/LV``, ``HOST:/path``, ``tls://HOST[:PORT]/VG/LV`` or ``tls://HOST[:PORT]//path``.

    Raises:
        ValueError: the text is none of these; the message says why.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        host, rest = _take_host(text)
        if not rest.startswith(":"):
            msg = f"{text[:80]!r} is not HOST:VG/LV, HOST:/path or tls://HOST:PORT/VG/LV"
            raise ValueError(msg)
        return Target("tls", host.strip("[]"), default_port, parse_volume(rest[1:]))
    if scheme != "tls":
        msg = f"{scheme[:20]!r} is not a known way to reach a host (known: tls)"
        raise ValueError(msg)
    host, rest = _take_host(rest)
    address, slash, volume = rest.partition("/")
    port = default_port
    if address:
        number = address.removeprefix(":")
        if number == address or not number.isascii() or not number.isdigit() or not 0 < int(number) < 65536:
            msg = f"{address[:20]!r} is not a port"
            raise ValueError(msg)
        port = int(number)
    if not slash:
        msg = f"{text[:80]!r} names no volume"
        raise ValueError(msg)
    return Target("tls", host.strip("[]"), port, parse_volume(volume))


def _take_host(text: str) -> tuple[str, str]:
    match = _HOST_PATTERN.match(text)
    if match is None:
        msg = f"{text[:80]!r} names no host"
        raise ValueError(msg)
    return match.group(), text[match.end() :]
