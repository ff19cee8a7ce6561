"""Verify compares what both ends hold, and says where they differ."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from blockrep.config.access import OPERATIONS, AccessPolicy, TargetRule
from blockrep.errors import ConnectionLostError, DivergedError
from blockrep.model.lineage import Wish
from blockrep.replication.plan import SpooledPlan
from blockrep.storage.memory import MemoryHost
from support.hosts import MIB, Hosts
from support.memory_server import SIZE_BYTES, MemoryServer
from support.virtual_time import run_virtual


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(4 * MIB)
    return hosts


async def test_verify_finds_a_flipped_bit_and_names_where(hosts: Hosts) -> None:
    await hosts.push()
    assert (await hosts.verify()).different == ()
    hosts.replica.chmod(0o600)
    with hosts.replica.open("r+b") as file:
        file.seek(3 * MIB + 5)
        byte = file.read(1)
        file.seek(3 * MIB + 5)
        file.write(bytes([byte[0] ^ 1]))
    (extent,) = (await hosts.verify()).different
    assert extent.offset_bytes <= 3 * MIB + 5 < extent.end_bytes


async def test_verify_without_a_common_snapshot_says_push_first(hosts: Hosts) -> None:
    with pytest.raises(DivergedError, match="push first"):
        await hosts.verify()


async def test_verify_of_a_replica_of_another_history_says_what_makes_it_follow(
    hosts: Hosts,
) -> None:
    await hosts.push()
    shutil.rmtree(hosts.source.parent / ".blockrep")
    with pytest.raises(DivergedError, match=r"no snapshot in common.*--adopt .* or --full"):
        await hosts.verify()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("begun", [False, True])
async def test_a_comparison_that_ends_early_leaves_no_file_open(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, *, begun: bool
) -> None:
    """A stored table is open before the other end is asked, and nothing may come of it (I9)."""
    await hosts.push()
    before = open_files()

    async def lost(*arguments: Any) -> SpooledPlan:
        if begun:
            next(arguments[-1]())
        raise ConnectionLostError("lost")

    monkeypatch.setattr("blockrep.replication.verifying.find_differences", lost)
    for _ in range(3):
        with pytest.raises(ConnectionLostError):
            await hosts.verify()
    assert open_files() <= before


POLICY = AccessPolicy({"alpha": (TargetRule("vg/a", "vg/a", frozenset(OPERATIONS)),)}, None)


def test_an_equal_snapshot_does_not_hide_what_was_written_since(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, POLICY)
        server.write(0, b"content")
        await server.run("alpha", "push", "vg/a")
        assert not (await server.run("alpha", "verify", "vg/a")).different
        server.replica.write("vg/a", 0, b"scribble")
        with pytest.raises(DivergedError, match=r"#1 is equal at both ends, but .* written to"):
            await server.run("alpha", "verify", "vg/a")
        await server.run("alpha", "push", "vg/a", wish=Wish(adopt=True))
        assert not (await server.run("alpha", "verify", "vg/a")).different
        await server.settle()

    run_virtual(scenario())


def test_an_equal_snapshot_does_not_hide_a_newer_one_of_another_source(tmp_path: Path) -> None:
    async def scenario() -> None:
        server = MemoryServer(tmp_path, POLICY)
        server.write(0, b"content")
        await server.run("alpha", "push", "vg/a")
        first, server.origin = server.origin, MemoryHost("other")
        server.origin.create_volume("disk", SIZE_BYTES)
        server.write(0, b"something else")
        await server.run("alpha", "push", "vg/a", wish=Wish(adopt=True))
        assert not (await server.run("alpha", "verify", "vg/a")).different
        server.origin = first
        with pytest.raises(DivergedError, match=r"#1 is equal at both ends, but .* a newer .*#2"):
            await server.run("alpha", "verify", "vg/a")
        await server.settle()

    run_virtual(scenario())
