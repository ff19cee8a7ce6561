"""The main job on real LVM: full, incremental, resumed.

The replica equals the source's snapshot after every push (I2), nothing is left behind (I7), nothing
durable is sent twice (I1).
"""

from __future__ import annotations

import random

import pytest

from vm.conftest import Groups, MakeGroups
from vm.deployment import (
    SOURCE,
    TARGET,
    Deployment,
    assert_replicated,
    deploy,
    deploy_by_hand,
    events_of,
    tagged,
)
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm


@pytest.fixture
def hosts(pair: Pair) -> Deployment:
    return deploy(pair)


def sent_bytes(events: list[dict[str, object]]) -> int:
    return sum(int(str(one["wire_bytes"])) for one in events if one["event"] == "committed")


def in_guest(groups: Groups, script: str) -> None:
    groups.source_pool.machine.run(script, timeout_seconds=120)


def test_the_seed_scenario(pair: Pair, make_groups: MakeGroups) -> None:
    hosts = deploy_by_hand(pair)
    groups = make_groups(volume_bytes=128 * MIB)
    device = groups.thin_volume.path
    in_guest(groups, f"mkfs.ext4 -q {device} && mkdir -p /mnt/t && mount {device} /mnt/t")
    in_guest(groups, "cp -r /usr/lib/python3.11/asyncio /usr/bin/perl /mnt/t/ && sync")
    with hosts.server():
        first = hosts.pushed()
        assert_replicated(groups)
        assert sent_bytes(first) < 40 * MIB, "a first push sends only what is allocated"
        in_guest(groups, "head -c 3000000 /dev/urandom >/mnt/t/new && rm -r /mnt/t/asyncio && sync")
        in_guest(groups, "fstrim /mnt/t")
        second = hosts.pushed()
        assert_replicated(groups)
        assert sent_bytes(second) < 12 * MIB
        in_guest(
            groups,
            f"lvextend -q -L +64m {SOURCE} && resize2fs {device} && echo grown >/mnt/t/g && sync",
        )
        hosts.pushed()
        assert_replicated(groups)
        assert sent_bytes(hosts.pushed()) < MIB, "what a mounted file system does by itself"
        assert_replicated(groups)
        hosts.run("verify", SOURCE, TARGET)
        assert len(tagged(groups.target_pool, "good")) == 3
    mount = "mkdir -p /mnt/r && mount -o ro,noload /dev/vgreplica/thinv_replica /mnt/r"
    groups.target_pool.machine.run(f"{mount} && cat /mnt/r/g && umount /mnt/r", timeout_seconds=60)


def test_random_writes_discards_and_growth_end_equal_after_every_push(
    hosts: Deployment, make_groups: MakeGroups
) -> None:
    groups = make_groups(source_chunk_bytes=64 * 1024, target_chunk_bytes=256 * 1024)
    chooser = random.Random(20)
    size_bytes = 64 * MIB
    with hosts.server():
        for _ in range(3):
            for _ in range(6):
                offset = chooser.randrange(0, size_bytes - MIB, 4096)
                if chooser.random() < 0.3:
                    groups.thin_volume.discard(offset, chooser.randrange(4096, MIB, 4096))
                else:
                    groups.thin_volume.write_random(offset, chooser.randrange(4096, MIB, 4096))
            if chooser.random() < 0.5:
                size_bytes += 8 * MIB
                in_guest(groups, f"lvextend -q -L {size_bytes}b {SOURCE}")
            hosts.push()
            assert_replicated(groups)


def test_a_killed_sender_resumes_without_sending_again_what_is_durable(
    hosts: Deployment, groups: Groups
) -> None:
    groups.thin_volume.write_random(0, 48 * MIB)
    hosts.pair.replica.write_file(
        "/etc/blockrep/config.toml",
        '[server]\nwindow_bytes = "4MiB"\nmax_payload_bytes = "256KiB"\n',
    )
    with hosts.server():
        push = hosts.start_push("--bwlimit", "6M")
        push.wait_for_output(r'"durable_bytes": ?(1[6-9]|[2-9][0-9])[0-9]{6}\b', 120)
        push.kill()
        push.wait(60)
        durable = max(
            one["durable_bytes"] for one in events_of(push.stdout) if one["event"] == "progress"
        )
        events = hosts.pushed()
        resumed = next(one for one in events if one["event"] == "resumed")
        assert resumed["done_bytes"] >= durable
        assert sent_bytes(events) <= 48 * MIB - durable + MIB
        assert_replicated(groups)


@pytest.mark.thorough
def test_a_killed_server_resumes(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, 48 * MIB)
    hosts.pair.replica.write_file(
        "/etc/blockrep/config.toml",
        '[server]\nwindow_bytes = "4MiB"\nmax_payload_bytes = "256KiB"\n',
    )
    server = hosts.start_server()
    push = hosts.start_push("--bwlimit", "6M")
    push.wait_for_output(r'"durable_bytes": ?(1[6-9]|[2-9][0-9])[0-9]{6}\b', 120)
    server.kill()
    assert push.wait(60).rc == 7
    with hosts.server():
        events = hosts.pushed()
        assert any(one["event"] == "resumed" for one in events)
        assert_replicated(groups)


@pytest.mark.thorough
def test_a_write_after_the_interruption_is_in_the_replica_too(
    hosts: Deployment, groups: Groups
) -> None:
    groups.thin_volume.write_random(0, 32 * MIB)
    with hosts.server():
        push = hosts.start_push("--bwlimit", "4M")
        push.wait_for_output('"event": ?"progress"', 120)
        push.kill()
        push.wait(60)
        groups.thin_volume.write_random(8 * MIB, 4 * MIB)
        hosts.push()
        assert_replicated(groups)
        assert groups.thin_volume.digest() == groups.replica_volume.digest()


