"""One volume group: its state, read by one command, and changes to it, each checked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blockrep.errors import BlockrepError, NoSpaceError, StorageError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.storage.interface import Costs, StorageSettings
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.reports import (
    LogicalVolume,
    PoolStatus,
    parse_mapped_bytes,
    parse_pool_status,
    parse_volumes,
)
from blockrep.storage.lvm.runner import CommandResult, Runner, describe_failure, require_root
from blockrep.storage.lvm.tags import role_of
from blockrep.storage.lvm.writable import is_estranged, left_alone

__all__ = ["GroupState", "VolumeGroup"]


@dataclass(frozen=True, slots=True)
class GroupState:
    """All volumes of a group at one moment."""

    volumes: tuple[LogicalVolume, ...]

    def find(self, name: str) -> LogicalVolume | None:
        """Return the volume of that name."""
        return next((one for one in self.volumes if one.name == name), None)

    def with_uuid(self, uuid: str) -> LogicalVolume | None:
        """Return the volume with that lv_uuid."""
        return next((one for one in self.volumes if one.uuid == uuid), None)

    def dependents(self, volume: LogicalVolume) -> list[LogicalVolume]:
        """Return what LVM cannot keep without the volume.

        Thick snapshots of it, and thin volumes of other pools whose external origin it is; thin
        snapshots need no origin.
        """
        return [
            one
            for one in self.volumes
            if one.origin == volume.name
            and not (one.kind == "thin" and one.pool_uuid == volume.pool_uuid)
        ]

    def thin_volume(self, name: VolumeName) -> tuple[LogicalVolume, LogicalVolume]:
        """Return a thin volume and its pool.

        Raises:
            VolumeError: unknown, not thin, or partly outside of its pool.
        """
        volume = self.find(name.lv)
        if volume is None:
            raise VolumeError(
                "there is no such logical volume",
                where=str(name),
                safe="nothing was changed",
                next_step=f"see lvs {name.vg}",
            )
        return volume, self.pool_of(volume)

    def pool_of(self, volume: LogicalVolume) -> LogicalVolume:
        """Return a volume's pool. Raises VolumeError: it is not a thin volume."""
        pool = self.with_uuid(volume.pool_uuid) if volume.kind == "thin" else None
        if pool is None:
            kind = "a thin pool" if volume.kind == "pool" else "not a thin volume"
            raise VolumeError(
                f"is {kind}",
                where=volume.full_name,
                safe="nothing was changed",
                next_step="name a thin volume (lvs -o +pool_lv shows which are)",
            )
        for origin in self._origins(volume):
            if origin.kind != "thin" or origin.pool_uuid != pool.uuid:
                raise VolumeError(
                    f"has an external origin ({origin.name}), whose content is not in the pool",
                    where=volume.full_name,
                    safe="nothing was changed",
                    next_step="copy it into a thin volume of its own first",
                )
        return pool

    def _origins(self, volume: LogicalVolume) -> Iterator[LogicalVolume]:
        """Yield a volume's origin, that one's, and so on: snapshots inherit an external origin."""
        seen = {volume.name}
        origin = self.find(volume.origin)
        while origin is not None and origin.name not in seen:
            yield origin
            seen.add(origin.name)
            origin = self.find(origin.origin)


