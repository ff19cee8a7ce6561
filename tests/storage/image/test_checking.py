"""Replicas in image files: what is unfinished is told, what is gone leaves its last copies."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from blockrep.errors import StorageError
from blockrep.model.findings import Finding, Level
from blockrep.storage.image.checking import check_images
from blockrep.storage.image.redo import RedoLog
from support.hosts import MIB, Hosts


@pytest.fixture
def hosts(tmp_path: Path) -> Hosts:
    hosts = Hosts(tmp_path)
    hosts.fill(MIB)
    return hosts


def check(hosts: Hosts) -> Finding:
    (finding,) = check_images(hosts.folder / "target")
    return finding


async def test_a_replica_with_its_snapshots_is_well(hosts: Hosts) -> None:
    await hosts.push()
    finding = check(hosts)
    assert (finding.level, finding.where) == (Level.OK, str(hosts.replica))
    assert finding.what == "has 1 good snapshot"


async def test_a_replica_that_is_gone_leaves_what_may_be_the_last_copies(hosts: Hosts) -> None:
    await hosts.push()
    hosts.replica.unlink()
    finding = check(hosts)
    assert finding.level is Level.WARNING
    assert finding.what == "is gone, but for 1 good snapshot of it: perhaps the last copies"
    assert finding.remedy.endswith(f"rm -r {hosts.folder}/target/.blockrep/{hosts.replica.name}")
    assert finding.fix is None


async def test_a_replica_whose_update_was_interrupted_is_finished(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no push comes any more, because its source is lost."""
    await hosts.push()
    hosts.change(0, 10)
    with monkeypatch.context() as broken:
        broken.setattr(RedoLog, "copy_into", fail)
        with pytest.raises(StorageError, match="puts the replica back"):
            await hosts.push()
    finding = check(hosts)
    if hosts.replica.exists():
        pytest.skip("no redo files on this file system")
    assert finding.level is Level.WARNING
    assert "copying.img" in finding.what
    assert finding.fix is not None
    finding.fix()
    assert hosts.equal()
    assert check(hosts).level is Level.OK


def fail(_redo: RedoLog, _fd: int) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


async def test_a_directory_that_others_may_write_to_is_an_error(hosts: Hosts) -> None:
    await hosts.push()
    (hosts.folder / "target" / ".blockrep").chmod(0o777)
    finding = check(hosts)
    assert (finding.level, finding.exit_code) == (Level.ERROR, 10)


def test_no_directory_is_an_error(tmp_path: Path) -> None:
    (finding,) = check_images(tmp_path / "none")
    assert (finding.level, finding.exit_code) == (Level.ERROR, 3)
    assert "mkdir" in finding.remedy
    assert list(check_images(tmp_path)) == []


async def test_what_was_half_updated_and_has_no_record_is_told_of(hosts: Hosts) -> None:
    await hosts.push()
    sidecar = hosts.folder / "target/.blockrep" / hosts.replica.name / "target"
    for path in sidecar.glob("*.json"):
        path.unlink()
    hosts.replica.rename(sidecar / "copying.img")
    finding = check(hosts)
    assert (finding.level, finding.fix) == (Level.WARNING, None)
    assert finding.what.startswith("is what was a replica, half updated")
