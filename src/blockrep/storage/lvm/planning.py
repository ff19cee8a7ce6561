"""Arithmetic on pools and deltas: what is free, what is needed, which extents differ. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from blockrep.errors import NoSpaceError, StorageError, VolumeError
from blockrep.model.extents import Extent, ExtentKind, ExtentSummary, clip, merge_adjacent
from blockrep.model.snapshots import Space
from blockrep.storage.interface import StorageSettings
from blockrep.storage.lvm.reports import LogicalVolume, PoolStatus
from blockrep.storage.lvm.thin_xml import Run, RunKind

__all__ = [
    "at_reserve",
    "check_pool_health",
    "check_room",
    "check_room_for_snapshot",
    "chunks_needed",
    "delta_extents",
    "leaves_discarded",
    "mapped_extents",
    "new_chunk_count",
    "refuse_extended",
    "round_up",
    "space_of",
]

_METADATA_BLOCK_BYTES = 4096
# A mapping takes 16 bytes in leaves that are at least half full after random inserts; 18 bytes were
# measured for 14,000 random chunks.
_BYTES_PER_MAPPING = 40
_MAPPINGS_PER_LEAF = 126
_METADATA_SLACK_BLOCKS = 16
#: LVM checks a pool's metadata whenever it activates it, but leaves the mark where it is. A repair
#: by thin-provisioning-tools 0.9 keeps it, too.
_CLEARING = 'global/thin_check_options=["-q","--clear-needs-check-flag"]'
#: Modes of "dmsetup status" in which a pool takes no changes.
_TROUBLES = {"ro": "is read-only", "fail": "has failed"}


def round_up(number: int, multiple: int) -> int:
    """Return the next multiple that is not less."""
    return -(-number // multiple) * multiple


def check_pool_health(status: PoolStatus, pool: str) -> None:
    """Raise VolumeError for a pool that must not be used as it is, NoSpaceError for a full one."""
    if status.mode == "out_of_data_space":
        raise NoSpaceError(
            "the thin pool is full",
            where=pool,
            safe="nothing was changed",
            next_step=f"extend it: lvextend -L+SIZE {pool}",
        )
    # So it looks where there is no room for metadata (maybe_resize_metadata_dev, dm-thin.c).
    if status.mode == "ro" and status.used_metadata_blocks >= status.total_metadata_blocks:
        raise NoSpaceError(
            "the thin pool's metadata is full, and it takes no changes",
            where=pool,
            safe="nothing was changed",
            next_step=f"extend it: lvextend --poolmetadatasize +SIZE {pool}",
        )
    if status.needs_check and status.mode != "fail":
        raise VolumeError(
            "the thin pool needs a check, and takes no changes before",
            where=pool,
            safe="nothing was changed",
            next_step=f"deactivate it (if it is damaged, lvconvert --repair {pool}) and have LVM"
            f" check it: lvchange -ay --config '{_CLEARING}' {pool}",
        )
    if status.mode != "rw":
        raise VolumeError(
            f"the thin pool {_TROUBLES.get(status.mode, status.mode)}",
            where=pool,
            safe="nothing was changed",
            next_step=f"deactivate it and repair it: lvconvert --repair {pool}",
        )


def _free_above_reserve(total: int, used: int, reserve_percent: int) -> int:
    """Return how much is free above the reserve; negative below it."""
    return total - -(-total * reserve_percent // 100) - used


def space_of(
    status: PoolStatus, chunk_bytes: int, settings: StorageSettings, shared_chunks: int = 0
) -> Space:
    """Return a pool's room above its reserves.

    Args:
        status: the pool's numbers.
        chunk_bytes: of the pool.
        settings: with the reserves.
        shared_chunks: chunks ahead of whoever asks that are mapped by leaves shared with a
            snapshot: the first write into each leaf takes a block of metadata.
    """
    chunks = _free_above_reserve(
        status.total_chunks, status.used_chunks, settings.data_reserve_percent
    )
    blocks = _free_above_reserve(
        status.total_metadata_blocks,
        status.used_metadata_blocks,
        settings.metadata_reserve_percent,
    )
    # Either every chunk is the first in its leaf, or all leaves are copied and there is room left.
    rest_blocks = blocks - _leaves(shared_chunks)
    mappings = max(blocks, rest_blocks * _METADATA_BLOCK_BYTES // _BYTES_PER_MAPPING)
    return Space(chunk_bytes, max(chunks, 0) * chunk_bytes, max(mappings, 0))


def _leaves(chunks: int) -> int:
    return -(-chunks // _MAPPINGS_PER_LEAF)


def check_room(
    status: PoolStatus,
    pool: LogicalVolume,
    settings: StorageSettings,
    new_chunks: int,
    shared_chunks: int,
    discarded_leaves: int = 0,
) -> None:
    """Refuse a transfer that would take the pool below a reserve.

    A full pool breaks every guest that uses it.

    Args:
        status: the pool's numbers.
        pool: the pool.
        settings: with the reserves.
        new_chunks: the most that the transfer allocates.
        shared_chunks: chunks that staging shares with a snapshot: each write copies a leaf of
            their mapping tree, at most once.
        discarded_leaves: leaves that discards copy, too: see :func:`leaves_discarded`.

    Raises:
        NoSpaceError: names the pool, what is needed, what is free, and the remedy.
    """
    check_pool_health(status, pool.full_name)
    free_chunks = _free_above_reserve(
        status.total_chunks, status.used_chunks, settings.data_reserve_percent
    )
    if new_chunks > max(free_chunks, 0):
        raise NoSpaceError(
            f"the transfer needs {new_chunks * pool.chunk_bytes} bytes,"
            f" the thin pool has {max(free_chunks, 0) * pool.chunk_bytes} above its reserve"
            f" of {settings.data_reserve_percent} %",
            where=pool.full_name,
            safe="nothing was changed",
            next_step=f"extend it: lvextend -L+SIZE {pool.full_name}",
        )
    need_blocks = (
        -(-new_chunks * _BYTES_PER_MAPPING // _METADATA_BLOCK_BYTES)
        + min(new_chunks + discarded_leaves, _leaves(shared_chunks))
        + _METADATA_SLACK_BLOCKS
    )
    free_blocks = _free_above_reserve(
        status.total_metadata_blocks,
        status.used_metadata_blocks,
        settings.metadata_reserve_percent,
    )
    if need_blocks > free_blocks:
        raise NoSpaceError(
            f"the transfer needs up to {need_blocks * _METADATA_BLOCK_BYTES} bytes of metadata,"
            f" the thin pool has {max(free_blocks, 0) * _METADATA_BLOCK_BYTES} above its reserve"
            f" of {settings.metadata_reserve_percent} %",
            where=pool.full_name,
            safe="nothing was changed",
            next_step=f"extend it: lvextend --poolmetadatasize +SIZE {pool.full_name}",
        )


def chunks_needed(plan: ExtentSummary | None, new_chunks: int, pool: LogicalVolume) -> int:
    """Return the most that a plan allocates in a pool.

    Args:
        plan: None: not known yet.
        new_chunks: those that it writes.
        pool: if it cannot discard, zeros are written instead.
    """
    if plan is None or pool.can_discard:
        return new_chunks
    return new_chunks + -(-plan.discard_bytes // pool.chunk_bytes)


def leaves_discarded(plan: ExtentSummary | None, pool: LogicalVolume) -> int:
    """Return the most leaves of a shared mapping tree that a plan's discards copy.

    Of those that an extent empties nothing is left; the two at its ends may stay in part.
    """
    if plan is None or not pool.can_discard:
        return 0
    return 2 * min(plan.extent_count, -(-plan.discard_bytes // pool.chunk_bytes))


def refuse_extended(before: PoolStatus, after: PoolStatus, pool: str) -> None:
    """Raise StorageError if a pool's metadata was extended between two looks.

    Had it been full, discards would have been ignored until then, and said to be done.
    """
    if before.total_metadata_blocks != after.total_metadata_blocks:
        raise StorageError(
            "the pool's metadata was extended between discards",
            where=pool,
            safe="what was acknowledged is kept; the replica and its snapshots are untouched",
            next_step="push again: it resumes",
        )


def at_reserve(pool: LogicalVolume, space: Space) -> NoSpaceError:
    """Return the error for a write that would take the pool below a reserve."""
    what, option = "the thin pool has", "-L"
    if space.metadata_free_chunks < space.free_bytes // pool.chunk_bytes:
        what, option = "the thin pool's metadata have", "--poolmetadatasize "
    return NoSpaceError(
        f"{what} come down to the reserve",
        where=pool.full_name,
        safe="what was durable is kept; the replica and its snapshots are untouched",
        next_step=f"extend it (lvextend {option}+SIZE {pool.full_name}), then push again:"
        " it resumes",
    )


def check_room_for_snapshot(status: PoolStatus, pool: str, settings: StorageSettings) -> None:
    """Refuse to snapshot in a pool that is below a reserve: every later write needs a new chunk.

    Raises:
        NoSpaceError, VolumeError: see :func:`check_room`.
    """
    check_pool_health(status, pool)
    for what, total, used, percent, option in (
        ("data", status.total_chunks, status.used_chunks, settings.data_reserve_percent, "-L"),
        (
            "metadata",
            status.total_metadata_blocks,
            status.used_metadata_blocks,
            settings.metadata_reserve_percent,
            "--poolmetadatasize ",
        ),
    ):
        if _free_above_reserve(total, used, percent) <= 0:
            raise NoSpaceError(
                f"the thin pool's {what} is used to {used * 100 // max(total, 1)} %,"
                f" {percent} % are its reserve",
                where=pool,
                safe="nothing was changed",
                next_step=f"extend it: lvextend {option}+SIZE {pool}",
            )


def delta_extents(runs: Iterable[Run], base_bytes: int, new_bytes: int) -> Iterator[Extent]:
    """Turn a comparison of base (left) and new (right) into extents, clipped to the new size.

    Past the base's size the base counts as unmapped, whatever it maps there: mappings outlive a
    shrink, so that an old chunk is visible again when the volume has grown, and the target may not
    have kept it.
    """
    return clip(merge_adjacent(_delta_extents(runs, base_bytes)), new_bytes)


def _delta_extents(runs: Iterable[Run], base_bytes: int) -> Iterator[Extent]:
    for kind, offset, length in runs:
        end = offset + length
        if kind is RunKind.LEFT_ONLY:
            yield Extent(offset, length, ExtentKind.DISCARD)
        elif kind is not RunKind.SAME:
            yield Extent(offset, length, ExtentKind.DATA)
        elif end > base_bytes:
            start = max(offset, base_bytes)
            yield Extent(start, end - start, ExtentKind.DATA)


def mapped_extents(runs: Iterable[Run], size_bytes: int) -> Iterator[Extent]:
    """Turn a dump into DATA extents, clipped to the size."""
    data = (Extent(offset, length) for _, offset, length in runs)
    return clip(merge_adjacent(data), size_bytes)


def new_chunk_count(runs: Iterable[Run], chunk_bytes: int) -> int:
    """Count the chunks that the right volume of a comparison does not share with the left one."""
    kinds = (RunKind.DIFFERENT, RunKind.RIGHT_ONLY)
    return sum(run.length_bytes for run in runs if run.kind in kinds) // chunk_bytes
