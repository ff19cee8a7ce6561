"""An image as the source: tables and the processes that fill them."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blockrep.errors import VolumeError
from blockrep.model.names import VolumeName
from blockrep.model.snapshots import Snapshot
from blockrep.storage.image.holding import held_briefly
from blockrep.storage.image.sidecar import ImageFile
from blockrep.storage.image.source import ImageSource
from blockrep.storage.image.table import DigestTable
from blockrep.storage.interface import StorageSettings
from storage.image_volumes import ImageVolumes
from storage.mounts import CannotMountError, mounted
from storage.power_cuts import without_change_times
from storage.transfers import LINEAGE, Transfer, change_live, new_id, push, take_snapshot


@pytest.fixture
def volumes(tmp_path: Path) -> Iterator[ImageVolumes]:
    volumes = ImageVolumes(tmp_path)
    if volumes.clones:
        pytest.skip("temporary files lie on a file system with reflinks: no tables here")
    volumes.write_live(0, random.Random(0).randbytes(1_000_000))
    yield volumes
    volumes.close()


def tables(volumes: ImageVolumes) -> list[str]:
    return sorted(one.stem for one in volumes.live.parent.rglob("*.table"))


def test_only_the_committed_bases_table_is_kept(volumes: ImageVolumes) -> None:
    base = None
    for seed in range(3):
        change_live(volumes, random.Random(seed))
        base = push(volumes, base)
        assert tables(volumes) == [base.id]


def test_a_full_push_reads_the_file_once(volumes: ImageVolumes) -> None:
    # The table is filled by what is read for sending.
    transfer = Transfer(volumes, None)
    assert not tables(volumes)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    assert tables(volumes) == [transfer.new.id]
    transfer.finish(staging)


def test_what_was_damaged_of_a_growing_table_is_sent_again(volumes: ImageVolumes) -> None:
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=5, save_every=2)
    staging.close()
    (path,) = volumes.live.parent.rglob("*.table")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"garbage")
    resumed = Transfer(volumes, None, new=transfer.new)
    staging = resumed.target.begin(resumed.request)
    assert staging.info.cursor_bytes
    resumed.stream(staging)
    resumed.finish(staging)
    change_live(volumes, random.Random(1))
    push(volumes, volumes.source().snapshots()[-1])


def written_unnoticed(volumes: ImageVolumes, offset_bytes: int) -> None:
    """Write as through a memory map, or shortly before a power cut: the file's times stay."""
    before = volumes.live.stat()
    volumes.write_live(offset_bytes, b"unnoticed")
    os.utime(volumes.live, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize("is_first", [True, False])
def test_what_was_sent_before_a_write_that_nobody_noticed_is_not_taken_for_it(
    volumes: ImageVolumes, *, is_first: bool
) -> None:
    """I2: the receiver keeps what it has below its cursor; the table must say what that was."""
    with without_change_times():
        base = None if is_first else push(volumes, None)
        for offset_bytes in range(0, len(volumes.read_live()), 128 * 1024):
            volumes.write_live(offset_bytes, b"changed")
        transfer = Transfer(volumes, base)
        staging = transfer.target.begin(transfer.request)
        transfer.stream(staging, most=5, save_every=2)
        staging.close()
        written_unnoticed(volumes, 0)
        with contextlib.suppress(VolumeError):  # or it is resumed as it was
            resumed = Transfer(volumes, base, new=transfer.new)
            staging = resumed.target.begin(resumed.request)
            assert staging.info.cursor_bytes
            resumed.stream(staging)
            base = resumed.finish(staging)
        push(volumes, base)
        assert volumes.read_replica() == volumes.read_live()


def test_without_a_mark_of_its_table_a_pending_snapshot_is_lost(volumes: ImageVolumes) -> None:
    """Nobody knows what was sent of it, if anything was."""
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging, most=5, save_every=2)
    staging.close()
    assert volumes.source().snapshots() == [transfer.new]
    (path,) = volumes.live.parent.rglob("*.table")
    with path.open("r+b") as file:
        file.seek(512)
        file.write(bytes(8))
    assert not volumes.source().snapshots()


@pytest.mark.root
def test_what_is_preallocated_is_no_data_however_often_it_is_read(tmp_path: Path) -> None:
    """I4: the plan of a resumed push must be the plan of the first attempt."""
    try:
        with mounted("ext4", tmp_path) as root:
            volumes = ImageVolumes(root)
            with volumes.live.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, 4 << 20)
            snapshot = take_snapshot(volumes.source())
            plan = list(volumes.source().delta(None, snapshot))
            assert sum(one.length_bytes for one in plan) < 4 << 20
            volumes.live.read_bytes()
            assert list(volumes.source().delta(None, snapshot)) == plan
    except CannotMountError as error:
        pytest.skip(str(error))


def test_a_whole_table_outlives_a_change_until_the_target_was_asked(volumes: ImageVolumes) -> None:
    # COMMITTED may have been lost: then this pending snapshot is the base of the next push.
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    transfer.target.commit(staging, transfer.digest)
    change_live(volumes, random.Random(1))
    assert [one.id for one in volumes.source().snapshots()] == [transfer.new.id]
    base = volumes.source().mark_committed(transfer.new)
    push(volumes, base)


