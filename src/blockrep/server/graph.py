"""Builds what serves sessions from the configuration."""

from __future__ import annotations

from blockrep.config.settings import Settings
from blockrep.replication.blocking import Blocking
from blockrep.replication.receiver import ReceiverLimits
from blockrep.server.audit import AuditFile
from blockrep.server.service import Service, ServiceSettings
from blockrep.storage.factory import open_source, open_target

__all__ = ["THREADS_PER_SESSION", "audit_file_of", "service_of"]

#: A session uses at most two at once: one writes or reads, one syncs.
THREADS_PER_SESSION = 2
#: Beyond the time after which a dead session is noticed, so that its successor finds it gone.
_LOCK_MARGIN_SECONDS = 5.0


def service_of(settings: Settings, blocking: Blocking) -> Service:
    """Return the service that the configuration describes."""
    server = settings.server
    return Service(
        ServiceSettings(
            limits=ReceiverLimits(
                server.max_payload_bytes,
                server.window_bytes,
                server.heartbeat_seconds,
                server.peer_timeout_seconds,
            ),
            max_sessions=server.max_sessions,
            max_sessions_per_client=server.max_sessions_per_client,
            idle_seconds=server.idle_seconds,
            buffer_bytes=server.buffer_bytes,
            handshake_seconds=server.handshake_seconds,
            lock_wait_seconds=server.peer_timeout_seconds + _LOCK_MARGIN_SECONDS,
            runtime_directory=settings.storage.runtime_directory,
        ),
        settings.access.permit,
        lambda name: open_target(name, settings.storage),
        lambda name: open_source(name, settings.storage),
        blocking,
    )


def audit_file_of(settings: Settings) -> AuditFile | None:
    """Return the audit log's file, None if there is none. Raises ConfigurationError."""
    path = settings.server.audit_file
    return None if path is None else AuditFile(path)
