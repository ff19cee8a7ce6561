"""Reading the configuration again while sessions run: all of it comes to hold, or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from blockrep.errors import BlockrepError
from blockrep.replication.receiver import AuditSink

__all__ = ["Prepare", "reload", "reload_when"]

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
