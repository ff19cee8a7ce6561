"""The host in memory: identities, room, and failures on demand."""

from __future__ import annotations

import pytest

from blockrep.errors import VolumeError
from blockrep.storage.memory import MemoryHost, MemorySource


def test_identities_differ_between_hosts_names_and_lives() -> None:
    seen = set()
    for host in (MemoryHost("a"), MemoryHost("b")):
        for name in ("one", "two"):
            for _ in range(2):
                host.create_volume(name, 4096)
                seen.add(MemorySource(host, name).describe().identity)
    assert len(seen) == 8


def test_room_counts_shared_chunks_once() -> None:
    host = MemoryHost("a", chunk_bytes=4096, capacity_bytes=40_960)
    host.create_volume("one", 40_960)
    assert host.space().free_bytes == 40_960
    host.write("one", 0, b"x" * 8192)
    source = MemorySource(host, "one")
    source.create_snapshot("b" * 32, "a" * 32, 1, "t", 0)
    assert host.used_bytes() == 8192
    host.write("one", 0, b"y")
    assert host.used_bytes() == 12_288
    assert host.space().free_bytes == 40_960 - 12_288


def test_syncs_fail_as_often_as_asked() -> None:
    host = MemoryHost("a")
    host.fail_syncs(2)
    assert [host.take_sync_failure() for _ in range(3)] == [True, True, False]


def test_what_does_not_exist_cannot_be_used() -> None:
    host = MemoryHost("a")
    for call in (lambda: host.read("x"), lambda: host.write("x", 0, b"")):
        with pytest.raises(VolumeError):
            call()
    host.create_volume("x", 10)
    host.remove_volume("x")
    with pytest.raises(VolumeError):
        host.read("x")
