"""Pools that fill, volumes that vanish, tools and clocks that lie: on real LVM (I3, I8, I10)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vm.conftest import Groups, MakeGroups
from vm.deployment import Deployment, assert_replicated, deploy, tagged
from vm.harness.channel import Result
from vm.harness.machine import Machine
from vm.harness.pair import Pair
from vm.harness.volumes import MIB, ThinPool

pytestmark = pytest.mark.vm


@pytest.fixture
def hosts(pair: Pair) -> Iterator[Deployment]:
    hosts = deploy(pair)
    yield hosts
    for machine in pair.machines:
        sh(machine, "rm -f /usr/local/sbin/thin_*")


def sh(machine: Machine, script: str) -> str:
    return machine.run(script, timeout_seconds=120).stdout


def goods(groups: Groups) -> dict[str, str]:
    pool = groups.target_pool
    return pool.digests([good.name for good in tagged(pool, "good")])


@pytest.mark.parametrize(
    "error_when_full",
    [True, pytest.param(False, marks=pytest.mark.thorough)],
    ids=["errors", "queues"],
)
def test_a_pool_that_somebody_fills_during_a_push(
    hosts: Deployment, make_groups: MakeGroups, error_when_full: bool
) -> None:
    """The push gives way, at its reserve: the pool's other users keep what is left (I8)."""
    groups = make_groups(target_pool_bytes=128 * MIB, target_error_when_full=error_when_full)
    groups.thin_volume.write_random(0, 2 * MIB)
    replica, pool = hosts.pair.replica, groups.target_pool
    with hosts.server():
        hosts.push()
        before = goods(groups)
        groups.thin_volume.write_random(0, 48 * MIB)
        push = hosts.start_push("--bwlimit", "3M")
        push.wait_for_output(r'"done_bytes": ?[1-9]', 120)
        guest = pool.create_volume("guest", 128 * MIB)
        # Up to 20 MiB, whatever the push takes meanwhile; it goes on down to the reserve.
        dd = f"dd if=/dev/zero of={guest.path} bs=64k oflag=direct status=none"
        awk = """awk '{split($6, n, "/"); print n[2] - n[1]}'"""
        script = f"fill() {{ {dd} seek=$1 count=$2; }}\n"
        script += f"free() {{ dmsetup status --noflush {pool.device} | {awk}; }}\n"
        loop = "at=0; while [ $(free) -gt 320 ]; do fill $at 64; at=$((at + 64)); done; echo $at"
        chunks = int(sh(replica, script + loop).split()[-1])
        ended = push.wait(120)
        assert ended.rc == 6, ended.stderr
        assert "lvextend" in ended.stderr
        assert "out_of_data_space" not in pool.status()
        sh(replica, script + f"fill {chunks} 16")  # the guest goes on
        assert goods(groups) == before
        sh(replica, "lvremove -qy vgreplica/guest")
        hosts.push()
        assert_replicated(groups)


@contextmanager
def little_metadata(machine: Machine, pool: ThinPool) -> Iterator[None]:
    """Let somebody take the room for metadata, but for less than the reserve."""
    used, total = (int(word) for word in pool.status().split()[4].split("/"))
    # Each thin volume takes a block of metadata of its own.
    loop = (
        f"for id in $(seq 100001 {100_000 + total - used - 90}); do dmsetup message {pool.device} 0"
    )
    sh(machine, f'{loop} "create_thin $id" || exit 1; done')
    yield
    sh(machine, f'{loop} "delete $id" || exit 1; done')


def assert_no_metadata(ended: Result, pool: ThinPool) -> None:
    """It was told what to do, and the pool goes on."""
    assert ended.rc == 6, ended.stderr
    assert "metadata" in ended.stderr
    assert "--poolmetadatasize" in ended.stderr
    assert " rw " in pool.status()


def test_a_pool_whose_metadata_fills(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, 2 * MIB)
    with hosts.server():
        hosts.push()
        before = goods(groups)
        groups.thin_volume.write_random(0, 2 * MIB)
        with little_metadata(hosts.pair.replica, groups.target_pool):
            assert_no_metadata(hosts.push(check=False), groups.target_pool)
            assert goods(groups) == before
        hosts.push()
        assert_replicated(groups)


