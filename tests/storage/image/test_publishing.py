"""Publishing: what may be replaced, and how the replica looks then."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from blockrep.errors import VolumeError
from storage.image_volumes import Crashing, ImageVolumes
from storage.transfers import Transfer, adopt, change_live, push
from storage.volumes import CrashError


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
    for step in range(1, 200):
        directory = tmp_path / str(step)
        directory.mkdir()
        volumes = ImageVolumes(directory)
        base = push(volumes, None)
        change_live(volumes, random.Random(step))
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging)
        crashed = False
        try:
            with Crashing(step):
                transfer.target.commit(staging, transfer.digest)
        except CrashError:
            crashed = True
            volumes.reboot()
        own = volumes.replica.with_name("own")
        volumes.replica.rename(own)
        volumes.make_foreign(b"somebody else's")
        refused += _is_refused(volumes)
        assert volumes.read_replica() == b"somebody else's"
        if not crashed:
            break
    assert refused, "no crash came between the commit point and publishing"


def _is_refused(volumes: ImageVolumes) -> bool:
    try:
        replica = volumes.target().inspect()
    except VolumeError:
        with pytest.raises(VolumeError, match="another file was put"):
            volumes.target().inspect()
        return True
    assert replica.drifted
    return False
