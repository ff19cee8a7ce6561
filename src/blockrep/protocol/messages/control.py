"""HELLO, WELCOME, PULL, PING, ABORT, BYE: frames about the connection itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

from blockrep.errors import ERRORS_BY_CODE, BlockrepError, InternalError, RefusedError
from blockrep.protocol.fields import array_of, boolean, optional, text, u64
from blockrep.protocol.frames import FrameType
from blockrep.protocol.limits import (
    MAX_PAYLOAD_BYTES,
    MAX_PULL_TARGET_BYTES,
    MAX_TIMEOUT_MILLISECONDS,
    MAX_WINDOW_BYTES,
    MIN_HEARTBEAT_MILLISECONDS,
    MIN_PAYLOAD_BYTES,
)
from blockrep.protocol.messages.base import Fields, Message

__all__ = ["ABORT_ERRORS", "Abort", "Bye", "Hello", "Ping", "Pull", "Welcome"]

_FEATURES = array_of(text(32), 0, 32)
_MAX_PAYLOAD = u64(MIN_PAYLOAD_BYTES, MAX_PAYLOAD_BYTES)
_WINDOW = u64(4 * MIN_PAYLOAD_BYTES, MAX_WINDOW_BYTES)


def _check_window(window_bytes: int, max_payload_bytes: int) -> None:
    if window_bytes < 4 * max_payload_bytes:
        raise ValueError("key 'window': less than 4 times max_payload")


@dataclass(frozen=True, slots=True)
class Hello(Message):
    """First frame of the client. ``versions``: lowest and highest that it speaks."""

    TYPE = FrameType.HELLO
    FIELDS: ClassVar[Fields] = {
        "versions": ("versions", array_of(u64(), 2, 2)),
        "features": ("features", _FEATURES),
        "software": ("software", text(64)),
    }
    versions: tuple[int, int]
    features: tuple[str, ...]
    software: str

    def __post_init__(self) -> None:
        """Check that the range is one."""
        if self.versions[0] > self.versions[1]:
            raise ValueError("key 'versions': the lowest is above the highest")


@dataclass(frozen=True, slots=True)
class Welcome(Message):
    """The server accepted the client; limits are the server's."""

    TYPE = FrameType.WELCOME
    FIELDS: ClassVar[Fields] = {
        "version": ("version", u64()),
        "features": ("features", _FEATURES),
        "software": ("software", text(64)),
        "identity": ("identity", text(255)),
        "max_payload": ("max_payload_bytes", _MAX_PAYLOAD),
        "window": ("window_bytes", _WINDOW),
        "heartbeat": (
            "heartbeat_milliseconds",
            u64(MIN_HEARTBEAT_MILLISECONDS, MAX_TIMEOUT_MILLISECONDS),
        ),
        "timeout": (
            "timeout_milliseconds",
            u64(MIN_HEARTBEAT_MILLISECONDS, MAX_TIMEOUT_MILLISECONDS),
        ),
    }
    version: int
    features: tuple[str, ...]
    software: str
    identity: str
    max_payload_bytes: int
    window_bytes: int
    heartbeat_milliseconds: int
    timeout_milliseconds: int

    def __post_init__(self) -> None:
        """Check the bounds that tie two keys."""
        _check_window(self.window_bytes, self.max_payload_bytes)
        if self.timeout_milliseconds < 2 * self.heartbeat_milliseconds:
            raise ValueError("key 'timeout': less than 2 times heartbeat")


@dataclass(frozen=True, slots=True)
class Pull(Message):
    """Turns the session: from here on the server is the sender, and does what a client does.

    ``volume``: the server's; ``target``: how the client calls its replica. ``full``, ``adopt``,
    ``shrink``: what the client's user asked for. The limits are the client's, in the place of those
    of WELCOME.
    """

    TYPE = FrameType.PULL
    FIELDS: ClassVar[Fields] = {
        "volume": ("volume", text(4096)),
        "target": ("target", text(MAX_PULL_TARGET_BYTES)),
        "full": ("full", boolean),
        "adopt": ("adopt", boolean),
        "shrink": ("shrink", boolean),
        "compress": ("compress", boolean),
        "max_payload": ("max_payload_bytes", _MAX_PAYLOAD),
        "window": ("window_bytes", _WINDOW),
    }
    volume: str
    target: str
    full: bool
    adopt: bool
    shrink: bool
    compress: bool
    max_payload_bytes: int
    window_bytes: int

    def __post_init__(self) -> None:
        """Check the bounds that tie two keys."""
        _check_window(self.window_bytes, self.max_payload_bytes)
        if self.full and self.adopt:
            raise ValueError("keys 'full' and 'adopt': both")


@dataclass(frozen=True, slots=True)
class Ping(Message):
    """A sign of life."""

    TYPE = FrameType.PING


@dataclass(frozen=True, slots=True)
class Bye(Message):
    """Orderly end."""

    TYPE = FrameType.BYE


ABORT_ERRORS: Final[dict[str, type[BlockrepError]]] = {
    code: ERRORS_BY_CODE[code]
    for code in (
        "refused",
        "diverged",
        "no-space",
        "volume",
        "storage",
        "busy",
        "protocol",
        "unsupported-host",
        "verification-failed",
        "configuration",
        "interrupted",
        "internal",
    )
}
"""Codes that ABORT may carry. How the command line was used and that the connection was lost are
matters of each end alone."""

_MAX_TEXT_BYTES = 1024
_TEXT = text(_MAX_TEXT_BYTES)


@dataclass(frozen=True, slots=True)
class Abort(Message):
    """An error; nothing follows."""

    TYPE = FrameType.ABORT
    FIELDS: ClassVar[Fields] = {
        "code": ("code", text(32)),
        "what": ("what", _TEXT),
        "where": ("where", optional(_TEXT)),
        "safe": ("safe", optional(_TEXT)),
        "next": ("next_step", optional(_TEXT)),
    }
    code: str
    what: str
    where: str | None = None
    safe: str | None = None
    next_step: str | None = None

    @classmethod
    def from_error(cls, error: BlockrepError) -> Abort:
        """Build the frame for an error; text is cut and cleaned to what the frame may hold."""
        code = error.code if error.code in ABORT_ERRORS else InternalError.code
        where, safe, next_step = (
            None if part is None else _printable(part)
            for part in (error.where, error.safe, error.next_step)
        )
        return cls(code, _printable(error.what), where, safe, next_step)

    def to_error(self) -> BlockrepError:
        """Return the error as its class here; an unknown code is shown and counts as refused."""
        error_class = ABORT_ERRORS.get(self.code, RefusedError)
        what = self.what if self.code in ABORT_ERRORS else f"{self.what} ({self.code})"
        return error_class(what, where=self.where, safe=self.safe, next_step=self.next_step)


def _printable(value: str) -> str:
    cleaned = "".join(character if character.isprintable() else " " for character in value)
    return cleaned.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore")
