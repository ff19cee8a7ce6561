"""What ``lvs --reportformat json --units b --nosuffix`` and ``dmsetup status`` say.

Values as LVM 2.03.16 and kernel 6.1 print them (lvs(8), Documentation/.../thin-provisioning.rst).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from blockrep.errors import InternalError, StorageError

__all__ = [
    "LogicalVolume",
    "PoolStatus",
    "parse_mapped_bytes",
    "parse_pool_status",
    "parse_volumes",
]

_SECTOR_BYTES = 512
_POOL_FIELDS = 11


@dataclass(frozen=True, slots=True)
class LogicalVolume:
    """One logical volume.

    Attributes:
        hidden: LVM shows its name in brackets, and takes few commands for it.
        kind: ``thin``, ``pool`` (a thin pool) or ``other``.
        pool: name of its pool; empty for what is not thin. ``pool_uuid`` likewise.
        thin_id: device id in the pool; -1 for what is not thin.
        open: somebody has its device open (mounted, a virtual machine's disk).
        merging: will be merged into its origin as soon as both are closed.
        chunk_bytes, discards, zeroes, queues_when_full, health: of a pool.
        transaction: of a pool: how many changes LVM has noted for it; of a thin volume: how many
            before the one that made it; -1 for others.
    """

    vg: str
    vg_uuid: str
    extent_bytes: int
    name: str
    hidden: bool
    uuid: str
    size_bytes: int
    kind: str
    pool: str
    pool_uuid: str
    thin_id: int
    origin: str
    read_only: bool
    active: bool
    open: bool
    merging: bool
    tags: frozenset[str]
    chunk_bytes: int
    discards: str
    zeroes: bool
    queues_when_full: bool
    health: str
    transaction: int

    @property
    def full_name(self) -> str:
        """``VG/LV``."""
        return f"{self.vg}/{self.name}"

    @property
    def open_for_writing(self) -> bool:
        """Whether somebody may be writing to it at this moment."""
        return self.open and not self.read_only

    @property
    def can_discard(self) -> bool:
        """Whether whole chunks of this pool's volumes can be discarded by BLKDISCARD.

        The kernel cuts a long discard at what it takes for multiples of the chunk size, and they
        are that only if it is a power of two (blk_bio_discard_limit uses round_up). Of other sizes
        it leaves whole chunks mapped, and says 0: seen with 192 KiB on Linux 6.1.
        """
        return self.discards != "ignore" and not self.chunk_bytes & (self.chunk_bytes - 1)


@dataclass(frozen=True, slots=True)
class PoolStatus:
    """A thin pool's numbers.

    Attributes:
        mode: ``rw``, ``ro``, ``out_of_data_space``, or ``fail``.
        held_root: block of the reserved metadata snapshot, None if there is none.
    """

    transaction: int
    used_metadata_blocks: int
    total_metadata_blocks: int
    used_chunks: int
    total_chunks: int
    held_root: int | None
    mode: str
    needs_check: bool


def parse_volumes(text: bytes) -> list[LogicalVolume]:
    """Parse lvs' report of :data:`blockrep.storage.lvm.commands.REPORT_FIELDS`.

    Raises:
        StorageError: it is not what lvs prints.
    """
    try:
        sections = json.loads(text)["report"]
        # With fields of segments among those asked for, some versions call the list "seg".
        rows = [row for one in sections for name in ("lv", "seg") for row in one.get(name, ())]
        return [_volume(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StorageError(
            f"lvs printed what cannot be understood: {error!r}", safe="nothing was changed"
        ) from error


def _volume(row: dict[str, Any]) -> LogicalVolume:
    layout = row["lv_layout"].split(",")
    name = row["lv_name"]
    kind = "other"
    if "thin" in layout:
        kind = "pool" if "pool" in layout else "thin"
    return LogicalVolume(
        vg=row["vg_name"],
        vg_uuid=row["vg_uuid"],
        extent_bytes=int(row["vg_extent_size"]),
        name=name.strip("[]"),
        hidden=name.startswith("["),
        uuid=row["lv_uuid"],
        size_bytes=int(row["lv_size"]),
        kind=kind,
        pool=row["pool_lv"].strip("[]"),
        pool_uuid=row["pool_lv_uuid"],
        thin_id=int(row["thin_id"] or -1),
        origin=row["origin"].strip("[]"),
        read_only=row["lv_permissions"].startswith("read-only"),
        active=row["lv_active"] == "active",
        open=row["lv_device_open"] == "open",
        merging=row["lv_merging"] == "merging",
        tags=frozenset(row["lv_tags"].split(",")) - {""},
        chunk_bytes=int(row["chunk_size"] or 0),
        discards=row["discards"],
        zeroes=row["zero"] == "zero",
        queues_when_full=row["lv_when_full"] == "queue",
        health=row["lv_health_status"],
        transaction=int(row["transaction_id"] or -1),
    )


def parse_pool_status(text: bytes) -> PoolStatus | None:
    """Parse ``dmsetup status`` of a pool; None: the device is not a thin pool.

    Raises:
        InternalError: a thin pool's line that cannot be understood.
    """
    words = text.decode(errors="replace").split()
    if len(words) < 4 or words[2] != "thin-pool":
        return None
    if words[3] in {"Fail", "Error"}:
        return PoolStatus(0, 0, 0, 0, 0, None, "fail", needs_check=True)
    if len(words) < _POOL_FIELDS:
        raise InternalError(f"the status of a thin pool is not understood: {' '.join(words)}")
    used_metadata, total_metadata = words[4].split("/")
    used_chunks, total_chunks = words[5].split("/")
    return PoolStatus(
        transaction=int(words[3]),
        used_metadata_blocks=int(used_metadata),
        total_metadata_blocks=int(total_metadata),
        used_chunks=int(used_chunks),
        total_chunks=int(total_chunks),
        held_root=None if words[6] == "-" else int(words[6]),
        mode=words[7],
        needs_check=words[10] == "needs_check",
    )


def parse_mapped_bytes(text: bytes) -> int | None:
    """Return how much a thin volume maps, by its dmsetup status; None: it is none, or failed."""
    words = text.decode(errors="replace").split()
    if len(words) < 4 or words[2] != "thin" or not words[3].isdigit():
        return None
    return int(words[3]) * _SECTOR_BYTES
