"""Reading the configuration again while sessions run: all of it comes to hold, or nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from blockrep.errors import BlockrepError, InternalError
from blockrep.replication.receiver import AuditSink

__all__ = ["Prepare", "reload", "reload_when"]

_KEPT: Final = "the configuration was not reloaded, the one before stays"
_IN_PART: Final = "the new configuration may hold in part: restart the server"

_log = logging.getLogger("blockrep.server")

Prepare = Callable[[], Callable[[], None]]
"""Reads and checks everything, changing nothing; returns what lets it hold, which cannot fail."""


def reload(prepare: Prepare, audit: AuditSink) -> bool:
    """Let a new configuration hold; a wrong one is told, and the one before stays.

    Args:
        prepare: see :data:`Prepare`; raises BlockrepError, and a defect is none but its own: who
            withdraws a right must be told, and must be able to try again.
        audit: told the event ``reload``; a success is told to where the new configuration says.

    Returns:
        Whether the new one holds.
    """
    try:
        apply = prepare()
    except BlockrepError as error:
        return _failed(_KEPT, str(error), audit)
    except Exception as error:  # noqa: BLE001 - see above
        return _failed(_KEPT, InternalError.of(error).what, audit, traceback=True)
    try:
        apply()
    except Exception as error:  # noqa: BLE001 - see above
        return _failed(_IN_PART, InternalError.of(error).what, audit, traceback=True)
    _log.info("the configuration was reloaded")
    audit("reload", {"done": True})
    return True


def _failed(outcome: str, what: str, audit: AuditSink, *, traceback: bool = False) -> bool:
    _log.error("%s: %s", outcome, what, exc_info=traceback)
    audit("reload", {"done": False, "what": what})
    return False


async def reload_when(asked: asyncio.Event, prepare: Prepare, audit: AuditSink) -> None:
    """Reload whenever the event is set, clearing it; runs until it is cancelled."""
    while True:
        await asked.wait()
        asked.clear()
        reload(prepare, audit)
