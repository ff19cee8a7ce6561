"""Verify compares what both ends hold, and says where they differ."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from blockrep.errors import DivergedError
from support.hosts import MIB, Hosts


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
