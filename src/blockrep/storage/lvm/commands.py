"""Argument lists for LVM, device-mapper and the thin tools.

Every name that reaches a command was matched against LVM's rules: an empty name, a bare ``vg``,
``--`` or ``@tag`` would select something else, up to everything.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from blockrep.errors import InternalError
from blockrep.model.names import parse_volume

__all__ = [
    "REPORT_FIELDS",
    "activate",
    "activate_pool",
    "change_tags",
    "create_snapshot",
    "create_volume",
    "deactivate",
    "dm_name",
    "list_all",
    "list_volumes",
    "merge",
    "metadata_openers",
    "pool_device",
    "read_only",
    "refresh",
    "release_metadata",
    "remove",
    "rename",
    "reserve_metadata",
    "resize",
    "status",
    "thin_delta",
    "thin_dump",
]

#: What one look at a volume group asks for. Names of lvs -o; see lvs -o help.
REPORT_FIELDS: Final = (
    "vg_name", "vg_uuid", "vg_extent_size", "lv_name", "lv_uuid", "lv_size", "lv_layout", "pool_lv",
    "pool_lv_uuid", "thin_id", "origin", "lv_permissions", "lv_active", "lv_device_open",
    "lv_merging", "lv_tags", "chunk_size", "discards", "zero", "lv_when_full", "lv_health_status",
    "transaction_id",
)  # fmt: skip


#: What lvm.conf(5) can change of a report that a program reads; LVM's defaults. With prefixes it
#: is no JSON any more.
_REPORT_CONFIG: Final = (
    'report{compact_output=0 compact_output_cols="" binary_values_as_numeric=0 prefixes=0'
    ' list_item_separator="," mark_hidden_devices=1}'
)


def checked(vg: str, lv: str) -> str:
    """Return ``VG/LV``. Raises InternalError: that is no name for a command."""
    name = f"{vg}/{lv}"
    try:
        volume = parse_volume(name)
    except ValueError as error:
        raise InternalError(f"not a name for LVM: {error}") from error
    if (volume.vg, volume.lv) != (vg, lv):
        raise InternalError(f"not a name for LVM: {name!r}")
    return name


def list_volumes(vg: str) -> list[str]:
    """Report everything about all volumes of a group, hidden ones (``-a``) too."""
    checked(vg, "any")
    return [*list_all(), vg]


def list_all() -> list[str]:
    """Report everything about all volumes of this host."""
    fields = ",".join(REPORT_FIELDS)
    argv = ["lvs", "-a", "--config", _REPORT_CONFIG, "--reportformat", "json"]
    return [*argv, "--units", "b", "--nosuffix", "-o", fields]


def create_snapshot(
    vg: str, origin: str, name: str, tags: Sequence[str], *, writable: bool
) -> list[str]:
    """Make a thin snapshot: read-only and not activated with its group, or writable and active.

    No size: with one it would become a thick snapshot.
    """
    kind = ["-kn", "-ay"] if writable else ["-pr", "-ky"]
    argv = ["lvcreate", "-s", *kind, *_add_tags(tags)]
    return [*argv, "-n", checked(vg, name).partition("/")[2], checked(vg, origin)]


def create_volume(vg: str, pool: str, name: str, size_bytes: int, tags: Sequence[str]) -> list[str]:
    """Make an empty, active thin volume; LVM rounds the size up to whole extents."""
    checked(vg, name)
    argv = ["lvcreate", "-V", f"{size_bytes}b", "-T", checked(vg, pool), "-n", name]
    return [*argv, "-kn", "-ay", "-Wn", *_add_tags(tags)]


def change_tags(vg: str, name: str, add: Sequence[str], remove: Sequence[str] = ()) -> list[str]:
    """Change tags in one LVM transaction."""
    deleted = [word for tag in remove for word in ("--deltag", tag)]
    return ["lvchange", *_add_tags(add), *deleted, checked(vg, name)]


def read_only(vg: str, name: str, add: Sequence[str], remove: Collection[str] = ()) -> list[str]:
    """Make a volume read-only, and change its tags, in one LVM transaction.

    LVM fails if it is read-only already.
    """
    argv = change_tags(vg, name, add, tuple(remove))
    return [argv[0], "-pr", *argv[1:]]


def activate(vg: str, name: str) -> list[str]:
    """Activate a volume, also one that is skipped when its group is activated."""
    return ["lvchange", "-ay", "-K", checked(vg, name)]


def activate_pool(vg: str, pool: str) -> list[str]:
    """Activate a thin pool."""
    return ["lvchange", "-ay", checked(vg, pool)]


def deactivate(vg: str, name: str) -> list[str]:
    """Deactivate a volume; LVM retries for a few seconds while it is open."""
    return ["lvchange", "-an", checked(vg, name)]


def refresh(vg: str, name: str) -> list[str]:
    """Reload a volume's device; finishes a merge that waits for it."""
    return ["lvchange", "--refresh", checked(vg, name)]


