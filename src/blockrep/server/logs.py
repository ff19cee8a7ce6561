"""Where a server's log goes: to whoever keeps standard error, or to the system's log."""

from __future__ import annotations

import contextlib
import errno
import logging
import logging.handlers
import socket
import sys
from pathlib import Path

__all__ = ["log_to_stderr", "log_to_system"]

_SYSTEM_LOG = Path("/dev/log")
_FORMAT = "%(levelname)s %(name)s: %(message)s"


def log_to_stderr() -> None:
    """Log all to standard error: the service manager keeps it."""
    logging.basicConfig(level=logging.INFO, format=_FORMAT)


def log_to_system(path: Path = _SYSTEM_LOG) -> None:
    """Log all to the system's log, for standard error belongs to the client.

    Without a system log, standard error is better than nothing: the client shows the end of it.
    """
    if not _listens(path):
        log_to_stderr()
        return
    handler = _SystemLog(str(path), facility=_SystemLog.LOG_DAEMON)
    handler.ident = "blockrep-server: "
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class _SystemLog(logging.handlers.SysLogHandler):
    """Sends to the system's log; a line that it does not take goes to standard error."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Save the line; a traceback of ours in its place would help nobody."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)
            return
        with contextlib.suppress(OSError):
            sys.stderr.write(self.format(record) + "\n")


def _listens(path: Path) -> bool:
    """Whether there is a system log. Since Python 3.11 the handler does not say."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as error:
            return error.errno == errno.EPROTOTYPE  # one that takes streams
    return True
