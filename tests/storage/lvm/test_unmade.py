"""A volume whose creation a power cut interrupted is noticed, and can be removed (I3, I7)."""

import pytest

from blockrep.errors import StorageError
from blockrep.storage.lvm.group import VolumeGroup
from blockrep.storage.lvm.unmade import find_unmade
from storage.lvm_simulation import Lv
from storage.simulated_lvm_volumes import SimulatedLvmVolumes
from storage.transfers import push

OURS = ["blockrep", "blockrep.role=source"]


def group_of(lvm: SimulatedLvmVolumes) -> VolumeGroup:
    return VolumeGroup("vga", lvm.settings, lvm.runner())


def noted(lvm: SimulatedLvmVolumes, tags: list[str] = OURS) -> Lv:
    lv = lvm.origin.snapshot(lvm.origin.volumes["live"], "br_s_new", tags)
    lv.read_only = True
    lvm.origin.note(lv)
    return lv


def found(lvm: SimulatedLvmVolumes) -> list[str]:
    group = group_of(lvm)
    return [one.name for one in find_unmade(group, group.read(), {lvm.origin.pool_uuid})]


def test_a_volume_that_the_pool_was_never_told_of_is_found(lvm: SimulatedLvmVolumes) -> None:
    """A power cut between LVM's note and its message to the pool: no activation makes it."""
    assert found(lvm) == []
    noted(lvm)
    assert found(lvm) == ["br_s_new"]
    group = group_of(lvm)
    assert find_unmade(group, group.read(), {"another pool"}) == []
    lvm.origin.mode = "fail"
    assert found(lvm) == [], "who knows what a pool that failed holds"
    lvm.origin.mode = "rw"
    assert lvm.origin.deliver()
    assert found(lvm) == []


@pytest.mark.parametrize("active", [False, True])
def test_one_that_the_pool_has_made_is_found_active_or_not(
    lvm: SimulatedLvmVolumes, active: bool
) -> None:
    lv = noted(lvm)
    lvm.origin.make()
    lv.active = active  # a boot activates what is not skipped
    assert found(lvm) == ["br_s_new"]


@pytest.mark.parametrize("tags", [[], ["blockrep", "blockrep.role=replica"]])
def test_what_is_not_ours_and_a_replica_are_left_alone(
    lvm: SimulatedLvmVolumes, tags: list[str]
) -> None:
    noted(lvm, tags)
    assert found(lvm) == []


def test_what_somebody_made_writable_is_left_to_him(lvm: SimulatedLvmVolumes) -> None:
    noted(lvm).read_only = False
    assert found(lvm) == []


@pytest.mark.parametrize("made", [False, True])
def test_it_is_removed_and_the_pool_can_be_changed_again(
    lvm: SimulatedLvmVolumes, made: bool
) -> None:
    """LVM alone would try to make it again with every change of the pool, and fail."""
    group = group_of(lvm)
    noted(lvm)
    if made:
        lvm.origin.make()
        with pytest.raises(StorageError, match="already contain thin device"):
            group.change(["lvcreate", "-s", "-n", "x", "vga/live"])
    (unmade,) = find_unmade(group, group.read(), {lvm.origin.pool_uuid})
    group.remove(unmade, unmade=True)
    assert found(lvm) == []
    group.change(["lvcreate", "-s", "-n", "x", "vga/live"])
    assert set(lvm.origin.volumes) == {"live", "x"}
    assert not lvm.origin.deleted


@pytest.mark.parametrize("end", ["origin", "replica"])
def test_that_of_another_volume_does_not_stop_a_push(lvm: SimulatedLvmVolumes, end: str) -> None:
    """The whole pool is blocked, and the other volume is perhaps never pushed again."""
    base = push(lvm, None)
    lvm.write_live(0, b"next")
    group = lvm.origin if end == "origin" else lvm.replica
    other = group.add("other", 4096)
    role = "good" if end == "origin" else "source"
    lv = group.snapshot(other, "br_g_other", ["blockrep", f"blockrep.role={role}"])
    lv.read_only = True
    group.note(lv)
    group.make()
    push(lvm, base)
    assert "br_g_other" not in group.volumes
    assert not group.deleted
    assert lvm.read_replica() == lvm.read_live()
