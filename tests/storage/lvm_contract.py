"""Real LVM keeps the contract. Runs inside a VM: tests/vm/test_lvm_storage.py starts it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.contract import StorageContract
from storage.lvm_volumes import LvmVolumes, Pools, lvm, make_pool

DISK = "/dev/vdb"
KIB = 1024


@pytest.fixture(scope="session")
def halves() -> list[str]:
    """Two devices on the one disk; the first does not begin where LVM would find it on the disk."""
    lvm("dmsetup", "remove_all", "--force")
    lvm("blkdiscard", "--force", DISK)
    sectors = int(Path("/sys/block/vdb/size").read_text()) // 2 - 4096
    for number in (0, 1):
        table = f"0 {sectors} linear {DISK} {2048 + sectors * number}"
        lvm("dmsetup", "create", f"half{number}", "--table", table)
    return ["/dev/mapper/half0", "/dev/mapper/half1"]


class Pairs:
    """Makes each pair of pools once."""

    def __init__(self, devices: list[str]) -> None:
        self._devices = devices
        self._made = ""

    def make(self, kind: str) -> Pools:
        if kind != self._made:
            if self._made:
                for group in ("vga", "vg-b"):
                    lvm("vgremove", "-q", "-ff", "-y", group, check=False)
            self._made = kind
            self._make(kind)
        source_chunk, target_chunk = (256, 64) if kind == "coarse" else (64, 64)
        if kind == "unzeroed":
            target_chunk = 128
        target = "vga/pool" if kind == "one-pool" else "vg-b/pool"
        return Pools("vga/pool", target, source_chunk * KIB, target_chunk * KIB)

    def _make(self, kind: str) -> None:
        first, second = self._devices
        make_pool(first, "vga", chunk_kib=256 if kind == "coarse" else 64)
        if kind == "coarse":
            make_pool(second, "vg-b", chunk_kib=64)
        elif kind == "unzeroed":
            options = ["-Zn", "--discards", "ignore"]
            make_pool(second, "vg-b", chunk_kib=128, options=options)


@pytest.fixture(scope="session")
def pairs(halves: list[str]) -> Pairs:
    return Pairs(halves)


class TestLvm(StorageContract):
    @pytest.fixture(params=["one-pool", "coarse", "unzeroed"])
    def volumes(
        self, request: pytest.FixtureRequest, pairs: Pairs, tmp_path: Path
    ) -> Iterator[LvmVolumes]:
        volumes = LvmVolumes(tmp_path, pairs.make(request.param))
        yield volumes
        volumes.close()
