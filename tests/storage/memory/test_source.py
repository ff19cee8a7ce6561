"""A volume in memory as the source: beyond the contract."""

from __future__ import annotations

import pytest

from blockrep.errors import VolumeError
from blockrep.storage.memory import MemoryHost, MemorySource


def test_a_snapshot_of_a_removed_volume_can_be_read() -> None:
    host = MemoryHost("a")
    host.create_volume("one", 4096)
    host.write("one", 0, b"x")
    source = MemorySource(host, "one")
    snapshot = source.create_snapshot("b" * 32, "a" * 32, 1, "t", 0)
    host.remove_volume("one")
    with pytest.raises(VolumeError):
        source.describe()
    buffer = bytearray(1)
    with source.open_snapshot(snapshot) as reader:
        reader.read_into(0, memoryview(buffer))
    assert buffer == b"x"
    assert snapshot.allocated_bytes == 4096
