"""doctor on real LVM: what was left behind is found and removed, what is not ours stays (I7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from vm.conftest import Groups
from vm.deployment import SOURCE, TARGET, Deployment, deploy, events_of
from vm.harness.machine import Machine
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm


@pytest.fixture
def hosts(pair: Pair) -> Deployment:
    return deploy(pair)


def doctor(machine: Machine, *options: str, code: int = 0) -> list[dict[str, Any]]:
    """Return the findings that are not ok."""
    command = ["blockrep", "doctor", "--json", *options]
    done = machine.run(command, timeout_seconds=120, check=False)
    assert done.rc == code, done.stdout + done.stderr
    findings = events_of(done.stdout)
    assert [one for one in findings if one["where"] == "thin_delta" and one["level"] == "ok"]
    # The pools of these tests queue, as LVM makes them.
    problems = [one for one in findings if one["level"] != "ok"]
    return [one for one in problems if "when it is full" not in one["what"]]


def sh(machine: Machine, script: str) -> None:
    machine.run(script, timeout_seconds=120)


def test_two_hosts_that_replicate_are_well(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, MIB)
    with hosts.server():
        hosts.push()
        assert doctor(hosts.pair.origin, TARGET) == []
        assert doctor(hosts.pair.replica) == []


@pytest.mark.thorough
def test_what_a_removed_source_left_is_found_and_removed(hosts: Deployment, groups: Groups) -> None:
    origin = hosts.pair.origin
    with hosts.server():
        hosts.push()
    # Named like ours, without tags; and with our tags, copied, on a volume of another pool.
    sh(origin, f"lvcreate -qq -s -n br_s_mine {SOURCE} && lvremove -qq -y {SOURCE}")
    (found,) = doctor(origin)
    assert found["what"].startswith("is the snapshot of a source volume that is gone")
    assert found["fixable"]
    (fixed,) = doctor(origin, "--fix")
    assert fixed["fixed"]
    assert doctor(origin) == []
    names = set(groups.source_pool.volumes())
    assert "br_s_mine" in names
    assert not any(name.startswith("br_s_") and name != "br_s_mine" for name in names)


@pytest.mark.thorough
def test_what_a_removed_replica_left_is_found_and_last_copies_stay(
    hosts: Deployment, groups: Groups
) -> None:
    replica = hosts.pair.replica
    groups.thin_volume.write_random(0, 8 * MIB)
    with hosts.server() as server:
        hosts.push()
        groups.thin_volume.write_random(0, 8 * MIB)
        push = hosts.start_push("--bwlimit", "1M")
        push.wait_for_output(r'"durable_bytes": ?[1-9]', timeout_seconds=120)
        push.kill()
        server.kill()
    sh(replica, "lvremove -qq -y vgreplica/thinv_replica")
    staging, good = sorted(doctor(replica), key=lambda one: str(one["what"]), reverse=True)
    assert staging["what"].startswith("is an unfinished transfer to a replica that is gone")
    assert "perhaps the last copy" in good["what"]
    assert (staging["fixable"], good["fixable"]) == (True, False)
    doctor(replica, "--fix")
    (left,) = doctor(replica)
    assert left == good


def test_a_metadata_snapshot_is_released_if_ours_died_with_it(
    hosts: Deployment, groups: Groups
) -> None:
    origin, pool = hosts.pair.origin, groups.source_pool
    sh(origin, f"dmsetup message {pool.device} 0 reserve_metadata_snap")
    (found,) = doctor(origin, "--fix")
    assert "reserved by another program" in found["what"]
    root = pool.status().split()[6]
    assert root != "-", "what somebody else holds was released"
    uuid = pool.volumes()[pool.name]["lv_uuid"]
    record = f"/var/lib/blockrep/metadata-snapshots/{uuid}.json"
    origin.write_file(record, json.dumps({"transaction": 1, "root": int(root)}))
    (found,) = doctor(origin, "--fix")
    assert "reserved by a blockrep that died" in found["what"]
    assert found["fixed"]
    assert pool.status().split()[6] == "-"
    assert doctor(origin) == []
