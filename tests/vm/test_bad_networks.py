"""Bad lines between two hosts with real LVM: lossy, late, cut, half-open, changing bytes.

Whatever the line does, a push ends equal or as resumable, and nothing durable is sent twice (I1,
I10). How long something takes is told by the guests' own words, never measured here: emulated
machines are slow, and not equally so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.reports import record
from vm.conftest import Groups, MakeGroups
from vm.deployment import IMPATIENT, PUSH_SECONDS, Deployment, assert_replicated, deploy, events_of
from vm.harness.channel import Process
from vm.harness.link import BOTH, Direction, Link
from vm.harness.pair import Pair
from vm.harness.volumes import MIB

pytestmark = pytest.mark.vm

DATA_BYTES = 16 * MIB
SILENCE = "nothing was heard from the peer for 8 seconds"
#: How a session ends whose peer gave up first, and whose socket could still say so.
GONE = "the connection broke|it was cut"


@dataclass
class Site:
    """Two hosts, a running server, and a volume that was never pushed."""

    hosts: Deployment
    groups: Groups
    server: Process

    @property
    def link(self) -> Link:
        return self.hosts.pair.link

    def start_push(self, *options: str) -> Process:
        """Start a push that takes some seconds; return once some of it is durable."""
        push = self.hosts.start_push("--bwlimit", "2M", *options)
        push.wait_for_output(r'"durable_bytes": ?[1-9]', 120)
        return push

    def resumed(self, push: Process) -> None:
        """Push again what was interrupted: at once, and without what was durable."""
        durable = max(one["durable_bytes"] for one in progress_of(push))
        events = self.hosts.pushed()
        assert next(one for one in events if one["event"] == "resumed")["done_bytes"] >= durable
        assert_replicated(self.groups)


@pytest.fixture
def site(pair: Pair, make_groups: MakeGroups) -> Iterator[Site]:
    hosts = deploy(pair)
    for machine in pair.machines:
        machine.write_file("/etc/blockrep/config.toml", IMPATIENT)
    groups = make_groups(volume_bytes=24 * MIB)
    groups.thin_volume.write_random(0, DATA_BYTES)
    with hosts.server() as server:
        yield Site(hosts, groups, server)


def progress_of(push: Process) -> list[dict[str, int]]:
    return [one for one in events_of(push.stdout) if one["event"] == "progress"]


def count_of(push: Process, event: str) -> int:
    return sum(one["event"] == event for one in events_of(push.stdout))


def wait_for_retry(push: Process, count: int) -> None:
    """Wait until a push has lost its connection that often."""
    push.wait_for_output(rf'(?s)("event": ?"retrying".*){{{count}}}', PUSH_SECONDS)


@pytest.mark.parametrize(
    "directions",
    [BOTH, *(pytest.param((one,), marks=pytest.mark.thorough) for one in BOTH)],
    ids=["cut", "half-open", "half-open back"],
)
def test_a_cut_link_ends_as_resumable_and_resumes(
    site: Site, directions: tuple[Direction, ...]
) -> None:
    push = site.start_push()
    site.link.cut(*directions)
    ended = push.wait(PUSH_SECONDS)
    assert ended.rc == 7, ended.stderr
    error = events_of(ended.stdout)[-1]
    assert (error["event"], error["code"]) == ("error", "connection-lost")
    assert "resumes" in error["next"]
    # The server's session ends too, with the link as it is.
    site.server.wait_for_output(rf"session of .* ended: .*({SILENCE}|{GONE})", 60)
    if Direction.FORTH in directions:
        assert SILENCE in site.server.stderr
    if Direction.BACK in directions:
        assert SILENCE in ended.stderr
    site.link.restore()
    site.resumed(push)
    record("cuts of the line", 1, 0)


def test_a_push_that_retries_outlives_cuts_of_each_kind(site: Site) -> None:
    """The line breaks three times in one push; nobody does anything about it but mending it."""
    push = site.start_push("--retry")
    for number, directions in enumerate([(Direction.FORTH,), (Direction.BACK,), BOTH], start=1):
        site.link.cut(*directions)
        wait_for_retry(push, number)
        site.link.restore()
        push.wait_for_output(
            rf'(?s)("event": ?"resumed".*){{{number}}}"durable_bytes"', PUSH_SECONDS
        )
    ended = push.wait(PUSH_SECONDS)
    assert ended.rc == 0, ended.stderr
    assert_replicated(site.groups)
    sent = sum(one["wire_bytes"] for one in events_of(ended.stdout) if one["event"] == "committed")
    assert sent < DATA_BYTES
    record("cuts of the line", 3, 0)


@pytest.mark.thorough
def test_a_line_that_loses_frames_costs_time_only(site: Site) -> None:
    site.link.set_faults(drop_rate=0.03)
    push = site.hosts.start_push()
    ended = push.wait(PUSH_SECONDS)
    site.link.restore()
    assert ended.rc == 0, ended.stderr
    lost = sum(site.link.counters(one).swallowed_frames for one in BOTH)
    assert lost > 100
    assert_replicated(site.groups)
    record("frames lost on the line", lost, 0)


@pytest.mark.thorough
@pytest.mark.parametrize("direction", BOTH, ids=["forth", "back"])
def test_a_line_that_is_late_for_a_while_costs_time_only(site: Site, direction: Direction) -> None:
    push = site.start_push()
    site.link.stall(direction)
    site.link.wait(direction, lambda seen: seen.held_frames >= 4, 60)
    site.link.restore()
    ended = push.wait(PUSH_SECONDS)
    assert ended.rc == 0, ended.stderr
    assert_replicated(site.groups)
    record("stalls of the line", 1, 0)


def test_what_arrives_after_its_session_ended_changes_nothing(site: Site) -> None:
    """Both ends gave up; then all that was under way arrives, of a transfer that goes on anew."""
    push = site.start_push("--retry")
    site.link.stall()
    wait_for_retry(push, 1)
    site.server.wait_for_output(SILENCE, 60)
    held = sum(site.link.counters(one).held_frames for one in BOTH)
    assert held > 4
    site.link.restore()
    ended = push.wait(PUSH_SECONDS)
    assert ended.rc == 0, ended.stderr
    assert count_of(push, "resumed") >= 1
    assert_replicated(site.groups)
    record("stalls of the line", 1, 0)


def test_bytes_that_change_on_the_way_end_the_session_and_are_not_in_the_replica(
    site: Site,
) -> None:
    """TCP's checksum does not see swapped words; TLS does, in either direction."""
    push = site.start_push("--retry")
    changed = 0
    for number, direction in enumerate(BOTH, start=1):
        site.link.set_faults(direction, corrupt_rate=1.0)
        site.link.wait(direction, lambda seen: seen.corrupted_frames > 0, 60)
        site.link.restore()
        wait_for_retry(push, number)
        push.wait_for_output(
            rf'(?s)("event": ?"resumed".*){{{number}}}"durable_bytes"', PUSH_SECONDS
        )
        changed += site.link.counters(direction).corrupted_frames
    ended = push.wait(PUSH_SECONDS)
    assert ended.rc == 0, ended.stderr
    reasons = [one["reason"] for one in events_of(ended.stdout) if one["event"] == "retrying"]
    assert all("what arrived is not what was sent" in reason for reason in reasons), reasons
    assert_replicated(site.groups)
    record("frames changed on the line", changed, 0)
