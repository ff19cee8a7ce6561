"""Names of volumes and targets, as users type them and as LVM accepts them.

The pattern for ``VG/LV`` and the reserved words are those of lvm(8): an operand that does not match
never reaches an LVM command, because ``lvs ''``, ``lvs vg``, ``lvs --`` and ``@tag`` all mean
something else.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Final

__all__ = [
    "DEFAULT_PORT",
    "TARGET_FORMS",
    "UNSAFE_CATEGORIES",
    "Target",
    "VolumeName",
    "is_safe",
    "parse_target",
    "parse_volume",
]

DEFAULT_PORT: Final = 8733

TARGET_FORMS: Final = (
    "HOST:VG/LV, HOST:/path, tls://HOST[:PORT]/VG/LV or ssh://[USER@]HOST[:PORT]/VG/LV, "
    "the latter two also with //path in the place of /VG/LV"
)
"""For people: the forms that :func:`parse_target` takes."""

UNSAFE_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Unicode categories that no name and no text from a peer may hold: both end on terminals and in
logs. Cs stands for bytes that are no UTF-8."""

_LV_PATTERN = re.compile(
    r"(?P<vg>[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,126})/(?P<lv>[A-Za-z0-9_.+][A-Za-z0-9_.+-]{0,99})"
)
# lvm(8), "VALID NAMES"; _cvol and _imeta are of versions newer than that list.
_RESERVED_PREFIXES = ("snapshot", "pvmove")
_RESERVED_INFIX = re.compile(
    "_(cdata|cmeta|corig|cvol|imeta|iorig|mimage|mlog|pmspare|rimage|rmeta|tdata|tmeta|vdata"
    "|vorigin|wcorig)"
)
_MAX_PATH_BYTES = 4096  # PATH_MAX, and what OPEN can carry
_HOST_PATTERN = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?)")
_PORT_PATTERN = re.compile(r":([0-9]{1,5})")
_USER_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@-]{0,63}")
_SCHEMES = ("tls", "ssh")
_MAX_PORT = 65535


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
    """Where to push to.

    ``scheme``: tls or ssh. ``user``, and ``port`` 0: what SSH's own configuration says.
    ``volume`` is what the server is asked for; its configuration decides what that means.
    """

    scheme: str
    host: str
    port: int
    volume: VolumeName
    user: str = ""

    def __str__(self) -> str:
        """Return the target in its full form, which :func:`parse_target` takes again."""
        user = f"{self.user}@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        return f"{self.scheme}://{user}{host}{port}/{self.volume}"


def is_safe(text: str) -> bool:
    """Whether no character of a text is of :data:`UNSAFE_CATEGORIES`."""
    # Printable means none of them, and a few more: nearly every text is done with one call.
    return text.isprintable() or all(
        unicodedata.category(character) not in UNSAFE_CATEGORIES for character in text
    )


def parse_volume(text: str) -> VolumeName:
    """Parse ``VG/LV`` or a path that starts with ``/`` or ``.``.

    Raises:
        ValueError: the text is neither; the message says why.
    """
    shown = ascii(text[:80])
    if len(text) > _MAX_PATH_BYTES:
        raise ValueError(f"{shown}... is too long for a volume")
    if not is_safe(text):
        raise ValueError(f"{shown} has a control character or is no UTF-8")
    if text.startswith(("/", ".")):
        last = text.rpartition("/")[2]
        if last in {"", ".", ".."} or len(text.encode()) > _MAX_PATH_BYTES:
            raise ValueError(f"{shown} is not the path of a file")
        return VolumeName(path=text)
    match = _LV_PATTERN.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown} is neither VG/LV nor a path that starts with / or .")
    lv = match["lv"]
    if lv in {".", ".."}:
        raise ValueError(f"{shown} is not a name that LVM accepts")
    if lv.startswith(_RESERVED_PREFIXES) or _RESERVED_INFIX.search(lv):
        raise ValueError(f"{lv!r} is a name that LVM reserves for itself")
    return VolumeName(vg=match["vg"], lv=lv)


def parse_target(text: str, default_port: int = DEFAULT_PORT) -> Target:
    """Parse a target in one of :data:`TARGET_FORMS`.

    Raises:
        ValueError: the text is in none of these; the message says why.
    """
    shown = ascii(text[:80])
    scheme, separator, rest = text.partition("://")
    if not separator:
        host, rest = _take_host(text)
        if not rest.startswith(":"):
            raise ValueError(f"{shown} is not a target")
        return Target("tls", host, default_port, parse_volume(rest[1:]))
    if scheme not in _SCHEMES:
        raise ValueError(
            f"{scheme[:20]!a} is not a known way to reach a host (known: {', '.join(_SCHEMES)})"
        )
    user = ""
    if scheme == "ssh":
        user, rest = _take_user(rest)
    host, rest = _take_host(rest)
    address, slash, volume = rest.partition("/")
    port = 0 if scheme == "ssh" else default_port
    if address:
        port = _parse_port(address)
    if not slash:
        raise ValueError(f"{shown} names no volume")
    return Target(scheme, host, port, parse_volume(volume), user)


def _take_user(text: str) -> tuple[str, str]:
    # What follows the first slash is the volume, which may have an @ of its own.
    user, at, _ = text.partition("/")[0].rpartition("@")
    if not at:
        return "", text
    rest = text[len(user) + 1 :]
    # useradd(8), and the names that directories of users have; never an option of ssh.
    if not _USER_PATTERN.fullmatch(user):
        raise ValueError(f"{user[:40]!a} is not the name of a user")
    return user, rest


def _take_host(text: str) -> tuple[str, str]:
    match = _HOST_PATTERN.match(text)
    if match is None:
        raise ValueError(f"{text[:80]!a} names no host")
    return match[1].strip("[]"), text[match.end() :]


def _parse_port(address: str) -> int:
    match = _PORT_PATTERN.fullmatch(address)
    if match is None or not 0 < int(match[1]) <= _MAX_PORT:
        raise ValueError(f"{address[:20]!a} is not a port")
    return int(match[1])
