"""Checks of an LVM host: tools, pools, and what crashes or removed volumes left behind."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Final

from blockrep.errors import BlockrepError, StorageError
from blockrep.model.findings import Finding, Level
from blockrep.model.names import VolumeName
from blockrep.storage.interface import StorageSettings
from blockrep.storage.locks import VolumeLock, lock_key
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.cursors import cursor_path, recorded_group
from blockrep.storage.lvm.group import GroupState, VolumeGroup
from blockrep.storage.lvm.metadata import Holder, PoolMetadata, record_path
from blockrep.storage.lvm.planning import check_pool_health, space_of
from blockrep.storage.lvm.recovery import view_target
from blockrep.storage.lvm.reports import LogicalVolume, parse_volumes
from blockrep.storage.lvm.runner import ProcessRunner, Runner, describe_failure, require_root
from blockrep.storage.lvm.tags import MARK, Role, read_good, read_source, read_staging, role_of
from blockrep.storage.lvm.unmade import find_unmade
from blockrep.storage.lvm.versions import check_thin_tools
from blockrep.storage.lvm.writable import is_estranged

__all__ = ["check_lvm"]

#: After a week without a push that ended well, somebody should know.
_OLD_SECONDS: Final = 7 * 86400


def check_lvm(
    settings: StorageSettings, now_seconds: float, runner: Runner | None = None
) -> Iterator[Finding]:
    """Yield what is found: tools, then for each volume group pools and volumes, then state files.

    Pools without any volume of ours are left alone, apart from their health.
    """
    runner = runner or ProcessRunner(settings.command_timeout_seconds)
    try:
        require_root()
        check_thin_tools(runner)
        yield Finding(Level.OK, "thin_delta", "finds all changes in its self-test")
        result = runner.run(commands.list_all())
        if result.status != 0:
            raise StorageError(describe_failure(result), where="lvs", next_step="see what LVM says")
        volumes = parse_volumes(result.stdout)
    except BlockrepError as error:
        yield Finding.of_error(error)
        return
    for vg in sorted({one.vg for one in volumes}):
        group = VolumeGroup(vg, settings, runner)
        state = GroupState(tuple(one for one in volumes if one.vg == vg))
        for check in (_pools, _unmade, partial(_volumes, now_seconds=now_seconds)):
            try:
                yield from check(group, state)
            except BlockrepError as error:
                yield Finding.of_error(error)
    yield from _state_files(settings.state_directory, volumes)


def _pools(group: VolumeGroup, state: GroupState) -> Iterator[Finding]:
    for pool in state.volumes:
        if pool.kind != "pool" or not pool.active:
            continue
        status = group.status(pool)
        try:
            check_pool_health(status, pool.full_name)
        except BlockrepError as error:
            yield Finding.of_error(error)
            continue
        space = space_of(status, pool.chunk_bytes, group.settings)
        if not space.free_bytes or not space.metadata_free_chunks:
            what = "metadata" if space.free_bytes else "data"
            size = "--poolmetadatasize +SIZE" if space.free_bytes else "-L +SIZE"
            remedy = f"lvextend {size} {pool.full_name}"
            yield Finding(
                Level.WARNING,
                pool.full_name,
                f"has come down to its reserve of {what}: transfers to it are refused",
                remedy,
            )
        else:
            yield Finding(
                Level.OK, pool.full_name, f"{space.free_bytes >> 20} MiB free above the reserve"
            )
        if pool.queues_when_full:
            yield Finding(
                Level.WARNING,
                pool.full_name,
                "would make everything that writes to it wait when it is full",
                f"lvchange --errorwhenfull y {pool.full_name}, or let it grow by itself"
                " (thin_pool_autoextend_threshold in lvm.conf)",
            )
        yield from _metadata_snapshot(group, pool)


def _metadata_snapshot(group: VolumeGroup, pool: LogicalVolume) -> Iterator[Finding]:
    metadata = PoolMetadata(group, pool)
    holder = metadata.holder()
    release = " ".join(commands.release_metadata(group.vg, pool.name))
    what = f"its metadata snapshot is reserved by {holder.value}"
    if holder is Holder.DEAD:
        yield Finding(
            Level.WARNING, pool.full_name, what, release, fix=metadata.release_left_behind
        )
    elif holder is Holder.FOREIGN:
        remedy = f"wait for it to end; if it has died: {release}"
        yield Finding(Level.WARNING, pool.full_name, what, remedy)


def _unmade(group: VolumeGroup, state: GroupState) -> Iterator[Finding]:
    # Ahead of whatever else is to be removed: nothing in its pool can be changed before.
    active = {pool.uuid for pool in state.volumes if pool.kind == "pool" and pool.active}
    for volume in find_unmade(group, state, active):
        yield Finding(
            Level.WARNING,
            volume.full_name,
            "was being made when the power failed: changes of its pool may fail, whoever asks",
            f"push to or from its pool again, or: lvremove -ff {volume.full_name}",
            fix=partial(group.remove, volume, unmade=True),
        )


def _volumes(group: VolumeGroup, state: GroupState, *, now_seconds: float) -> Iterator[Finding]:
    for volume in state.volumes:
        role = role_of(volume)
        try:
            if role is Role.SOURCE:
                yield from _source(group, state, volume, now_seconds)
            elif role is Role.STAGING:
                yield from _staging(group, state, volume, now_seconds)
            elif role is Role.GOOD:
                yield from _good(state, volume, now_seconds)
        except BlockrepError as error:  # tags that somebody changed
            yield Finding.of_error(error)


def _source(
    group: VolumeGroup, state: GroupState, volume: LogicalVolume, now_seconds: float
) -> Iterator[Finding]:
    mark = read_source(volume)
    if mark is None or mark.pool_uuid != volume.pool_uuid:  # tags that somebody copied
        return
    if is_estranged(volume):
        yield _estranged(volume)
        return
    if state.with_uuid(mark.of_uuid) is None:
        yield Finding(
            Level.WARNING,
            volume.full_name,
            "is the snapshot of a source volume that is gone, and takes room",
            _removal(volume),
            fix=partial(group.remove, volume),
        )
        return
    created_seconds, target = mark.snapshot.created_seconds, mark.snapshot.target
    if (odd := _age(volume, created_seconds, now_seconds)) is not None:
        yield odd
    elif now_seconds - created_seconds > _OLD_SECONDS:
        yield Finding(
            Level.WARNING,
            volume.full_name,
            f"is {int(now_seconds - created_seconds) // 86400} days old: no push to {target} ended"
            " well since",
            f"push again; if nothing is pushed there any more: {_removal(volume)}",
        )
    else:
        yield Finding(Level.OK, volume.full_name, f"is held for {target}")


def _staging(
    group: VolumeGroup, state: GroupState, volume: LogicalVolume, now_seconds: float
) -> Iterator[Finding]:
    mark = read_staging(volume)
    if mark is None:
        return
    replica = state.with_uuid(mark.of_uuid)
    if mark.of_uuid and replica is None:
        yield Finding(
            Level.WARNING,
            volume.full_name,
            "is an unfinished transfer to a replica that is gone, and takes room",
            _removal(volume),
            fix=partial(_remove_staging, group, volume, mark.replica),
        )
        return
    if replica is not None and view_target(state, replica.name).is_detached(mark):
        yield Finding(
            Level.WARNING,
            volume.full_name,
            "is a transfer that LVM cannot merge into its replica any more: somebody merged a"
            " snapshot into that",
            "push again: it is removed; what was not committed starts over",
        )
        return
    if now_seconds - mark.created_seconds > _OLD_SECONDS:
        days = int(now_seconds - mark.created_seconds) // 86400
        yield Finding(
            Level.WARNING,
            volume.full_name,
            f"is a transfer that is unfinished for {days} days",
            f"push again, it resumes; if nothing is pushed there any more: {_removal(volume)}",
        )
    else:
        yield Finding(
            Level.OK, volume.full_name, "is an unfinished transfer: the next push resumes"
        )


def _good(state: GroupState, volume: LogicalVolume, now_seconds: float) -> Iterator[Finding]:
    mark = read_good(volume)
    if mark is None:
        return
    if is_estranged(volume):
        yield _estranged(volume)
        return
    if (odd := _age(volume, mark.snapshot.created_seconds, now_seconds)) is not None:
        yield odd
    # Whoever removed the replica may want its last content: never removed from here.
    if state.with_uuid(mark.of_uuid) is None:
        yield Finding(
            Level.WARNING,
            volume.full_name,
            "is a good snapshot of a replica that is gone: perhaps the last copy",
            f"if it is not needed any more: {_removal(volume)}",
        )


def _estranged(volume: LogicalVolume) -> Finding:
    return Finding(
        Level.WARNING,
        volume.full_name,
        "is a snapshot of ours that was made writable: it is left alone, and is no base or good"
        " snapshot any more",
        f"to keep it: lvchange --deltag {MARK} {volume.full_name}; if it is not needed any more:"
        f" {_removal(volume)}",
    )


def _age(volume: LogicalVolume, created_seconds: int, now_seconds: float) -> Finding | None:
    if created_seconds <= now_seconds + 60:
        return None
    return Finding(
        Level.WARNING,
        volume.full_name,
        f"was made {int(created_seconds - now_seconds)} s from now: a clock was, or is, wrong",
        "compare the clocks of both hosts: timedatectl",
    )


def _state_files(state_directory: Path, volumes: Collection[LogicalVolume]) -> Iterator[Finding]:
    """Find the state files of volumes that are gone.

    Of a group that is not here, its disks may come back: what tells no group is kept, too.
    """
    groups, uuids = {one.vg_uuid for one in volumes}, {one.uuid for one in volumes}
    for pattern, what in (
        (cursor_path(state_directory, "*"), "the progress of a transfer"),
        (record_path(state_directory, "*"), "the note on a metadata snapshot"),
    ):
        for path in sorted(pattern.parent.glob(pattern.name)):
            if path.name.removesuffix(".json") in uuids or path.suffix == ".tmp":
                continue
            if recorded_group(path) in groups:
                yield Finding(
                    Level.WARNING,
                    str(path),
                    f"is {what} of a volume that is gone",
                    f"rm {path}",
                    fix=partial(path.unlink, missing_ok=True),
                )


def _remove_staging(group: VolumeGroup, volume: LogicalVolume, replica: str) -> None:
    # The key of the server's gate: nobody writes to it meanwhile.
    key = lock_key("target", VolumeName(vg=group.vg, lv=replica))
    with VolumeLock(group.settings.runtime_directory, key, "blockrep doctor --fix"):
        group.remove(volume)
        cursor_path(group.settings.state_directory, volume.uuid).unlink(missing_ok=True)


def _removal(volume: LogicalVolume) -> str:
    return f"lvremove {volume.full_name}"
