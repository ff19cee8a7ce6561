"""One transfer at a time into a target, by whatever name and configuration somebody comes."""

from __future__ import annotations

import dataclasses
import errno
import os
from pathlib import Path
from unittest import mock

import pytest

from blockrep.errors import BusyError, StorageError, VolumeError
from blockrep.model.names import VolumeName
from blockrep.storage.image.holding import Hold
from blockrep.storage.image.sidecar import ImageFile
from blockrep.storage.image.target import ImageTarget
from blockrep.storage.interface import StorageSettings
from storage.image_volumes import ImageVolumes
from storage.transfers import Transfer, new_id, push


@pytest.fixture
def volumes(tmp_path: Path) -> ImageVolumes:
    return ImageVolumes(tmp_path)


def other(volumes: ImageVolumes) -> ImageTarget:
    """The same replica, by another name and with another runtime directory."""
    folder = volumes.replica.parent
    link = folder.with_name("link")
    if not link.is_symlink():
        link.symlink_to(folder.name)
    settings = StorageSettings(folder / "state2", folder / "run2", data_reserve_percent=0)
    return ImageTarget(VolumeName(path=str(link / volumes.replica.name)), settings)


@pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
def test_nobody_stages_over_a_transfer_under_way(
    volumes: ImageVolumes, *, incremental: bool
) -> None:
    base = push(volumes, None) if incremental else None
    volumes.write_live(0, b"what is to arrive")
    transfer = Transfer(volumes, base)
    staging = transfer.target.begin(transfer.request)
    target = other(volumes)
    for call in (
        target.inspect,
        lambda: target.begin(transfer.request),
        target.abandon,
        lambda: target.prune(1, ()),
    ):
        with pytest.raises(BusyError, match=f"in use by process {os.getpid()}"):
            call()
    transfer.stream(staging)
    transfer.finish(staging)
    assert volumes.read_replica() == transfer.content
    assert other(volumes).inspect().snapshots[-1].id == transfer.new.id


@pytest.mark.parametrize("incremental", [False, True], ids=["full", "incremental"])
def test_what_was_put_in_the_place_of_staging_is_not_committed(
    volumes: ImageVolumes, *, incremental: bool
) -> None:
    base = push(volumes, None) if incremental else None
    volumes.write_live(0, b"what is to arrive")
    transfer = Transfer(volumes, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    (held,) = volumes.replica.parent.rglob("lock")
    held.unlink()  # somebody makes the lock worthless
    other_request = dataclasses.replace(transfer.request, snapshot_id=new_id())
    other(volumes).begin(other_request).close()
    with pytest.raises(VolumeError, match="was replaced during the transfer"):
        transfer.target.commit(staging, transfer.digest)
    staging.close()
    replica = volumes.target().inspect()
    assert [one.id for one in replica.snapshots] == ([] if base is None else [base.id])
    assert replica.staging is not None
    assert replica.staging.snapshot_id == other_request.snapshot_id


def test_whoever_was_first_is_seen(volumes: ImageVolumes) -> None:
    """The directory that is to be held is made only now."""
    transfer = Transfer(volumes, None)
    make_directory = ImageFile.make_directory

    def make_late(image: ImageFile) -> None:
        with mock.patch.object(ImageFile, "make_directory", make_directory):
            staging = transfer.target.begin(transfer.request)
            transfer.stream(staging)
            transfer.target.commit(staging, transfer.digest)
            staging.close()
        make_directory(image)

    target = other(volumes)
    with (
        mock.patch.object(ImageFile, "make_directory", make_late),
        pytest.raises(VolumeError, match="is here already"),
    ):
        target.begin(transfer.request)
    assert volumes.read_replica() == transfer.content


def test_it_is_taken_again_by_whoever_has_it(tmp_path: Path) -> None:
    image = ImageFile(VolumeName(path=str(tmp_path / "disk.img")), "target")
    one, two = Hold(image), Hold(image)
    with one, two:
        assert not image.directory.exists()
        assert one.make()
        assert not one.make()
        one.take()
        with pytest.raises(BusyError):
            two.make()
        one.release()
        with pytest.raises(BusyError):
            two.make()
    with two, pytest.raises(BusyError):
        one.take()
    one.take()
    one.release()


def test_where_nothing_can_be_changed_nothing_needs_to_be_held(tmp_path: Path) -> None:
    image = ImageFile(VolumeName(path=str(tmp_path / "disk.img")), "target")
    image.make_directory()
    hold = Hold(image)
    failure = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with mock.patch.object(os, "open", side_effect=failure), hold:
        assert not hold.make()
    failure = OSError(errno.EACCES, os.strerror(errno.EACCES))
    with (
        mock.patch.object(os, "open", side_effect=failure),
        pytest.raises(StorageError, match="lock file"),
    ):
        hold.take()
