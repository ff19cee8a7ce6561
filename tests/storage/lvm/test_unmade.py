"""A volume whose creation a power cut interrupted is noticed, and can be removed (I3, I7)."""

import pytest

from blockrep.errors import StorageError
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.reports import LogicalVolume
from blockrep.storage.lvm.unmade import find_unmade, finish_creation
from storage.lvm_simulation import Lv
from storage.simulated_lvm_volumes import SimulatedLvmVolumes

OURS = ["blockrep", "blockrep.role=source"]


def noted(lvm: SimulatedLvmVolumes) -> Lv:
    lv = lvm.origin.snapshot(lvm.origin.volumes["live"], "br_s_new", OURS)
    lvm.origin.note(lv)
    return lv


def found(group: VolumeGroup) -> LogicalVolume | None:
    state = group.read()
    return find_unmade(group, state, [one for one in state.volumes if one.kind == "thin"])


def finish_and_remove(group: VolumeGroup) -> None:
    volume = found(group)
    assert volume is not None
    finish_creation(group, group.read(), volume)
    group.remove(volume)


def test_a_volume_that_the_pool_was_never_told_of_is_found(lvm: SimulatedLvmVolumes) -> None:
    """A power cut between LVM's note and its message to the pool: no activation makes it."""
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    assert found(group) is None
    noted(lvm)
    volume = found(group)
    assert volume is not None
    assert volume.name == "br_s_new"
    state = group.read()
    assert find_unmade(group, state, [one for one in state.volumes if one.name == "live"]) is None
    lvm.origin.mode = "fail"
    assert found(group) is None, "who knows what a pool that failed holds"
    lvm.origin.mode = "rw"
    assert lvm.origin.deliver()
    assert found(group) is None


def test_one_that_the_pool_has_not_made_is_removed(lvm: SimulatedLvmVolumes) -> None:
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    noted(lvm)
    finish_and_remove(group)
    assert "br_s_new" not in lvm.origin.volumes
    assert lvm.origin.held is None


def test_one_that_the_pool_has_made_and_lvm_does_not_know_of_is_removed(
    lvm: SimulatedLvmVolumes,
) -> None:
    """LVM alone would try to make it again with every change of the pool, and fail."""
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    noted(lvm)
    lvm.origin.make()
    volume = found(group)
    assert volume is not None
    with pytest.raises(StorageError, match="already contain thin device"):
        group.remove(volume)
    finish_and_remove(group)
    assert "br_s_new" not in lvm.origin.volumes
    assert lvm.origin.told_transaction == lvm.origin.transaction


def test_a_device_of_another_transaction_is_not_taken_for_it(lvm: SimulatedLvmVolumes) -> None:
    """LVM's metadata may have been restored from a backup: the device is a lost volume."""
    group = VolumeGroup("vga", lvm.settings, lvm.runner())
    lv = noted(lvm)
    lvm.origin.make()
    volume, state = found(group), group.read()
    assert volume is not None
    lv.transaction -= 1  # as the pool has it
    finish_creation(group, state, volume)
    assert not lv.told
    with pytest.raises(StorageError, match="already contain thin device"):
        group.remove(volume)
