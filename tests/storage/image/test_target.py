"""An image as the target: crashes in a first push and in an adoption, lack of room, a loss."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from blockrep.errors import (
    DivergedError,
    InternalError,
    NoSpaceError,
    StorageError,
    VolumeError,
)
from blockrep.model.extents import Extent, ExtentKind
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Replica, Snapshot
from blockrep.storage.image.target import ImageTarget
from blockrep.storage.memory import MemoryHost, MemoryTarget
from storage.image_volumes import Crashing, ImageVolumes, at_each_step, crashes_in_commit
from storage.mounts import MIB, CannotMountError, mounted
from storage.transfers import Transfer, adopt, change_live, new_id, push
from storage.volumes import CrashError


@pytest.fixture
def volumes(tmp_path: Path) -> ImageVolumes:
    return ImageVolumes(tmp_path)


@pytest.mark.parametrize("mode", ["full", "adopt"])
def test_a_crash_anywhere_in_the_first_push(tmp_path: Path, mode: str) -> None:
    foreign = random.Random(1).randbytes(900_000)
    for step in range(1, 500):
        directory = tmp_path / str(step)
        directory.mkdir()
        volumes = ImageVolumes(directory)
        volumes.write_live(0, random.Random(0).randbytes(700_000))
        if mode == "adopt":
            volumes.make_foreign(foreign)
        transfer = Transfer(volumes, None, mode=mode)
        transfer.plan = [Extent(0, transfer.new.size_bytes)]
        try:
            with Crashing(step):
                target = volumes.target()
                staging = target.begin(transfer.request)
                transfer.stream(staging)
                target.commit(staging, transfer.digest)
        except CrashError:
            crashed = True
            volumes.reboot()
        else:
            crashed = False
        replica = volumes.target().inspect()
        if replica.snapshots:
            assert volumes.read_replica() == transfer.content
            assert replica.staging is None, "it is good already, and would be written again"
            assert not replica.drifted
        elif mode == "adopt":
            assert volumes.read_replica() == foreign
        else:
            assert not replica.exists
        if not crashed:
            assert replica.snapshots
            return
    pytest.fail("it never ends")


def test_a_removed_replica_comes_back_or_is_sent_again(volumes: ImageVolumes) -> None:
    push(volumes, None)
    volumes.replica.unlink()
    replica = volumes.target().inspect()
    if volumes.clones:
        assert volumes.read_replica() == volumes.read_live()
        return
    assert not replica.exists
    assert not replica.snapshots
    change_live(volumes, random.Random(0))
    push(volumes, None)


def test_a_full_push_over_our_own_replica(volumes: ImageVolumes) -> None:
    first = push(volumes, None)
    change_live(volumes, random.Random(0))
    second = push(volumes, None)
    ids = [one.id for one in volumes.target().inspect().snapshots]
    assert ids == ([first.id, second.id] if volumes.clones else [second.id])


def test_staging_of_another_kind_is_a_defect(volumes: ImageVolumes) -> None:
    transfer = Transfer(volumes, None)
    staging = MemoryTarget(MemoryHost("x"), "y").begin(transfer.request)
    with pytest.raises(InternalError):
        transfer.target.commit(staging, bytes(32))


def test_permissions_keep_strangers_out(volumes: ImageVolumes) -> None:
    base = push(volumes, None)
    change_live(volumes, random.Random(0))
    push(volumes, base)
    for root in (volumes.live.parent, volumes.replica.parent):
        for path in (root / ".blockrep").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path


def committed_not_published(
    directory: Path, mode: str, kill: Callable[[ImageVolumes], bool]
) -> Iterator[tuple[ImageVolumes, Snapshot, Transfer, Replica]]:
    """Crash anywhere in a commit, let something happen to the disk, look.

    Yields the volumes, the base, the transfer, and the replica if there was something to happen to.
    """
    for step, volumes in at_each_step(directory):
        base = push(volumes, None)
        volumes.write_live(0, random.Random(3).randbytes(50_000))
        transfer = Transfer(volumes, base if mode == "incremental" else None)
        if not crashes_in_commit(volumes, transfer, step):
            return
        if kill(volumes):
            yield volumes, base, transfer, volumes.target().inspect()


def finish_by(volumes: ImageVolumes, transfer: Transfer, mode: str) -> None:
    volumes.source().remove_snapshot(transfer.new)
    if mode == "adopt":
        adopt(volumes)
    else:
        push(volumes, None)
    assert volumes.read_replica() == volumes.read_live()
    replica = volumes.target().inspect()
    assert not replica.drifted
    assert replica.snapshots


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_a_replica_that_is_removed_before_its_snapshot_is_published(
    tmp_path: Path, mode: str
) -> None:
    def remove(volumes: ImageVolumes) -> bool:
        if not volumes.replica.exists():
            return False  # a redo file is being copied into it
        volumes.replica.unlink()
        return True

    gone = 0
    for volumes, _, transfer, replica in committed_not_published(tmp_path, mode, remove):
        if replica.exists:  # a clone, or a new file, was there to take its place
            assert not replica.drifted
            if replica.snapshots[-1].id == transfer.new.id:
                assert volumes.read_replica() == transfer.content
            continue
        gone += 1
        assert (replica.owned, replica.snapshots) == (False, ())
        finish_by(volumes, transfer, "full")
    assert gone or ImageVolumes(_made(tmp_path / "probe")).clones


@pytest.mark.parametrize("mode", ["adopt", "full"])
def test_a_damaged_redo_file_is_not_copied_in(tmp_path: Path, mode: str) -> None:
    if ImageVolumes(_made(tmp_path / "probe")).clones:
        pytest.skip("no redo files on this file system")

    def damage(volumes: ImageVolumes) -> bool:
        found = [one for one in volumes.replica.parent.rglob("*.redo") if one.stem != "staging"]
        for path in found:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        return any(one.with_suffix(".json").exists() for one in found)

    damaged = 0
    for volumes, base, transfer, replica in committed_not_published(
        tmp_path, "incremental", damage
    ):
        if not replica.drifted:  # it was copied in before
            assert volumes.read_replica() == transfer.content
            continue
        damaged += 1
        content = volumes.read_replica()
        assert (replica.exists, replica.owned) == (True, True)
        assert transfer.new.id not in {one.id for one in replica.snapshots}
        with pytest.raises(StorageError, match="damaged"):
            volumes.target().open_snapshot(transfer.new.id)
        for base_id in (base.id, transfer.new.id):
            request = dataclasses.replace(
                transfer.request, base_id=base_id, snapshot_id=new_id(), sequence=3
            )
            with pytest.raises(DivergedError):
                volumes.target().begin(request)
        volumes.target().prune(1, ())
        assert volumes.target().inspect().snapshots == replica.snapshots
        assert volumes.read_replica() == content
        finish_by(volumes, transfer, mode)
    assert damaged > 1


def _made(directory: Path) -> Path:
    directory.mkdir()
    return directory


@pytest.mark.root
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_full_file_system_stops_the_push_and_nothing_else(tmp_path: Path, kind: str) -> None:
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(mounted(kind, tmp_path))
        except CannotMountError as error:
            pytest.skip(str(error))
        volumes = ImageVolumes(root)
        base = push(volumes, None)
        with (root / "ballast").open("wb") as ballast, contextlib.suppress(OSError):
            while True:
                ballast.write(bytes(MIB))
                ballast.flush()
        before = volumes.read_replica()
        volumes.target().inspect()
        # Predicted: with the numbers of the plan.
        request = dataclasses.replace(
            Transfer(_outside(volumes, tmp_path), None).request,
            base_id=base.id,
            mode="incremental",
            size_bytes=volumes.sizes[2],
        )
        plan = request.plan
        assert plan is not None
        with pytest.raises(NoSpaceError, match="nothing was changed"):
            volumes.target().begin(
                dataclasses.replace(request, plan=dataclasses.replace(plan, data_bytes=1 << 40))
            )
        assert volumes.read_replica() == before
        (root / "ballast").unlink()
        volumes.write_live(0, random.Random(0).randbytes(100_000))
        push(volumes, base)


@pytest.mark.root
@pytest.mark.parametrize("mode", ["full", "incremental", "zeros"])
@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs"])
def test_a_sender_that_says_too_little_does_not_fill_the_file_system(
    tmp_path: Path, kind: str, mode: str
) -> None:
    """Whatever it announced, and whoever else writes there meanwhile (I8)."""
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(mounted(kind, tmp_path))
        except CannotMountError as error:
            pytest.skip(str(error))
        volumes = ImageVolumes(root)
        base = None if mode == "full" else push(volumes, None)
        transfer = Transfer(volumes, base)
        request = dataclasses.replace(transfer.request, size_bytes=1 << 40)
        with contextlib.closing(transfer.target.begin(request)) as staging:

            def write_all() -> None:
                for offset in range(0, 1 << 40, 2 * MIB):
                    if mode == "zeros":
                        staging.clear(Extent(offset, MIB, ExtentKind.ZERO))
                    staging.write(offset, memoryview(random.Random(offset).randbytes(MIB)))

            with pytest.raises(NoSpaceError, match="has come down to the reserve"):
                write_all()
        left = os.statvfs(root)
        assert left.f_bavail * 100 >= left.f_blocks * (volumes.settings.data_reserve_percent - 1)


def _outside(volumes: ImageVolumes, directory: Path) -> ImageVolumes:
    (directory / "outside").mkdir()
    other = ImageVolumes(directory / "outside")
    other.write_live(0, volumes.read_live()[: other.sizes[1]])
    return other


def test_a_replica_may_not_be_a_directory_of_ours(volumes: ImageVolumes) -> None:
    push(volumes, None)
    (record,) = (one for one in volumes.replica.parent.rglob("*.json") if len(one.stem) == 32)
    target = ImageTarget(VolumeName(path=str(record)), volumes.settings)
    with pytest.raises(VolumeError, match="own files"):
        target.inspect()


def test_adoption_may_be_repeated(volumes: ImageVolumes) -> None:
    volumes.make_foreign(b"x" * 1_600_000)
    volumes.resize_live(volumes.sizes[2])
    adopt(volumes)
    volumes.tamper(5, b"tampered")
    adopt(volumes)
    assert volumes.read_replica() == volumes.read_live()


def opened_during_the_transfer(volumes: ImageVolumes, flags: int) -> None:
    """Copying in would change the file under a reader; a rename would lose a writer's data."""
    base = push(volumes, None)
    before = volumes.read_replica()
    change_live(volumes, random.Random(0))
    transfer = Transfer(volumes, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, save_every=1)
    try:
        fd = os.open(volumes.replica, flags)
    except PermissionError:
        pytest.skip("only root opens a read-only file for writing")
    try:
        with pytest.raises(VolumeError, match="it is open"):
            transfer.target.commit(staging, transfer.digest)
        assert os.pread(fd, len(before) + 1, 0) == before
    finally:
        os.close(fd)
    staging.close()
    assert volumes.read_replica() == before

    resumed = Transfer(volumes, base, new=transfer.new)
    staging = resumed.target.begin(resumed.request)
    assert staging.info.cursor_bytes == max(one.end_bytes for one in transfer.plan)
    assert resumed.stream(staging) == 0
    resumed.finish(staging)
    assert volumes.read_replica() == transfer.content


