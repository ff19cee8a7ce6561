"""LVM over SSH between two hosts with nothing but sshd: pushed, resumed, pulled, locked down."""

from __future__ import annotations

import shlex

import pytest

from vm.conftest import Groups
from vm.deployment import SOURCE, Deployment, deploy, events_of, forget, tagged
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm

URL = "ssh://root@replica/vgreplica/thinv_replica"


@pytest.fixture
def hosts(pair: Pair) -> Deployment:
    forget(pair)
    pair.enable_ssh()
    return Deployment(pair)


def assert_equal(groups: Groups) -> None:
    (snapshot,) = tagged(groups.source_pool, "source")
    assert groups.replica_volume.digest() == snapshot.digest() == groups.thin_volume.digest()


def test_nothing_but_sshd_is_needed(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, 8 * MIB)
    hosts.run("push", SOURCE, URL)
    assert_equal(groups)
    groups.thin_volume.write_random(4 * MIB, MIB)
    done = hosts.run("push", SOURCE, URL, "--ssh-command", "ssh", "--json")
    (sent,) = [one["wire_bytes"] for one in events_of(done.stdout) if one["event"] == "committed"]
    assert MIB <= sent < 2 * MIB
    assert_equal(groups)


@pytest.mark.thorough
def test_a_killed_ssh_resumes(hosts: Deployment, groups: Groups) -> None:
    groups.thin_volume.write_random(0, 32 * MIB)
    hosts.pair.replica.write_file(
        "/etc/blockrep/config.toml",
        '[server]\nwindow_bytes = "4MiB"\nmax_payload_bytes = "256KiB"\n',
    )
    words = ["blockrep", "push", SOURCE, URL, "--ssh-command", "ssh", "--bwlimit", "6M", "--json"]
    push = hosts.pair.origin.spawn(words)
    push.wait_for_output(r'"durable_bytes": ?[1-9][0-9]{6}', 120)
    hosts.pair.origin.run("pkill -KILL -x ssh", timeout_seconds=30)
    assert push.wait(120).rc == 7
    events = events_of(hosts.run("push", SOURCE, URL, "--json").stdout)
    assert any(one["event"] == "resumed" for one in events)
    assert_equal(groups)


def test_a_locked_down_key_reaches_its_target_and_nothing_else(pair: Pair, groups: Groups) -> None:
    forget(pair)
    hosts = Deployment(pair)
    groups.thin_volume.write_random(0, MIB)
    pair.enable_ssh('command="blockrep-server --stdio --as alpha",restrict')
    pair.replica.write_file(
        "/etc/blockrep/config.toml",
        '[clients.alpha]\ntargets = [{ name = "vgreplica/thinv_replica" }]\n',
    )
    hosts.run("push", SOURCE, URL)
    assert_equal(groups)
    before = groups.target_pool.volumes().keys()
    refused = hosts.run("push", SOURCE, "ssh://root@replica/vgreplica/other", check=False)
    assert (refused.rc, "not allowed" in refused.stderr) == (4, True), refused.stderr
    shell = shlex.join(["ssh", "root@replica", "lvcreate -q -V 8m -n evil -T vgreplica/pool"])
    pair.origin.run(f"{shell} </dev/null; true", timeout_seconds=60)
    assert groups.target_pool.volumes().keys() == before


def test_pulled_by_a_server_without_privileges_beyond_those_of_its_unit(
    pair: Pair, groups: Groups
) -> None:
    """The capabilities that systemd/blockrep-server.service leaves are enough for LVM."""
    hosts = deploy(pair)
    groups.thin_volume.write_random(0, 4 * MIB)
    unit = "setpriv --no-new-privs --bounding-set=-all,+sys_admin,+ipc_lock,+sys_nice"
    rules = (
        '[clients.origin]\ntargets = [{ name = "vgreplica/*", operations = ["push", "pull"] }]\n'
    )
    pair.replica.write_file("/etc/blockrep/config.toml", rules)
    server = pair.replica.spawn(f"exec {unit} blockrep-server --listen")
    server.wait_for_output("listening on", 60)
    hosts.push()
    assert_equal(groups)
    # Back again: the replica is a volume like any other.
    hosts.run("pull", "replica:vgreplica/thinv_replica", "volg/back")
    assert groups.source_pool.volume("back").digest() == groups.thin_volume.digest()
    server.terminate()
    assert server.wait(60).rc == 0
