"""What a push is asked to do, and what comes of it: values only."""

from __future__ import annotations

from dataclasses import dataclass, field

from blockrep.model.extents import Extent
from blockrep.model.lineage import Mode, Wish
from blockrep.model.snapshots import Snapshot
from blockrep.replication.sending import Compression

__all__ = ["DryRun", "PushOptions", "Transfer", "Verification"]


@dataclass(frozen=True, slots=True)
class PushOptions:
    """What the user asked for.

    ``target``: the target in one form, by which our snapshots remember what they are held for.
        ``volume``: what the server is
    asked for. ``bytes_per_second``: 0 is no limit. ``compression``: None sends payloads as they
    are, as does a receiver that does not know zstd. ``page_delta``: whether to leave out the pages
    of a changed chunk that equal the base; None: where it pays.
    """

    target: str
    volume: str
    wish: Wish = field(default_factory=Wish)
    bytes_per_second: int = 0
    compression: Compression | None = None
    page_delta: bool | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """One finished transfer.

    ``plan_bytes``: what the plan covered; ``wire_bytes``: DATA frames sent in this session.
    """

    mode: Mode
    snapshot: Snapshot
    plan_bytes: int
    wire_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a push would do.

    ``plan`` totals are None where only a comparison could tell (adoption).
    """

    mode: Mode
    base: Snapshot | None
    reason: str
    data_bytes: int | None
    discard_bytes: int | None
    new_chunks: int | None
    chunk_bytes: int
    free_bytes: int
    creates_replica: bool
    dropped: tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of comparing the newest common snapshot: equal if ``different_bytes`` is 0.

    ``different``: the first thousand extents that differ, of ``different_count``.
    """

    snapshot: Snapshot
    compared_bytes: int
    different: tuple[Extent, ...]
    different_count: int
    different_bytes: int