@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["reader", "writer"])
def test_a_replica_opened_during_the_transfer_stays_as_it_is(
    volumes: ImageVolumes, flags: int
) -> None:
    if volumes.clones and flags == os.O_RDONLY:
        pytest.skip("a reader keeps the file that it has opened")
    opened_during_the_transfer(volumes, flags)


@pytest.mark.root
@pytest.mark.parametrize("flags", [os.O_RDONLY, os.O_RDWR], ids=["reader", "writer"])
def test_the_same_on_file_systems_of_both_ways(mounted_directory: Path, flags: int) -> None:
    test_a_replica_opened_during_the_transfer_stays_as_it_is(ImageVolumes(mounted_directory), flags)


def test_a_damaged_redo_file_of_an_unfinished_transfer_starts_it_over(
    volumes: ImageVolumes,
) -> None:
    base = push(volumes, None)
    volumes.write_live(0, random.Random(1).randbytes(volumes.sizes[1]))
    transfer = Transfer(volumes, base)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=8)
    staging.close()
    found = list(volumes.replica.parent.rglob("staging.redo"))
    for path in found:
        content = bytearray(path.read_bytes())
        content[1000] ^= 1
        path.write_bytes(content)
    again = Transfer(volumes, base, new=transfer.new)
    resumed = again.target.begin(again.request)
    assert resumed.info.cursor_bytes == 0 or not found
    again.stream(resumed)
    again.finish(resumed)
    assert volumes.read_replica() == volumes.read_live()


