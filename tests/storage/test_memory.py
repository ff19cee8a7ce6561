"""Volumes in memory keep the contract, whatever the chunk sizes of the two hosts."""

from __future__ import annotations

import pytest

from storage.contract import StorageContract
from storage.memory_volumes import KIB, MemoryVolumes


class TestMemory(StorageContract):
    @pytest.fixture(
        params=[(4 * KIB, 4 * KIB, 1), (64 * KIB, 4 * KIB, 1), (4 * KIB, 64 * KIB, 64 * KIB)],
        ids=["same-chunks", "coarse-source", "coarse-target"],
    )
    def volumes(self, request: pytest.FixtureRequest) -> MemoryVolumes:
        return MemoryVolumes(*request.param)