def merge(vg: str, name: str) -> list[str]:
    """Make the origin of a thin snapshot become the snapshot."""
    return ["lvconvert", "-y", "--mergethin", checked(vg, name)]


def rename(vg: str, old: str, new: str) -> list[str]:
    """Rename a volume."""
    return ["lvrename", checked(vg, old), checked(vg, new)]


def resize(vg: str, name: str, old_bytes: int, new_bytes: int) -> list[str]:
    """Grow or shrink a volume; LVM fails if the size is what it was."""
    assert old_bytes != new_bytes
    program = ["lvextend"] if new_bytes > old_bytes else ["lvreduce", "-f"]
    return [*program, "-L", f"{new_bytes}b", checked(vg, name)]


def remove(vg: str, name: str, uuid: str, role_tag: str, *, unmade: bool = False) -> list[str]:
    """Remove the volume only if it has this name, this uuid and our tag.

    LVM's status does not tell whether anything matched. ``unmade``: what LVM still has to tell the
    pool is that the volume be made; have it told to delete that instead, with LVM's next change of
    the pool (lv_remove_with_dependencies and detach_pool_lv of LVM 2.03: ``-ff``).
    """
    selection = f'lv_uuid={uuid} && lv_tags={{"blockrep" && "{role_tag}"}}'
    force = ["-ff"] if unmade else []
    return ["lvremove", "-y", *force, "-S", selection, checked(vg, name)]


def dm_name(vg: str, lv: str) -> str:
    """Return device-mapper's name of a volume, below ``/dev/mapper``."""
    checked(vg, lv)
    return f"{vg.replace('-', '--')}-{lv.replace('-', '--')}"


def pool_device(vg: str, pool: str, part: str) -> str:
    """Return device-mapper's name of a part of a pool: ``tpool``, ``tmeta``."""
    separator = "-" if part == "tpool" else "_"
    return f"{dm_name(vg, pool)}{separator}{part}"


def status(device: str) -> list[str]:
    """Ask for the numbers of a pool or a thin volume, without a commit of the pool's metadata."""
    return ["dmsetup", "status", "--noflush", device]


def reserve_metadata(vg: str, pool: str) -> list[str]:
    """Reserve the pool's metadata snapshot; there is one per pool."""
    return ["dmsetup", "message", pool_device(vg, pool, "tpool"), "0", "reserve_metadata_snap"]


def release_metadata(vg: str, pool: str) -> list[str]:
    """Release the pool's metadata snapshot, whoever reserved it."""
    return ["dmsetup", "message", pool_device(vg, pool, "tpool"), "0", "release_metadata_snap"]


def metadata_openers(vg: str, pool: str) -> list[str]:
    """Count who has the pool's metadata open: the pool itself, and the tools that read it."""
    device = pool_device(vg, pool, "tmeta")
    return ["dmsetup", "info", "--columns", "--noheadings", "--options", "open", device]


def thin_delta(vg: str, pool: str, left_id: int, right_id: int) -> list[str]:
    """Compare two thin volumes in the reserved metadata snapshot."""
    device = f"/dev/mapper/{pool_device(vg, pool, 'tmeta')}"
    return ["thin_delta", "-m", "--thin1", str(left_id), "--thin2", str(right_id), device]


def thin_dump(vg: str, pool: str, thin_id: int) -> list[str]:
    """List what one thin volume maps in the reserved metadata snapshot."""
    device = f"/dev/mapper/{pool_device(vg, pool, 'tmeta')}"
    return ["thin_dump", "-m", "--dev-id", str(thin_id), device]


def _add_tags(tags: Sequence[str]) -> list[str]:
    return [word for tag in tags for word in ("--addtag", tag)]
