"""The audit log: one JSON object a line.

For each authentication, refusal, commit, deletion and forced action, for a session that was ended
and for a reload. It goes to the logger ``blockrep.audit``, and from there to a file if there is
one.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from blockrep.errors import ConfigurationError
from blockrep.replication.receiver import AuditSink
from blockrep.transport.interface import PeerInfo

__all__ = ["AUDIT_LOGGER", "AuditFile", "audit_for", "use_audit_file"]

AUDIT_LOGGER = "blockrep.audit"

_log = logging.getLogger("blockrep.server")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def audit_for(peer: PeerInfo, now: Callable[[], str] = _now) -> AuditSink:
    """Return a sink that writes events of this peer to the logger ``blockrep.audit``."""
    logger = logging.getLogger(AUDIT_LOGGER)
    who = {"identity": peer.identity, "address": peer.address, "fingerprint": peer.fingerprint}

    def write(event: str, fields: dict[str, object]) -> None:
        # json escapes control characters: a peer's text cannot forge a line.
        logger.info("%s", json.dumps({"time": now(), "event": event, **who, **fields}))

    return write


class AuditFile(logging.Handler):
    """Appends each line to a file by one write, so that lines of several servers do not mix.

    Args:
        path: made with mode 0600 if it is not there.

    Raises:
        ConfigurationError: it cannot be opened for appending.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        try:
            self._fd = os.open(path, flags, 0o600)
        except OSError as error:
            raise ConfigurationError(
                f"the audit file cannot be opened: {error.strerror}",
                where=str(path),
                next_step="create its folder, or correct audit_file in [server]",
            ) from error
        self._path = path
        # Registers it to be closed at exit, so there must be something to close.
        super().__init__()

    def emit(self, record: logging.LogRecord) -> None:
        """Append a line; what cannot be written is told, and stays in the other log."""
        line = record.getMessage().encode() + b"\n"
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            _log.error("%s: the audit file cannot be written: %s", self._path, error.strerror)
        else:
            if written != len(line):
                _log.error("%s: a line of the audit file was cut", self._path)

    def close(self) -> None:
        """Close the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def use_audit_file(file: AuditFile | None) -> None:
    """Write the audit log to this file from now on; one that was in use is closed."""
    logger = logging.getLogger(AUDIT_LOGGER)
    for handler in [one for one in logger.handlers if isinstance(one, AuditFile)]:
        logger.removeHandler(handler)
        handler.close()
    if file is not None:
        logger.addHandler(file)
