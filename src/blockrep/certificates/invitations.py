"""Invitations: one host may get one certificate, once, for a short time.

The token that the invited host gets names the server and holds a secret; the server keeps the
secret's digest only. Guessing is hopeless (32 random bytes); an invitation that somebody tries to
guess is void after a few attempts all the same.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgpack

from blockrep.certificates.files import KEY_MODE, prepare_directory, replace_file
from blockrep.errors import RefusedError, UsageError

__all__ = ["Invitation", "Invitations", "Token"]

_PREFIX: Final = "brp1-"
_CHECK_BYTES: Final = 4
_SECRET_BYTES: Final = 32
_MAX_FAILURES: Final = 5
_ID_PATTERN: Final = re.compile(r"[0-9a-f]{16}")
_MAX_TOKEN_CHARACTERS: Final = 1024


@dataclass(frozen=True, slots=True)
class Token:
    """What an invited host needs.

    Attributes:
        host: of the server, and ``port``: where it listens.
        server_name: what its certificate must say.
        authority: SHA-256 of the authority's certificate.
        invitation: its id.
        secret: proves that the token was handed over.
    """

    host: str
    port: int
    server_name: str
    authority: bytes
    invitation: str
    secret: bytes

    def encode(self) -> str:
        """Return one line to copy and paste."""
        packed: bytes = msgpack.packb(list(asdict(self).values()))
        check = hashlib.sha256(packed).digest()[:_CHECK_BYTES]
        return _PREFIX + base64.urlsafe_b64encode(packed + check).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Token:
        """Read a token. Raises UsageError: it is none, or was not copied whole."""
        text = "".join(text.split())
        body = text.removeprefix(_PREFIX)
        error = UsageError(
            "is not a whole token",
            where="the token",
            next_step="copy the line that blockrep peer invite printed, all of it",
        )
        if body == text or len(text) > _MAX_TOKEN_CHARACTERS:
            raise error
        try:
            packed = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
        except (binascii.Error, ValueError):
            raise error from None
        data, check = packed[:-_CHECK_BYTES], packed[-_CHECK_BYTES:]
        if hashlib.sha256(data).digest()[:_CHECK_BYTES] != check:
            raise error
        try:
            host, port, server_name, authority, invitation, secret = msgpack.unpackb(data)
        except (ValueError, msgpack.UnpackException):
            raise error from None
        return cls(host, port, server_name, authority, invitation, secret)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the server keeps: ``expires`` in seconds since the epoch, ``secret_digest`` in hex."""

    id: str
    name: str
    days: int
    expires: int
    secret_digest: str
    failures: int = 0


class Invitations:
    """The open invitations of a server.

    Args:
        state_directory: of the settings.
    """

    def __init__(self, state_directory: Path) -> None:
        self._folder = state_directory / "invitations"

    def create(
        self, name: str, days: int, lifetime: dt.timedelta, now: dt.datetime
    ) -> tuple[str, bytes]:
        """Make an invitation; return its id and its secret."""
        prepare_directory(self._folder)
        self._forget_expired(now)
        secret = secrets.token_bytes(_SECRET_BYTES)
        invitation = Invitation(
            id=secrets.token_hex(8),
            name=name,
            days=days,
            expires=int((now + lifetime).timestamp()),
            secret_digest=hashlib.sha256(secret).hexdigest(),
        )
        self._write(invitation)
        return invitation.id, secret

    def any_open(self, now: dt.datetime) -> bool:
        """Tell whether anybody is invited at all."""
        return any(one.expires > now.timestamp() for one in self._all())

    def redeem(self, identifier: str, secret: bytes, now: dt.datetime) -> Invitation:
        """Use an invitation up. Raises RefusedError: with one answer for every reason."""
        refusal = RefusedError(
            "the invitation is not known, was used, has expired, or its secret is wrong",
            safe="nothing was issued",
            next_step="ask for another one: blockrep peer invite NAME",
        )
        path = self._path(identifier)
        invitation = None if path is None else _read(path)
        if path is None or invitation is None:
            raise refusal
        right = hmac.compare_digest(hashlib.sha256(secret).hexdigest(), invitation.secret_digest)
        if not right:
            failed = Invitation(**{**asdict(invitation), "failures": invitation.failures + 1})
            if failed.failures >= _MAX_FAILURES:
                path.unlink(missing_ok=True)
            else:
                self._write(failed)
            raise refusal
        # Of two who come with the same token, one gets to remove the file.
        try:
            os.unlink(path)  # noqa: PTH108 - Path.unlink says nothing of who was first, either
        except FileNotFoundError:
            raise refusal from None
        if invitation.expires <= now.timestamp():
            raise refusal
        return invitation

    def _all(self) -> list[Invitation]:
        found = [_read(path) for path in self._folder.glob("*.json")]
        return [one for one in found if one is not None]

    def _forget_expired(self, now: dt.datetime) -> None:
        for one in self._all():
            if one.expires <= now.timestamp():
                (self._folder / f"{one.id}.json").unlink(missing_ok=True)

    def _path(self, identifier: str) -> Path | None:
        if not _ID_PATTERN.fullmatch(identifier):
            return None
        return self._folder / f"{identifier}.json"

    def _write(self, invitation: Invitation) -> None:
        path = self._folder / f"{invitation.id}.json"
        replace_file(path, json.dumps(asdict(invitation)).encode(), KEY_MODE)


def _read(path: Path) -> Invitation | None:
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Invitation(**json.loads(path.read_bytes()))
    return None
