"""Who may open which volume, one session at a time."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from blockrep.config.access import DEFAULT_OPERATIONS
from blockrep.errors import BusyError, RefusedError
from blockrep.model.names import VolumeName
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.pulling import SourceAccess
from blockrep.replication.receiver import Access, AuditSink
from blockrep.server.pulls import BoundedSource
from blockrep.storage.interface import SourceVolume, TargetVolume
from blockrep.storage.locks import VolumeLock, lock_key

__all__ = ["Authorize", "Permission", "TargetGate"]

_POLL_SECONDS = 0.25
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")  # of TOML


class Permission(Protocol):
    """What a client may do with one volume."""

    @property
    def volume(self) -> VolumeName:
        """The volume on this host that the client's name stands for."""

    @property
    def create(self) -> bool:
        """The replica may be created."""

    @property
    def adopt(self) -> bool:
        """A foreign volume may be taken over."""

    @property
    def keep(self) -> int:
        """Good snapshots to retain."""

    @property
    def keep_min(self) -> int:
        """Good snapshots that a prune leaves."""

    @property
    def quota_bytes(self) -> int:
        """Largest size of what is pushed; 0: any."""

    @property
    def rate_bytes_per_second(self) -> int:
        """Received by all sessions of the client under ``rule`` together; 0: any."""

    @property
    def max_pull_targets(self) -> int:
        """Snapshots of a volume are held for so many targets of one client."""

    @property
    def rule(self) -> str:
        """Name of the rule that allows it."""


Authorize = Callable[[str, str, str], Permission | None]
"""(identity, volume as requested, operation) -> permission, or None.

Unknown and forbidden alike.
"""


def _advice(identity: str, operation: str) -> str:
    """Return what to do about a refusal: the same for every name, so it tells of no volume."""
    key = identity if _BARE_KEY.fullmatch(identity) else json.dumps(identity, ensure_ascii=False)
    rule = "needs" if operation not in DEFAULT_OPERATIONS else "may need"
    return (
        f"check the name; {operation} {rule} a rule in [clients.{key}] of the server's"
        " configuration (without any [clients], image files need image_directory in [server])"
    )


class TargetGate:
    """The gate of a server.

    Args:
        address: of the client, for lock holders.
        authorize: the configuration's rules.
        open_target: opens a volume of this host.
        runtime_directory: for locks.
        wait_seconds: how long an earlier session on the same volume is waited for: as long as it
            may take to be found dead.
        audit: told refusals.
        limiter_for: returns what sessions of an identity under the same rule share.
        open_source: opens a volume of this host to be pulled.

    Attributes:
        idle_since: when the session came to have nothing open, by the loop's clock; None: it has.
    """

    def __init__(
        self,
        address: str,
        authorize: Authorize,
        open_target: Callable[[VolumeName], TargetVolume],
        runtime_directory: Path,
        wait_seconds: float,
        audit: AuditSink,
        limiter_for: Callable[[str, Permission], RateLimiter],
        open_source: Callable[[VolumeName], SourceVolume],
    ) -> None:
        self._open_source = open_source
        self._address = address
        self._authorize = authorize
        self._open_target = open_target
        self._runtime_directory = runtime_directory
        self._wait_seconds = wait_seconds
        self._audit = audit
        self._limiter_for = limiter_for
        self._clock = asyncio.get_running_loop().time
        self.idle_since: float | None = self._clock()
        self._opened: tuple[str, str, str] | None = None
        self._opened_volume: VolumeName | None = None

    def still_allows(self) -> bool:
        """Whether what is open now could be opened again, as the same volume."""
        if self._opened is None:
            return True
        permission = self._authorize(*self._opened)
        return permission is not None and permission.volume == self._opened_volume

    @contextlib.asynccontextmanager
    async def open(self, identity: str, volume: str, operation: str) -> AsyncIterator[Access]:
        """See :class:`blockrep.replication.receiver.VolumeGate`."""
        async with self._held(identity, volume, operation, "target") as permission:
            yield Access(
                self._open_target(permission.volume),
                permission.create,
                permission.adopt,
                permission.keep,
                permission.keep_min,
                permission.quota_bytes,
                self._limiter_for(identity, permission),
            )

    @contextlib.asynccontextmanager
    async def open_source(
        self, identity: str, volume: str, target: str
    ) -> AsyncIterator[SourceAccess]:
        """See :class:`blockrep.replication.pulling.SourceGate`."""
        async with self._held(identity, volume, "pull", "source", target) as permission:
            source = BoundedSource(
                self._open_source(permission.volume),
                volume,
                identity,
                permission.max_pull_targets,
                (self._runtime_directory, lock_key("snapshots", permission.volume, identity)),
                self._wait_seconds,
                self._audit,
            )
            yield SourceAccess(source, permission.rate_bytes_per_second)

    @contextlib.asynccontextmanager
    async def _held(
        self, identity: str, volume: str, operation: str, role: str, held_for: str = ""
    ) -> AsyncIterator[Permission]:
        """Ask the rules, then hold the lock of the volume in its role (:func:`lock_key`)."""
        permission = self._authorize(identity, volume, operation)
        if permission is None:
            self._audit("refused", {"volume": volume, "operation": operation})
            raise RefusedError(
                f"{operation} is not allowed, or there is no such volume",
                where=volume,
                safe="nothing was changed",
                next_step=_advice(identity, operation),
            )
        since = datetime.now(UTC).isoformat(timespec="seconds")
        holder = f"{operation} by {identity} from {self._address} since {since}"
        self._opened, self._opened_volume = (identity, volume, operation), permission.volume
        self.idle_since = None
        try:
            lock = await self._acquire(lock_key(role, permission.volume, held_for), holder)
            try:
                yield permission
            finally:
                lock.release()
        finally:
            self._opened = self._opened_volume = None
            self.idle_since = self._clock()

    async def _acquire(self, key: str, holder: str) -> VolumeLock:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_seconds
        while True:
            try:
                return VolumeLock(self._runtime_directory, key, holder)
            except BusyError:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(_POLL_SECONDS)
