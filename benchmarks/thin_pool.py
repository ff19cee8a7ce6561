"""A thin pool without device-mapper: real metadata in a file, LVM's answers made up.

The product's own code plans from it: thin_delta runs on the file, lvs and dmsetup are answered
here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from blockrep.storage.lvm.runner import CommandResult, ProcessRunner

VG = "bench"
POOL = "pool"
CHUNK_BYTES = 64 * 1024
POOL_UUID = "pool-uuid"
_SECTORS = CHUNK_BYTES // 512
_HELD_ROOT = 7
_TRANSACTION = 1_000_000
_MAPPING_BYTES = 48  # in a leaf that is less than half full, with its share of the nodes above
_SPARE_BYTES = 8 * 1024 * 1024
_FIELDS = (
    "lv_size", "pool_lv", "pool_lv_uuid", "thin_id", "origin", "lv_active", "lv_merging",
    "lv_device_open", "lv_tags", "discards", "zero", "lv_when_full", "lv_health_status",
)  # fmt: skip

Mapping = tuple[int, int, int]  # first chunk of the volume, first chunk of the pool, how many


@dataclass(frozen=True)
class Device:
    """One thin volume of the metadata. ``mappings``: ascending, made anew for each reading."""

    thin_id: int
    chunks: int
    mappings: Iterable[Mapping]


@dataclass(frozen=True)
class Volume:
    """One thin volume in LVM's report."""

    name: str
    thin_id: int
    size_bytes: int
    tags: Sequence[str] = ()
    read_only: bool = True

    def row(self) -> dict[str, str]:
        """Return what lvs says of it."""
        return _row(
            lv_name=self.name,
            lv_uuid=uuid_of(self.name),
            lv_size=str(self.size_bytes),
            lv_layout="thin,sparse",
            pool_lv=POOL,
            pool_lv_uuid=POOL_UUID,
            thin_id=str(self.thin_id),
            lv_permissions="read-only" if self.read_only else "writeable",
            lv_tags=",".join(self.tags),
            transaction_id=str(self.thin_id),
        )


def uuid_of(name: str) -> str:
    """Return the uuid of a volume."""
    return f"uuid-{name}"


def write_metadata(path: Path, devices: Sequence[Device], pool_chunks: int) -> None:
    """Make a metadata file with thin_restore. Needs a file system with O_DIRECT, so no tmpfs."""
    text = path.with_suffix(".xml")
    with text.open("w") as file:
        file.write(
            f'<superblock uuid="" time="1" transaction="1" flags="0" version="2"'
            f' data_block_size="{_SECTORS}" nr_data_blocks="{pool_chunks}">\n'
        )
        for device in devices:
            file.write(
                f'<device dev_id="{device.thin_id}" mapped_blocks="{device.chunks}"'
                ' transaction="0" creation_time="0" snap_time="0">\n'
            )
            file.writelines(map(_mapping_xml, device.mappings))
            file.write("</device>\n")
        file.write("</superblock>\n")
    with path.open("wb") as file:
        mappings = sum(device.chunks for device in devices)
        file.truncate(_SPARE_BYTES + _MAPPING_BYTES * mappings + 4096 * len(devices))
    subprocess.run(["thin_restore", "--quiet", "-i", text, "-o", path], check=True)
    text.unlink()


def _mapping_xml(mapping: Mapping) -> str:
    origin, data, length = mapping
    if length == 1:
        return f'<single_mapping origin_block="{origin}" data_block="{data}" time="0"/>\n'
    return (
        f'<range_mapping origin_begin="{origin}" data_begin="{data}" length="{length}" time="0"/>\n'
    )


def _row(**values: str) -> dict[str, str]:
    row = dict.fromkeys(_FIELDS, "")
    row |= {"vg_name": VG, "vg_uuid": "vg-uuid", "vg_extent_size": "4194304", "chunk_size": "0"}
    return row | values


def pool_row(pool_chunks: int) -> dict[str, str]:
    """Return what lvs says of the pool."""
    return _row(
        lv_name=POOL,
        lv_uuid=POOL_UUID,
        lv_size=str(pool_chunks * CHUNK_BYTES),
        lv_layout="thin,pool",
        lv_permissions="writeable",
        lv_active="active",
        chunk_size=str(CHUNK_BYTES),
        discards="passdown",
        zero="zero",
        lv_when_full="error",
        transaction_id=str(_TRANSACTION),
    )


def report(rows: Sequence[dict[str, str]]) -> bytes:
    """Return what lvs prints."""
    return json.dumps({"report": [{"lv": rows}]}).encode()


@dataclass
class FilePool(ProcessRunner):
    """Starts the thin tools on a metadata file, and answers for LVM and device-mapper."""

    metadata: Path
    volumes: Sequence[Volume]
    pool_chunks: int
    _held: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        super().__init__(timeout_seconds=600)
        rows = [pool_row(self.pool_chunks), *(one.row() for one in self.volumes)]
        self._report = report(rows)

    def run(self, argv: Sequence[str]) -> CommandResult:
        """See :class:`blockrep.storage.lvm.runner.Runner`."""
        if argv[0] == "lvs":
            return CommandResult(tuple(argv), 0, self._report, "")
        if argv[0] == "dmsetup":
            return CommandResult(tuple(argv), 0, self._dmsetup(argv).encode(), "")
        return super().run(argv)

    def stream(self, argv: Sequence[str]) -> Iterator[bytes]:
        """See :class:`blockrep.storage.lvm.runner.Runner`."""
        if argv[-1].startswith("/dev/mapper/"):
            argv = [*(one for one in argv[:-1] if one != "-m"), str(self.metadata)]
        return super().stream(argv)

    def _dmsetup(self, argv: Sequence[str]) -> str:
        if argv[1] == "message":
            self._held = argv[-1] == "reserve_metadata_snap"
            return ""
        root = _HELD_ROOT if self._held else "-"
        return (
            f"0 {self.pool_chunks * _SECTORS} thin-pool {_TRANSACTION} 10/1000000"
            f" 10/{self.pool_chunks} {root} rw discard_passdown error_if_no_space - 1024\n"
        )
