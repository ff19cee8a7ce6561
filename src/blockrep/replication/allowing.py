"""What may be done with a volume that a session has opened; refusals and force go on record."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from blockrep.errors import RefusedError
from blockrep.model.snapshots import Replica
from blockrep.protocol.messages import Begin, Compare, Message, Open, Prune
from blockrep.replication.pacing import RateLimiter
from blockrep.storage.interface import TargetVolume

__all__ = ["Access", "AuditSink", "OpenedVolume"]

AuditSink = Callable[[str, dict[str, object]], None]
"""Told (event, fields): refused, committed, deleted, forced. Called from any thread."""


@dataclass(frozen=True, slots=True)
class Access:
    """An opened target and what this client may do with it.

    Attributes:
        keep: good snapshots to retain.
        keep_min: good snapshots that a prune leaves.
        quota_bytes: largest size of what is pushed; 0: any.
        limiter: what arrives waits for it.
        may_replace: all content may be given up for a full transfer or an adoption, although there
            are good snapshots.
        may_shrink: the replica may become smaller.
    """

    target: TargetVolume
    may_create: bool
    may_adopt: bool
    keep: int
    keep_min: int
    quota_bytes: int
    limiter: RateLimiter
    may_replace: bool = True
    may_shrink: bool = True


@dataclass(frozen=True, slots=True)
class OpenedVolume:
    """A volume as OPEN asked for it. Its checks raise RefusedError, before anything is changed."""

    request: Open
    access: Access
    audit: AuditSink

    def check_operation(self, message: Message) -> None:
        """Refuse what the volume was not opened for: the right to it was not looked at."""
        opened_to = needed = self.request.operation
        if isinstance(message, Begin):
            needed = "push"
        elif isinstance(message, Compare):
            needed = "push" if message.stage is not None else "verify"
        elif isinstance(message, Prune):
            needed = "prune"
        if needed != opened_to:
            what = f"the volume was opened to {opened_to}, not to {needed}"
            self._refuse(what, f"open it to {needed}")

    def check_transfer(
        self, replica: Replica, mode: str, size_bytes: int, *, allow_shrink: bool
    ) -> None:
        """Refuse a transfer, or what an adoption stages, that this client may not make."""
        access = self.access
        if not replica.exists and not access.may_create:
            self._refuse(
                "the replica does not exist and this client may not create it",
                "create it on the server, or allow create in the server's configuration",
            )
        if mode == "adopt":
            self._check_adoption(replica)
        if mode == "full" and replica.snapshots and not access.may_replace:
            self._refuse(
                "everything would be sent again, and that was not asked for",
                "to have all of it sent again: --full",
            )
        if access.quota_bytes and size_bytes > access.quota_bytes:
            self._refuse(
                f"the source has {size_bytes} bytes, more than the quota of {access.quota_bytes}",
                "raise quota_bytes in the server's configuration, or push a smaller volume",
            )
        if allow_shrink and not access.may_shrink:
            self._refuse("the replica may not become smaller", "--shrink")

    def _check_adoption(self, replica: Replica) -> None:
        if self.access.may_adopt or (replica.owned and self.access.may_replace):
            return
        if replica.owned:
            self._refuse(
                "what may have been written there would be overwritten, and that was not asked for",
                "to have it overwritten: --adopt",
            )
        self._refuse(
            "this client may not adopt volumes", "allow adopt in the server's configuration"
        )

    def check_keep(self, keep: int) -> None:
        """Refuse to leave fewer good snapshots than must stay."""
        if keep < self.access.keep_min:
            self._refuse(
                f"at least {self.access.keep_min} good snapshots must stay",
                f"keep at least {self.access.keep_min}, or lower keep_min in the configuration",
            )

    def record(self, event: str, **fields: object) -> None:
        """Put on record what is done with the volume."""
        self.audit(event, {"volume": self.request.volume, **fields})

    def record_force(self, replica: Replica, message: Begin) -> None:
        """Put on record what gives up the replica's content, or its size."""
        present_bytes = 0 if replica.info is None else replica.info.size_bytes
        shrinks = message.allow_shrink and message.size_bytes < present_bytes
        overwrites = message.mode == "adopt" or (message.mode == "full" and replica.snapshots)
        if overwrites or shrinks:
            newest = replica.snapshots[-1].id if replica.snapshots else ""
            fields = {"id": message.snapshot_id, "newest": newest}
            self.record("forced", **fields, mode=message.mode, shrinks=shrinks)

    def _refuse(self, what: str, next_step: str) -> NoReturn:
        self.record("refused", operation=self.request.operation, what=what)
        where = self.request.volume
        raise RefusedError(what, where=where, safe="nothing was changed", next_step=next_step)