@pytest.mark.root
def test_an_abandoned_first_transfer_does_not_keep_the_next_from_its_room(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(mounted("xfs", tmp_path))
        except CannotMountError as error:
            pytest.skip(str(error))
        volumes = ImageVolumes(root)
        volumes.live = _outside(volumes, tmp_path).live
        volumes.resize_live(160 * MIB)
        volumes.write_live(0, random.Random(1).randbytes(160 * MIB))
        abandoned = Transfer(volumes, None)
        staging = abandoned.target.begin(abandoned.request)
        abandoned.stream(staging, most=1400)
        staging.close()
        abandoned.source.remove_snapshot(abandoned.new)
        volumes.write_live(0, b"changed")
        push(volumes, None)


@pytest.mark.parametrize("mode", ["full", "incremental"])
def test_another_file_in_the_replicas_place_needs_adoption(
    volumes: ImageVolumes, mode: str
) -> None:
    """I7: that there was a replica by that name gives no right to what lies there now."""
    base = push(volumes, None)
    volumes.replica.rename(volumes.replica.with_name("away"))
    volumes.make_foreign(b"somebody else's" * 100_000)
    replica = volumes.target().inspect()
    assert not replica.owned
    assert replica.snapshots or not volumes.keeps_many
    transfer = Transfer(volumes, base if mode == "incremental" else None, mode=mode)
    with pytest.raises(VolumeError, match="was not made by blockrep"):
        transfer.target.begin(transfer.request)
    assert volumes.read_replica().startswith(b"somebody else's")
    adopt(volumes)
    assert volumes.target().inspect().owned


@pytest.mark.root
def test_what_others_fill_before_a_commit_is_not_needed_to_publish(tmp_path: Path) -> None:
    """I8: what a redo file holds must still fit once more; else the replica would be in pieces."""
    try:
        with mounted("ext4", tmp_path) as root:
            volumes = ImageVolumes(root)
            base = push(volumes, None)
            volumes.write_live(0, random.Random(0).randbytes(MIB))
            transfer = Transfer(volumes, base)
            before = volumes.read_replica()
            with contextlib.closing(transfer.target.begin(transfer.request)) as staging:
                transfer.stream(staging)
                ballast = root / "ballast"
                with ballast.open("wb") as file, contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(MIB))
                        file.flush()
                with pytest.raises(NoSpaceError, match="do not fit above the reserve any more"):
                    transfer.target.commit(staging, transfer.digest)
            assert volumes.read_replica() == before
            assert not volumes.target().inspect().drifted
            ballast.unlink()
            resumed = Transfer(volumes, base, new=transfer.new)
            staging = resumed.target.begin(resumed.request)
            resumed.stream(staging)
            resumed.finish(staging)
            assert volumes.read_replica() == volumes.read_live()
    except CannotMountError as error:
        pytest.skip(str(error))


