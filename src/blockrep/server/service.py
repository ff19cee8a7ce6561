"""Serves accepted connections: one task for each session, limited in number, ended together.

A session ends early when the rules change and do not allow it any more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from blockrep.errors import BlockrepError, BusyError, InternalError, RefusedError
from blockrep.model.names import VolumeName
from blockrep.protocol.transitions import Side
from blockrep.replication.blocking import Blocking
from blockrep.replication.channel import Channel
from blockrep.replication.pacing import RateLimiter
from blockrep.replication.pulling import serve_pull
from blockrep.replication.receiver import AuditSink, Receiver, ReceiverLimits
from blockrep.server.audit import audit_for
from blockrep.server.gate import Authorize, Permission, TargetGate
from blockrep.storage.interface import SourceVolume, TargetVolume
from blockrep.transport.interface import PeerInfo, Transport

__all__ = ["Service", "ServiceSettings"]

_log = logging.getLogger("blockrep.server")
_FEATURES = ("zstd",)
_ASK = "ask who administers the server"
_EXPIRED = "the client's certificate has expired"
_RENEW = "renew it where the authority is, and copy it to its host: blockrep certs renew"
_REVOKED = "the client's certificate was revoked"
_LOOK_AGAIN_SECONDS = 3600.0
#: Whoever is told why he is refused is waited for: for seconds, if he does not hang up.
_MOST_REFUSED = 64


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """Bounds of a server.

    ``max_sessions_per_client``: those with one identity; ``buffer_bytes``: payload buffers of one
    session; ``idle_seconds``: how long a session may have nothing open; ``lock_wait_seconds``: see
    TargetGate.
    """

    limits: ReceiverLimits
    max_sessions: int
    max_sessions_per_client: int
    idle_seconds: float
    buffer_bytes: int
    handshake_seconds: float
    lock_wait_seconds: float
    runtime_directory: Path


@dataclass(slots=True)
class _Served:
    """A session under way.

    ``admitted``: it counts; ``ended``: why we end it, once we do; ``timers``: what ends it in time.
    """

    peer: PeerInfo
    channel: Channel
    gate: TargetGate
    audit: AuditSink
    admitted: bool = False
    ended: BlockrepError | None = None
    timers: dict[str, asyncio.TimerHandle] = field(default_factory=dict)


class Service:
    """Serves clients that a transport has authenticated.

    Args:
        settings: bounds.
        authorize: who may do what.
        open_target: opens a volume of this host.
        open_source: opens a volume of this host to be pulled.
        blocking: where storage calls run.
        now_seconds: the wall clock, seconds since the epoch.
    """

    def __init__(
        self,
        settings: ServiceSettings,
        authorize: Authorize,
        open_target: Callable[[VolumeName], TargetVolume],
        open_source: Callable[[VolumeName], SourceVolume],
        blocking: Blocking,
        now_seconds: Callable[[], int] = lambda: int(time.time()),
    ) -> None:
        self._open_source = open_source
        self._now_seconds = now_seconds
        self._settings = settings
        self._authorize = authorize
        self._open_target = open_target
        self._blocking = blocking
        self._limiters: dict[tuple[str, str, int], RateLimiter] = {}
        self._sessions: dict[asyncio.Task[None], _Served] = {}
        self._revoked: frozenset[int] = frozenset()

    async def serve(self, transport: Transport) -> None:
        """Serve one connection to its end; never raises but CancelledError."""
        task = asyncio.current_task()
        if task is None:
            msg = "serve must run in a task"
            raise InternalError(msg)
        served = self._sessions[task] = self._prepare(transport)
        address = transport.peer.address
        try:
            await self._serve(served)
        except asyncio.CancelledError:
            # If it was us alone, whoever runs the task knows nothing of it.
            if served.ended is None or task.uncancel() > 0:
                raise
            _log.warning("session of %s ended: %s", address, served.ended)
        except BlockrepError as error:
            _log.warning("session of %s ended: %s", address, error)
        except Exception:  # noqa: BLE001 - a defect ends one session, not the server
            _log.exception("session of %s ended because of a defect", address)
        finally:
            del self._sessions[task]
            for timer in served.timers.values():
                timer.cancel()

    def change_rules(self, authorize: Authorize, knows: Callable[[str], bool]) -> None:
        """Let other rules hold from now on; end the sessions that they do not allow.

        Args:
            authorize: who may do what.
            knows: whether an identity may do anything at all.
        """
        self._authorize = authorize
        for served in list(self._sessions.values()):
            if not knows(served.peer.identity) or not served.gate.still_allows():
                self._end(served, "the server's configuration does not allow it any more")

    def revoke(self, serials: Collection[int]) -> None:
        """Serve nobody whose certificate has one of these numbers, from now on; end their sessions.

        They take the place of those before. A handshake that goes on under the list before ends
        here: it may have been held open for that.
        """
        self._revoked = frozenset(serials)
        for served in list(self._sessions.values()):
            if served.peer.serial in self._revoked:
                self._end(served, _REVOKED)

    def _end_at_expiry(self, served: _Served) -> None:
        """End the session with its certificate: nobody would let it begin after that."""
        if not served.peer.not_after_seconds:
            return
        left_seconds = served.peer.not_after_seconds - self._now_seconds()
        if left_seconds <= 0:
            self._end(served, _EXPIRED)
            return
        # Looked at again after a while: the wall clock may be set, and timers do not follow it.
        served.timers["expiry"] = asyncio.get_running_loop().call_later(
            min(left_seconds, _LOOK_AGAIN_SECONDS), self._end_at_expiry, served
        )

    def _end_when_idle(self, served: _Served) -> None:
        """End the session once nothing was open for too long: signs of life ask for nothing."""
        loop = asyncio.get_running_loop()
        since = loop.time() if served.gate.idle_since is None else served.gate.idle_since
        due = since + self._settings.idle_seconds
        if due <= loop.time():
            self._end(served, f"it had nothing open for {self._settings.idle_seconds:g} seconds")
            return
        served.timers["idle"] = loop.call_at(due, self._end_when_idle, served)

    def _end(self, served: _Served, what: str) -> None:
        if served.ended is not None or not served.admitted:
            return  # who is not admitted is being told why, and would not hear it
        served.ended = RefusedError(
            what,
            safe="what the receiver acknowledged is kept",
            next_step=_ASK,
        )
        served.audit("ended", {"what": what})
        served.channel.fail(served.ended)
        for task, other in self._sessions.items():
            if other is served:
                task.cancel()

    def _prepare(self, transport: Transport) -> _Served:
        settings = self._settings
        peer = transport.peer
        audit = audit_for(peer)
        channel = Channel(
            transport,
            Side.SERVER,
            buffer_bytes=settings.buffer_bytes,
            handshake_seconds=settings.handshake_seconds,
        )
        gate = TargetGate(
            peer.address,
            self._permit,
            self._open_target,
            settings.runtime_directory,
            settings.lock_wait_seconds,
            audit,
            self._limiter_for,
            self._open_source,
        )
        return _Served(peer, channel, gate, audit)

    async def _serve(self, served: _Served) -> None:
        refusal = self._refusal_of(served.peer)
        if refusal is not None:
            await self._refuse(served, refusal)
        served.admitted = True
        served.audit("authenticated", {})
        self._end_at_expiry(served)
        self._end_when_idle(served)
        async with served.channel as channel:
            receiver = Receiver(
                channel,
                served.peer.identity,
                served.gate,
                self._blocking,
                self._settings.limits,
                _FEATURES,
                served.audit,
            )
            pull = await receiver.serve()
            if pull is not None:
                await serve_pull(
                    channel,
                    pull,
                    served.peer.identity,
                    served.gate,
                    self._blocking,
                    served.audit,
                    self._now_seconds,
                )

    async def _refuse(self, served: _Served, refusal: BlockrepError) -> NoReturn:
        """Tell a client why it is not let in, unless too many are being told; raise it."""
        served.audit("refused", {"what": refusal.what})
        if sum(not one.admitted for one in self._sessions.values()) > _MOST_REFUSED:
            raise refusal
        async with served.channel:
            raise refusal

    def _refusal_of(self, peer: PeerInfo) -> BlockrepError | None:
        """Return why a client that the transport authenticated is not let in, None if it is."""
        if peer.serial in self._revoked:
            return RefusedError(_REVOKED, safe="nothing was changed", next_step=_ASK)
        if 0 < peer.not_after_seconds <= self._now_seconds():
            next_step = f"{_RENEW} {peer.identity}"
            return RefusedError(_EXPIRED, safe="nothing was changed", next_step=next_step)
        admitted = [one.peer.identity for one in self._sessions.values() if one.admitted]
        settings = self._settings
        if len(admitted) >= settings.max_sessions:
            limit = "max_sessions"
            what = f"the server has its limit of {settings.max_sessions} sessions"
        elif admitted.count(peer.identity) >= settings.max_sessions_per_client:
            limit = "max_sessions_per_client"
            most = settings.max_sessions_per_client
            what = f"this client has its limit of {most} sessions at once"
        else:
            return None
        next_step = f"try again later, or raise server.{limit}"
        return BusyError(what, safe="nothing was changed", next_step=next_step)

    def _permit(self, identity: str, volume: str, operation: str) -> Permission | None:
        """Ask the rules that hold now, not those of when the session began."""
        return self._authorize(identity, volume, operation)

    def _limiter_for(self, identity: str, permission: Permission) -> RateLimiter:
        rate = permission.rate_bytes_per_second
        if not rate:
            return RateLimiter(0)
        key = (identity, permission.rule, rate)
        return self._limiters.setdefault(key, RateLimiter(rate))

    async def close(self) -> None:
        """End all sessions: each tells its peer that it was interrupted."""
        sessions = list(self._sessions)
        for task in sessions:
            task.cancel()
        await asyncio.gather(*sessions, return_exceptions=True)
