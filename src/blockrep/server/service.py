"""Serves accepted connections: one task for each session, limited in number, ended together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blockrep.errors import BlockrepError, BusyError, InternalError
from blockrep.model.names import VolumeName
from blockrep.protocol.transitions import Side
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.receiver import Receiver, ReceiverLimits
from blockrep.server.audit import audit_for
from blockrep.server.gate import Authorize, TargetGate
from blockrep.storage.interface import TargetVolume
from blockrep.transport.interface import Transport

__all__ = ["Service", "ServiceSettings"]

_log = logging.getLogger("blockrep.server")
_FEATURES = ("zstd",)


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Bounds of a server.

    ``buffer_bytes``: payload buffers of one session; ``lock_wait_seconds``: see TargetGate.
    """

    limits: ReceiverLimits
    max_sessions: int
    buffer_bytes: int
    handshake_seconds: float
    lock_wait_seconds: float
    runtime_directory: Path


class Service:
    """Serves clients that a transport has authenticated.

    Args:
        settings: bounds.
        authorize: who may do what.
        open_target: opens a volume of this host.
        blocking: where storage calls run.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        authorize: Authorize,
        open_target: Callable[[VolumeName], TargetVolume],
        blocking: Blocking,
    ) -> None:
        self._settings = settings
        self._authorize = authorize
        self._open_target = open_target
        self._blocking = blocking
        self._sessions: set[asyncio.Task[None]] = set()

    async def serve(self, transport: Transport) -> None:
        """Serve one connection to its end; never raises but CancelledError."""
        task = asyncio.current_task()
        if task is None:
            msg = "serve must run in a task"
            raise InternalError(msg)
        self._sessions.add(task)
        try:
            await self._serve(transport)
        except BlockrepError as error:
            _log.warning("session of %s ended: %s", transport.peer.address, error)
        except Exception:  # noqa: BLE001 - a defect ends one session, not the server
            _log.exception("session of %s ended because of a defect", transport.peer.address)
        finally:
            self._sessions.discard(task)

    async def _serve(self, transport: Transport) -> None:
        settings = self._settings
        peer = transport.peer
        audit = audit_for(peer)
        async with Channel(
            transport,
            Side.SERVER,
            buffer_bytes=settings.buffer_bytes,
            handshake_seconds=settings.handshake_seconds,
        ) as channel:
            if len(self._sessions) > settings.max_sessions:
                raise BusyError(
                    f"the server has its limit of {settings.max_sessions} sessions",
                    safe="nothing was changed",
                    next_step="try again later, or raise server.max_sessions",
                )
            audit("authenticated", {})
            gate = TargetGate(
                peer.address,
                self._authorize,
                self._open_target,
                settings.runtime_directory,
                settings.lock_wait_seconds,
                audit,
            )
            receiver = Receiver(
                channel, peer.identity, gate, self._blocking, settings.limits, _FEATURES, audit
            )
            await receiver.serve()

    async def close(self) -> None:
        """End all sessions: each tells its peer that it was interrupted."""
        sessions = list(self._sessions)
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
