"""Power cuts on real LVM, on disks that lose and tear what was not flushed.

Everything of blockrep lies on such a disk: pool, LVM's own metadata, state directory. Every good
snapshot is intact after every cut (I2, I3), what was acknowledged as durable is (I1), the push goes
on by itself (I4), and nothing is left behind (I7).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from support.reports import counted
from vm.conftest import Groups, MakeGroups
from vm.deployment import (
    IMPATIENT,
    PUSH_SECONDS,
    Deployment,
    Expected,
    deploy,
    give_certificates,
)
from vm.harness.channel import Process
from vm.harness.machine import Machine
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm

RECEIVER_CUTS = 20
SENDER_CUTS = 10
VOLUME_BYTES = 12 * MIB


@dataclass
class Site:
    """Two hosts that are set up again after every power cut, and what their disks should hold."""

    hosts: Deployment
    groups: Groups
    rng: random.Random
    expected: Expected

    def set_up(self, machine: Machine) -> None:
        """Do what an administrator's boot does."""
        group = "volg" if machine is self.hosts.pair.origin else "vgreplica"
        # It fails for a volume that the pool was not told of; the others are activated.
        script = (
            f"vgchange -qq -ay {group}; mkdir -p /var/lib/blockrep;"
            # A torn superblock of its journal: a boot has it checked.
            f" e2fsck -y /dev/{group}/state >/dev/null;"
            f" mount /dev/{group}/state /var/lib/blockrep"
        )
        machine.run(script, timeout_seconds=60)
        give_certificates(machine)
        machine.write_file("/etc/blockrep/config.toml", IMPATIENT)
        if group == "vgreplica":
            self.hosts.start_server()

    def change_source(self) -> None:
        volume, rng = self.groups.thin_volume, self.rng
        for _ in range(rng.randint(1, 3)):
            offset = rng.randrange(0, VOLUME_BYTES - 4 * MIB, 4096)
            volume.write_random(offset, rng.choice([4096, 100_000, 2 * MIB]))
        if rng.random() < 0.3:
            volume.discard(rng.randrange(0, VOLUME_BYTES - MIB, 65536), 512 * 1024)
        self.expected.note_source()

    def ends_well(self, push: Process) -> None:
        """Wait for a push that was started; check both ends."""
        ended = push.wait(PUSH_SECONDS)
        assert ended.rc == 0, ended.stderr
        self.expected.learn()

    def pushed(self) -> int:
        """Push to the end; return how many writes that cost the replica's disk."""
        disk = self.hosts.pair.replica.disks[0].volatile
        assert disk is not None
        before = disk.writes
        self.hosts.push("--quiet")
        self.expected.learn()
        return disk.writes - before


@pytest.fixture
def site(volatile_pair: Pair) -> Iterator[Callable[[int], Site]]:
    volatile_pair.reset()

    def make(seed: int) -> Site:
        hosts = deploy(volatile_pair)
        groups = MakeGroups(volatile_pair)(volume_bytes=VOLUME_BYTES)
        site = Site(hosts, groups, random.Random(seed), Expected(groups))
        for machine, group in (
            (volatile_pair.origin, "volg"),
            (volatile_pair.replica, "vgreplica"),
        ):
            script = f"lvcreate -qq -y -L 16m -n state {group} && mkfs.ext4 -q /dev/{group}/state"
            machine.run(script, timeout_seconds=60)
            site.set_up(machine)
        site.change_source()
        return site

    yield make
    for machine in volatile_pair.machines:
        if machine.running:
            machine.run("umount /var/lib/blockrep", timeout_seconds=60, check=False)


def cut_during(push: Process, machine: Machine, rng: random.Random) -> bool:
    """Wait for the power cut that is armed; False: the push ended before, and it is cut now."""
    deadline = time.monotonic() + PUSH_SECONDS
    while push.running and machine.running:
        assert time.monotonic() < deadline, "neither ended"
        time.sleep(0.02)
    cut = not machine.running
    machine.cut_power(rng)
    return cut


@pytest.mark.timeout(3000)
def test_a_receiver_whose_power_fails(site: Callable[[int], Site]) -> None:
    here = site(1)
    replica = here.hosts.pair.replica
    writes = here.pushed()
    during = 0
    push: Process | None = None
    for _ in range(RECEIVER_CUTS):
        with counted("power cuts of the receiver"):
            if push is None:
                here.change_source()
                replica.cut_power_after(here.rng.randint(1, writes))
                push = here.hosts.start_push("--retry")
            else:  # while it resumes
                replica.cut_power_after(here.rng.randint(1, writes))
            during += cut_during(push, replica, here.rng)
            replica.boot()
            here.expected.check_goods()
            here.set_up(replica)
            if not push.running or here.rng.random() < 0.4:
                here.ends_well(push)
                push = None
    if push is not None:
        here.ends_well(push)
    assert during >= RECEIVER_CUTS // 2


@pytest.mark.parametrize(
    ("notes", "made"),
    [
        (2, False),
        pytest.param(8, False, marks=pytest.mark.thorough),
        (2, True),
        (8, True),
    ],
    ids=[
        "staging volume",
        "good snapshot",
        "staging volume, made by the pool",
        "good snapshot, made by the pool",
    ],
)
def test_a_volume_whose_creation_was_cut_short(
    site: Callable[[int], Site], notes: int, made: bool
) -> None:
    """LVM has it, no activation makes it; it is removed and made again.

    Either the pool was not told of it ("No data available"), or it made it and was not told the
    transaction: then LVM would have it made again with its next change, and fail for good ("already
    contain thin device").
    """
    here = site(3)
    replica = here.hosts.pair.replica
    here.pushed()
    here.change_source()
    replica.cut_power_after_notes(notes)
    push = here.hosts.start_push("--retry")
    assert cut_during(push, replica, here.rng)
    replica.boot()
    activation = replica.run("vgchange -ay vgreplica", timeout_seconds=60, check=False)
    transactions = here.groups.target_pool.transactions()
    if made:
        here.groups.target_pool.make_what_is_noted()
    here.set_up(replica)
    here.ends_well(push)
    assert transactions[0] > transactions[1], f"the cut came elsewhere: {activation.stderr}"


@pytest.mark.timeout(1800)
def test_a_sender_whose_power_fails(site: Callable[[int], Site]) -> None:
    here = site(2)
    origin = here.hosts.pair.origin
    disk = origin.disks[0].volatile
    assert disk is not None
    before = disk.writes
    here.pushed()
    writes = disk.writes - before
    during = 0
    for number in range(SENDER_CUTS):
        with counted("power cuts of the sender"):
            here.change_source()
            origin.cut_power_after(here.rng.randint(1, writes))
            during += cut_during(here.hosts.start_push("--retry"), origin, here.rng)
            here.expected.check_goods()
            origin.boot()
            here.set_up(origin)
            assert here.groups.thin_volume.digest() == here.expected.states[-1]
            if here.rng.random() < 0.4 or number == SENDER_CUTS - 1:
                here.hosts.push("--retry", "--quiet")
                here.expected.learn()
    assert during >= SENDER_CUTS // 2
