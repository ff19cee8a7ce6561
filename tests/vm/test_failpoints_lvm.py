"""Both real processes, killed or failing at named points of their work on real LVM.

Whatever point that is: the good snapshots are what they were (I2, I3), the next push goes on by
itself and ends equal (I4), and no volume, active snapshot or metadata snapshot of an unfinished
attempt is left at either end (I7).

A push takes seconds here, so that one run does not try everything: a seed chooses some places of
each end, before or after, which occurrence, and what happens there; some attempts follow one
another before a push is let through. ``BLOCKREP_FAILPOINTS`` is the seed, or ``all``: then
everything is tried, and after every attempt a push is let through.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import failpoints
from support.failpoints import Point, armed, both, program
from support.reports import counted
from vm.conftest import Groups, MakeGroups
from vm.deployment import PUSH_SECONDS, SOURCE, TARGET, Deployment, Expected, deploy
from vm.harness.channel import Process, Result
from vm.harness.pair import Pair
from vm.harness.volumes import MIB, ThinPool

pytestmark = pytest.mark.vm

CHOICE = os.environ.get("BLOCKREP_FAILPOINTS", "1")
#: Of each end, by the seed.
CHOSEN_PLACES = 2
ATTEMPTS_IN_A_ROW = 1 if CHOICE == "all" else 3
VOLUME_BYTES = 8 * MIB
CONFIGURATION = """
[server]
window_bytes = "1MiB"
max_payload_bytes = "64KiB"
[clients.origin]
targets = [{ name = "vgreplica/*", keep = 3, adopt = true }]
"""
#: In the guests: the tests' own modules, and what a point leaves when it was reached.
TESTS, MARKER = Path("/opt/blockrep/tests"), Path("/run/reached")


@dataclass(frozen=True)
class Place:
    """A method that a push calls.

    Attributes:
        times: so often at least (3: or more often).
        course: ``next``: a push as any; ``first``: there is no replica yet; ``adopt``: there is a
            volume that is not ours; ``grown``: the source has grown; ``prune``: there are as many
            good snapshots as are kept.
    """

    end: str
    what: str
    where: str
    times: int = 1
    course: str = "next"


_SOURCE, _TARGET = "storage.lvm.source:LvmSource", "storage.lvm.target:LvmTarget"
_STAGING, _GROUP = "storage.lvm.staging:LvmStaging", "storage.lvm.group:VolumeGroup"
_METADATA, _READER = "storage.lvm.metadata:PoolMetadata", "storage.lvm.reading:LvmReader"
PLACES = (
    Place("client", "creating the snapshot", f"{_SOURCE}.create_snapshot"),
    Place("client", "reserving the metadata snapshot", f"{_METADATA}._reserve"),
    Place("client", "noting the metadata snapshot", f"{_METADATA}._note", times=2),
    Place("client", "releasing the metadata snapshot", f"{_METADATA}._release"),
    Place("client", "opening the snapshot", f"{_READER}.__enter__"),
    Place("client", "closing the snapshot", f"{_READER}.__exit__"),
    Place("client", "noting the commit", f"{_SOURCE}.mark_committed"),
    Place("client", "dropping the old base", f"{_SOURCE}.remove_snapshot"),
    Place("client", "changing LVM", f"{_GROUP}.change", times=3),
    Place("client", "removing a volume", f"{_GROUP}.remove"),
    Place("server", "recovering for the first time", f"{_TARGET}._take", times=2, course="first"),
    Place("server", "recovering an adoption", f"{_TARGET}._take", times=2, course="adopt"),
    Place("server", "making room for growth", f"{_GROUP}.change", times=3, course="grown"),
    Place("server", "beginning", f"{_TARGET}.begin"),
    Place("server", "preparing", "storage.lvm.target:prepare_staging"),
    Place("server", "reserving the metadata snapshot", f"{_METADATA}._reserve", times=2),
    Place("server", "releasing the metadata snapshot", f"{_METADATA}._release", times=2),
    Place("server", "writing", f"{_STAGING}.write", times=3),
    Place("server", "syncing", f"{_STAGING}.sync", times=2),
    Place("server", "saving the cursor", f"{_STAGING}.save_cursor", times=2),
    Place("server", "committing", f"{_TARGET}.commit"),
    Place("server", "creating the good snapshot", f"{_TARGET}._create_good"),
    Place("server", "merging", f"{_TARGET}._take"),
    Place("server", "changing LVM", f"{_GROUP}.change", times=3),
    Place("server", "removing a volume", f"{_GROUP}.remove", course="prune"),
    Place("server", "pruning", f"{_TARGET}.prune", course="prune"),
)


@dataclass(frozen=True)
class Attempt:
    """A push during which one of the processes ends, or gets an error."""

    point: Point
    occurrence: int
    action: str
    course: str

    def __str__(self) -> str:
        return f"{self.point.name}, {self.course} push, occurrence {self.occurrence}: {self.action}"


def everything(place: Place) -> list[Attempt]:
    """Return all attempts at a place: kills at each occurrence, and one error."""
    tried = [*((number, "kill") for number in range(1, place.times + 1)), (1, "error")]
    return [
        Attempt(point, number, action, place.course)
        for point in both(place.end, place.what, place.where)
        for number, action in tried
    ]


def choice(seed: str, end: str) -> list[Attempt]:
    """Return one attempt at each of some places of an end."""
    dice = random.Random(f"{seed} {end}")
    places = [place for place in PLACES if place.end == end]
    chosen = sorted(dice.sample(range(len(places)), CHOSEN_PLACES))
    actions = itertools.cycle(("kill", "error") if dice.random() < 0.5 else ("error", "kill"))
    return [
        Attempt(
            dice.choice(both(end, place.what, place.where)),
            dice.randint(1, place.times),
            next(actions),
            place.course,
        )
        for place in (places[number] for number in chosen)
    ]


SWEEPS = (
    {f"{place.end}: {place.what}": everything(place) for place in PLACES}
    if CHOICE == "all"
    else {f"{end}, seed {CHOICE}": choice(CHOICE, end) for end in ("client", "server")}
)


def rows_of(attempts: list[Attempt]) -> Iterator[list[Attempt]]:
    """Yield what is attempted without a push let through between: pushes that go alike."""
    for _, alike in itertools.groupby(attempts, lambda one: one.course):
        rest = list(alike)
        # The others are no such pushes any more once one of them was interrupted.
        together = ATTEMPTS_IN_A_ROW if rest[0].course in {"next", "prune"} else 1
        for start in range(0, len(rest), together):
            yield rest[start : start + together]


@dataclass
class Site:
    """Two hosts, a server that may be armed, and what the good snapshots should hold.

    ``empty``: the volumes of each group before the first push.
    """

    hosts: Deployment
    groups: Groups
    empty: dict[str, set[str]]
    expected: Expected
    server: Process | None = None

    @property
    def pools(self) -> tuple[ThinPool, ThinPool]:
        return self.groups.source_pool, self.groups.target_pool

    def serve(self, prelude: str = "") -> None:
        """Start a server, in the place of one that runs."""
        if self.server is not None and self.server.running:
            self.server.terminate()
            self.server.wait(60)
        words = ["python3", "-c", program("server", prelude), "--listen"]
        self.server = self.hosts.pair.replica.spawn(words)
        self.server.wait_for_output("listening on", timeout_seconds=60)

    def push(self, *options: str, prelude: str = "") -> Result:
        words = ["python3", "-c", program("cli", prelude), "push", SOURCE, TARGET, "--quiet"]
        return self.hosts.pair.origin.run(
            [*words, *options], timeout_seconds=PUSH_SECONDS, check=False
        )

    def prepare(self, course: str) -> None:
        """Make the volumes what a push of that kind finds."""
        if course in {"first", "adopt"}:
            self.forget_everything()
        if course == "adopt":
            self.groups.target_pool.create_volume(self.groups.replica_volume.name, VOLUME_BYTES)
        if course == "grown":
            name = self.groups.thin_volume.full_name
            self.hosts.pair.origin.run(f"lvextend -q -L +4m {name}", timeout_seconds=60)
        least = {"first": 0, "adopt": 0, "prune": 3}.get(course, 1)
        while len(self.expected.goods) < least:
            self.change_source()
            self.let_through()

    def forget_everything(self) -> None:
        self.expected = Expected(self.groups)
        for pool in self.pools:
            names = [f"{pool.group}/{one}" for one in self.made(pool)]
            remove = f"lvremove -q -ff -y {' '.join(names)};" if names else ""
            script = f"{remove} rm -rf /var/lib/blockrep/*"
            pool.machine.run(script, timeout_seconds=60)

    def made(self, pool: ThinPool) -> set[str]:
        """Return the volumes that were not there before the first push."""
        return set(pool.volumes()) - self.empty[pool.group]

    def change_source(self) -> None:
        volume = self.groups.thin_volume
        for offset in (0, 3 * MIB, 6 * MIB):
            volume.write_random(offset, MIB // 2)
        self.expected.note_source()

    def attempt(self, attempt: Attempt) -> None:
        """Push with the point armed; it must be reached."""
        point, kill = attempt.point, attempt.action == "kill"
        prelude = armed(point, attempt.occurrence, attempt.action, MARKER, TESTS)
        options = ["--adopt"] if attempt.course == "adopt" else []
        if point.end == "server":
            self.serve(prelude)
            done = self.push(*options)
        else:
            if self.server is None or not self.server.running:
                self.serve()
            done = self.push(*options, prelude=prelude)
        replica, origin = self.hosts.pair.replica, self.hosts.pair.origin
        machine = replica if point.end == "server" else origin
        reached = machine.run(["rm", str(MARKER)], timeout_seconds=30, check=False).rc == 0
        assert reached, f"not reached; the push ended with {done.rc}: {done.stderr}"
        assert self.server is not None
        said = done.stderr + self.server.stderr
        assert "defect" not in said, said
        if point.end == "client":
            assert done.rc == (-signal.SIGKILL if kill else 11), done.stderr
        elif kill:
            assert done.rc == 7, done.stderr
            assert self.server.wait(60).rc == -signal.SIGKILL
        else:  # what a server could not tidy up after its commit is not the client's business
            assert done.rc in {0, 11}, done.stderr

    def let_through(self, *options: str) -> None:
        """Push to the end, and look at everything."""
        if self.server is None or not self.server.running:
            self.serve()
        done = self.push(*options)
        assert done.rc == 0, done.stderr
        for pool in self.pools:
            reports = pool.volumes()
            active = {name for name in self.made(pool) if reports[name]["lv_active"]}
            assert active <= {self.groups.replica_volume.name}, "a snapshot was left active"
        self.expected.learn()
        kept = {*self.expected.goods, self.groups.replica_volume.name}
        assert self.made(self.groups.target_pool) == kept
        assert len(self.made(self.groups.source_pool)) == 1


@pytest.fixture
def site(pair: Pair, make_groups: MakeGroups) -> Site:
    hosts = deploy(pair)
    source = Path(failpoints.__file__)
    for machine in pair.machines:
        machine.write_file(str(TESTS / "support" / source.name), source.read_text())
        machine.write_file("/etc/blockrep/config.toml", CONFIGURATION)
    groups = make_groups(volume_bytes=VOLUME_BYTES)
    pools = (groups.source_pool, groups.target_pool)
    empty = {pool.group: set(pool.volumes()) for pool in pools}
    return Site(hosts, groups, empty, Expected(groups))


@pytest.mark.parametrize("attempts", SWEEPS.values(), ids=SWEEPS.keys())
def test_a_process_ends_here(site: Site, attempts: list[Attempt]) -> None:
    for row in rows_of(attempts):
        site.prepare(row[0].course)
        for attempt in row:
            print(attempt)  # noqa: T201 - which one it was
            with counted("failpoints on real LVM"):
                site.change_source()
                site.attempt(attempt)
                site.expected.check_goods()
        site.let_through(*(["--adopt"] if row[0].course == "adopt" else []))
