"""Invitations: one host may get one certificate, for one key, within a short time.

The token that the invited host gets names the server and holds a secret; the server keeps the
secret's digest only. Guessing is hopeless (32 random bytes); an invitation that somebody tries to
guess is void after a few attempts all the same.

The first key that comes with the secret is the only one from then on. It may come again, because
the answer to it may have been lost.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import datetime as dt
import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
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
        name: what the invited host will be called.
        invitation: its id.
        secret: proves that the token was handed over.
    """

    host: str
    port: int
    server_name: str
    authority: bytes
    name: str
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
            host, port, server_name, authority, name, invitation, secret = msgpack.unpackb(data)
        except (ValueError, msgpack.UnpackException):
            raise error from None
        return cls(host, port, server_name, authority, name, invitation, secret)


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the server keeps.

    Attributes:
        id: names it, in the token too.
        name: what the invited host will be called.
        days: for which the certificate is valid.
        expires: seconds since the epoch.
        secret_digest: SHA-256 of the secret, hexadecimal.
        failures: wrong secrets so far.
        key_digest: SHA-256 of the key that it was used for, hexadecimal; empty: it was not used.
        serial: of the certificate that was issued, hexadecimal; empty: none was.
    """

    id: str
    name: str
    days: int
    expires: int
    secret_digest: str
    failures: int = 0
    key_digest: str = ""
    serial: str = ""


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
        """Make an invitation; return its id and its secret. An open one for that name is void."""
        prepare_directory(self._folder)
        secret = secrets.token_bytes(_SECRET_BYTES)
        invitation = Invitation(
            id=secrets.token_hex(8),
            name=name,
            days=days,
            expires=int((now + lifetime).timestamp()),
            secret_digest=hashlib.sha256(secret).hexdigest(),
        )
        with self._locked():
            for one in self._all():
                if one.name == name or one.expires <= now.timestamp():
                    (self._folder / f"{one.id}.json").unlink(missing_ok=True)
            self._write(invitation)
        return invitation.id, secret

    def any_open(self, now: dt.datetime) -> bool:
        """Tell whether anybody is invited at all."""
        return any(one.expires > now.timestamp() for one in self._all())

    def redeem(
        self, identifier: str, secret: bytes, public_key: bytes, now: dt.datetime
    ) -> Invitation:
        """Use an invitation for this key, from now on for no other.

        Raises:
            RefusedError: with one answer for every reason.
        """
        refusal = RefusedError(
            "the invitation is not known, was used, has expired, or its secret is wrong",
            safe="nothing was issued",
            next_step="ask for another one: blockrep peer invite NAME",
        )
        path = self._path(identifier)
        if path is None or not path.exists():
            raise refusal
        with self._locked():
            invitation = _read(path)
            if invitation is None:
                raise refusal
            digest = hashlib.sha256(secret).hexdigest()
            if not hmac.compare_digest(digest, invitation.secret_digest):
                failed = replace(invitation, failures=invitation.failures + 1)
                if failed.failures >= _MAX_FAILURES:
                    path.unlink(missing_ok=True)
                else:
                    self._write(failed)
                raise refusal
            key_digest = hashlib.sha256(public_key).hexdigest()
            if (
                invitation.key_digest not in {"", key_digest}
                or invitation.expires <= now.timestamp()
            ):
                raise refusal
            used = replace(invitation, key_digest=key_digest)
            self._write(used)
        return used

    def note(self, invitation: Invitation, serial: str) -> None:
        """Note which certificate was issued, for the same key to get it again."""
        with self._locked():
            if (self._folder / f"{invitation.id}.json").exists():  # or it was made void meanwhile
                self._write(replace(invitation, serial=serial))

    def _all(self) -> list[Invitation]:
        found = [_read(path) for path in self._folder.glob("*.json")]
        return [one for one in found if one is not None]

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let nobody else change invitations meanwhile, in this process or another."""
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

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