def test_a_replica_that_was_written_to_is_refused_then_adopted(
    hosts: Deployment, groups: Groups
) -> None:
    groups.thin_volume.write_random(0, 4 * MIB)
    with hosts.server():
        hosts.push()
        replica = hosts.pair.replica
        replica.run("lvchange -prw vgreplica/thinv_replica", timeout_seconds=60)
        groups.replica_volume.write_random(MIB, MIB)
        before = groups.replica_volume.digest()
        refused = hosts.push(check=False)
        assert refused.rc == 5
        assert "written to" in refused.stderr
        assert groups.replica_volume.digest() == before
        events = hosts.pushed("--adopt")
        assert sent_bytes(events) < 2 * MIB
        assert_replicated(groups)


@pytest.mark.parametrize(
    ("prepare", "options", "code", "words"),
    [
        pytest.param(
            "lvcreate -q -L 64m -n thinv_replica vgreplica",
            [],
            10,
            "thin",
            marks=pytest.mark.thorough,
        ),
        ("lvcreate -q -V 64m -n thinv_replica -T vgreplica/pool", [], 10, "--adopt"),
        (
            "lvcreate -q -V 64m -n thinv_replica -T vgreplica/pool && lvchange -an vgreplica/pool",
            [],
            10,
            "",
        ),
    ],
    ids=["thick", "foreign", "foreign-inactive"],
)
def test_a_target_that_is_not_ours_is_left_alone(
    hosts: Deployment, groups: Groups, prepare: str, options: list[str], code: int, words: str
) -> None:
    hosts.pair.replica.run(prepare, timeout_seconds=60)
    before = groups.target_pool.volumes()
    with hosts.server():
        refused = hosts.push(*options, check=False)
    assert (refused.rc, words in refused.stderr) == (code, True), refused.stderr
    assert groups.target_pool.volumes() == before
    assert tagged(groups.source_pool, "source") == []


def test_a_pool_without_room_is_noticed_before_the_first_byte(
    hosts: Deployment, make_groups: MakeGroups
) -> None:
    groups = make_groups(target_pool_bytes=32 * MIB)
    groups.thin_volume.write_random(0, 48 * MIB)
    with hosts.server():
        refused = hosts.push(check=False)
    assert refused.rc == 6
    assert "lvextend" in refused.stderr
    assert not groups.replica_volume.exists()
    assert tagged(groups.target_pool, "staging") == []
    assert tagged(groups.source_pool, "source") == []


def test_signals_while_the_metadata_is_reserved_leave_nothing_reserved(
    hosts: Deployment, groups: Groups
) -> None:
    """thin-send-recv's case: whatever kills the sender, the next push finds the pool free."""
    groups.thin_volume.write_random(0, 4 * MIB)
    with hosts.server():
        for name in ("TERM", "INT", "KILL"):
            slow = "#!/bin/sh\necho reserved >/run/reserved\nsleep 8\nexit 1\n"
            hosts.pair.origin.write_file("/usr/local/sbin/thin_dump", slow, mode=0o755)
            push = hosts.start_push()
            wait = "until [ -e /run/reserved ]; do sleep 0.1; done; rm /run/reserved"
            hosts.pair.origin.run(wait, timeout_seconds=60)
            hosts.pair.origin.run(f"pkill -{name} -f '[b]lockrep push'", timeout_seconds=30)
            push.wait(60)
            hosts.pair.origin.run(
                "rm /usr/local/sbin/thin_dump; pkill sleep; true", timeout_seconds=30
            )
        hosts.push()
        assert_replicated(groups)


def test_a_push_with_nothing_changed_does_not_read_the_volume(
    hosts: Deployment, make_groups: MakeGroups
) -> None:
    groups = make_groups(volume_bytes=100 * 1024 * MIB)
    groups.thin_volume.write_random(50 * 1024 * MIB, 4 * MIB)
    with hosts.server():
        hosts.push()
        counter = "awk '$3 ~ /^vd/ {sum += $6} END {print sum}' /proc/diskstats"
        before = hosts.pair.origin.run(counter, timeout_seconds=30).stdout.split()[-1]
        assert sent_bytes(hosts.pushed()) == 0
        after = hosts.pair.origin.run(counter, timeout_seconds=30).stdout.split()[-1]
        assert (int(after) - int(before)) * 512 < 16 * MIB


@pytest.mark.thorough
def test_of_a_changed_chunk_only_changed_pages_are_sent(
    hosts: Deployment, make_groups: MakeGroups
) -> None:
    """A database writes pages of 8 KiB all over; a chunk of 1 MiB changes as a whole."""
    groups = make_groups(source_chunk_bytes=MIB, target_chunk_bytes=128 * 1024)
    groups.thin_volume.write_random(0, 48 * MIB)
    with hosts.server():
        hosts.push()
        sent = []
        for options in (["--no-page-delta"], ["--page-delta"], []):
            for chunk in range(40):
                groups.thin_volume.write_random(chunk * MIB + 40 * 1024, 8 * 1024)
            events = hosts.pushed("--no-compress", *options)
            sent.append(sent_bytes(events))
            assert_replicated(groups)
            (spent,) = [one for one in events if one["event"] == "spent"]
            assert {"lvs", "lvcreate", "thin_delta"} <= {name for name, _, _ in spent["commands"]}
            assert spent["target_command_count"] > 10
            assert spent["metadata_snapshot_seconds"] > 0
    whole, pages, by_itself = sent
    assert whole >= 40 * MIB
    assert pages < 40 * 12 * 1024
    assert by_itself < 40 * 12 * 1024
