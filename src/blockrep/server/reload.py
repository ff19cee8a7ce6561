"""Reading the configuration again while sessions run: all of it comes to hold, or nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from blockrep.errors import BlockrepError
from blockrep.replication.receiver import AuditSink

__all__ = ["Prepare", "reload", "reload_when", "watch_file"]

_POLL_SECONDS = 2.0
_log = logging.getLogger("blockrep.server")

Prepare = Callable[[], Callable[[], None]]
"""Reads and checks everything, changing nothing; returns what lets it hold, which cannot fail."""


def reload(prepare: Prepare, audit: AuditSink) -> bool:
    """Let a new configuration hold; a wrong one is told, and the one before stays.

    Args:
        prepare: see :data:`Prepare`; raises BlockrepError.
        audit: told the event ``reload``; a success is told to where the new configuration says.

    Returns:
        Whether the new one holds.
    """
    try:
        apply = prepare()
    except BlockrepError as error:
        _log.error("the configuration was not reloaded, the one before stays: %s", error)
        audit("reload", {"done": False, "what": str(error)})
        return False
    apply()
    _log.info("the configuration was reloaded")
    audit("reload", {"done": True})
    return True


async def reload_when(asked: asyncio.Event, prepare: Prepare, audit: AuditSink) -> None:
    """Reload whenever the event is set, clearing it; runs until it is cancelled."""
    while True:
        await asked.wait()
        asked.clear()
        reload(prepare, audit)


async def watch_file(path: Path, prepare: Prepare, audit: AuditSink) -> None:
    """Reload whenever a file appears, changes or goes; runs until it is cancelled.

    For the revocation list: who copies a new one must not have to think of SIGHUP.
    """
    known = _state_of(path)
    while True:
        await asyncio.sleep(_POLL_SECONDS)
        if (found := _state_of(path)) != known:
            known = found
            reload(prepare, audit)


def _state_of(path: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - one look at a local file
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
