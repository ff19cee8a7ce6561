"""A snapshot's device is active while somebody reads it, whoever is killed meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from blockrep.errors import BlockrepError, InternalError, UnsupportedHostError
from blockrep.model.extents import Extent, ExtentKind
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.reading import LvmReader, Usage, deactivate_leftovers
from storage.simulated_lvm_volumes import SimulatedLvmVolumes


@pytest.fixture
def group(lvm: SimulatedLvmVolumes) -> VolumeGroup:
    lvm.write_live(0, b"content")
    snapshot = lvm.origin.snapshot(lvm.origin.volumes["live"], "snap", ["blockrep"])
    snapshot.skipped, snapshot.active = True, False
    return VolumeGroup("vga", lvm.settings, lvm.runner())


def reader(group: VolumeGroup) -> LvmReader:
    state = group.read()
    snapshot, pool = state.find("snap"), state.find("pool")
    assert snapshot is not None
    assert pool is not None
    return LvmReader(group, snapshot, pool, 1000)


def test_active_only_as_long_as_it_is_read(group: VolumeGroup, lvm: SimulatedLvmVolumes) -> None:
    snapshot = lvm.origin.volumes["snap"]
    buffer = memoryview(bytearray(7))
    active: list[bool] = []
    with reader(group) as first:
        active.append(snapshot.active)
        with reader(group) as second:
            second.read_into(0, buffer)
        active.append(snapshot.active)  # somebody still reads
        assert bytes(buffer) == b"content"
        assert list(first.allocated()) == [Extent(0, 1000, ExtentKind.DATA)]
        first.confirm()
    active.append(snapshot.active)
    assert active == [True, True, False]
    assert not snapshot.opened
    assert not list((lvm.settings.runtime_directory / "readers").iterdir())


def test_reading_needs_opening(group: VolumeGroup) -> None:
    with pytest.raises(InternalError):
        reader(group).read_into(0, memoryview(bytearray(1)))


def test_a_snapshot_that_cannot_be_opened_is_left_inactive(
    group: VolumeGroup, lvm: SimulatedLvmVolumes
) -> None:
    stale = reader(group)
    lvm.origin.volumes["snap"].uuid = lvm.origin.uuid()  # recreated under the same name
    with pytest.raises(BlockrepError):
        stale.__enter__()
    assert not lvm.origin.volumes["snap"].active


def test_what_a_killed_reader_left_is_deactivated(
    group: VolumeGroup, lvm: SimulatedLvmVolumes
) -> None:
    snapshot = lvm.origin.volumes["snap"]
    snapshot.active = True  # and nobody holds its lock
    found = group.read().find("snap")
    assert found is not None
    deactivate_leftovers(group, [found])
    assert not snapshot.active
    with reader(group):
        still_read = group.read().find("snap")
        assert still_read is not None
        deactivate_leftovers(group, [still_read])
        assert snapshot.active


def test_the_last_one_is_the_last(tmp_path: Path) -> None:
    first, second = Usage(tmp_path, "uuid"), Usage(tmp_path, "uuid")
    assert not first.become_last()
    first.release(last=False)
    assert second.become_last()
    second.release(last=True)
    assert not (tmp_path / "readers" / "uuid").exists()


def test_a_folder_that_cannot_be_used_is_told(tmp_path: Path) -> None:
    (tmp_path / "readers").write_text("a file")
    with pytest.raises(UnsupportedHostError, match="lock file"):
        Usage(tmp_path, "uuid")
