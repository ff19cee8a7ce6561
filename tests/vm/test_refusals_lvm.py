"""Bad input on real LVM: each is a clear error of its own class, and nothing is lost (I7, I10)."""

from __future__ import annotations

import pytest

from vm.conftest import Groups, MakeGroups
from vm.deployment import CERTIFICATES, SOURCE, TARGET, Deployment, deploy, tagged
from vm.harness.channel import Result
from vm.harness.machine import Machine
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm


@pytest.fixture
def hosts(pair: Pair) -> Deployment:
    return deploy(pair)


def sh(machine: Machine, script: str) -> str:
    return machine.run(script, timeout_seconds=120).stdout


def assert_refused(result: Result, code: int, *words: str) -> None:
    """One error, its code, what is safe; no traceback."""
    text = result.stderr
    assert result.rc == code, text
    assert all(word in text for word in words), text
    assert "Traceback" not in text
    assert len(text.strip().splitlines()) <= 5, text


def test_sources_that_cannot_be_pushed(hosts: Deployment, groups: Groups) -> None:
    origin = hosts.pair.origin
    sh(origin, "lvcreate -q -Wn -L 16m -n thick volg")
    sh(hosts.pair.replica, "blockrep certs issue local --client")
    local = f"certificate = '{CERTIFICATES}/local.pem'\nkey = '{CERTIFICATES}/local.key'\n"
    hosts.pair.replica.write_file("/etc/blockrep/client.toml", f"[tls]\n{local}")
    before = groups.target_pool.volumes()
    with hosts.server():
        for source, code, words in (
            ("volg/none", 10, "no such logical volume"),
            ("none/none", 10, "no such volume group"),
            ("volg/thick", 10, "thin"),
            ("volg/pool", 10, "thin"),
        ):
            refused = hosts.run("push", source, TARGET, check=False)
            assert_refused(refused, code, words, source.split("/")[0])
        for source in ("-rf", "@tag", "volg", "volg/../x", "volg/", "volg/a b"):
            refused = hosts.run("push", "--", source, TARGET, check=False)
            assert_refused(refused, 2)
        groups.target_pool.create_volume("own", 16 * MIB)
        same = hosts.pair.replica.run(
            "blockrep push --config /etc/blockrep/client.toml vgreplica/own replica:vgreplica/own",
            timeout_seconds=120, check=False,
        )  # fmt: skip
        assert_refused(same, 10, "same volume")
        sh(hosts.pair.replica, "lvremove -qy vgreplica/own")
    assert groups.target_pool.volumes().keys() == before.keys()
    assert tagged(groups.source_pool, "source") == []


def test_hosts_that_lack_something(hosts: Deployment, groups: Groups) -> None:
    origin = hosts.pair.origin
    groups.thin_volume.write_random(0, MIB)
    fake = "/usr/local/sbin/thin_delta"
    with hosts.server():
        not_root = f"setpriv --reuid 65534 --clear-groups env HOME=/tmp blockrep delta {SOURCE}"
        assert_refused(origin.run(not_root, timeout_seconds=60, check=False), 9, "root")
        for version in ("1.0.0", "1.0.5"):
            origin.write_file(fake, f"#!/bin/sh\necho 'thin_delta {version}'\n", mode=0o755)
            assert_refused(hosts.push(check=False), 9, version)
        # Calls itself good, and misses changes: only the self-test notices.
        liar = (
            "#!/bin/sh\ncase $* in *-V*|*--version*) echo 0.9.0; exit;; esac\n"
            '/usr/sbin/thin_delta "$@" | sed "0,/<different/s/<different/<same/"\n'
        )
        origin.write_file(fake, liar, mode=0o755)
        assert_refused(hosts.push(check=False), 9, "thin_delta")
        sh(origin, f"rm {fake}; mv /usr/sbin/thin_delta /root/")
        assert_refused(hosts.push(check=False), 9, "thin_delta", "install")
        sh(origin, "mv /root/thin_delta /usr/sbin/")
        assert tagged(groups.source_pool, "source") == []
        hosts.push()


def test_a_mounted_replica_is_refused(hosts: Deployment, groups: Groups) -> None:
    sh(hosts.pair.origin, f"mkfs.ext4 -q {groups.thin_volume.path}")
    with hosts.server():
        hosts.push()
        before = groups.replica_volume.digest()
        mount = "mkdir -p /mnt/r && mount -o ro,noload /dev/vgreplica/thinv_replica /mnt/r"
        sh(hosts.pair.replica, mount)
        groups.thin_volume.write_random(8 * MIB, MIB)
        assert_refused(hosts.push(check=False), 10, "in use", "unmount")
        assert groups.replica_volume.digest() == before
        assert tagged(groups.target_pool, "staging") == []
        sh(hosts.pair.replica, "umount /mnt/r")
        hosts.push()
        assert groups.replica_volume.digest() != before
        assert groups.replica_volume.digest() == tagged(groups.source_pool, "source")[0].digest()


