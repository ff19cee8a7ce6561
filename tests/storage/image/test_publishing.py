"""Publishing: what may be replaced, and how the replica looks then."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from blockrep.errors import DivergedError, VolumeError
from blockrep.storage.files import sync_directory
from blockrep.storage.image.publishing import WrittenReplicaError
from storage.image_volumes import ImageVolumes, at_each_step, crashes_in_commit
from storage.transfers import Transfer, adopt, change_live, push


@pytest.fixture
def volumes(tmp_path: Path) -> ImageVolumes:
    return ImageVolumes(tmp_path)


def test_the_replica_is_read_only_and_private(volumes: ImageVolumes) -> None:
    base = push(volumes, None)
    assert volumes.replica.stat().st_mode & 0o777 == 0o400
    change_live(volumes, random.Random(0))
    push(volumes, base)
    assert volumes.replica.stat().st_mode & 0o777 == 0o400


def test_an_adopted_replica_keeps_its_mode_but_for_writing(volumes: ImageVolumes) -> None:
    volumes.make_foreign(b"x" * volumes.sizes[1])
    volumes.replica.chmod(0o664)
    adopt(volumes)
    assert volumes.replica.stat().st_mode & 0o777 == 0o444


@pytest.mark.root
def test_an_adopted_replica_keeps_its_owner(volumes: ImageVolumes) -> None:
    volumes.make_foreign(b"x" * volumes.sizes[1])
    os.chown(volumes.replica, 1234, 4321)
    adopt(volumes)
    assert (volumes.replica.stat().st_uid, volumes.replica.stat().st_gid) == (1234, 4321)


def test_another_file_in_the_replicas_place_is_not_replaced(tmp_path: Path) -> None:
    # A crash anywhere in a commit, and then somebody puts a file of his there.
    refused = 0
    for step, volumes in at_each_step(tmp_path):
        base = push(volumes, None)
        change_live(volumes, random.Random(step))
        crashed = crashes_in_commit(volumes, Transfer(volumes, base), step)
        own = volumes.replica.with_name("own")
        if volumes.replica.exists():  # else a redo file was being copied into it
            volumes.replica.rename(own)
        volumes.make_foreign(b"somebody else's")
        refused += _is_refused(volumes)
        assert volumes.read_replica() == b"somebody else's"
        if not crashed:
            break
    assert refused, "no crash came between the commit point and publishing"


def committed_at(volumes: ImageVolumes, step: int) -> bool:
    """Commit a change upon a first push, and crash at a step of that; False: there is none."""
    volumes.write_live(0, random.Random(step).randbytes(volumes.sizes[1]))
    base = push(volumes, None)
    volumes.write_live(300_000, b"new content")
    return crashes_in_commit(volumes, Transfer(volumes, base), step)


def test_what_is_written_to_the_replica_after_a_crash_is_not_taken_for_ours(tmp_path: Path) -> None:
    """Recovery does not copy over it, and no snapshot is good whose replica is not (I2, I7)."""
    drifted = 0
    for step, volumes in at_each_step(tmp_path):
        crashed = committed_at(volumes, step)
        if volumes.replica.exists():
            volumes.tamper(900_000, b"somebody's")
            looked = volumes.target().inspect()
            assert looked.drifted
            assert volumes.read_replica()[900_000:900_010] == b"somebody's"
            for base in looked.snapshots:
                with pytest.raises(DivergedError):
                    push(volumes, base)
            adopt(volumes)
            drifted += 1
        if not crashed:
            break
    assert drifted > 10


def test_a_file_made_anew_with_the_same_inode_is_not_copied_into(tmp_path: Path) -> None:
    for step, volumes in at_each_step(tmp_path):
        if not committed_at(volumes, step):
            return
        if volumes.replica.exists():
            # As if a file made anew had the inode's number.
            volumes.replica.chmod(0o600)
            volumes.replica.write_bytes(b"another file")
            assert volumes.target().inspect().drifted
            assert volumes.read_replica() == b"another file"


def test_the_replica_is_not_seen_half_copied(tmp_path: Path) -> None:
    """At every step of a commit it is what it was, is what it becomes, or is not there."""
    states = []
    for step, volumes in at_each_step(tmp_path):
        crashed = committed_at(volumes, step)
        if not volumes.replica.exists():
            states.append("away")
        else:
            contents = {volumes.read_live(): "new"}
            contents[random.Random(step).randbytes(volumes.sizes[1])] = "old"
            states.append(contents[volumes.read_replica()])
        if not crashed:
            break
        looked = volumes.target().inspect()
        assert not looked.drifted
        if len(looked.snapshots) > 1 or looked.snapshots[0].sequence > 1:
            assert volumes.read_replica() == volumes.read_live()
    assert {"old", "new"} <= set(states)
    assert volumes.clones or "away" in states


def test_a_replica_that_is_open_while_it_is_away_is_left_alone(tmp_path: Path) -> None:
    """Whoever opened it in its place would see it change."""
    refused = 0
    for step, volumes in at_each_step(tmp_path):
        if not committed_at(volumes, step):
            break
        for path in volumes.replica.parent.rglob("copying.img"):
            if volumes.replica.exists():
                continue
            with path.open("rb"), pytest.raises(VolumeError, match="it is open"):
                volumes.target().inspect()
            refused += 1
        volumes.target().inspect()
        assert volumes.replica.exists()
    assert refused or volumes.clones


def _is_refused(volumes: ImageVolumes) -> bool:
    try:
        replica = volumes.target().inspect()
    except VolumeError:
        with pytest.raises(VolumeError, match="another file was put"):
            volumes.target().inspect()
        return True
    assert replica.drifted
    return False


@pytest.mark.parametrize("is_first", [True, False])
def test_what_is_written_right_after_publishing_is_not_taken_for_ours(
    volumes: ImageVolumes, monkeypatch: pytest.MonkeyPatch, *, is_first: bool
) -> None:
    """I7: somebody waited for the file to appear. What he wrote is seen, and stays."""
    base = None if is_first else push(volumes, None)
    volumes.write_live(0, b"new")
    transfer = Transfer(volumes, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    before = volumes.replica.stat().st_ctime_ns if volumes.replica.exists() else 0
    written: list[Path] = []

    def sync(directory: Path) -> None:
        sync_directory(directory)
        result = volumes.replica.stat() if volumes.replica.exists() else None
        if result is not None and result.st_ctime_ns != before and not written:
            written.append(volumes.replica)
            volumes.tamper(5, b"his")

    with monkeypatch.context() as patch:
        patch.setattr("blockrep.storage.image.publishing.sync_directory", sync)
        with pytest.raises(WrittenReplicaError):
            transfer.target.commit(staging, transfer.digest)
    staging.close()
    assert written
    assert volumes.target().inspect().drifted
    assert volumes.read_replica()[5:8] == b"his"