class VolumeGroup:
    """Reads and changes one volume group.

    Args:
        vg: its name.
        settings: bounds and folders.
        runner: starts the programs.
    """

    def __init__(self, vg: str, settings: StorageSettings, runner: Runner) -> None:
        self.vg = vg
        self.settings = settings
        self.runner = runner
        #: How long metadata snapshots were reserved, until :meth:`take_costs`.
        self.metadata_snapshot_seconds = 0.0

    def take_costs(self) -> Costs:
        """Return what was spent since the last of this."""
        spent: dict[str, tuple[int, float]] = {}
        for record in self.runner.take_log():
            count, seconds = spent.get(record.argv[0], (0, 0.0))
            spent[record.argv[0]] = (count + 1, seconds + record.seconds)
        reserved_seconds, self.metadata_snapshot_seconds = self.metadata_snapshot_seconds, 0.0
        commands = tuple(
            (name, count, round(seconds, 6)) for name, (count, seconds) in spent.items()
        )
        return Costs(commands, reserved_seconds)

    def read(self) -> GroupState:
        """Read the state of the whole group, by one command.

        Raises:
            VolumeError: there is no such group.
            UnsupportedHostError: not root, or no LVM.
            StorageError: lvs failed.
        """
        require_root()
        result = self.runner.run(commands.list_volumes(self.vg))
        if result.status != 0:
            if f'Volume group "{self.vg}" not found' in result.stderr:
                raise VolumeError(
                    "there is no such volume group",
                    where=self.vg,
                    safe="nothing was changed",
                    next_step="see vgs",
                )
            raise self._failed(result)
        return GroupState(tuple(parse_volumes(result.stdout)))

    def change(self, argv: Sequence[str]) -> None:
        """Run a command that must succeed. Raises StorageError, OutcomeUnknownError."""
        result = self.runner.run(argv)
        if result.status != 0:
            raise self._failed(result)

    def attempt(self, argv: Sequence[str]) -> CommandResult:
        """Run a command whose success is judged by the state that it leaves."""
        return self.runner.run(argv)

    def remove(
        self, volume: LogicalVolume, state: GroupState | None = None, *, unmade: bool = False
    ) -> GroupState:
        """Remove a volume of ours, if it still is what it was; return the state afterwards.

        Args:
            volume: what to remove.
            state: as it was just read; None: it is read.
            unmade: its creation was cut short.

        Raises:
            VolumeError: it is not ours, or somebody made it writable, or others depend on it: LVM
                removes those with it, and with ``-y`` does not ask (lv_remove_with_dependencies of
                LVM 2.03).
            StorageError: it is still there afterwards (in use, perhaps).
        """
        role = role_of(volume)
        if role is None:
            raise VolumeError(
                "is not blockrep's", where=volume.full_name, safe="it was not removed"
            )
        before = state or self.read()
        now = before.with_uuid(volume.uuid)
        if now is not None and is_estranged(now):
            raise left_alone(now)
        dependents = before.dependents(volume)
        if dependents:
            names = ", ".join(one.full_name for one in dependents)
            raise VolumeError(
                f"is not removed: LVM would remove {names} with it",
                where=volume.full_name,
                safe="nothing was changed",
                next_step=f"if {names} is not needed any more, remove it: lvremove",
            )
        # lvremove says nothing when nothing matches, and 0: only the state tells.
        argv = commands.remove(self.vg, volume.name, volume.uuid, role.tag, unmade=unmade)
        result = self.attempt(argv)
        after = self.read()
        left = after.with_uuid(volume.uuid)
        if left is None:
            return after
        if result.status != 0:
            raise self._failed(result)
        raise StorageError(
            "was not removed: its tags or its uuid are not what they were",
            where=left.full_name,
            safe="it is as it was",
        )

    def status(self, pool: LogicalVolume) -> PoolStatus:
        """Return a pool's numbers, activating it if need be. Raises StorageError."""
        devices = [
            commands.pool_device(self.vg, pool.name, "tpool"),
            # A pool that never had a volume has no layer of its own.
            commands.dm_name(self.vg, pool.name),
        ]
        for activation in (None, commands.activate_pool(self.vg, pool.name)):
            if activation is not None:
                self.change(activation)
            for device in devices:
                result = self.runner.run(commands.status(device))
                status = parse_pool_status(result.stdout) if result.status == 0 else None
                if status is not None:
                    return status
        raise self._failed(result)

    def confirmed_status(self, pool: LogicalVolume) -> PoolStatus:
        """Return a pool's numbers, which prove that what was synced before took effect.

        A pool that has become read-only, or has no room for metadata, answers discards as if they
        were done and does nothing (dm-thin.c, set_pool_mode: process_bio_success); a sync of a
        volume without other changes succeeds, too.

        Raises:
            StorageError: the pool takes no changes, or cannot be asked.
        """
        status = self.status(pool)
        if status.mode not in {"rw", "out_of_data_space"} or status.needs_check:
            raise StorageError(
                f"the thin pool takes no changes any more (mode {status.mode})",
                where=pool.full_name,
                safe="what was acknowledged is kept; the replica and its snapshots are untouched",
                next_step="see the kernel's log: it says why; if its metadata is full, extend it"
                f" (lvextend --poolmetadatasize +SIZE {pool.full_name}); then push again: it says"
                " what the pool needs, and resumes",
            )
        return status

    def mapped_bytes(self, volume: LogicalVolume) -> int:
        """Return how much a thin volume maps; its size if that is not known (it is inactive)."""
        result = self.runner.run(commands.status(commands.dm_name(self.vg, volume.name)))
        mapped = parse_mapped_bytes(result.stdout) if result.status == 0 else None
        return volume.size_bytes if mapped is None else mapped

    def _failed(self, result: CommandResult) -> BlockrepError:
        # "Cannot create new thin volume, free space in thin pool VG/POOL reached threshold."
        kind = NoSpaceError if "free space in thin pool" in result.stderr else StorageError
        return kind(
            describe_failure(result),
            where=self.vg,
            safe="the replica's good snapshots and the source's snapshots are kept",
            next_step="see what LVM says, then run the same command again",
        )
