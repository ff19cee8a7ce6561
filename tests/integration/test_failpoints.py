"""Both real processes, killed or failing at every named point: nothing good is lost or left behind.

Afterwards the good snapshots are what they were (I2, I3), the next push succeeds and ends equal
(I4), and no file of an unfinished attempt is left at either end (I7).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from integration.conftest import Site
from support.failpoints import Point, armed, both
from support.reports import record

KIB, MIB = 1 << 10, 1 << 20
OCCURRENCES = (1, 2, 3)
_SOURCE, _TARGET = "storage.image.source:ImageSource", "storage.image.target:ImageTarget"
_STAGING, _CATALOGUE = "storage.image.staging:ImageStaging", "storage.image.catalogue:Catalogue"
POINTS = (
    *both("client", "creating the snapshot", f"{_SOURCE}.create_snapshot"),
    *both("client", "opening the snapshot", f"{_SOURCE}.open_snapshot"),
    Point("client before a message", "client", "replication.channel:Channel.send", after=False),
    *both("client", "an acknowledgement", "replication.sending:StreamSender._take_ack"),
    *both("client", "noting the commit", f"{_SOURCE}.mark_committed"),
    *both("client", "dropping the old base", f"{_SOURCE}._remove_files"),
    *both("server", "beginning", f"{_TARGET}.begin"),
    Point("server before a message", "server", "replication.channel:Channel.send", after=False),
    *both("server", "writing", f"{_STAGING}.write"),
    *both("server", "syncing", f"{_STAGING}.sync"),
    *both("server", "saving the cursor", f"{_STAGING}.save_cursor"),
    *both("server", "committing", f"{_TARGET}.commit"),
    *both("server", "recording the good snapshot", f"{_CATALOGUE}.write_good"),
    *both("server", "publishing", "storage.image.publishing:Publisher.publish"),
    *both("server", "recording what is published", f"{_CATALOGUE}.write_published"),
    *both("server", "pruning", f"{_TARGET}.prune"),
    *both("server", "dropping a good snapshot", f"{_CATALOGUE}.drop_good"),
)


def left_behind(site: Site) -> list[Path]:
    """Return files of unfinished attempts, at both ends."""
    names = ("staging.*", "publishing.*", "*.tmp")
    folders = (site.images / ".blockrep", site.folder / ".blockrep")
    return [path for folder in folders for name in names for path in folder.rglob(name)]


def attempt(site: Site, point: Point, occurrence: int, action: str) -> bool:
    """Push with the point armed, then without; False: the push did not come there that often."""
    marker = site.folder / "reached"
    marker.unlink(missing_ok=True)
    old = site.replica.read_bytes()
    for offset in range(0, 4 * MIB, 512 * KIB):
        site.change(offset, 4 * KIB)
    site.preludes = {point.end: armed(point, occurrence, action, marker)}
    with site.server():
        done = site.push()
    site.preludes = {}
    reached = marker.exists()
    if reached:
        # After its commit a push need not fail, whatever the server could not tidy up.
        assert done.returncode or point.end == "server", done.stderr
        assert "defect" not in done.stderr, done.stderr
    with site.server():
        listed = site.run("list", site.target, "--json")
        newest = max(map(json.loads, listed.stdout.splitlines()), key=lambda one: one["sequence"])
        assert newest["committed"]
        assert site.replica.read_bytes() in {old, site.source.read_bytes()}
        site.pushed()
        assert site.equal()
        assert left_behind(site) == []
        assert site.run("verify", str(site.source), site.target).returncode == 0
    return reached


@pytest.fixture(autouse=True)
def _fast_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start the hundreds of processes without a tracer."""
    for name in ("COVERAGE_PROCESS_CONFIG", "COVERAGE_PROCESS_START"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.name)
def test_a_process_ends_here(site: Site, point: Point) -> None:
    site.fill(4 * MIB)
    with site.server():
        for _ in range(3):  # so many are kept: the next one drops one
            site.change(0, KIB)
            site.pushed()
    reached = 0
    for occurrence in OCCURRENCES:
        came = attempt(site, point, occurrence, "kill")
        reached += came
        if not came:
            break
    assert reached, "no push ever comes here: is the name of the point still right?"
    assert attempt(site, point, 1, "error")
    record("failpoints, each up to three times", reached + 1, 0)
