"""Disks that fail under real LVM: what could not be read or written is never in a replica (I2, I3).

The disks are network block devices of the tests' own, so that the guest's kernel sees errors of
its disk, as it would see them of a broken one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from vm.conftest import Groups, MakeGroups
from vm.deployment import Deployment, assert_replicated, deploy, tagged
from vm.harness.machine import Machine
from vm.harness.nbd import VolatileDisk
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm

BAD_SECTOR = b"a sector of a broken disk".ljust(512, b"!")


@dataclass
class Site:
    """Two hosts, of which one has a disk that may break; a first push has ended well."""

    hosts: Deployment
    groups: Groups

    def disk_of(self, machine: Machine) -> VolatileDisk:
        disk = machine.disks[0].volatile
        assert disk is not None
        return disk

    def goods(self) -> dict[str, str]:
        """Return what good snapshots and the replica hold."""
        pool = self.groups.target_pool
        names = [good.name for good in tagged(pool, "good")]
        return pool.digests([*names, self.groups.replica_volume.name])


@pytest.fixture
def site(volatile_pair: Pair) -> Iterator[Site]:
    volatile_pair.reset()
    hosts = deploy(volatile_pair)
    groups = MakeGroups(volatile_pair)()
    groups.thin_volume.write_random(0, 2 * MIB)
    with hosts.server():
        hosts.push()
        yield Site(hosts, groups)


@pytest.mark.parametrize(
    ("end", "words"),
    [
        # The extent is named, and nothing is sent in its place.
        ("origin", (f"reading 65536 bytes at offset {20 * MIB} failed", "Input/output error")),
        ("replica", ("Input/output error", "untouched")),
    ],
)
def test_a_sector_that_cannot_be_read_or_written(
    site: Site, end: str, words: tuple[str, ...]
) -> None:
    goods = site.goods()
    site.groups.thin_volume.write_random(8 * MIB, 4 * MIB)
    site.groups.thin_volume.write(20 * MIB, BAD_SECTOR)
    disk = site.disk_of(getattr(site.hosts.pair, end))
    disk.spoil(BAD_SECTOR)
    push = site.hosts.push(check=False)
    assert push.rc == 11, push.stderr
    assert all(one in push.stderr for one in words), push.stderr
    assert site.goods() == goods
    disk.repair()
    site.hosts.push()
    assert_replicated(site.groups)


def test_a_disk_of_the_target_that_does_not_flush(site: Site) -> None:
    """Nothing is acknowledged after it; the pool, which fails with its disk, is not trusted."""
    goods = site.goods()
    site.groups.thin_volume.write_random(8 * MIB, 24 * MIB)
    push = site.hosts.start_push("--bwlimit", "4M")
    push.wait_for_output(r'"done_bytes": ?[1-9]', 120)
    disk = site.disk_of(site.hosts.pair.replica)
    disk.fail_flushes()
    ended = push.wait(120)
    assert ended.rc in {10, 11}, ended.stderr
    again = site.hosts.push(check=False)
    assert again.rc == 10, again.stderr
    disk.repair()
    # What the error says: deactivate it and have it checked.
    assert "lvconvert --repair vgreplica/pool" in again.stderr
    site.hosts.pair.replica.run(
        f"vgchange -qq -an vgreplica && {again.stderr.partition('check it: ')[2]}",
        timeout_seconds=120,
    )
    assert site.goods() == goods
    site.hosts.push()
    assert_replicated(site.groups)