@pytest.mark.thorough
def test_a_pool_whose_metadata_fills_during_a_push(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, 2 * MIB)
    with hosts.server():
        hosts.push()
        before = goods(groups)
        groups.thin_volume.write_random(0, 24 * MIB)
        push = hosts.start_push("--bwlimit", "250k")
        push.wait_for_output(r'"durable_bytes": ?[1-9]', 120)
        with little_metadata(hosts.pair.replica, groups.target_pool):
            assert_no_metadata(push.wait(120), groups.target_pool)
            assert goods(groups) == before
        resumed = hosts.pushed()
        assert "resumed" in {one["event"] for one in resumed}
        assert_replicated(groups)


@pytest.mark.thorough
def test_snapshots_that_somebody_removes(hosts: Deployment, groups: Groups) -> None:
    """During a push, after it failed, at either end: nothing is guessed."""
    groups.thin_volume.write_random(0, 16 * MIB)
    origin, replica = hosts.pair.origin, hosts.pair.replica
    with hosts.server():
        push = hosts.start_push("--bwlimit", "2M")
        push.wait_for_output(r'"done_bytes": ?[1-9]', 120)
        (pending,) = tagged(groups.source_pool, "source")
        in_use = origin.run(["lvremove", "-qy", pending.full_name], check=False, timeout_seconds=60)
        assert in_use.rc != 0, "it is in use"
        push.kill()
        push.wait(60)
        sh(origin, f"lvchange -an {pending.full_name}; lvremove -qy {pending.full_name}")
        hosts.push()
        assert_replicated(groups)
        for machine, pool, role in (
            (origin, groups.source_pool, "source"),
            (replica, groups.target_pool, "good"),
        ):
            groups.thin_volume.write_random(MIB, MIB)
            for snapshot in tagged(pool, role):
                sh(machine, f"lvremove -qy {snapshot.full_name}")
            before = groups.replica_volume.digest()
            refused = hosts.push(check=False)
            assert refused.rc == 5, refused.stderr
            assert "--adopt" in refused.stderr
            assert groups.replica_volume.digest() == before
            hosts.push("--adopt")
            assert_replicated(groups)


def test_a_thin_delta_that_is_cut_short(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, 2 * MIB)
    origin = hosts.pair.origin
    with hosts.server():
        hosts.push()
        before = goods(groups)
        groups.thin_volume.write_random(4 * MIB, 2 * MIB)
        path = sh(origin, "command -v thin_delta").strip()
        # Its self-test, on a file, is passed; a pool's metadata is a device.
        cut = f'*tmeta) {path} "$@" | head -n 4;;'
        script = f'#!/bin/sh\ncase "$*" in {cut} *) exec {path} "$@";; esac\n'
        origin.write_file("/usr/local/sbin/thin_delta", script, mode=0o755)
        refused = hosts.push(check=False)
        assert refused.rc == 11, refused.stderr
        assert goods(groups) == before
        assert groups.source_pool.status().split()[6] == "-"
        sh(origin, "rm /usr/local/sbin/thin_delta")
        hosts.push()
        assert_replicated(groups)


@pytest.mark.thorough
def test_clocks_that_jump_by_years(hosts: Deployment, groups: Groups) -> None:
    """Deadlines and the order of snapshots do not come from the clock; certificates do."""
    machines = hosts.pair.machines
    groups.thin_volume.write_random(0, 8 * MIB)
    with hosts.server():
        hosts.push()
        for years in (-20, 20):
            groups.thin_volume.write_random(0, 8 * MIB)
            push = hosts.start_push("--bwlimit", "2M")
            push.wait_for_output(r'"done_bytes": ?[1-9]', 120)
            for machine in machines:
                sh(machine, f"date -s @$(($(date +%s) + {years} * 31557600))")
            try:
                assert push.wait(120).rc == 0
                refused = hosts.push(check=False)
                assert refused.rc == 3, refused.stderr
                assert "certificate" in refused.stderr
            finally:
                for machine in machines:
                    sh(machine, f"date -s @$(($(date +%s) - {years} * 31557600))")
            assert_replicated(groups)
        groups.thin_volume.write_random(0, MIB)
        hosts.push()
        assert_replicated(groups)
        assert len(tagged(groups.target_pool, "good")) == 3, "so many are kept, in their order"
