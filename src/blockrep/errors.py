"""The errors of blockrep: one class per exit code.

Each says what went wrong, where, what is safe, and what to do next.

::

    BlockrepError
    ├── UsageError               2   the command line
    ├── ConfigurationError       3   a configuration file, a certificate, a key
    ├── RefusedError             4   the peer said no (unknown and forbidden answer alike)
    ├── DivergedError            5   source and replica have no history in common
    ├── NoSpaceError             6   a pool or file system would fall below its reserve
    ├── ConnectionLostError      7   the transfer can be resumed
    ├── VerificationFailedError  8   the bytes differ
    ├── UnsupportedHostError     9   a tool, a version, a privilege is missing on this host
    ├── VolumeError             10   unknown, thick, mounted, foreign, damaged volume
    ├── StorageError            11   reading, writing or syncing failed
    ├── BusyError               12   somebody else works on the same volume
    ├── ProtocolError           13   the peer broke the protocol
    ├── InternalError           70   a defect of blockrep
    └── InterruptedByUserError 130   SIGINT, SIGTERM or SIGHUP

The same classes travel in ABORT frames, named by their ``code``, so that the user sees one error
whichever host found it.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "ERRORS_BY_CODE",
    "ERRORS_BY_EXIT_CODE",
    "BlockrepError",
    "BusyError",
    "ConfigurationError",
    "ConnectionLostError",
    "DivergedError",
    "InternalError",
    "InterruptedByUserError",
    "NoSpaceError",
    "ProtocolError",
    "RefusedError",
    "StorageError",
    "UnsupportedHostError",
    "UsageError",
    "VerificationFailedError",
    "VolumeError",
]


class BlockrepError(Exception):
    """Base of every error that a user may see.

    Args:
        what: what went wrong, one line, no final full stop.
        where: the file, volume, host or option concerned.
        safe: what is known to be unharmed.
        next_step: what the user should do next.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 70

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        safe: str | None = None,
        next_step: str | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.safe = safe
        self.next_step = next_step

    def __str__(self) -> str:
        """Return the error as one line: ``where: what; safe; next step``."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        return "; ".join([text, *(part for part in (self.safe, self.next_step) if part)])

    def as_fields(self) -> dict[str, str]:
        """Return the parts that are present, as they travel in ABORT frames and JSON output."""
        fields = {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "safe": self.safe,
            "next": self.next_step,
        }
        return {name: value for name, value in fields.items() if value is not None}


class UsageError(BlockrepError):
    """The command line cannot be understood."""

    code = "usage"
    exit_code = 2


class ConfigurationError(BlockrepError):
    """A configuration file, certificate or key is missing or wrong."""

    code = "configuration"
    exit_code = 3


class RefusedError(BlockrepError):
    """The peer does not allow it; unknown and forbidden answer alike."""

    code = "refused"
    exit_code = 4


class DivergedError(BlockrepError):
    """Source and replica have no common base, or the replica was changed.

    Nothing was overwritten.
    """

    code = "diverged"
    exit_code = 5


class NoSpaceError(BlockrepError):
    """The transfer would take a pool or file system below its reserve."""

    code = "no-space"
    exit_code = 6


class ConnectionLostError(BlockrepError):
    """The connection ended before the transfer did; the next push resumes."""

    code = "connection-lost"
    exit_code = 7


class VerificationFailedError(BlockrepError):
    """Bytes that must be equal differ."""

    code = "verification-failed"
    exit_code = 8


class UnsupportedHostError(BlockrepError):
    """A tool, a version of a tool, or a privilege is missing on a host."""

    code = "unsupported-host"
    exit_code = 9


class VolumeError(BlockrepError):
    """The volume is unknown, of the wrong kind, in use, foreign, or damaged."""

    code = "volume"
    exit_code = 10


class StorageError(BlockrepError):
    """Reading, writing or syncing a device or file failed."""

    code = "storage"
    exit_code = 11


class BusyError(BlockrepError):
    """Somebody else works on the same volume or pool."""

    code = "busy"
    exit_code = 12


class ProtocolError(BlockrepError):
    """The peer sent what the protocol does not allow."""

    code = "protocol"
    exit_code = 13


class InternalError(BlockrepError):
    """A defect of blockrep: an assumption that the code relies on does not hold."""

    code = "internal"
    exit_code = 70

    @classmethod
    def of(
        cls, error: BaseException, *, where: str | None = None, next_step: str | None = None
    ) -> Self:
        """Return what an exception that nobody expected is to whoever is told of it."""
        return cls(
            f"defect in blockrep: {type(error).__name__}: {error}",
            where=where,
            safe="good snapshots are never written",
            next_step=next_step,
        )


class InterruptedByUserError(BlockrepError):
    """SIGINT, SIGTERM or SIGHUP ended the command."""

    code = "interrupted"
    exit_code = 130


ERRORS_BY_CODE: dict[str, type[BlockrepError]] = {
    error.code: error
    for error in (
        UsageError,
        ConfigurationError,
        RefusedError,
        DivergedError,
        NoSpaceError,
        ConnectionLostError,
        VerificationFailedError,
        UnsupportedHostError,
        VolumeError,
        StorageError,
        BusyError,
        ProtocolError,
        InternalError,
        InterruptedByUserError,
    )
}

ERRORS_BY_EXIT_CODE: dict[int, type[BlockrepError]] = {
    error.exit_code: error for error in ERRORS_BY_CODE.values()
}
