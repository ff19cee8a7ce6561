"""A simulated LVM for each test that wants one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.lvm.builders import simulated_volumes
from storage.simulated_lvm_volumes import SimulatedLvmVolumes


@pytest.fixture
def lvm(tmp_path: Path) -> Iterator[SimulatedLvmVolumes]:
    with simulated_volumes(tmp_path) as volumes:
        yield volumes
