"""blockrep as an administrator sets it up on two hosts, and what the tests ask of it."""

from __future__ import annotations

import functools
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blockrep.certificates.authority import create_authority, issue
from blockrep.certificates.naming import Role
from vm.harness.channel import Process, Result
from vm.harness.groups import Groups
from vm.harness.machine import Machine
from vm.harness.pair import Pair
from vm.harness.volumes import ThinPool, ThinVolume

SOURCE = "volg/thin_volume"
TARGET = "replica:vgreplica/thinv_replica"
CERTIFICATES = "/etc/blockrep/certs"
PUSH_SECONDS = 300.0
#: Of hosts that notice a dead peer in seconds, so that a cut costs no more.
IMPATIENT = """
[client]
connect_timeout_seconds = 5
retry_longest_wait_seconds = 2
[server]
heartbeat_seconds = 1
peer_timeout_seconds = 8
window_bytes = "2MiB"
max_payload_bytes = "64KiB"
"""


@dataclass(frozen=True)
class Deployment:
    """Two hosts with certificates; the server is started by the test."""

    pair: Pair

    @contextmanager
    def server(self, *options: str) -> Iterator[Process]:
        """Run ``blockrep-server --listen`` on the replica for a while."""
        process = self.start_server(*options)
        try:
            yield process
        finally:
            if process.running:
                process.terminate()
                process.wait(60)

    def start_server(self, *options: str) -> Process:
        process = self.pair.replica.spawn(["blockrep-server", "--listen", *options])
        process.wait_for_output("listening on", timeout_seconds=60)
        return process

    def push(self, *options: str, check: bool = True) -> Result:
        """Run a push to its end."""
        return self.run("push", SOURCE, TARGET, *options, check=check)

    def start_push(self, *options: str) -> Process:
        return self.pair.origin.spawn(["blockrep", "push", SOURCE, TARGET, "--json", *options])

    def run(self, *words: str, check: bool = True) -> Result:
        """Run ``blockrep`` on the origin."""
        return self.pair.origin.run(["blockrep", *words], timeout_seconds=PUSH_SECONDS, check=check)

    def pushed(self, *options: str) -> list[dict[str, Any]]:
        """Push and return the events."""
        return events_of(self.push("--json", *options).stdout)


def events_of(output: str) -> list[dict[str, Any]]:
    """Return the JSON objects of ``--json``, one for each line."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def deploy(pair: Pair) -> Deployment:
    """Put an authority and certificates on both; they are made here, once, since that is faster."""
    forget(pair)
    for machine in pair.machines:
        give_certificates(machine)
    return Deployment(pair)


def give_certificates(machine: Machine) -> None:
    """Put on a host what it needs of the authority."""
    name = machine.host.name
    names = ["ca.pem", f"{name}.pem", f"{name}.key", *(["ca.key"] if name == "replica" else [])]
    machine.run(["mkdir", "-p", "-m", "700", CERTIFICATES], timeout_seconds=30)
    for file in names:
        machine.write_file(f"{CERTIFICATES}/{file}", certificates()[file], mode=0o600)


@functools.cache
def certificates() -> dict[str, bytes]:
    """Return the files of an authority, a server "replica" and a client "origin"."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "certs"
        create_authority(folder)
        issue(folder, "replica", [Role.SERVER])
        issue(folder, "origin", [Role.CLIENT])
        return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def forget(pair: Pair) -> None:
    """Remove what an earlier test left of blockrep: the machines outlive a test."""
    for machine in pair.machines:
        script = "rm -rf /etc/blockrep /var/lib/blockrep /run/blockrep /usr/local/sbin/thin_*"
        machine.run(script, timeout_seconds=30)


def deploy_by_hand(pair: Pair) -> Deployment:
    """Set up two hosts with the commands of README.md."""
    forget(pair)
    for words in (
        ["certs", "init"],
        ["certs", "issue", "replica", "--server", "--host", "replica"],
        ["certs", "issue", "origin", "--client"],
    ):
        pair.replica.run(["blockrep", *words], timeout_seconds=60)
    pair.origin.run(["mkdir", "-p", "-m", "700", CERTIFICATES], timeout_seconds=30)
    for name in ("ca.pem", "origin.pem", "origin.key"):
        content = pair.replica.read_file(f"{CERTIFICATES}/{name}")
        pair.origin.write_file(f"{CERTIFICATES}/{name}", content, mode=0o600)
    pair.replica.run(["rm", f"{CERTIFICATES}/origin.key"], timeout_seconds=30)
    return Deployment(pair)


def tagged(pool: ThinPool, role: str) -> list[ThinVolume]:
    """Return blockrep's volumes of one role, oldest first."""
    return _tagged(pool, pool.volumes(), role)


def _tagged(pool: ThinPool, reports: dict[str, dict[str, str]], role: str) -> list[ThinVolume]:
    found = []
    for name, report in reports.items():
        tags = report["lv_tags"].split(",")
        if f"blockrep.role={role}" in tags:
            sequence = next(
                (int(tag.split("=")[1]) for tag in tags if tag.startswith("blockrep.seq=")), 0
            )
            found.append((sequence, pool.volume(name.strip("[]"))))
    return [volume for _, volume in sorted(found, key=lambda pair: pair[0])]


def assert_replicated(groups: Groups) -> dict[str, str]:
    """Source snapshot, newest good snapshot and replica are equal, and nothing else is left.

    Return the digests of all good snapshots, by name.
    """
    source, target = groups.source_pool, groups.target_pool
    (snapshot,) = tagged(source, "source")
    reports = target.volumes()
    good = [volume.name for volume in _tagged(target, reports, "good")]
    digests = target.digests([*good, groups.replica_volume.name])
    assert digests[good[-1]] == digests[groups.replica_volume.name] == snapshot.digest()
    assert _tagged(target, reports, "staging") == []
    for pool in (source, target):
        assert pool.status().split()[6] == "-", "a metadata snapshot was left reserved"
    assert reports[groups.replica_volume.name]["lv_permissions"] == "read-only"
    return {name: digests[name] for name in good}


@dataclass
class Expected:
    """What the good snapshots should hold.

    ``goods``: digests of the good snapshots when they were last looked at; ``states``: of the
    source since a push last ended, oldest first.
    """

    groups: Groups
    goods: dict[str, str] = field(default_factory=dict)
    states: list[str] = field(default_factory=list)

    def note_source(self) -> None:
        """Note what the source holds now: a push may bring it over."""
        self.states.append(self.groups.thin_volume.digest())

    def check_goods(self) -> None:
        """Check the good snapshots as they are, whatever else is; a new one is some state whole."""
        pool = self.groups.target_pool
        self._take(pool.digests([good.name for good in tagged(pool, "good")]))

    def learn(self) -> None:
        """Check both ends after a push."""
        self._take(assert_replicated(self.groups))
        self.states = []

    def _take(self, found: dict[str, str]) -> None:
        # One push may finish a transfer and make another: fewer than are kept.
        assert not self.goods or set(self.goods) & set(found), "good snapshots are gone"
        for name, digest in found.items():
            allowed = [self.goods[name]] if name in self.goods else self.states
            assert digest in allowed, f"{name} is not what it was"
        self.goods = found