def test_a_metadata_snapshot_of_somebody_else_is_never_released(
    hosts: Deployment, groups: Groups
) -> None:
    groups.thin_volume.write_random(0, MIB)
    pool = groups.source_pool
    message = f"dmsetup message {pool.device} 0"
    with hosts.server():
        sh(hosts.pair.origin, f"{message} reserve_metadata_snap")
        held = pool.status().split()[6]
        assert_refused(hosts.push(check=False), 12, "metadata snapshot", "release")
        assert pool.status().split()[6] == held
        sh(hosts.pair.origin, f"{message} release_metadata_snap")
        hosts.push()
    assert pool.status().split()[6] == "-"


def test_pools_in_trouble(hosts: Deployment, make_groups: MakeGroups) -> None:
    """A pool that is read-only, full, or left without room is named, and gets nothing more."""
    groups = make_groups(target_pool_bytes=64 * MIB, target_error_when_full=True)
    groups.thin_volume.write_random(0, 4 * MIB)
    replica, pool = hosts.pair.replica, groups.target_pool
    table = f"dmsetup table {pool.device}"
    with hosts.server():
        hosts.push()
        before = groups.replica_volume.digest()
        groups.thin_volume.write_random(MIB, MIB)
        normal = sh(replica, table).strip()
        words = normal.split()
        features = words[8:] if len(words) > 7 else []
        read_only = " ".join([*words[:7], str(len(features) + 1), *features, "read_only"])
        reload = f"dmsetup suspend {pool.device} && dmsetup reload {pool.device} --table '%s'"
        resume = f" && dmsetup resume {pool.device}"
        sh(replica, reload % read_only + resume)
        assert_refused(hosts.push(check=False), 10, "read-only", "vgreplica/pool")
        sh(replica, reload % normal + resume)
        other = pool.create_volume("other", 128 * MIB)
        replica.run(
            f"dd if=/dev/zero of={other.path} bs=1M oflag=direct", timeout_seconds=120, check=False
        )
        assert_refused(hosts.push(check=False), 6, "full", "lvextend")
        assert groups.replica_volume.digest() == before
        sh(replica, "lvremove -qy vgreplica/other")
        hosts.push()
        assert groups.replica_volume.digest() == tagged(groups.source_pool, "source")[0].digest()


def test_volumes_and_pools_that_were_replaced(hosts: Deployment, groups: Groups) -> None:
    """Names are no identity: what was recreated is noticed, never guessed at (trap 5)."""
    origin, replica = hosts.pair.origin, hosts.pair.replica
    groups.thin_volume.write_random(0, 2 * MIB)
    with hosts.server():
        hosts.push()
        # The same name, another volume: what Proxmox's rollback does.
        sh(origin, f"lvremove -qy {SOURCE}")
        groups.source_pool.create_volume("thin_volume", 64 * MIB)
        groups.thin_volume.write_random(0, MIB)
        before = groups.replica_volume.digest()
        assert_refused(hosts.push(check=False), 5, "--adopt")
        assert groups.replica_volume.digest() == before
        hosts.push("--adopt")
        assert groups.replica_volume.digest() == groups.thin_volume.digest()
        # The replica's whole pool is lost: nothing to guess at, a full push makes it anew.
        sh(replica, "vgremove -qff vgreplica && vgcreate -q vgreplica /dev/vdb")
        sh(replica, "lvcreate -q -T -L 200m vgreplica/pool")
        hosts.push()
        assert groups.replica_volume.digest() == groups.thin_volume.digest()
        hosts.run("verify", SOURCE, TARGET)


def test_a_pool_that_does_not_zero(hosts: Deployment, make_groups: MakeGroups) -> None:
    """Chunks of such a pool show what somebody else left there, unless wholly written (trap 4)."""
    groups = make_groups(target_zero=False, target_chunk_bytes=256 * 1024, target_discards="ignore")
    junk = groups.target_pool.create_volume("junk", 128 * MIB)
    junk.write_random(0, 96 * MIB)
    sh(hosts.pair.replica, "lvremove -qy vgreplica/junk")
    with hosts.server():
        for offset_bytes, length_bytes in ((0, 70_000), (33 * MIB + 4096, 8192), (60 * MIB, MIB)):
            groups.thin_volume.write_random(offset_bytes, length_bytes)
            hosts.push()
            assert groups.replica_volume.digest() == groups.thin_volume.digest()
        groups.thin_volume.discard(0, 64 * 1024)
        groups.thin_volume.discard(60 * MIB, MIB)
        hosts.push()
        assert groups.replica_volume.digest() == groups.thin_volume.digest()
