"""Logical volumes, requests and a simulated LVM for the tests of single modules."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blockrep.model.extents import summarize
from blockrep.storage.interface import BeginRequest
from blockrep.storage.lvm.reports import LogicalVolume
from storage.lvm_simulation import KIB, SimulatedGroup
from storage.simulated_lvm_volumes import SimulatedLvmVolumes

LINEAGE = "ab" * 16
ID = "01" * 16
BASE_ID = "02" * 16

PLAIN = LogicalVolume(
    vg="volg",
    vg_uuid="vg-uuid",
    extent_bytes=256 * KIB,
    name="thin_volume",
    hidden=False,
    uuid="volume-uuid",
    size_bytes=1024 * KIB,
    kind="thin",
    pool="pool",
    pool_uuid="pool-uuid",
    thin_id=1,
    origin="",
    read_only=False,
    active=True,
    open=False,
    merging=False,
    tags=frozenset(),
    chunk_bytes=0,
    discards="",
    zeroes=False,
    queues_when_full=False,
    health="",
    transaction=0,
)
POOL = dataclasses.replace(
    PLAIN,
    name="pool",
    uuid="pool-uuid",
    kind="pool",
    pool="",
    pool_uuid="",
    thin_id=-1,
    chunk_bytes=64 * KIB,
    discards="passdown",
    zeroes=True,
)


def volume(**values: Any) -> LogicalVolume:
    values["tags"] = frozenset(values.get("tags", ()))
    return dataclasses.replace(PLAIN, **values)


def request(**values: Any) -> BeginRequest:
    defaults: dict[str, Any] = {
        "lineage": LINEAGE,
        "snapshot_id": ID,
        "sequence": 2,
        "created_seconds": 1_700_000_000,
        "base_id": BASE_ID,
        "mode": "incremental",
        "size_bytes": 1024 * KIB,
        "plan": summarize([]),
        "new_chunks": 0,
        "allow_shrink": False,
    }
    return BeginRequest(**{**defaults, **values})


@contextlib.contextmanager
def simulated_volumes(directory: Path, **replica: Any) -> Iterator[SimulatedLvmVolumes]:
    """Yield a source and a target on a simulated LVM; ``replica`` shapes the target's pool."""
    pool = {"chunk_bytes": 64 * KIB, **replica}
    volumes = SimulatedLvmVolumes(
        directory, SimulatedGroup("vga", 64 * KIB), SimulatedGroup("vgb", **pool)
    )
    with volumes.simulated():
        yield volumes
