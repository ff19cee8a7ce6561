"""The commands of docs/recovery.md on real LVM: a replica is used, and the way back leads home."""

from __future__ import annotations

import json

import pytest

from vm.conftest import Groups
from vm.deployment import SOURCE, Deployment, deploy
from vm.harness.machine import Machine
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm

REPLICA = "vgreplica/thinv_replica"
RULES = """
[clients.origin]
targets = [
  { name = "vgreplica/thinv_replica" },
  { name = "vgreplica/vm_live", operations = ["pull"] },
]
"""


@pytest.fixture
def hosts(pair: Pair) -> Deployment:
    return deploy(pair)


def sh(machine: Machine, script: str) -> str:
    return machine.run(script, timeout_seconds=120).stdout


def snapshots(machine: Machine, volume: str) -> list[dict[str, str]]:
    """Return what ``blockrep list VOLUME --json`` says on that host."""
    output = sh(machine, f"blockrep list {volume} --json")
    return [json.loads(line) for line in output.splitlines()]


def test_a_replica_is_used_and_its_content_comes_home(hosts: Deployment, groups: Groups) -> None:
    origin, replica = hosts.pair.machines
    replica.write_file("/etc/blockrep/config.toml", RULES)
    groups.thin_volume.write_random(0, 4 * MIB)
    with hosts.server():
        hosts.push()
        first = groups.thin_volume.digest()
        groups.thin_volume.write_random(MIB, MIB)
        hosts.push()
        second = groups.thin_volume.digest()

        sh(replica, f"lvcreate -q -s -kn -n vm_live {REPLICA}")
        live = groups.target_pool.volume("vm_live")
        assert live.digest() == second
        older = snapshots(replica, REPLICA)[0]["name"]
        assert older.startswith("br_g_")
        sh(replica, f"lvcreate -q -s -kn -n vm_older vgreplica/{older}")
        assert groups.target_pool.volume("vm_older").digest() == first

        live.write_random(2 * MIB, MIB)
        third = live.digest()
        pulled = origin.run(
            f"blockrep pull replica:vgreplica/vm_live {SOURCE} --adopt --json", timeout_seconds=300
        )
        assert '"adopt"' in pulled.stdout
        assert groups.thin_volume.digest() == third
        sh(origin, f"lvchange -prw {SOURCE}")
        groups.thin_volume.write_random(3 * MIB, 65536)
        (decided,) = [one for one in hosts.pushed() if one["event"] == "decided"]
        assert decided["mode"] == "incremental"
        assert groups.replica_volume.digest() == groups.thin_volume.digest()

    held = [one for one in snapshots(origin, SOURCE) if one["target"].endswith(REPLICA)]
    assert held
    for one in held:
        sh(origin, f"lvremove -qy volg/{one['name']}")
    assert hosts.run("doctor", "--quiet", check=False).rc == 0
