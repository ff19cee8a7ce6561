"""Whom a listening server trusts: its certificate, the revocation list, the door for joins.

A reload reads all of it again, or changes nothing. The revocation list is also read whenever it
changes, by the settings that hold: no fault elsewhere in the configuration keeps a revocation off.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from blockrep.certificates.describe import describe
from blockrep.certificates.expiry import expiry_warnings
from blockrep.certificates.invitations import Invitations
from blockrep.certificates.naming import (
    AUTHORITY_CERTIFICATE,
    AUTHORITY_KEY,
    AUTHORITY_REVOCATIONS,
    Role,
)
from blockrep.certificates.revocation import serials_on
from blockrep.config.identity import find_files
from blockrep.config.settings import Settings
from blockrep.errors import BlockrepError, ConfigurationError
from blockrep.replication.receiver import AuditSink
from blockrep.server.joining import JoinDesk
from blockrep.server.service import Service
from blockrep.transport.tls_context import join_context, server_context
from blockrep.transport.tls_files import TlsFiles
from blockrep.transport.tls_listener import Joins, TlsListener

__all__ = ["Trust", "TrustInForce", "read_trust"]

_POLL_SECONDS: Final = 2.0
_DAY_SECONDS: Final = 86400.0

_log = logging.getLogger("blockrep.server")

_FileState = tuple[int, int, int] | None
"""What changes with a file: inode, size, time; None: there is none."""


@dataclass(frozen=True, slots=True)
class Trust:
    """What files said at one time.

    Attributes:
        settings: by which they were found.
        files: of the server's certificate.
        listed: the revocation list's state, from before it was read.
        revoked: serial numbers on it.
        context: for clients that have a certificate.
        joins: for those that ask for one; None: the authority's key is not here.
    """

    settings: Settings
    files: TlsFiles
    listed: _FileState
    revoked: frozenset[int]
    context: ssl.SSLContext
    joins: Joins | None

    def warn_of_expiry(self) -> None:
        """Log which certificates will soon stop replication, or have."""
        now = dt.datetime.now(dt.UTC)
        for path in (self.files.ca, self.files.certificate):
            for warning in expiry_warnings([path], now):
                if describe(path).not_after <= now:
                    _log.error("%s. Until then every client refuses this server", warning)
                else:
                    _log.warning(warning)


def read_trust(settings: Settings) -> Trust:
    """Read all files anew.

    Raises:
        ConfigurationError: one is missing or wrong.
    """
    path = _revocations(settings)
    listed = _state_of(path)
    files = find_files(settings.tls, Role.SERVER, socket.gethostname())
    context = server_context(files)
    _check_role(files.certificate)
    return Trust(settings, files, listed, serials_on(path), context, _joins(settings, files))


class TrustInForce:
    """What the listener and the service go by.

    Args:
        listener: gets contexts.
        service: gets the revoked serial numbers.
        trust: what holds from now on.
    """

    def __init__(self, listener: TlsListener, service: Service, trust: Trust) -> None:
        self._listener = listener
        self._service = service
        self._failed: tuple[_FileState, str] | None = None
        self._trust = trust
        self.apply(trust)

    def apply(self, trust: Trust) -> None:
        """Let it hold from now on."""
        self._trust = trust
        self._failed = None
        self._listener.use(trust.context, trust.joins)
        self._service.revoke(trust.revoked)

    async def watch(self, audit: AuditSink) -> None:
        """Follow the revocation list, until it is cancelled.

        Who copies a new one must not have to think of SIGHUP.

        Args:
            audit: told the event ``revocation``.
        """
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            self._try(audit)

    def look(self, audit: AuditSink) -> None:
        """Apply the revocation list if it changed, before anybody is judged by the one before.

        One that did not hold as a whole is tried again by :meth:`watch`, not for every client.

        Args:
            audit: told the event ``revocation``.
        """
        if self._failed is None or self._failed[0] != self._listed():
            self._try(audit)

    def _listed(self) -> _FileState:
        return _state_of(_revocations(self._trust.settings))

    def _try(self, audit: AuditSink) -> None:
        try:
            self._follow(audit)
        except Exception as error:  # noqa: BLE001 - a defect must not switch revocation off for good
            self._failed = self._listed(), str(error)
            _log.exception("the revocation list was not read because of a defect")

    async def warn_daily(self) -> None:
        """Log which certificates will soon stop replication, until it is cancelled."""
        while True:
            await asyncio.sleep(_DAY_SECONDS)
            self._trust.warn_of_expiry()

    def _follow(self, audit: AuditSink) -> None:
        """Apply a list that changed; one that cannot be is told once, and tried again."""
        settings = self._trust.settings
        path = _revocations(settings)
        listed = _state_of(path)
        if listed == self._trust.listed:
            return
        try:
            # What is added needs nothing but the list.
            self._service.revoke(self._trust.revoked | serials_on(path))
            trust = read_trust(settings)
        except BlockrepError as error:
            if self._failed != (listed, str(error)):
                self._failed = listed, str(error)
                _log.error("the revocation list does not hold as a whole yet: %s", error)
                audit("revocation", {"done": False, "what": str(error)})
            return
        self.apply(trust)
        _log.info("%s: the revocation list holds, %d serials", path, len(trust.revoked))
        audit("revocation", {"done": True, "serials": len(trust.revoked)})


def _check_role(path: Path) -> None:
    """Raise ConfigurationError for a certificate that every client would refuse."""
    info = describe(path)
    if Role.SERVER not in info.roles:
        name = info.names[0] if info.names else "NAME"
        raise ConfigurationError(
            "is a certificate for clients only: every client would refuse this server",
            where=str(path),
            next_step="where the authority is, move its files away, make one for both with:"
            f" blockrep certs issue {name} --server --client, and copy it here;"
            " or name another one in [tls]",
        )


def _revocations(settings: Settings) -> Path:
    """Return where the authority's list is, or would be."""
    ca = settings.tls.ca or settings.tls.directory / AUTHORITY_CERTIFICATE
    return settings.tls.crl or ca.with_name(AUTHORITY_REVOCATIONS)


def _joins(settings: Settings, files: TlsFiles) -> Joins | None:
    """Answer joins where the authority's key is."""
    directory = settings.tls.directory
    if not (directory / AUTHORITY_KEY).exists():
        return None
    invitations = Invitations(settings.storage.state_directory)
    desk = JoinDesk(directory, invitations, settings.access.knows, _revocations(settings))
    return Joins(join_context(files), lambda: desk.is_open, desk.serve)


def _state_of(path: Path) -> _FileState:
    try:
        status = os.stat(path)  # noqa: PTH116 - one look at a local file
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns
