"""All of blockrep's snapshots on this host, read from the tags by one command."""

from __future__ import annotations

from collections.abc import Iterator

from blockrep.errors import StorageError
from blockrep.model.snapshots import Snapshot
from blockrep.storage.interface import StorageSettings
from blockrep.storage.lvm import commands
from blockrep.storage.lvm.reports import LogicalVolume, parse_volumes
from blockrep.storage.lvm.runner import ProcessRunner, Runner, describe_failure, require_root
from blockrep.storage.lvm.tags import Role, read_good, read_source, role_of

__all__ = ["list_host", "snapshots_by_volume"]


def list_host(
    settings: StorageSettings, runner: Runner | None = None
) -> Iterator[tuple[str, list[Snapshot]]]:
    """Yield each volume that has snapshots of ours, with them: sources, then replicas.

    Raises:
        UnsupportedHostError: not root, or no LVM.
        StorageError: lvs failed.
    """
    require_root()
    result = (runner or ProcessRunner(settings.command_timeout_seconds)).run(commands.list_all())
    if result.status != 0:
        raise StorageError(describe_failure(result), where="lvs", safe="nothing was changed")
    return snapshots_by_volume(parse_volumes(result.stdout))


def snapshots_by_volume(volumes: list[LogicalVolume]) -> Iterator[tuple[str, list[Snapshot]]]:
    """Group the snapshots among ``volumes`` by what they are snapshots of. Pure."""
    names = {one.uuid: one.full_name for one in volumes}
    for role, title in ((Role.SOURCE, "source"), (Role.GOOD, "replica")):
        found: dict[str, list[Snapshot]] = {}
        for volume in volumes:
            if role_of(volume) is not role:
                continue
            mark = read_source(volume) if role is Role.SOURCE else read_good(volume)
            if mark is not None:
                # What a snapshot was taken of may be gone; the snapshot still takes room.
                gone = f"{volume.vg}: volume {mark.of_uuid}, which is gone"
                name = names.get(mark.of_uuid, gone)
                found.setdefault(name, []).append(mark.snapshot)
        for name, snapshots in sorted(found.items()):
            yield f"{name} ({title})", sorted(snapshots, key=lambda one: one.sequence)