@pytest.mark.root
def test_a_sidecar_on_another_file_system_is_refused_at_once(tmp_path: Path) -> None:
    try:
        with mounted("ext4", tmp_path) as root:
            volumes = ImageVolumes(tmp_path)
            transfer = Transfer(volumes, None)
            (volumes.replica.parent / ".blockrep").mkdir(mode=0o700)
            bind = ["mount", "--bind", str(root), str(volumes.replica.parent / ".blockrep")]
            subprocess.run(bind, check=True)
            try:
                with pytest.raises(VolumeError, match="on another file system"):
                    transfer.target.begin(transfer.request)
            finally:
                subprocess.run(["umount", bind[-1]], check=True)
    except CannotMountError as error:
        pytest.skip(str(error))


def test_other_names_of_an_adopted_file_keep_its_content(volumes: ImageVolumes) -> None:
    """Where it is updated in place, the change would be theirs, too (I7)."""
    volumes.make_foreign(b"x" * volumes.sizes[1])
    backup = volumes.replica.with_name("backup.img")
    os.link(volumes.replica, backup)
    if volumes.keeps_many:  # clones
        adopt(volumes)
    else:
        with pytest.raises(VolumeError, match="has other names"):
            adopt(volumes)
    assert backup.read_bytes() == b"x" * volumes.sizes[1]