def test_a_pending_snapshot_without_a_table_is_lost_with_the_change(volumes: ImageVolumes) -> None:
    snapshot = take_snapshot(volumes.source())
    os.utime(volumes.live)
    assert not volumes.source().snapshots()
    fresh = take_snapshot(volumes.source(), 2)
    assert volumes.source().snapshots() == [fresh]
    assert not list(volumes.live.parent.rglob(f"{snapshot.id}*"))


def test_a_table_that_a_crash_tore_before_the_commit_is_begun_again(volumes: ImageVolumes) -> None:
    transfer = Transfer(volumes, None)
    staging = transfer.target.begin(transfer.request)
    transfer.stream(staging)
    (path,) = volumes.live.parent.rglob("*.table")
    with path.open("r+b") as file:
        file.seek(50)
        file.write(bytes(40))
    transfer.source = volumes.source()
    with transfer.source.open_snapshot(transfer.new) as reader:
        reader.confirm()
    found = transfer.source.stored_digests(transfer.new)
    assert found is not None
    assert b"\0" * 16 not in list(found[2]), "it is whole"
    transfer.finish(staging)


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_a_base_without_its_table_says_what_to_do(volumes: ImageVolumes, damage: str) -> None:
    base = push(volumes, None)
    (path,) = volumes.live.parent.rglob("*.table")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    source = volumes.source()
    new = take_snapshot(source, 2)
    with pytest.raises(VolumeError, match=r"digest table.*--adopt"):
        list(source.delta(base, new))


def test_a_snapshot_without_content_cannot_be_committed(volumes: ImageVolumes) -> None:
    source = volumes.source()
    with pytest.raises(VolumeError, match="incomplete"):
        source.mark_committed(take_snapshot(source))


def test_tables_inherit_the_seed_of_their_base(volumes: ImageVolumes) -> None:
    first = push(volumes, None)
    before = volumes.source().stored_digests(first)
    change_live(volumes, random.Random(1))
    second = push(volumes, first)
    after = volumes.source().stored_digests(second)
    other = take_snapshot(volumes.source(), 1, lineage=new_id())
    source = volumes.source()
    with source.open_snapshot(other) as reader:
        reader.confirm()
    fresh = source.stored_digests(other)
    assert before is not None
    assert after is not None
    assert fresh is not None
    assert before[1] == after[1] != fresh[1]
    for _, _, digests in (before, after, fresh):
        assert len(list(digests)) == 24


def test_writers_are_warned_of(volumes: ImageVolumes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "blockrep.storage"):
        take_snapshot(volumes.source(), 1)
        assert not caplog.records
        with volumes.live.open("r+b"):
            take_snapshot(volumes.source(), 2)
    assert "is open for writing" in caplog.text


def test_verifying_needs_an_unchanged_file(volumes: ImageVolumes) -> None:
    base = push(volumes, None)
    with volumes.source().open_snapshot(base) as reader:
        reader.read_into(0, memoryview(bytearray(100_000)))
    change_live(volumes, random.Random(1))
    with pytest.raises(VolumeError, match="changed"):
        volumes.source().open_snapshot(base)
    assert volumes.source().snapshots() == [base], "it is still the base of the next push"


def test_snapshots_of_different_lineages_do_not_touch(volumes: ImageVolumes) -> None:
    base = push(volumes, None)
    other = take_snapshot(volumes.source(), 1, lineage=new_id(), target="elsewhere")
    found = volumes.source().snapshots()
    assert {one.lineage for one in found} == {LINEAGE, other.lineage}
    volumes.source().remove_snapshot(other)
    assert volumes.source().snapshots() == [base]
    table = DigestTable.open_sealed(
        next(volumes.live.parent.rglob("*.table")), base.id, base.size_bytes
    )
    assert table is not None
    table.close()


def test_an_empty_file_is_no_volume(volumes: ImageVolumes) -> None:
    volumes.resize_live(0)
    with pytest.raises(VolumeError, match="empty"):
        volumes.source().describe()


def test_pushes_to_other_targets_wait_for_each_others_changes(volumes: ImageVolumes) -> None:
    """Else one sweeps away what the other has made and not recorded yet."""
    source = volumes.source()
    first = take_snapshot(source)
    image = ImageFile(VolumeName(path=str(volumes.live)), "source")
    done: list[Snapshot] = []
    with held_briefly(image):
        thread = threading.Thread(target=lambda: done.append(take_snapshot(volumes.source(), 2)))
        thread.start()
        thread.join(0.2)
        assert not done
        (image.directory / f"{new_id()}.table").touch()
    thread.join()
    assert {one.id for one in volumes.source().snapshots()} == {first.id, done[0].id}


@pytest.mark.root
def test_an_image_without_copy_on_write_has_snapshots_too(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        try:
            root = stack.enter_context(mounted("btrfs", tmp_path))
        except CannotMountError as error:
            pytest.skip(str(error))
        (root / "origin").mkdir()
        live = root / "origin" / "disk.img"
        live.touch()
        subprocess.run(["chattr", "+C", str(live)], check=True)
        live.write_bytes(b"x" * 100_000)
        source = ImageSource(VolumeName(path=str(live)), StorageSettings(root, root))
        snapshot = take_snapshot(source)
        assert source.has_content(snapshot)
        live.write_bytes(b"y" * 100_000)
        content = memoryview(bytearray(100_000))
        with source.open_snapshot(snapshot) as reader:
            reader.read_into(0, content)
        assert content == b"x" * 100_000
