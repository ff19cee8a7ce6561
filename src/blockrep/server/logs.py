"""Where a server's log goes: to whoever keeps standard error, or to the system's log."""

from __future__ import annotations

import logging
import logging.handlers
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
    try:
        handler = logging.handlers.SysLogHandler(
            str(path), facility=logging.handlers.SysLogHandler.LOG_DAEMON
        )
    except OSError:
        log_to_stderr()
        return
    handler.ident = "blockrep-server: "
    handler.setFormatter(logging.Formatter(_FORMAT))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
