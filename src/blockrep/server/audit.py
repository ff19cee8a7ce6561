"""The audit log: one JSON object a line.

For each authentication, refusal, commit, deletion and forced action.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime

from blockrep.replication.receiver import AuditSink
from blockrep.transport.interface import PeerInfo

__all__ = ["AUDIT_LOGGER", "audit_for"]

AUDIT_LOGGER = "blockrep.audit"


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
