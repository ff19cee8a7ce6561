"""LVM volumes keep the contract, on a simulated LVM; tests/vm runs it on the real one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.contract import StorageContract
from storage.lvm_simulation import KIB, SimulatedGroup
from storage.simulated_lvm_volumes import SimulatedLvmVolumes


class TestLvm(StorageContract):
    @pytest.fixture(params=["one-pool", "coarse", "unzeroed"])
    def volumes(
        self, request: pytest.FixtureRequest, tmp_path: Path
    ) -> Iterator[SimulatedLvmVolumes]:
        origin = replica = SimulatedGroup("vg-a", 64 * KIB)
        if request.param == "coarse":
            origin, replica = SimulatedGroup("vga", 256 * KIB), SimulatedGroup("vgb", 64 * KIB)
        elif request.param == "unzeroed":
            replica = SimulatedGroup("vgb", 128 * KIB, zeroes=False, discards="ignore")
        volumes = SimulatedLvmVolumes(tmp_path, origin, replica)
        with volumes.simulated():
            yield volumes
            volumes.close()
