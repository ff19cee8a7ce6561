"""The pools whose planning is measured: mappings, changes, snapshots. Pure.

Device 1 of the metadata is the base, device 2 the new snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from blockrep.model.snapshots import Snapshot
from blockrep.storage.lvm.reports import parse_volumes
from blockrep.storage.lvm.tags import (
    BASE,
    PENDING,
    REPLICA_TAGS,
    StagingMark,
    good_tags,
    replica_tag,
    source_tags,
)
from data import GIB
from thin_pool import (
    CHUNK_BYTES,
    POOL_UUID,
    Device,
    Mapping,
    Volume,
    pool_row,
    report,
    uuid_of,
)

ORIGIN = "origin"
REPLICA = "replica"
LINEAGE = "0123456789abcdef" * 2
_MAPPED_CHUNKS = 16_384
_CHANGED_CHUNKS = 1_000
_LIVE = 3  # thin id of the live volume, which planning does not read


@dataclass(frozen=True)
class Case:
    """One pool.

    Attributes:
        label, value: of what grows, for people and for the plot.
        size_bytes: of the volume.
        mapped: chunks of each device.
        stride: a mapped chunk, then ``stride - 1`` that are not.
        changed: so many of the mapped ones, evenly spread, differ: each an extent of its own.
        snapshots: of the source, the base and the new one among them.
    """

    label: str
    value: int
    size_bytes: int
    mapped: int
    stride: int
    changed: int
    snapshots: int = 2

    @property
    def pool_chunks(self) -> int:
        """Chunks of the pool: those of the base, and those that are new."""
        return self.mapped + self.changed

    def devices(self) -> list[Device]:
        """Return the base, the new snapshot, and what else the pool has."""
        base = [Device(1, self.mapped, self._mappings(0))]
        others = range(_LIVE + 1, _LIVE + 1 + self.snapshots - 2)
        return [
            *base,
            Device(2, self.mapped, self._mappings(self.changed)),
            *(Device(one, self.mapped, self._mappings(0)) for one in others),
        ]

    def _mappings(self, changed: int) -> Iterator[Mapping]:
        every = self.mapped // changed if changed else 0
        for number in range(self.mapped):
            data = number
            if every and number % every == 0 and number // every < changed:
                data = self.mapped + number // every
            yield number * self.stride, data, 1

    def source_volumes(self) -> list[Volume]:
        """Return the live volume and its snapshots, the base and the new one the last of them."""
        others = range(_LIVE + 1, _LIVE + 1 + self.snapshots - 2)
        live = Volume(ORIGIN, _LIVE, self.size_bytes, read_only=False)
        return [
            live,
            *(
                self._snapshot(number, thin_id)
                for number, thin_id in enumerate([*others, 1, 2], start=1)
            ),
        ]

    def _snapshot(self, number: int, thin_id: int) -> Volume:
        snapshot = Snapshot(
            f"{number:032x}", LINEAGE, number, number, self.size_bytes, False, "", f"host{number}:v"
        )
        tags = set(source_tags(snapshot, uuid_of(ORIGIN), POOL_UUID))
        if thin_id != 2:
            tags = tags - {PENDING} | {BASE}
        return Volume(f"br_s_{number}", thin_id, self.size_bytes, sorted(tags))

    def target_volumes(self) -> list[Volume]:
        """Return a replica and its good snapshots, the newest of which it equals."""
        replica = Volume(REPLICA, 1, self.size_bytes, [*REPLICA_TAGS, replica_tag(REPLICA)])
        (pool,) = parse_volumes(report([pool_row(self.pool_chunks)]))
        goods = []
        for number in range(1, self.snapshots):
            transfer = StagingMark(
                pool, LINEAGE, f"{number:032x}", number, number, self.size_bytes, "", "full",
                bytes(32), uuid_of(REPLICA), REPLICA, ready=True,
            )  # fmt: skip
            thin_id = 1 if number == self.snapshots - 1 else _LIVE + number
            tags = [*good_tags(transfer, bytes([1] * 32), number), f"blockrep.pool={POOL_UUID}"]
            goods.append(Volume(f"br_g_{number}", thin_id, self.size_bytes, tags))
        return [replica, *goods]


def by_volume(size_bytes: int) -> Case:
    """The same chunks mapped and changed, spread over a volume of that size."""
    stride = size_bytes // CHUNK_BYTES // _MAPPED_CHUNKS
    gib = size_bytes // GIB
    label = f"{gib} GiB" if gib < 1024 else f"{gib // 1024} TiB"
    return Case(label, size_bytes, size_bytes, _MAPPED_CHUNKS, stride, _CHANGED_CHUNKS)


def by_changes(count: int) -> Case:
    """So many lone chunks mapped, all of them changed."""
    return Case(f"{count:,} extents", count, 2 * count * CHUNK_BYTES, count, 2, count)


def by_snapshots(count: int) -> Case:
    """So many snapshots kept, beside the one that is new."""
    size_bytes = _CHANGED_CHUNKS * 2 * CHUNK_BYTES
    return Case(
        f"{count:,} kept", count, size_bytes, _CHANGED_CHUNKS, 2, _CHANGED_CHUNKS, count + 1
    )


SERIES: dict[str, Callable[[int], Case]] = {
    "volume": by_volume,
    "changes": by_changes,
    "snapshots": by_snapshots,
    "goods": by_snapshots,
}
